"""Runs that never reached the target: the censored log-normal likelihood (Tobin 1958).

A run that stopped at c without reaching the target says that its value is over c: it enters the
likelihood as P(value > c), never as a number of its own and never not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.judging.samples import Sample
from tune_jobs.judging.spread import Floats, Spread, moderated

ROUNDS = 12
GRID = 321
# Found by simulation (scripts/bench/calibration.py): with none, three seeds of which one is
# censored have 95 % intervals that hold 98 %; with one, their variance is believed too soon.
WORTH = 0.5
REACH = 9.0  # standard deviations that a deviance is tabulated to, on both sides


def inverse_mills(z: Floats) -> Floats:
    """phi(z) / (1 - Phi(z)), also far out, where both vanish; 0 at minus infinity."""
    finite = np.maximum(z, -37.0)
    hazard = np.exp(-(finite**2) / 2 - special.log_ndtr(-finite)) / np.sqrt(2 * np.pi)
    return np.where(z > -37.0, hazard, 0.0)


def middles(sample: Sample, deviation: Floats, start: Floats) -> Floats:
    """Maximum-likelihood log medians (K,) at the given standard deviations, by Newton's method.

    Infinite where every run is censored. Without censoring they are the means of the logs.
    """
    sigma = deviation[sample.cell]
    middle = np.where(np.isfinite(start), start, 0.0)
    for _ in range(ROUNDS):
        z = (sample.value - middle[sample.cell]) / sigma
        hazard = inverse_mills(z)
        drop = hazard * (hazard - np.maximum(z, -37.0))
        score = np.where(sample.censored, hazard, z) / sigma
        curve = np.where(sample.censored, drop, 1.0) / sigma**2
        up = np.bincount(sample.cell, score, len(sample))
        down = np.bincount(sample.cell, curve, len(sample))
        step = np.where(sample.observed > 0, up / np.maximum(down, 1e-12), 0.0)
        middle = middle + np.clip(step, -2 * deviation, 2 * deviation)
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return np.where(sample.observed > 0, middle, np.inf)


def own_variances(sample: Sample, middle: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Variances (K,) of the logs and their degrees of freedom.

    One step of expectation-maximisation: a censored run counts with its expected square; the
    variance is then freed of the maximum-likelihood estimate's bias. Runs that reached are worth a
    degree of freedom each, those censored WORTH of one, less one for the middle; nothing is known
    with fewer than two that reached.
    """
    k, cell, censored = len(sample), sample.cell, sample.censored
    sigma, centre = deviation[cell], np.where(np.isfinite(middle), middle, 0.0)[cell]
    known = np.isfinite(sample.value)
    z = np.where(known, sample.value - centre, 0.0) / sigma
    square = np.where(censored, 1 + z * inverse_mills(z), z**2) * sigma**2
    total = np.bincount(cell[known], square[known], k)
    counted = np.bincount(cell[known], minlength=k)
    whole = sample.observed + WORTH * (counted - sample.observed)
    freedom = np.where(sample.observed > 1, whole - 1, 0.0)
    variance = np.where(freedom > 0, total / np.maximum(counted - 1, 1), 0.0)
    return variance, freedom


@dataclass(frozen=True)
class Located:
    """Where the typical run of each batch size lies, on the log scale; all (K,).

    `middle` is infinite where every run is censored; `spread` is of one run.
    """

    middle: Floats
    spread: Spread


def located(sample: Sample, correlation: float = 0.0) -> Located:
    """Log medians and spreads by alternating the two until they agree."""
    k = len(sample)
    seen = ~sample.censored
    sums = np.bincount(sample.cell[seen], sample.value[seen], k)
    middle = np.where(sample.observed > 0, sums / np.maximum(sample.observed, 1), np.inf)
    residual = np.where(
        seen, sample.value - np.where(np.isfinite(middle), middle, 0)[sample.cell], 0
    )
    freedom = np.maximum(sample.observed - 1, 0).astype(np.float64)
    variance = np.bincount(sample.cell, residual**2, k) / np.maximum(freedom, 1)
    spread = moderated(variance, freedom, correlation)
    if not spread.known or not sample.censored.any():
        return Located(middle, spread)
    for _ in range(ROUNDS):
        deviation = np.sqrt(spread.variance)
        middle = middles(sample, deviation, middle)
        before = spread.variance
        spread = moderated(*own_variances(sample, middle, deviation), correlation)
        if np.allclose(before, spread.variance, rtol=1e-4):
            break
    return Located(middle, spread)


@dataclass(frozen=True)
class Deviance:
    """Twice the log-likelihood lost by a log median, tabulated: (M,) against (M,)."""

    at: Floats
    value: Floats
    middle: float

    def __call__(self, place: Floats) -> Floats:
        return np.interp(place, self.at, self.value)

    def within(self, limit: float) -> tuple[float, float]:
        """Where the deviance stays under `limit`; an end that it never leaves is infinite."""
        inside = np.flatnonzero(self.value <= limit)
        first, last = int(inside[0]), int(inside[-1])
        low = -np.inf if first == 0 else self._crossing(first - 1, limit)
        high = np.inf if last == len(self.at) - 1 else self._crossing(last, limit)
        return float(low), float(high)

    def _crossing(self, index: int, limit: float) -> float:
        before, after = (np.sqrt(self.value[i]) for i in (index, index + 1))
        part = (np.sqrt(limit) - before) / (after - before)
        return float(self.at[index] + part * (self.at[index + 1] - self.at[index]))


def deviance(sample: Sample, middle: float, deviation: float) -> Deviance:
    """The deviance of one batch size's runs (`sample.of(index)`) at a given standard deviation."""
    known = sample.value[np.isfinite(sample.value)]
    if known.size == 0:
        return Deviance(np.array([-1e3, 1e3]), np.zeros(2), np.inf)
    centre = middle if np.isfinite(middle) else float(known.max())
    at = centre + deviation * np.linspace(-REACH, REACH, GRID)
    z = (known[:, None] - at) / deviation
    seen = ~sample.censored[np.isfinite(sample.value)]
    log_likelihood = np.where(seen[:, None], -(z**2) / 2, special.log_ndtr(-z)).sum(0)
    best = log_likelihood.max() if seen.any() else 0.0
    return Deviance(at, np.maximum(0.0, 2 * (best - log_likelihood)), middle)
