"""When a run evaluates: evenly spaced within each octave of examples, so finer early."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tune_jobs.training.segments import Course
from tune_jobs.workload import reaches

OCTAVES = 6
EVALUATIONS_PER_OCTAVE = 4
READ = 5  # a crossing is read between two evaluations to a part of what lies between them


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


def crossing(
    points: Sequence[tuple[float, float]], target: float, mode: str = "max"
) -> float | None:
    """Examples at which a curve of (examples, metric) first reaches `target`, or None if it never
    does: linear in the logarithm of the examples between two points.

    A curve that begins beyond the target reached it by its first evaluation: that is returned.
    """
    if points and reaches(points[0][1], target, mode):
        return float(points[0][0])
    for (before, low), (after, high) in pairwise(points):
        if reaches(high, target, mode):
            part = (target - low) / (high - low)
            return float(before * (after / before) ** part)
    return None


def resolution(examples_to_target: float, budget: int, batch_size: int) -> float:
    """Within what part of itself a run's examples to target are known; at least one update."""
    first = budget / 2**OCTAVES
    if examples_to_target < first + batch_size:  # evaluations come at whole updates
        return 1.0
    return max(1 / (EVALUATIONS_PER_OCTAVE * READ), batch_size / examples_to_target)
