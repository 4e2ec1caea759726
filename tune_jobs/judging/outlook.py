"""How the answer moves: with the target, with the goal; and what no batch size beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tune_jobs.judging.contest import Contest
from tune_jobs.verdicts import BatchSizeVerdict, Estimate, GoalAnswer, Pareto, TargetAnswer


def by_target(contests: Mapping[float | None, Contest]) -> tuple[TargetAnswer, ...]:
    """The answer at each target, in the order given."""
    return tuple(TargetAnswer(target, *_said(contest)) for target, contest in contests.items())


def goal_answer(goal: str, contest: Contest, reason: str) -> GoalAnswer:
    """The answer under a goal that could be judged."""
    return GoalAnswer(goal, contest.quantity.name, *_said(contest), reason)


def _said(
    contest: Contest,
) -> tuple[str, int | None, float | None, tuple[int, ...], tuple[int, ...]]:
    """Status, the batch size to use, its bound, those tied with it, those open."""
    of = contest.decision
    bound = None if of.used is None else part(of.bound[of.used])
    sizes = contest.sizes(of.tied), contest.sizes(of.open)
    return of.status, contest.size(of.used), bound, *sizes


def part(regret: float) -> float | None:
    """A regret as a part; None where it is not known."""
    return float(regret) if math.isfinite(regret) else None


def unknown_goal(goal: str, quantity: str, reason: str) -> GoalAnswer:
    """A goal that the runs say nothing of."""
    return GoalAnswer(goal, quantity, "unproven", None, None, (), (), reason)


def pareto(rows: Sequence[BatchSizeVerdict], mode: str = "max") -> Pareto:
    """Over time (else examples), memory and validation metric, by typical values.

    Only batch sizes that reached the target in most of their runs take part.
    """
    reached = [row for row in rows if 2 * row.reached > row.seeds]
    axes = _axes(reached)
    points = {row.batch_size: tuple(_least(row, axis, mode) for axis in axes) for row in reached}
    kept = [
        size for size, mine in points.items() if not any(_beats(p, mine) for p in points.values())
    ]
    return Pareto(axes, tuple(kept) if axes else ())


def _axes(rows: Sequence[BatchSizeVerdict]) -> tuple[str, ...]:
    first = "time_to_target_seconds" if _known(rows, "time_to_target_seconds") else None
    first = first or "examples_to_target"
    axes = (first, "peak_memory_mib", "val_accuracy", "val_metric")
    return tuple(axis for axis in axes if _known(rows, axis))


def _known(rows: Sequence[BatchSizeVerdict], axis: str) -> bool:
    return bool(rows) and all(_value(row, axis) is not None for row in rows)


def _value(row: BatchSizeVerdict, axis: str) -> float | None:
    found = getattr(row, axis)
    value = found.value if isinstance(found, Estimate) else found
    return None if value is None else float(value)


def _least(row: BatchSizeVerdict, axis: str, mode: str) -> float:
    """The value, turned so that less is better."""
    value = _value(row, axis)
    assert value is not None, "axes are known for every row"
    larger = axis == "val_accuracy" or (axis == "val_metric" and mode == "max")
    return -value if larger else value


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
