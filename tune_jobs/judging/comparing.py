"""Batch sizes against each other: by how much one is slower than another, and how surely.

Runs that share a seed share its data order and initial weights, and with them part of their luck.
Differences are therefore taken in a two-way layout, run = batch size + seed + noise, with seeds as
random effects, so that each pair is compared on its shared seeds and on what it has beyond them.
Batch sizes with censored runs are compared by likelihood, unpaired, which errs on the careful side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from tune_jobs.judging.censoring import Deviance, deviance
from tune_jobs.judging.intervals import Typical
from tune_jobs.judging.samples import Sample
from tune_jobs.judging.spread import Bools, Floats, Ints, Spread, moderated


@dataclass(frozen=True)
class Comparison:
    """All pairs of K batch sizes on the log scale.

    Attributes:
        middle: (K,) typical log values, seeds taken into account; infinite if all are censored.
        difference: (K, K), row minus column; `error` is its standard error, NaN for a pair that is
            compared by likelihood; `freedom` its degrees of freedom, 0 when nothing is known.
        shared: (K, K), the part of `error`^2 that no further seed lessens.
        deviance: of each batch size, for pairs that are compared by likelihood; `known_roots` are
            what was made of them, by shift.
    """

    middle: Floats
    difference: Floats
    error: Floats
    freedom: Floats
    shared: Floats
    deviance: tuple[Deviance | None, ...]
    known_roots: dict[float, Floats] = field(default_factory=dict, compare=False, repr=False)

    def worse_by(self, shift: float, growth: float = 1.0) -> Floats:
        """(K, K): how probable it is that row is over column by more than `shift`.

        A one-sided p value of the reverse (equivalently a posterior under a flat prior). `growth`
        asks how it would be with so many times the seeds and the same differences. The diagonal is
        NaN, as is everything of which nothing is known.
        """
        variance = (self.error**2 - self.shared) / growth + self.shared
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (self.difference - shift) / np.sqrt(variance)
            found = stats.t.cdf(t, np.where(self.freedom > 0, self.freedom * growth, np.nan))
        likely = np.isnan(self.error) & (self.freedom > 0)
        if likely.any():
            roots = self._roots(shift, likely)[likely] * math.sqrt(growth)
            found[likely] = stats.t.cdf(roots, self.freedom[likely] * growth)
        np.fill_diagonal(found, np.nan)
        return np.asarray(found, dtype=np.float64)

    def _roots(self, shift: float, pairs: Bools) -> Floats:
        """(K, K): signed roots of the deviance that `row = column + shift` costs."""
        if shift not in self.known_roots:
            roots = np.zeros_like(self.difference)
            for i, j in np.argwhere(pairs & ~np.eye(len(roots), dtype=bool)):
                roots[i, j] = self._root(int(i), int(j), shift)
            self.known_roots[shift] = roots
        return self.known_roots[shift]

    def _root(self, i: int, j: int, shift: float) -> float:
        mine, other = self.deviance[i], self.deviance[j]
        assert mine is not None and other is not None, "tabulated where a run is censored"
        places = np.concatenate([mine.at - shift, other.at])
        lost = float((mine(places + shift) + other(places)).min())
        over = _minus(self.middle[i], self.middle[j]) > shift
        return math.sqrt(lost) if over else -math.sqrt(lost)


def _minus(left: float, right: float) -> float:
    """left - right; 0 where both are infinite."""
    return 0.0 if left == right else float(left - right)


def compared(sample: Sample, of: Typical, layout: Layout, extra: Floats) -> Comparison:
    """Every pair of batch sizes. `extra` (K,) is variance that a batch size's runs share."""
    k = len(sample)
    whole = np.isfinite(layout.middle)
    middle = np.where(whole, layout.middle, of.located.middle)
    with np.errstate(invalid="ignore"):
        difference = np.where(np.isfinite(middle[:, None] - middle), middle[:, None] - middle, 0.0)
    between = extra[:, None] + extra
    freedom = np.where(np.isnan(layout.error), _least(of.located.spread), layout.freedom)
    tables: tuple[Deviance | None, ...] = (None,) * k
    if not whole.all() and of.located.spread.known:
        tables = tuple(_tabulated(sample, of, extra, i) for i in range(k))
    error = np.sqrt(layout.error**2 + between)
    return Comparison(middle, difference, error, freedom, between, tables)


def _least(spread: Spread) -> Floats:
    """(K, K): the smaller degrees of freedom of each pair."""
    return np.minimum(spread.freedom[:, None], spread.freedom)


def _tabulated(sample: Sample, of: Typical, extra: Floats, index: int) -> Deviance:
    """The deviance of one batch size, its shared variance spread over its runs."""
    runs = max(1, int(sample.runs[index]))
    variance = float(of.located.spread.variance[index]) + runs * float(extra[index])
    return deviance(sample.of(index), float(of.located.middle[index]), math.sqrt(variance))


@dataclass(frozen=True)
class Layout:
    """The two-way layout: (K,) middles, (K, K) standard errors and degrees of freedom.

    NaN for batch sizes left out. `correlation` is the part of the variance that seeds share.
    """

    middle: Floats
    error: Floats
    freedom: Floats
    correlation: float


def two_way(sample: Sample) -> Layout:
    """Middles and errors of their differences, over the batch sizes without a censored run."""
    kept = (sample.observed == sample.runs) & (sample.runs > 0)
    k, mine = len(sample), kept[sample.cell]
    cell, seed, value = sample.cell[mine], sample.seed[mine], sample.value[mine]
    nothing = np.full((k, k), np.nan)
    if not mine.any():
        return Layout(np.full(k, np.nan), nothing, nothing, 0.0)
    sizes = np.eye(k)[cell][:, kept]
    repeated = np.flatnonzero(np.bincount(seed) > 1)
    seeds = (seed[:, None] == repeated).astype(np.float64)
    noise = _residual_spread(np.hstack([sizes, seeds]), value, np.cumsum(kept)[cell] - 1)
    if not noise.known:
        means = np.bincount(cell, value, k) / np.maximum(np.bincount(cell, minlength=k), 1)
        return Layout(np.where(kept, means, np.nan), nothing, np.where(kept, 0.0, np.nan), 0.0)
    ratio, correlation = _seed_effect(sizes, seeds, value, noise)
    weights = np.eye(len(value)) - seeds * (ratio / (1 + ratio * seeds.sum(0))) @ seeds.T
    estimator = np.linalg.solve(sizes.T @ weights @ sizes, sizes.T @ weights)
    common = float(np.mean(noise.variance))
    error, freedom = _pair_errors(estimator, sizes, seeds, noise, ratio * common)
    full = np.ix_(kept, kept)
    errors, freedoms, middle = nothing.copy(), nothing.copy(), np.full(k, np.nan)
    errors[full], freedoms[full], middle[kept] = error, freedom, estimator @ value
    return Layout(middle, errors, freedoms, correlation)


def _residual_spread(design: Floats, value: Floats, cell: Ints) -> Spread:
    """Moderated variance of each batch size's residuals about the design's least-squares fit."""
    basis, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, singular > 1e-9 * singular[0]]
    residual = value - basis @ (basis.T @ value)
    free = 1 - (basis**2).sum(1)
    freedom = np.bincount(cell, free).astype(np.float64)
    freedom = np.where(freedom > 1e-9, freedom, 0.0)
    squares = np.bincount(cell, residual**2)
    return moderated(np.where(freedom > 0, squares / np.maximum(freedom, 1e-9), 0.0), freedom)


def _seed_effect(sizes: Floats, seeds: Floats, value: Floats, noise: Spread) -> tuple[float, float]:
    """Variance of the seeds' common effect over the noise's, and the correlation that it makes.

    By the method of moments: what the batch sizes' runs vary more than the two-way residuals do.
    """
    shared = seeds.any(1)
    if not shared.any():
        return 0.0, 0.0
    counts = sizes[shared].sum(0)
    free = float((counts - (counts > 0)).sum())
    if free <= 0:
        return 0.0, 0.0
    means = sizes[shared].T @ value[shared] / np.maximum(counts, 1)
    total = float(((value[shared] - sizes[shared] @ means) ** 2).sum()) / free
    common = float(np.mean(noise.variance))
    ratio = max(0.0, total / common - 1)
    return ratio, ratio / (1 + ratio)


def _pair_errors(
    estimator: Floats, sizes: Floats, seeds: Floats, noise: Spread, seed_variance: float
) -> tuple[Floats, Floats]:
    """(K, K) standard errors of differences, and their degrees of freedom by Satterthwaite."""
    contrast = estimator[:, None, :] - estimator[None, :, :]
    parts = (contrast**2) @ sizes * noise.variance
    effects = (contrast @ seeds) ** 2
    by_seed = effects.sum(-1, keepdims=True) * seed_variance
    free = np.append(noise.freedom, max(1, seeds.shape[1] - 1))
    every = np.concatenate([parts, by_seed], axis=-1)
    variance = every.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / (every**2 / free).sum(-1)
    return np.sqrt(variance), np.where(np.isnan(freedom), 1.0, freedom)
