"""Normal likelihoods of logs some of which are only known to exceed a limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.judging.posterior import Bools, Floats

ROUNDS = 40
FURTHEST = -37.0  # where a normal's tail still is a number


def inverse_mills(z: Floats) -> Floats:
    """phi(z) / (1 - Phi(z)), also far out, where both vanish; 0 at minus infinity."""
    finite = np.maximum(z, FURTHEST)
    hazard = np.exp(-(finite**2) / 2 - special.log_ndtr(-finite)) / np.sqrt(2 * np.pi)
    return np.where(z > FURTHEST, hazard, 0.0)


def most_likely(value: Floats, sigma: Floats, censored: Bools, start: Floats) -> Floats:
    """Maximum-likelihood location (G,) of values (G, N), some censored, by Newton's method."""
    middle, furthest = start, 2 * float(sigma.max())
    for _ in range(ROUNDS if censored.any() else 0):
        z = (value - middle[:, None]) / sigma
        hazard = inverse_mills(z)
        drop = hazard * (hazard - np.maximum(z, FURTHEST))
        score = (np.where(censored, hazard, z) / sigma).sum(1)
        curvature = (np.where(censored, drop, 1.0) / sigma**2).sum(1)
        step = np.clip(score / curvature, -furthest, furthest)
        middle = middle + step
        if np.abs(step).max() < 1e-9:
            break
    return middle


def loss(z: Floats, censored: Bools) -> Floats:
    """Minus twice the log-likelihood of standardized values (..., N), summed over the runs."""
    return np.asarray(np.where(censored, -2 * special.log_ndtr(-z), z**2).sum(-1))


@dataclass(frozen=True)
class Deviance:
    """Twice the log-likelihood lost by a value, tabulated: (M,) against (M,)."""

    at: Floats
    value: Floats

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
