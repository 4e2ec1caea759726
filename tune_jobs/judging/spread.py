"""How much runs of one batch size differ: variances that borrow strength from each other.

With three seeds a variance of its own is nearly worthless (its t-interval is 1.8 times as wide as
one from a pooled variance), and a pooled one is wrong where batch sizes differ in noise. Each
variance is therefore moved towards the common one as far as the variances themselves look alike
(empirical Bayes; Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", section 6.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Part of the borrowed degrees of freedom that counts. How alike the variances are is itself
# estimated, from few batch sizes: counted whole, simulated 95 % intervals hold 94 to 95 %, by one
# half 95 to 97 %, not at all 96 to 99 % (three or five seeds; decisions/0005-judging.md).
CREDIT = 0.5
# No run is taken to be known better than this, whatever its repeats say (log scale).
LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Spread:
    """Per batch size: the variance of one run on the log scale, and its degrees of freedom.

    Both (K,). A batch size without a variance of its own has the common one.
    """

    variance: Floats
    freedom: Floats

    @property
    def known(self) -> bool:
        return bool((self.freedom > 0).all())


def moderated(variance: Floats, freedom: Floats, correlation: float = 0.0) -> Spread:
    """Variances (K,) with `freedom` (K,) of their own, moved towards their common value.

    `correlation` between batch sizes (a common effect of the seed) lessens what there is to borrow:
    K variances that move together are worth K / (1 + (K - 1) rho^2) of them. Without any degree of
    freedom the result's are 0: nothing is known.
    """
    own = freedom > 0
    total = float(freedom.sum())
    if total == 0:
        return Spread(np.full_like(variance, np.nan), np.zeros_like(freedom))
    common = float((variance * freedom)[own].sum()) / total
    prior = prior_of(variance[own], freedom[own], common)
    joint = np.full_like(variance, common)
    borrowed = np.full_like(freedom, total)
    if prior is not None:
        centre, weight = prior
        joint = (weight * centre + np.where(own, freedom * variance, 0)) / (weight + freedom)
        borrowed = np.minimum(weight + freedom, total)
    borrowed = borrowed / (1 + (int(own.sum()) - 1) * correlation**2)
    counted = freedom + CREDIT * np.maximum(0, borrowed - freedom)
    return Spread(np.maximum(joint, LEAST_DEVIATION**2), counted)


def prior_of(variance: Floats, freedom: Floats, common: float) -> tuple[float, float] | None:
    """The common variance and its degrees of freedom; None when the variances do not differ."""
    if len(variance) < 2:
        return None
    floored = np.log(np.maximum(variance, 1e-5 * max(common, LEAST_DEVIATION**2)))
    centred = floored - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = centred.var(ddof=1) - special.polygamma(1, freedom / 2).mean()
    if excess <= 0:
        return None
    weight = 2 * inverse_trigamma(float(excess))
    centre = np.exp(centred.mean() + special.digamma(weight / 2) - np.log(weight / 2))
    return float(centre), weight


def inverse_trigamma(value: float) -> float:
    """y with trigamma(y) = value > 0, by Newton's method on 1/trigamma (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, y)
        step = float(trigamma * (1 - trigamma / value) / special.polygamma(2, y))
        y += step
        if abs(step) < 1e-8 * y:
            break
    return float(y)
