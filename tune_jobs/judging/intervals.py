"""The typical run of each batch size: the median over runs, and its interval from the posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tune_jobs.judging.posterior import QUICKLY, Bools, Floats, posterior
from tune_jobs.judging.samples import Quantity, Sample
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

    median: Floats
    low: Floats
    high: Floats


def repeated(sample: Sample) -> bool:
    """Whether any batch size has two runs: without, nothing tells noise from difference."""
    return bool((sample.observed > 1).any())


def typical(sample: Sample, confidence: float, draws: Floats | None = None) -> Typical:
    """Medians and intervals; of `draws` (T, K) of the log medians where these are at hand."""
    median = medians(sample)
    if draws is None:
        if not repeated(sample):
            return Typical(median, np.full(len(sample), np.nan), np.full(len(sample), np.nan))
        kept = sample.only(sample.known)
        found = posterior(kept.layout, kept.value[None], kept.censored[None], kept=QUICKLY)
        draws = found.middle[0]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    bounded = np.isfinite(median)
    low = np.where(bounded, np.minimum(low, median), low)
    high = np.where(bounded, np.maximum(high, median), np.inf)
    told = informed(sample)
    return Typical(median, np.where(told, low, np.nan), np.where(told, high, np.nan))


def informed(sample: Sample) -> Bools:
    """Batch sizes of which some run says something (K,)."""
    return np.bincount(sample.cell[sample.known], minlength=len(sample)) > 0


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


def estimate(quantity: Quantity, of: Typical, index: int) -> Estimate:
    """Median with interval in the quantity's own unit; ends that are open or unknown are None."""
    ends = [of.low[index], of.high[index]]
    if quantity.scale != "value":
        ends.reverse()
    value = quantity.shown(float(of.median[index]))
    low, high = (quantity.shown(float(end)) for end in ends)
    return Estimate(value, low, high)
