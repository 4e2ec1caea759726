"""Which batch size to use, and by what part that may be worse than the best.

Two passes over the runs. The first, in which a run that was cut is known to have gone on beyond
its end, chooses: least expected regret among the batch sizes that may be chosen. The second counts
every cut run of a *rival* as one that reached the target just where it was cut, and asks again how
much worse the chosen one may be. That can only flatter rivals: what is said of the chosen one holds
without believing in the tail of a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tune_jobs.judging.posterior import KEPT, Bools, Draws, Floats, Ints, Layout, posterior

# A rival's cut run counts as reached no later than this many times the chosen one's typical run.
LATEST = 2.0
# Of the chance of error that is allowed, the part that a bound spends where every run was seen to
# its end, and where none was: draws are a little narrow where few runs tell the noise, most where a
# budget cut the others (decisions/0005-judging.md).
SPENT_SEEN, SPENT_CUT = 0.5, 0.15
MOST_LOG = 700.0  # the log of about the largest float


@dataclass(frozen=True)
class Problem:
    """P contests of one layout; arrays are (P, N) over runs and (P, K) over batch sizes.

    Attributes:
        value, censored, present: as `posterior` takes them.
        candidates: may be chosen; `rivals` (candidates among them) are what it may be worse than.
        shared: variance of a log median that no further run lessens: of profiled seconds.
        short: (P, K, 2) mean and variance of what a log median is over the one at the best learning
            rate; draws of it, nothing at least, are taken off.
        step: within what part of itself a crossing is known, the evaluations' grid.
        per_example: log of what an example takes, NaN where that is not known.
    """

    layout: Layout
    value: Floats
    censored: Bools
    present: Bools
    candidates: Bools
    rivals: Bools
    shared: Floats
    step: Floats
    short: Floats
    per_example: Floats


@dataclass(frozen=True)
class Regret:
    """What is known of the choice; (P,), and (P, T, K) for draws.

    Attributes:
        chosen: index of the batch size; of a contest without a candidate it says nothing.
        first, second: draws of the log medians in either pass, each at its best learning rate, what
            is shared added; `ran` those of the second at the rate that it ran at, and `over` of
            what that is short of its best one.
        raw: the first pass as it was drawn, without what is shared.
        seen: part of the runs that were seen to reach the target, (P,).
    """

    chosen: Ints
    first: Floats
    second: Floats
    ran: Floats
    over: Floats
    raw: Draws
    rivals: Bools
    seen: Floats

    def of(self, index: Ints) -> Floats:
        """Draws (P, T) of the log of a batch size's quantity over the best rival's, 0 at least."""
        return np.maximum(_at(self.second, index) - self._best(), 0.0)

    def as_told(self, index: Ints) -> Floats:
        """As `of`, of the batch size at the learning rate that it ran at: what that is short of its
        best one is lost as well."""
        return np.maximum(_at(self.ran, index) - self._best(), _at(self.over, index))

    def as_best(self, indices: Sequence[int]) -> Regret:
        """As it would be if these batch sizes had run at their best learning rates, with what they
        took."""
        known = np.isin(np.arange(self.ran.shape[2]), indices)
        return replace(
            self,
            second=np.where(known, self.ran, self.second),
            over=np.where(known, 0.0, self.over),
        )

    def _best(self) -> Floats:
        return np.asarray(np.where(self.rivals[:, None, :], self.second, np.inf).min(axis=2))


def _at(draws: Floats, index: Ints) -> Floats:
    """(P, T) of (P, T, K), at (P,)."""
    return np.take_along_axis(draws, index[:, None, None], axis=2)[..., 0]


def judged(problem: Problem, seed: int = 0, kept: int = KEPT) -> Regret:
    """Choose, and draw the regret of the choice; `kept` draws of each chain.

    Chosen is what was least at the rate that it ran at, which is the one that is told; rivals are
    each at its best rate.
    """
    chance = np.random.default_rng(seed + 1)
    first = posterior(problem.layout, problem.value, problem.censored, problem.present, seed, kept)
    ran, over, drawn = at_best_rates(problem, first, chance)
    best = np.where(problem.rivals[:, None, :], drawn, np.inf).min(axis=2, keepdims=True)
    expected = np.where(problem.candidates, (ran - best).mean(axis=1), np.inf)
    chosen = np.argmin(expected, axis=1)
    value, censored = flattered(problem, chosen)
    runs = problem.present.sum(axis=1)
    seen = (problem.present & ~problem.censored).sum(axis=1) / np.maximum(runs, 1)
    if (censored == problem.censored).all():
        return Regret(chosen, drawn, drawn, ran, over, first, problem.rivals, seen)
    second = posterior(problem.layout, value, censored, problem.present, seed, kept)
    chance = np.random.default_rng(seed + 1)
    ran, over, again = at_best_rates(problem, second, chance)
    return Regret(chosen, drawn, again, ran, over, first, problem.rivals, seen)


def at_best_rates(
    problem: Problem, draws: Draws, chance: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """The draws (P, T, K) of log medians, each batch size at the learning rate that it ran at; what
    that is short of its best one by its own trials; and the log medians at the best one.

    With tuned rates neither examples to target fall nor updates rise as the batch size grows
    (Shallue 2019): by that much a better rate may save, and no more.
    """
    drawn = with_shared(draws, problem.shared, problem.step, chance)
    mean, variance = problem.short[:, None, :, 0], problem.short[:, None, :, 1]
    over = np.maximum(mean + np.sqrt(variance) * chance.standard_normal(drawn.shape), 0.0)
    best, last = drawn - over, drawn.shape[2] - 1
    growth = np.log(np.array(problem.layout.batch_sizes, dtype=np.float64))
    up, down = [(k + 1, k) for k in range(last)], [(k, k + 1) for k in reversed(range(last))]
    for k, beside in up + down:
        dearer = problem.per_example[:, k] - problem.per_example[:, beside]
        least = best[..., beside] + (dearer + min(0.0, growth[k] - growth[beside]))[:, None]
        best[..., k] = np.fmax(best[..., k], np.minimum(drawn[..., k], least))
    return drawn, over, best


def with_shared(draws: Draws, shared: Floats, step: Floats, chance: np.random.Generator) -> Floats:
    """The draws (P, T, K) with what further runs do not average out: shared variance (P, K), and
    rounding to a `step` (P, K).

    Crossings are seen at the evaluations' grid. Noise of 0.4 steps and more spreads runs over the
    grid so that their mean is true; below that they share the rounding (the first harmonic of a
    rounded normal variable: Widrow 1961).
    """
    step, shared = step[:, None, :], shared[:, None, :]
    with np.errstate(divide="ignore", over="ignore"):
        apart = np.where(step > 0, 2 * np.pi**2 * draws.variance / np.square(step), np.inf)
    rounding = np.square(step) / 12 * np.exp(-np.minimum(apart, MOST_LOG))
    deviation = np.sqrt(shared + rounding)
    return np.asarray(draws.middle + deviation * chance.standard_normal(draws.middle.shape))


def flattered(problem: Problem, chosen: Ints) -> tuple[Floats, Bools]:
    """Values and what stays censored, every cut run of a rival counted as reached at its end.

    The chosen one's typical run is the median of its own: a draw of it would move with the ends of
    others, which the walk ties it to.
    """
    cell = problem.layout.cell
    got = ~problem.censored & problem.present
    reached = np.where(got, problem.value, -np.inf)
    of = np.eye(problem.candidates.shape[1], dtype=bool)[cell]
    slowest = np.where(of[None], reached[:, :, None], -np.inf).max(axis=1)[:, cell]
    mine = problem.present & (cell == chosen[:, None])
    middle = medians(np.where(mine, np.where(got, problem.value, np.inf), np.nan))
    rival = problem.censored & (cell != chosen[:, None])
    ends = np.minimum(problem.value, np.maximum(middle[:, None] + math.log(LATEST), slowest))
    return np.where(rival, ends, problem.value), problem.censored & ~rival


def medians(values: Floats) -> Floats:
    """(P,) the middle, or the upper of two in the middle, of (P, N) of which NaN is no value."""
    ascending = np.sort(values, axis=1)
    middle = (~np.isnan(values)).sum(axis=1)
    return np.take_along_axis(ascending, middle[:, None] // 2, axis=1)[:, 0]


def expected(regret: Floats) -> Floats:
    """By what part the choice is expected to be worse than the best (the geometric mean)."""
    return np.asarray(np.expm1(np.minimum(regret.mean(axis=-1), MOST_LOG)))


def bound(regret: Floats, confidence: float, seen: Floats) -> Floats:
    """What that part will not exceed at the confidence; `seen` as in `Regret`, one for each row."""
    spent = SPENT_CUT + (SPENT_SEEN - SPENT_CUT) * seen
    levels = np.broadcast_to(1 - spent * (1 - confidence), regret.shape[:-1])
    most = np.array([np.quantile(row, level) for row, level in zip(regret, levels, strict=True)])
    return np.asarray(np.expm1(np.minimum(most, MOST_LOG)))


def risk(regret: Floats, log_tolerance: float) -> Floats:
    """The chance that the choice is worse than the best by more than the tolerance."""
    return np.asarray((regret > log_tolerance).mean(axis=-1))
