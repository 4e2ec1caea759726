"""How fast each batch size trains: from the profiles, or from the runs themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from tune_jobs.measure.cost_model import LineFit, fit_line, step_seconds_fit
from tune_jobs.records import BatchSizeProfile, TargetRun

NORMAL_95 = 1.96


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
    """By batch size, the variance of the log of its profiled seconds, which all its runs share."""
    found = {}
    for p in profiles:
        if p.chosen and p.step_seconds_low and p.step_seconds_high:
            deviation = math.log(p.step_seconds_high / p.step_seconds_low) / 2 / NORMAL_95
            found[p.batch_size] = deviation**2
    return found
