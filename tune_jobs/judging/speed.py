"""How fast each batch size trains: from the profiles, or from the runs themselves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from statistics import fmean, median, median_low
from typing import NamedTuple

from tune_jobs.measure.clock import A_ROUND, chosen
from tune_jobs.measure.cost_model import LineFit, fit_line, step_seconds_fit
from tune_jobs.records import BatchSizeProfile, TargetRun

NORMAL_95 = 1.96
LEAST = 1e-12  # variance, where all is told to be exact


def examples_per_second(
    runs: Sequence[TargetRun], profiles: Sequence[BatchSizeProfile]
) -> dict[int, float]:
    """By batch size: as profiled in the chosen way, else the median of its runs."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.examples_per_second is not None:
            found.setdefault(run.batch_size, []).append(run.examples_per_second)
    rates = {size: median(values) for size, values in found.items()}
    profiled = {p.batch_size: p.examples_per_second for p in profiles if p.chosen}
    return rates | {size: rate for size, rate in profiled.items() if rate is not None}


def line_of_step_seconds(
    rates: Mapping[int, float], profiles: Sequence[BatchSizeProfile]
) -> LineFit | None:
    """`step seconds = a + b B`, over whole batches of the profiles, else from the rates."""
    fitted = step_seconds_fit(profiles)
    if fitted is not None:
        return fitted
    sizes = sorted(rates)
    return fit_line(sizes, [size / rates[size] for size in sizes])


def variance_of_seconds(profiles: Sequence[BatchSizeProfile]) -> dict[int, float]:
    """By batch size, the variance of the log of its profiled seconds beside the others', which all
    its runs share; profiles of before that was kept have their interval's."""
    return {
        p.batch_size: _of_interval(p) if p.step_deviation is None else p.step_deviation**2
        for p in chosen(profiles)
        if p.step_seconds
    }


def _of_interval(profile: BatchSizeProfile) -> float:
    low, high = profile.step_seconds_low, profile.step_seconds_high
    return (math.log(high / low) / 2 / NORMAL_95) ** 2 if low and high else A_ROUND**2


class Clock(NamedTuple):
    """By batch size, the log of what its seconds take over what was profiled, beside the others',
    and the variance of that, which all its runs share."""

    off: dict[int, float]
    variance: dict[int, float]


def clock_of(profiles: Sequence[BatchSizeProfile], runs: Sequence[TargetRun]) -> Clock:
    """The profile, and what the runs say that were timed alone, each weighed by its spread: a run
    counts as one round, and of several the lower middle one, since neighbours only slow a run down.
    By what they lie further apart than that allows, both are to blame alike.

    What all batch sizes have in common favours none of them, and is left out.
    """
    variance = variance_of_seconds(profiles)
    a_round = {p.batch_size: max(1, p.rounds) * _of_interval(p) for p in chosen(profiles)}
    logs: dict[int, list[float]] = {}
    for run in runs:
        timed, profiled = run.measured_time_to_target_seconds, run.time_to_target_seconds
        if timed and profiled and run.batch_size in variance:
            logs.setdefault(run.batch_size, []).append(math.log(timed / profiled))
    if len(logs) < 2:
        return Clock({}, variance)
    found = {size: median_low(of) for size, of in logs.items()}
    alone = {size: a_round[size] / len(of) for size, of in logs.items()}
    expected = fmean(variance[size] + alone[size] for size in logs)
    blamed = max(0.0, statistics.variance(found.values()) - expected) / 2
    wide = {size: of + blamed for size, of in variance.items()}
    total = {size: max(wide[size] + alone[size] + blamed, LEAST) for size in logs}
    common = fmean(found.values(), [1 / of for of in total.values()])
    part = {size: wide[size] / total[size] for size in logs}  # that the runs alone are heard
    return Clock(
        {size: part[size] * (found[size] - common) for size in logs},
        {size: of * (1 - part.get(size, 0.0)) for size, of in wide.items()},
    )
