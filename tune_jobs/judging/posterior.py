"""What the runs say of each batch size's typical run: draws from its posterior.

    y = mu_k + seed_j + noise_k          y the log of the quantity of a run

mu is a random walk over batch sizes (neighbours are alike), seeds that several batch sizes share
have an effect in common, and every batch size has noise of its own whose variance borrows from the
others (scaled inverse chi-squared; how much is borrowed is drawn as well). A run that was cut
before it reached the target is drawn from beyond where it was cut. Gibbs sampling in numpy: 64
chains, the same numbers for the same runs. decisions/0005-judging.md says what this was chosen
over, and how well it holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CHAINS, WARM_UP, KEPT = 64, 60, 160
QUICKLY = 80  # kept of each chain for what is shown beside an answer
WALK = 0.5  # standard deviation of mu's steps, a doubling of the batch size
BORROWED = np.array([3.0, 5.0, 8.0, 15.0, 40.0])  # degrees of freedom of the common variance
SEED_FREEDOM, SEED_PART = 2.0, 0.3  # prior of the seeds' variance, as a part of the noise's
# No run is taken to be known better than this, whatever its repeats say (log scale).
LEAST_DEVIATION = 1e-3
FAR = 30.0  # deviations beyond which a normal's tail is drawn as an exponential


@dataclass(frozen=True)
class Layout:
    """Which runs there are: N runs of K batch sizes.

    Attributes:
        batch_sizes: (K,), ascending.
        cell: (N,) index of a run's batch size; `seed` (N,) of its seed.
    """

    batch_sizes: tuple[int, ...]
    cell: Ints
    seed: Ints


@dataclass(frozen=True)
class Draws:
    """T draws for each of P problems: `middle` the log medians mu, `variance` of one run's noise;
    both (P, T, K)."""

    middle: Floats
    variance: Floats


def posterior(
    layout: Layout,
    value: Floats,
    censored: Bools,
    present: Bools | None = None,
    seed: int = 0,
    kept: int = KEPT,
) -> Draws:
    """Draws for P problems of one layout.

    Args:
        value: (P, N) logs; of a run that is `censored` (P, N) what it is known to exceed.
        present: (P, N), which runs there are; all where None.
        seed: of the sampler. The same runs give the same draws.
        kept: draws of each of the CHAINS.
    """
    chains = _Chains(layout, value, censored, present, np.random.default_rng(seed))
    for _ in range(WARM_UP):
        chains.step()
    middle, variance = zip(*(chains.step() for _ in range(kept)), strict=True)
    shape = (len(value), CHAINS * kept, len(layout.batch_sizes))

    def by_problem(steps: tuple[Floats, ...]) -> Floats:
        return np.stack(steps, axis=1).reshape(shape)

    return Draws(by_problem(middle), by_problem(variance))


class _Chains:
    """The state of all chains of all problems, B = P x CHAINS of them."""

    def __init__(
        self,
        layout: Layout,
        value: Floats,
        censored: Bools,
        present: Bools | None,
        chance: np.random.Generator,
    ) -> None:
        there = np.ones(value.shape, dtype=bool) if present is None else present
        self.chance, self.cell = chance, layout.cell
        self.runs = np.repeat(there, CHAINS, axis=0).astype(np.float64)
        self.cut = np.repeat(censored & there, CHAINS, axis=0)
        self.limit = np.repeat(np.where(there, value, 0.0), CHAINS, axis=0)
        sizes = np.log2(np.array(layout.batch_sizes, dtype=np.float64))
        self.of_size = np.eye(len(sizes))[layout.cell]
        self.of_seed = np.eye(int(layout.seed.max(initial=-1)) + 1)[layout.seed]
        shared = (self.of_seed.T @ self.of_size > 0).sum(1) > 1
        self.of_seed = self.of_seed[:, shared]
        self.walk = _walk(sizes)
        self.count = self.runs @ self.of_size
        self.value = self.limit + self.cut * 0.1
        self.middle = (self.value * self.runs) @ self.of_size / np.maximum(self.count, 1)
        self.seeds = np.zeros((len(self.runs), self.of_seed.shape[1]))
        self.seed_variance = np.full(len(self.runs), 0.01)
        start = np.exp(chance.uniform(math.log(1e-3), math.log(0.1), len(self.runs)))
        self.common, self.borrowed = start, np.full(len(self.runs), 8.0)
        self.variance = np.repeat(start[:, None], len(sizes), axis=1)

    def step(self) -> tuple[Floats, Floats]:
        """One round over all that is unknown."""
        self._cut_runs()
        self._middles()
        if self.seeds.shape[1]:
            self._seed_effects()
        self._variances()
        return self.middle, self.variance

    def _expected(self) -> Floats:
        return np.asarray(self.middle[:, self.cell] + self.seeds @ self.of_seed.T)

    def _cut_runs(self) -> None:
        """A cut run's value, from beyond its limit."""
        if not self.cut.any():
            return
        rows = np.nonzero(self.cut)
        expected = self._expected()[rows]
        deviation = np.sqrt(self.variance[:, self.cell][rows])
        above = (self.limit[rows] - expected) / deviation
        drawn = expected + deviation * _beyond(above, self.chance.random(above.shape))
        self.value[rows] = np.maximum(drawn, self.limit[rows])

    def _middles(self) -> None:
        """mu given all else: normal, its precision (tridiagonal) the walk's and the runs'."""
        left = (self.value - self.seeds @ self.of_seed.T) * self.runs
        pull = (left @ self.of_size / self.variance).T
        diagonal = (self.count / self.variance + self.walk.diagonal()).T
        beside = self.walk.diagonal(1)
        noise = self.chance.standard_normal(pull.shape)
        # Cholesky: precision = L L^T, then mu = L^-T (L^-1 pull + noise).
        sizes = len(pull)
        root, under, half = np.empty_like(pull), np.empty_like(pull), np.empty_like(pull)
        for k in range(sizes):
            before = under[k - 1] if k else 0.0
            root[k] = np.sqrt(diagonal[k] - before * before)
            half[k] = (pull[k] - (before * half[k - 1] if k else 0.0)) / root[k]
            if k + 1 < sizes:
                under[k] = beside[k] / root[k]
        half += noise
        middle = half / root
        for k in range(sizes - 2, -1, -1):
            middle[k] -= under[k] * middle[k + 1] / root[k]
        self.middle = middle.T

    def _seed_effects(self) -> None:
        """Each seed's effect, then their common level (moved into mu), then their variance."""
        inverse = self.runs / self.variance[:, self.cell]
        left = (self.value - self.middle[:, self.cell]) * inverse
        precision = inverse @ self.of_seed + 1 / self.seed_variance[:, None]
        drawn = self.chance.standard_normal(self.seeds.shape)
        self.seeds = left @ self.of_seed / precision + drawn / np.sqrt(precision)
        number = self.seeds.shape[1]
        # Runs whose seed no other batch size has know the level as well: of mu alone.
        alone = 1 - self.of_seed.sum(1)
        precision = number / self.seed_variance + inverse @ alone
        level = (self.seeds.sum(1) / self.seed_variance + left @ alone) / precision
        level = level + self.chance.standard_normal(len(level)) / np.sqrt(precision)
        self.seeds, self.middle = self.seeds - level[:, None], self.middle + level[:, None]
        scale = SEED_FREEDOM * SEED_PART * self.common + (self.seeds**2).sum(1)
        self.seed_variance = scale / self.chance.chisquare(SEED_FREEDOM + number, len(scale))

    def _variances(self) -> None:
        """Each batch size's noise, the variance they have in common, and how much is borrowed."""
        left = (self.value - self._expected()) * self.runs
        squares = left**2 @ self.of_size
        weight, common = self.borrowed[:, None], self.common[:, None]
        chi = self.chance.chisquare(weight + self.count)
        self.variance = np.maximum((weight * common + squares) / chi, LEAST_DEVIATION**2)
        k = self.variance.shape[1]
        inverse = (1 / self.variance).sum(1)
        # Flat in the logarithm of the common variance; the seeds' prior scales with it.
        shape, rate = k * self.borrowed / 2, self.borrowed / 2 * inverse
        if self.seeds.shape[1]:
            shape = shape + SEED_FREEDOM / 2
            rate = rate + SEED_FREEDOM * SEED_PART / 2 / self.seed_variance
        self.common = np.maximum(self.chance.standard_gamma(shape) / rate, LEAST_DEVIATION**2)
        half = BORROWED / 2
        logs = np.log(self.common)[:, None] - np.log(self.variance).mean(1)[:, None]
        ratio = (self.common * inverse)[:, None]
        told = k * (half * (np.log(half) + logs) - special.gammaln(half)) - half * ratio
        gumbel = -np.log(-np.log(self.chance.random(told.shape)))
        self.borrowed = BORROWED[np.argmax(told + gumbel, axis=1)]


def _walk(sizes: Floats) -> Floats:
    """(K, K): the precision of a random walk over log2 batch sizes, its level unknown."""
    k = len(sizes)
    steps = np.diff(np.eye(k), axis=0)
    if k == 1:
        return np.zeros((1, 1))
    return np.asarray(steps.T @ (steps / (WALK**2 * np.diff(sizes))[:, None]))


def _beyond(above: Floats, uniform: Floats) -> Floats:
    """Standard normal draws given that they are over `above`."""
    near = np.minimum(above, FAR)
    drawn = -special.ndtri(special.ndtr(-near) * (1 - uniform))
    return np.where(above > FAR, above - np.log1p(-uniform) / np.maximum(above, 1.0), drawn)
