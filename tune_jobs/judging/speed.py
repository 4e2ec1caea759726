"""How fast each batch size trains: from the profiles, or from the runs themselves."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from statistics import fmean, median, pvariance
from typing import NamedTuple

from scipy import stats

from tune_jobs.measure.clock import A_ROUND, chosen
from tune_jobs.measure.cost_model import LineFit, fit_line, step_seconds_fit
from tune_jobs.records import BatchSizeProfile, TargetRun

NORMAL_95 = 1.96
LEAST = 1e-12  # variance, where all is told to be exact
TRIMMED = 0.34  # of a batch size's runs, at either end: of three the middle one is left
TRIMMING = 1.3  # times the variance of a mean, that of one so trimmed
AS_RUNS = 4  # that A_ROUND counts for
FEWEST_PACES = 3  # seeds, for their paces to be told
POLISHED = 5  # times, paces and batch sizes by turns (Tukey 1977)
CONTENTION = 0.02  # deviation of what a neighbour on a device costs a batch size, beside the others


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
    """The profile, and what the runs took by the clock, each weighed by its spread. Of a batch
    size's runs the middle counts, without the pace at which the machine ran all of a seed; those
    with others beside them may favour a batch size by CONTENTION. By what profile and clock lie
    further apart than that allows both are to blame alike, several runs less by their number.

    What all batch sizes have in common favours none of them, and is left out.
    """
    variance = variance_of_seconds(profiles)
    timed = _timed(runs, variance)
    if len(timed) < 2:
        return Clock({}, variance)
    paces = _paces(timed)
    even = {size: _without(paces, of) if _often(of, timed) else of for size, of in timed.items()}
    found = {size: _middle(of) for size, of in even.items()}
    clock = _variance_of_middles(even, found, paces)
    blamed = _between(found, {size: variance[size] + of for size, of in clock.items()}) / 2
    wide = {size: of + blamed for size, of in variance.items()}
    heard = {size: of + blamed / len(timed[size]) for size, of in clock.items()}
    total = {size: max(wide[size] + of, LEAST) for size, of in heard.items()}
    common = fmean(found.values(), [1 / of for of in total.values()])
    part = {size: wide[size] / total[size] for size in timed}  # that the runs are heard
    return Clock(
        {size: part[size] * (found[size] - common) for size in timed},
        {size: of * (1 - part.get(size, 0.0)) for size, of in wide.items()},
    )


class Timed(NamedTuple):
    """A run: the log of the clock's seconds over those profiled; whether others ran beside it."""

    log: float
    seed: int | None
    beside: bool


Runs = Mapping[int, Sequence[Timed]]  # by batch size
Paces = Mapping[int | None, float]  # by seed


def _timed(runs: Sequence[TargetRun], profiled: Container[int]) -> dict[int, list[Timed]]:
    found: dict[int, list[Timed]] = {}
    for run in runs:
        clock, predicted = run.measured_time_to_target_seconds, run.time_to_target_seconds
        if clock and predicted and run.batch_size in profiled:
            log = math.log(clock / predicted)
            found.setdefault(run.batch_size, []).append(Timed(log, run.seed, run.alone is False))
    return found


def _often(of: Sequence[Timed], timed: Runs) -> bool:
    """Whether a batch size has over half as many runs as any: others may have been run much later
    with the same seeds."""
    return 2 * len(of) > max(map(len, timed.values()))


def _paces(timed: Runs) -> Paces:
    """By seed, how much slower than on the whole the machine was while the batch sizes that were
    run often ran with it, one after the other. None of a seed that one of them alone has."""
    often = {size: of for size, of in timed.items() if _often(of, timed)}
    sizes: dict[int | None, set[int]] = {}
    for size, of in often.items():
        for run in of:
            sizes.setdefault(run.seed, set()).add(size)
    paces = dict.fromkeys((seed for seed, of in sizes.items() if len(of) > 1), 0.0)
    if len(paces) < FEWEST_PACES:
        return {}
    for _ in range(POLISHED):
        left: dict[int | None, list[float]] = {seed: [] for seed in paces}
        for of in often.values():
            middle = _middle(_without(paces, of))
            for run in of:
                left.setdefault(run.seed, []).append(run.log - middle)
        whole = fmean(median(left[seed]) for seed in paces)
        paces = {seed: median(left[seed]) - whole for seed in paces}
    return paces


def _without(paces: Paces, of: Sequence[Timed]) -> list[Timed]:
    return [run._replace(log=run.log - paces.get(run.seed, 0.0)) for run in of]


def _middle(of: Sequence[Timed]) -> float:
    """The mean of the middle ones: a neighbour may have slowed some down, more than a little."""
    return float(stats.trim_mean([run.log for run in of], TRIMMED))


def _variance_of_middles(even: Runs, middle: Mapping[int, float], paces: Paces) -> dict[int, float]:
    """By batch size, of so many runs without the `paces`; all batch sizes' runs tell how far one is
    off, which is taken to be about A_ROUND where they are few."""
    squares = sum((run.log - middle[size]) ** 2 for size, of in even.items() for run in of)
    further = sum(len(of) - 1 for of in even.values()) - max(0, len(paces) - 1)
    of_one = (AS_RUNS * A_ROUND**2 + squares) / (AS_RUNS + further)
    of_pace = pvariance(paces.values()) if paces else 0.0
    return {
        size: of_one / len(of) * (TRIMMING if len(of) > 2 else 1.0)
        + CONTENTION**2 * any(run.beside for run in of)
        + of_pace * (not _often(of, even))
        for size, of in even.items()
    }


def _between(found: Mapping[int, float], within: Mapping[int, float]) -> float:
    """The variance that values have beyond that of each (DerSimonian 1986)."""
    weight = {size: 1 / max(of, LEAST) for size, of in within.items()}
    total = sum(weight.values())
    common = fmean(found.values(), list(weight.values()))
    apart = sum(of * (found[size] - common) ** 2 for size, of in weight.items())
    spread = total - sum(of**2 for of in weight.values()) / total
    return max(0.0, (apart - (len(found) - 1)) / spread)
