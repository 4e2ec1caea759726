"""When a run evaluates: evenly spaced within each octave of examples, so finer early."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tune_jobs.training.segments import Course

OCTAVES = 5
EVALUATIONS_PER_OCTAVE = 4
SNAPSHOTS_PER_INTERVAL = 4


def updates_for(examples: float, batch_size: int) -> int:
    """The fewest whole updates that see at least so many examples."""
    return max(1, math.ceil(examples / batch_size))


def rung_budgets(budget: int, first_fraction: float, reduction_factor: int) -> tuple[int, ...]:
    """Examples at which a race decides: geometric from the first, the budget itself left out."""
    rungs = []
    at = budget * first_fraction
    while at < budget * 0.999:
        rungs.append(max(1, round(at)))
        at *= reduction_factor
    return tuple(rungs)


def evaluation_updates(budget: int, course: Course, rungs: Iterable[int]) -> tuple[int, ...]:
    """Updates after which to evaluate, ascending: the grid, every rung, and the end.

    The grid spans `OCTAVES` octaves below the budget, `EVALUATIONS_PER_OCTAVE` even steps each: a
    step is a quarter to an eighth of the examples seen so far.
    """
    points = [float(r) for r in rungs] + [float(budget)]
    for octave in range(1, OCTAVES + 1):
        low = budget / 2**octave
        points += [low * (1 + k / EVALUATIONS_PER_OCTAVE) for k in range(EVALUATIONS_PER_OCTAVE)]
    return tuple(sorted({course.updates_for(p) for p in points}))


def landmark_updates(budget: int, course: Course, rungs: Iterable[int]) -> tuple[int, ...]:
    """The evaluations that remain once the target is reached: rungs, and two for each octave."""
    marks = [budget * part / 2**octave for octave in range(OCTAVES + 1) for part in (1, 0.75)]
    return tuple(sorted({course.updates_for(p) for p in [*rungs, *marks]}))


def snapshot_updates(after: int, until: int) -> tuple[int, ...]:
    """Updates strictly between two evaluations at which weights are kept for the crossing.

    With a step of a quarter split in five, the target's crossing is known to 5 % of the examples
    seen, or to one update where an update is more.
    """
    parts = SNAPSHOTS_PER_INTERVAL + 1
    inner = {after + round((until - after) * k / parts) for k in range(1, parts)}
    return tuple(sorted(inner - {after, until}))


def resolution(examples_to_target: float, budget: int, batch_size: int) -> float:
    """Within what part of itself a run's examples to target are known; at least one update."""
    first = budget / 2**OCTAVES
    soon = examples_to_target < first + batch_size  # evaluations come at whole updates
    apart = first if soon else examples_to_target / EVALUATIONS_PER_OCTAVE
    return max(apart / (SNAPSHOTS_PER_INTERVAL + 1), batch_size) / examples_to_target
