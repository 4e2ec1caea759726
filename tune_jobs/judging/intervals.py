"""Median and mean over runs, with intervals that hold for three seeds as for twenty.

The interval is of the typical run, the median of the log-normal: a t-interval on the log scale
from moderated variances, by the likelihood where runs are censored (at a fixed spread the two are
the same thing). A percentile bootstrap of three values covers 75 %; see decisions/0005-judging.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tune_jobs.judging.censoring import Located, deviance, located
from tune_jobs.judging.samples import Quantity, Sample
from tune_jobs.judging.spread import Floats
from tune_jobs.verdicts import Estimate


@dataclass(frozen=True)
class Typical:
    """The typical run of each batch size on the log scale; all (K,).

    Attributes:
        median: of the runs, a censored one counting as slower than all; infinite when the middle
            run is censored.
        low, high: interval of the typical run; `high` is infinite when `median` is, and both are
            NaN where no two runs of any batch size could tell the noise.
    """

    located: Located
    median: Floats
    low: Floats
    high: Floats


def typical(
    sample: Sample, confidence: float, correlation: float = 0.0, extra: Floats | None = None
) -> Typical:
    """Medians and intervals. `extra` (K,) is variance that all runs of a batch size share."""
    found = located(sample, correlation)
    median = medians(sample)
    shared = np.zeros(len(sample)) if extra is None else extra
    ends = [_interval(sample, found, i, confidence, float(shared[i])) for i in range(len(sample))]
    low, high = (np.array([end[side] for end in ends]) for side in (0, 1))
    bounded = np.isfinite(median)
    low = np.where(bounded, np.minimum(low, median), low)
    high = np.where(bounded, np.maximum(high, median), np.where(np.isnan(high), high, np.inf))
    return Typical(found, median, low, high)


def medians(sample: Sample) -> Floats:
    """Median of the logs of each batch size (K,), infinite when it falls on a censored run."""
    ranked = np.where(sample.censored, np.inf, sample.value)
    groups = [ranked[sample.cell == index] for index in range(len(sample))]
    return np.array([_median(np.sort(group)) for group in groups])


def _median(ascending: Floats) -> float:
    if ascending.size == 0:
        return math.nan
    lower, upper = ascending[(ascending.size - 1) // 2], ascending[ascending.size // 2]
    return float(lower if lower == upper else (lower + upper) / 2)


def _interval(
    sample: Sample, found: Located, index: int, confidence: float, shared: float
) -> tuple[float, float]:
    """Ends of the interval of one batch size, `shared` variance added to that of its runs."""
    runs, freedom = int(sample.runs[index]), float(found.spread.freedom[index])
    if runs == 0 or freedom == 0:
        return math.nan, math.nan
    quantile = float(stats.t.ppf((1 + confidence) / 2, freedom))
    variance, middle = float(found.spread.variance[index]), float(found.middle[index])
    if sample.observed[index] == runs:
        half = quantile * math.sqrt(variance / runs + shared)
        return middle - half, middle + half
    limit = quantile**2 / (1 + shared * max(1, int(sample.observed[index])) / variance)
    return deviance(sample.of(index), middle, math.sqrt(variance)).within(limit)


def estimate(quantity: Quantity, of: Typical, index: int) -> Estimate:
    """Median with interval in the quantity's own unit; ends that are open or unknown are None."""
    ends = [of.low[index], of.high[index]]
    if quantity.larger_is_better:
        ends.reverse()
    value = quantity.shown(float(of.median[index]))
    low, high = (quantity.shown(float(end)) for end in ends)
    return Estimate(value, low, high)


def mean(
    quantity: Quantity, sample: Sample, of: Typical, index: int, confidence: float
) -> Estimate:
    """Mean over runs; None as soon as one is censored. Interval by Cox's method.

    exp(m + s^2/2 -+ t sqrt(s^2/n + s^4/(2 f))): Zhou and Gao 1997, "Confidence intervals for the
    log-normal mean", with t for the normal quantile.
    """
    runs = int(sample.runs[index])
    values = [quantity.shown(float(v)) or 0.0 for v in sample.value[sample.cell == index]]
    freedom = float(of.located.spread.freedom[index])
    if runs == 0 or sample.observed[index] < runs:
        return Estimate(None, None, None)
    if freedom == 0:
        return Estimate(float(np.mean(values)), None, None)
    variance = float(of.located.spread.variance[index])
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(
        variance / runs + variance**2 / (2 * freedom)
    )
    middle = float(of.located.middle[index]) + variance / 2
    ends = sorted(quantity.shown(middle + side * half) or 0.0 for side in (-1, 1))
    average = float(np.mean(values))
    return Estimate(average, min(ends[0], average), max(ends[1], average))


def mean_at_least(sample: Sample, index: int) -> float | None:
    """The mean with censored runs at what they are over; None without them or where unknown."""
    mine = sample.cell == index
    if not sample.censored[mine].any() or not np.isfinite(sample.value[mine]).all():
        return None
    return float(np.exp(sample.value[mine]).mean())
