"""The limit that binds: what keeps a larger batch from being better, or from being tried.

A batch of L examples instead of B could at the most divide the time by L / B. Of that, throughput
loses (L / B) / (rate(L) / rate(B)) and statistics loses examples(L) / examples(B): the larger loss
is the limit that binds. With step seconds a + b B and the critical batch size this asks which of
a / b and B_crit is the smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune_jobs.formatting import quantity as digits
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.policy import Policy
from tune_jobs.records import BatchSizeProfile
from tune_jobs.verdicts import BatchSizeVerdict, CriticalBatchSize

PLATEAU = 1.05  # examples per second count as the same within this factor


@dataclass(frozen=True)
class Limit:
    """One of records.BINDING_LIMITS or None, and the same in words."""

    name: str | None
    reason: str | None


@dataclass(frozen=True)
class Larger:
    """A larger batch size against the chosen one.

    Attributes:
        speed: its examples per second over those of the chosen; None where unknown.
        examples: its examples to target over those of the chosen; None where unknown.
        reached, seeds: its runs.
    """

    batch_size: int
    speed: float | None
    examples: float | None
    reached: int
    seeds: int


def binding_limit(
    contest: Contest,
    rows: Sequence[BatchSizeVerdict],
    rates: Mapping[int, float],
    profiles: Sequence[BatchSizeProfile],
    critical: CriticalBatchSize | None,
    policy: Policy,
) -> Limit:
    """What binds at the batch size to use, where its runs were repeated."""
    index = contest.decision.used
    if index is None or contest.regret is None or policy.goal in ("memory", "accuracy"):
        return Limit(None, None)
    loader = loading_limit(rows[index].batch_size, profiles)
    if loader is not None and policy.goal != "examples":
        return Limit("input pipeline", _sentence(loader))
    here, tied = rows[index], (*contest.decision.tied, *contest.decision.open)
    beyond = [row for i, row in enumerate(rows) if i > max((index, *tied))]
    if not beyond:
        return _at_the_end(rows[-1].batch_size, here, refused(profiles, rows), rates)
    larger = compared_with(here, beyond[-1], rates)
    if index == 0 and not tied and policy.goal != "examples":
        told = described(here, larger, critical)
        return Limit("range", _sentence(f"{_smallest(here.batch_size)}; {told}"))
    name = "statistics" if policy.goal == "examples" else _name(here.batch_size, larger)
    return Limit(name, _sentence(described(here, larger, critical)))


def loading_limit(batch_size: int, profiles: Sequence[BatchSizeProfile]) -> str | None:
    """That the model could take more examples than its loader gives; None where it could not."""
    for row in profiles:
        loads, takes = row.loading_examples_per_second, row.model_examples_per_second
        if row.batch_size != batch_size or not row.chosen or loads is None or takes is None:
            continue
        if takes > PLATEAU * loads:
            workers = row.loader_workers or 0
            by = f"at {workers} workers" if workers else "in the trial's own process"
            return (
                f"the loader, {by}, gives {loads:.0f} examples/s at batch size {batch_size}; "
                f"the model could take {takes:.0f}: more workers, or keep the data in memory"
            )
    return None


def refused(
    profiles: Sequence[BatchSizeProfile], rows: Sequence[BatchSizeVerdict]
) -> tuple[int, ...]:
    """Batch sizes that do not fit in any way, ascending."""
    fits = {p.batch_size for p in profiles if p.outcome == "finished"}
    fits |= {row.batch_size for row in rows}
    return tuple(sorted({p.batch_size for p in profiles} - fits))


def _at_the_end(
    last: int, here: BatchSizeVerdict, infeasible: Sequence[int], rates: Mapping[int, float]
) -> Limit:
    """Nothing larger was tried than what is equal or open."""
    too_large = [size for size in infeasible if size > last]
    if too_large:
        return Limit("memory", f"{last} is the largest that fits: {too_large[0]} does not.")
    if last == here.batch_size:
        return Limit(
            "range", f"{last} is the largest batch size tried; a larger one may be better."
        )
    no_better = (
        f"{last}, the largest batch size tried, is not shown to be better than {here.batch_size}"
    )
    return Limit("range", f"{no_better}{_speeds(last, here, rates)}.")


def _speeds(last: int, here: BatchSizeVerdict, rates: Mapping[int, float]) -> str:
    if last not in rates or here.batch_size not in rates:
        return ""
    return f" at {_times(rates[last] / rates[here.batch_size])} its examples per second"


def compared_with(
    here: BatchSizeVerdict, row: BatchSizeVerdict, rates: Mapping[int, float]
) -> Larger:
    """The row's speed and examples over the chosen batch size's."""
    speed = None
    if row.batch_size in rates and here.batch_size in rates:
        speed = rates[row.batch_size] / rates[here.batch_size]
    needs, need = row.examples_to_target.value, here.examples_to_target.value
    examples = needs / need if needs is not None and need else None
    return Larger(row.batch_size, speed, examples, row.reached, row.seeds)


def _name(batch_size: int, larger: Larger) -> str | None:
    """The limit that takes more of the speed-up that the larger batch could give."""
    if 2 * larger.reached <= larger.seeds:
        return "statistics"
    if larger.speed is None:
        return "statistics" if larger.examples is not None else None
    lost = math.log(larger.batch_size / batch_size / larger.speed)
    if larger.examples is None:
        return "throughput" if lost > 0 else None
    return "throughput" if lost > math.log(larger.examples) else "statistics"


def _sentence(text: str) -> str:
    return text + "."


def _smallest(size: int) -> str:
    return f"{size} is the smallest batch size tried, and a smaller one may be better still"


def described(here: BatchSizeVerdict, larger: Larger, critical: CriticalBatchSize | None) -> str:
    """The larger batch against the chosen one, in words and without a full stop."""
    size = larger.batch_size
    parts = [p for p in (_speed(here, larger), _examples(larger, critical)) if p is not None]
    if not parts:
        return f"{size} fits, but takes longer than {here.batch_size}"
    return f"{size} fits and " + ", and ".join(parts)


def _speed(here: BatchSizeVerdict, larger: Larger) -> str | None:
    if larger.speed is None:
        return None
    if larger.speed <= PLATEAU:
        return f"is no faster per example than {here.batch_size} (plateau)"
    return f"is {_times(larger.speed)} as fast per example as {here.batch_size}"


def _examples(larger: Larger, critical: CriticalBatchSize | None) -> str | None:
    if 2 * larger.reached <= larger.seeds:
        return f"reached the target in {larger.reached} of {larger.seeds} runs"
    if larger.examples is None:
        return None
    over = critical is not None and larger.batch_size > critical.value
    if larger.examples <= PLATEAU:
        return "needs no more examples"
    told = " (beyond the critical batch size)" if over else ""
    return f"needs {_times(larger.examples)} the examples{told}"


def _times(factor: float) -> str:
    return f"{digits(factor, digits=2)} times"
