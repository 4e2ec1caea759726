"""Where the best learning rate of each batch size lies, by the rates that were tried.

Examples to target over the log of the rate are a valley. Far below its bottom half the rate takes
twice the examples; far above it rises more steeply; how wide the bottom is, all batch sizes share:

    log n = least + h(x - x*),   h(u) = (w^2 + u^2)^(1/2) - w below, STEEPER times that above

For each batch size x* is weighed by what its trials say of it (those that did not reach the target
say that they needed more), together with w. Batch sizes inform one another: x* moves about a line
in log B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.judging.posterior import Bools, Floats

WIDTHS = np.geomspace(0.12, 2.4, 9)  # w, in natural logs: off by a factor of 2 costs 79 to 11 %
STEEPER = 2.0
PLACES = 121  # of x*, over the rates tried and BEYOND on both sides
BEYOND = math.log(4)
LINE = 0.4  # deviation of x* about a line in log B
SLOPE = 0.3  # deviation of that line's slope about what is expected


@dataclass(frozen=True)
class Tried:
    """The rates tried at one batch size: their logs, the log of what each needed, or was over where
    it is `short` of the target, and the deviation of that; all (M,)."""

    rate: Floats
    needed: Floats
    short: Bools
    noise: Floats


NOTHING = Tried(np.empty(0), np.empty(0), np.empty(0, dtype=bool), np.empty(0))


@dataclass(frozen=True)
class Valley:
    """What is known of one batch size's valley.

    Attributes:
        places: (P,) of x*; `chance` (W, P) of each with each width, 1 in all.
        least: (W, P) log of what the best rate needs, were they so; NaN where no trial tells.
        sure: (W, P) the deviation of that.
    """

    places: Floats
    chance: Floats
    least: Floats
    sure: Floats

    @property
    def bottom(self) -> tuple[float, float]:
        """Mean and deviation of x*."""
        chance = self.chance.sum(axis=0)
        mean = float(chance @ self.places)
        return mean, math.sqrt(max(0.0, float(chance @ (self.places - mean) ** 2)))

    def best(self) -> tuple[float, float]:
        """The log of the rate that is expected to be least short of the best, and by how much."""
        off = self.places[:, None] - self.places  # of a rate, from x*
        short = sum(
            np.minimum(rise(off, width), 1.0) @ chance
            for width, chance in zip(WIDTHS, self.chance, strict=True)
        )
        at = int(np.argmin(short))
        return float(self.places[at]), float(np.asarray(short)[at])

    def shortfall(self, rate: float) -> tuple[float, float]:
        """Mean and variance of the log by which a rate, given as its log, is short of the best."""
        short = np.minimum(rise(rate - self.places, WIDTHS[:, None]), 1.0)
        mean = float((self.chance * short).sum())
        return mean, float((self.chance * (short - mean) ** 2).sum())

    def at(self, rate: float) -> tuple[float, float]:
        """Mean and deviation of the log of what a rate, given as its log, needs; NaN where no trial
        tells."""
        needs = self.least + rise(rate - self.places, WIDTHS[:, None])
        mean = float((self.chance * needs).sum())
        spread = (self.chance * ((needs - mean) ** 2 + self.sure**2)).sum()
        return mean, math.sqrt(float(spread))

    def needs(self) -> tuple[float, float]:
        """Mean and deviation of the log of what the best rate needs; NaN where no trial tells."""
        mean = float((self.chance * self.least).sum())
        spread = (self.chance * ((self.least - mean) ** 2 + self.sure**2)).sum()
        return mean, math.sqrt(float(spread))


def rise(off: Floats, width: Floats) -> Floats:
    """h: the log of the part more that a rate so far off the best one needs."""
    below = np.hypot(width, off) - width
    return np.asarray(np.where(off > 0, STEEPER * below, below))


def valleys(
    tried: Mapping[int, Tried],
    within: tuple[float, float] | None = None,
    slope: float | None = None,
) -> dict[int, Valley]:
    """The valley of each batch size.

    Args:
        tried: by batch size; one of which nothing was tried has empty arrays.
        within: logs of the least and the largest rate to look at, BEYOND of them included; by
            default as far as its own rates go, or all, where it has none.
        slope: what x* is expected to move by with log B, SLOPE being the deviation of that; None
            where nothing is known.
    """
    rates = np.concatenate([t.rate for t in tried.values()])
    places = {
        size: _places(t, within or (None if len(t.rate) else (rates.min(), rates.max())))
        for size, t in tried.items()
    }
    found = {size: _likelihood(tried[size], places[size]) for size in tried}
    own = {size: logs for size, (logs, _, _) in found.items()}
    bottoms = {s: _bottom(places[s], logs) for s, logs in own.items() if np.ptp(logs) > 0}
    logs = {size: own[size] + _line(size, places[size], bottoms, slope) for size in own}
    width = _softmax(np.sum([special.logsumexp(of, axis=1) for of in logs.values()], axis=0))
    return {
        size: Valley(places[size], _given_width(logs[size], width), *found[size][1:])
        for size in logs
    }


def _places(tried: Tried, within: tuple[float, float] | None) -> Floats:
    low, high = within or (tried.rate.min(), tried.rate.max())
    if within and len(tried.rate):
        low, high = min(low, tried.rate.min()), max(high, tried.rate.max())
    return np.linspace(low - BEYOND, high + BEYOND, PLACES)


def _likelihood(tried: Tried, places: Floats) -> tuple[Floats, Floats, Floats]:
    """(W, P): its log; mean and deviation of what the best rate needs, by those that reached."""
    shape = (len(WIDTHS), len(places))
    got = ~tried.short
    if not got.any():
        return np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    left = tried.needed - rise(tried.rate - places[:, None], WIDTHS[:, None, None])
    weight = 1 / tried.noise[got] ** 2
    least = left[..., got] @ weight / weight.sum()
    z = (left - least[..., None]) / tried.noise
    # Tails: what is far off counts as far off, not by how much.
    told = np.where(got, -np.log1p(z**2 / 4) * 2.5, special.log_ndtr(-z))
    return told.sum(axis=-1), least, np.full(shape, weight.sum() ** -0.5)


def _bottom(places: Floats, logs: Floats) -> tuple[float, float]:
    """Mean and variance of a batch size's x*, by its own trials."""
    chance = _softmax(logs).sum(axis=0)
    mean = float(chance @ places)
    return mean, float(chance @ (places - mean) ** 2)


def _line(
    size: int, places: Floats, bottoms: Mapping[int, tuple[float, float]], slope: float | None
) -> Floats:
    """(P,): log prior of a batch size's x* from a line through the others'."""
    others = [o for o in bottoms if o != size]
    if len(others) < (2 if slope is None else 1):
        return np.zeros(len(places))
    x = np.log(np.array(others, dtype=np.float64))
    y, variances = np.array([bottoms[o] for o in others]).T
    weight = 1 / (variances + LINE**2)
    middle, centre = weight @ x / weight.sum(), weight @ y / weight.sum()
    known = 0.0 if slope is None else SLOPE**-2
    spread = weight @ (x - middle) ** 2 + known
    tilt = float(weight @ ((x - middle) * y) + known * (slope or 0.0)) / spread if spread else 0.0
    at = math.log(size) - middle
    variance = LINE**2 + 1 / weight.sum() + (at**2 / spread if spread else 0.0)
    return np.asarray(-((places - centre - tilt * at) ** 2) / 2 / variance)


def _softmax(logs: Floats) -> Floats:
    found = np.exp(logs - logs.max())
    return np.asarray(found / found.sum())


def _given_width(logs: Floats, width: Floats) -> Floats:
    """The joint chances (W, P) of one batch size, every width as likely as all of them say."""
    chance = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(width[:, None] * chance / chance.sum(axis=1, keepdims=True))
