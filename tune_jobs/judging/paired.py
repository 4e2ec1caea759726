"""Runs paired by seed: how many times what others take, a mean log ratio with its t interval.

A run that was cut counts as if it had arrived where it ended, which favours it: so what it is a
part of has no upper end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy import special

from tune_jobs.judging.samples import Quantity
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Estimate

FEWEST_PAIRS = 2

Pair = tuple[TargetRun, TargetRun]


def pairs_of(ours: Sequence[TargetRun], theirs: Sequence[TargetRun]) -> list[Pair]:
    """Runs that share a seed."""
    of = {run.seed: run for run in theirs if run.seed is not None}
    return [(run, of[run.seed]) for run in ours if run.seed in of]


def log_ratios(pairs: Sequence[Pair], quantity: Quantity) -> list[float]:
    """Of those pairs that say something: not of two runs that were both cut."""
    return [x for pair in pairs if (x := _log_ratio(*pair, quantity)) is not None]


def ratio_of(logs: Sequence[float], cut: int, confidence: float, shared: float = 0.0) -> Estimate:
    """The mean ratio; `cut` of our runs were, `shared` is a variance that all pairs have."""
    if not logs:
        return Estimate(None, None, None)
    middle = mean(logs)
    if len(logs) < FEWEST_PAIRS:
        return Estimate(math.exp(middle), None, None)
    tail = (1 + confidence) / 2
    error = stdev(logs) / math.sqrt(len(logs))
    half = math.hypot(
        float(special.stdtrit(len(logs) - 1, tail)) * error,
        float(special.ndtri(tail)) * math.sqrt(shared),
    )
    high = None if cut else math.exp(middle + half)
    return Estimate(math.exp(middle), math.exp(middle - half), high)


def _log_ratio(run: TargetRun, other: TargetRun, quantity: Quantity) -> float | None:
    ours, theirs = _spent(run, quantity), _spent(other, quantity)
    if not ours or not theirs or (not reached(run) and not reached(other)):
        return None
    return math.log(ours / theirs)


def _spent(run: TargetRun, quantity: Quantity) -> float | None:
    return quantity.of(run) if reached(run) else quantity.limit(run)
