"""The gradient noise scale `B_simple = tr(Sigma) / |G|^2`, from squared norms at two batch sizes.

G is the gradient of the mean loss over the training split, Sigma the covariance of one example's
gradient (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", eq. 2.9). One draw
takes `pieces` disjoint small batches at the same weights: their gradients give the squared norm at
the small batch size, the mean of these gradients the one at the large, for one price (appendix
A.1). Both estimates are unbiased; each is averaged over the draws, then they are divided, since
the mean of ratios is neither unbiased nor stable.

What is estimated, exactly (`gradient_draws.py` says what is drawn):

- **A finite population.** A draw is without replacement from the training split of n examples, as
  an epoch is. G and Sigma are those of the split (Sigma with divisor n - 1), so that at weights
  that fit the split perfectly G is zero, whatever lies outside it. With that meaning
  E|g_B|^2 = |G|^2 + tr(Sigma) (1/B - 1/n); the term 1/n is what differs from the paper.
- **The interval** is the studentized bootstrap over draws of |G|^2 / tr(Sigma), turned over at the
  end: this ratio stays regular where |G|^2 is near zero. It covers the sampling of gradients at
  these weights, not another run's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tune_jobs.errors import UserError
from tune_jobs.records import NoiseScale

AVERAGE = "_average"
CONFIDENCE = 0.95
RESAMPLES = 2000
WIDEST_USEFUL = 10.0
FEWEST_DRAWS = 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How gradients are drawn: `draws` times `pieces` disjoint batches of `small_batch` examples.

    For a given number of examples few draws with many pieces tell |G|^2 best; the interval needs
    draws. Each draw costs about as much as training on `large_batch` examples.
    """

    small_batch: int = 16
    pieces: int = 8
    draws: int = 16

    @property
    def large_batch(self) -> int:
        return self.small_batch * self.pieces


@dataclass(frozen=True)
class Point:
    """The draws of one kind at one point of a run: unbiased estimates, one of each per draw."""

    examples_seen: int
    updates: int
    batch_size: int
    learning_rate: float
    kind: str
    small_batch: int
    large_batch: int
    gradient_squared: tuple[float, ...]
    gradient_variance: tuple[float, ...]
    note: str | None = None

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (*self.gradient_squared, *self.gradient_variance)))


def fitted(sampling: Sampling, examples: int) -> Sampling:
    """`sampling` with no more pieces than a split of `examples` can fill without replacement.

    Errors:
        UserError: not even two small batches fit.
    """
    pieces = min(sampling.pieces, examples // sampling.small_batch)
    if pieces < 2:
        raise UserError(
            f"the training split has {examples} examples: the noise scale needs two disjoint "
            f"batches of {sampling.small_batch}; give more data or set noise_scale = false"
        )
    return replace(sampling, pieces=pieces)


def unbiased(
    small_squared: float, large_squared: float, sampling: Sampling, examples: int
) -> tuple[float, float]:
    """|G|^2 and tr(Sigma) from the mean squared norms at the small and at the large batch size.

    Solves E|g_B|^2 = |G|^2 + tr(Sigma) (1/B - 1/n) for both batch sizes: McCandlish et al. 2018,
    eq. A.2 and A.3, for a draw without replacement from n = `examples`.
    """
    variance = (small_squared - large_squared) / (
        1 / sampling.small_batch - 1 / sampling.large_batch
    )
    return large_squared - variance * (1 / sampling.large_batch - 1 / examples), variance


def summarize(point: Point) -> NoiseScale:
    """The noise scale at one point, with its interval and, if that is useless, why."""
    return _estimate([point], np.ones(1), point.kind)


def average(points: Sequence[Point], kind: str) -> NoiseScale:
    """The noise scale of the training up to the last point: |G|^2 and tr(Sigma) of the points of
    this kind, each averaged over the examples seen, then divided. Its kind is `raw_average` or
    `preconditioned_average`.

    A point stands for the training from half-way to its predecessor (or from the start) to
    half-way to its successor (or its own place). Points whose gradient is not finite are left out,
    and those of fewer than FEWEST_DRAWS where there are others.
    """
    chosen = sorted(
        (p for p in points if p.kind == kind and p.finite), key=lambda p: p.examples_seen
    )
    assert chosen, f"no point of kind {kind}"
    chosen = [p for p in chosen if len(p.gradient_squared) >= FEWEST_DRAWS] or chosen
    return _estimate(chosen, _spans(chosen), kind + AVERAGE)


def _spans(points: Sequence[Point]) -> Floats:
    """The share of the training that each point stands for, shape (points,), sum 1."""
    places = np.array([p.examples_seen for p in points], np.float64)
    edges = np.concatenate([[0.0], (places[1:] + places[:-1]) / 2, places[-1:]])
    spans = np.diff(edges)
    return spans / spans.sum() if spans.sum() > 0 else np.full(len(points), 1 / len(points))


def _estimate(points: Sequence[Point], weights: Floats, kind: str) -> NoiseScale:
    squared = float(
        sum(w * np.mean(p.gradient_squared) for w, p in zip(weights, points, strict=True))
    )
    variance = float(
        sum(w * np.mean(p.gradient_variance) for w, p in zip(weights, points, strict=True))
    )
    draws = min(len(p.gradient_squared) for p in points)
    inverse = None
    if draws >= FEWEST_DRAWS and variance > 0 and all(p.finite for p in points):
        inverse = inverse_interval(points, weights)
    low, high = _turned_over(inverse)
    complaint = _complaint(squared, variance, draws, low, high)
    last = points[-1]
    return NoiseScale(
        examples_seen=last.examples_seen,
        updates=last.updates,
        batch_size=last.batch_size,
        learning_rate=last.learning_rate,
        kind=kind,
        small_batch=last.small_batch,
        large_batch=last.large_batch,
        draws=sum(len(p.gradient_squared) for p in points),
        gradient_squared=squared,
        gradient_variance=variance,
        noise_scale=variance / squared if squared > 0 and variance > 0 else None,
        low=low,
        high=high,
        useful=complaint is None,
        reason=complaint or last.note,
    )


def _turned_over(inverse: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """The interval of tr(Sigma)/|G|^2 from that of its inverse; an end at or below zero is none."""
    if inverse is None:
        return None, None
    low, high = inverse
    return 1 / high if high > 0 else None, 1 / low if low > 0 else None


def _complaint(
    squared: float, variance: float, draws: int, low: float | None, high: float | None
) -> str | None:
    """Why the interval is useless, in words; None if it is not."""
    if not (math.isfinite(squared) and math.isfinite(variance)):
        return "the gradient is not finite: the run has diverged; lower the learning rate"
    if variance <= 0:
        return "the gradients do not vary: tr(Sigma) is not above zero"
    if draws < FEWEST_DRAWS:
        return f"{draws} draws only, in the time given; an interval needs {FEWEST_DRAWS}"
    least = "" if low is None else f": the noise scale is likely above {low:.0f} examples"
    if squared <= 0:
        return f"the estimate of |G|^2 is {squared:.2g}, not above zero{least}; take more draws"
    if low is None or high is None:
        return f"|G|^2 cannot be told from zero{least}; take more draws"
    if high / low > WIDEST_USEFUL:
        return f"the interval spans a factor of {high / low:.0f}; take more draws"
    return None


def inverse_interval(points: Sequence[Point], weights: Floats) -> tuple[float, float]:
    """95 % interval of |G|^2 / tr(Sigma) by the studentized bootstrap over draws (Efron and
    Tibshirani 1993, section 12.5), each point's draws resampled among themselves.

    The percentile bootstrap covers 85 to 93 % with so few and so skewed draws.
    """
    rng = np.random.default_rng(0)
    measured = [(np.array(p.gradient_squared), np.array(p.gradient_variance)) for p in points]
    ratio, error = _ratio([(s[None], v[None]) for s, v in measured], weights)
    resampled = []
    for squared, variance in measured:
        picks = rng.integers(0, len(squared), (RESAMPLES, len(squared)))
        resampled.append((squared[picks], variance[picks]))
    ratios, errors = _ratio(resampled, weights)
    t = (ratios - ratio)[errors > 0] / errors[errors > 0]
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(t, [tail, 1 - tail]) if len(t) else (0.0, 0.0)
    return float(ratio[0] - above * error[0]), float(ratio[0] - below * error[0])


def _ratio(draws: Sequence[tuple[Floats, Floats]], weights: Floats) -> tuple[Floats, Floats]:
    """|G|^2 / tr(Sigma) of weighted means and its standard error by the delta method.

    `draws` holds per point the pair of (resamples, draws) arrays; both results are (resamples,).
    """
    squared = sum(w * s.mean(1) for w, (s, _) in zip(weights, draws, strict=True))
    variance = sum(w * v.mean(1) for w, (_, v) in zip(weights, draws, strict=True))
    ratio = squared / variance
    spread = sum(
        w**2 * (s - ratio[:, None] * v).var(1, ddof=1) / s.shape[1]
        for w, (s, v) in zip(weights, draws, strict=True)
    )
    return ratio, np.sqrt(spread) / variance
