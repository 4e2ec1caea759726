"""Which batch sizes may be called the best: told apart, tied, known to be close enough, or open.

Two statements are kept apart, each at the policy's confidence:

- *slower*: batch size b is told from the best if some other is faster, b compared with all others
  (Hsu 1984, "Constrained simultaneous confidence intervals for multiple comparisons with the
  best"; Bonferroni over the K - 1 rivals. Only one batch size is the best, so that over b nothing
  needs correcting).
- *within the tolerance*: the chances that b is worse than some rival by more than the tolerance
  add up to little. Only such a batch size is recommended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tune_jobs.judging.comparing import Comparison
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.spread import Bools, Floats

FEWEST_SEEDS = 2
NEGLIGIBLE = 0.04
MOST_SEEDS = 400  # further seeds than this are no advice


@dataclass(frozen=True)
class Field:
    """Who takes part, all (K,).

    Attributes:
        candidates: may be recommended: the target reached in most runs, the quantity known.
        rivals: have to be beaten or equalled; candidates and those of which too little is known.
        seeds: runs of each.
        cost_of_choice: memory where it is known, else the batch size: the least among equals wins.
    """

    candidates: Bools
    rivals: Bools
    seeds: Floats
    cost_of_choice: Floats


@dataclass(frozen=True)
class Decision:
    """Indices into the sample's batch sizes; see records.Verdict for the meaning of each."""

    status: str
    recommended: int | None
    tied: tuple[int, ...]
    leading: int | None
    slower: Bools
    within: Bools
    risk: Floats
    more_seeds: int | None
    open_pair: tuple[int, int] | None


def decide(comparison: Comparison, field: Field, policy: Policy) -> Decision:
    """The standing of every batch size and what follows from it."""
    slower = told_slower(comparison, field, policy)
    risk = risks(comparison, field, policy)
    within = (
        field.candidates & (field.seeds >= FEWEST_SEEDS) & shown_within(comparison, field, policy)
    )
    if not field.candidates.any():
        return Decision("unreached", None, (), None, slower, within, risk, None, None)
    middle = np.where(field.candidates, comparison.middle, np.inf)
    leading = int(np.argmin(middle))
    near = middle - middle[leading] <= policy.log_tolerance
    alike = field.candidates & (~slower | near | within)
    tied = tuple(int(i) for i in np.flatnonzero(alike))
    fit = [i for i in tied if within[i]]
    if not fit:
        more, pair = seeds_needed(comparison, field, policy, leading)
        return Decision("undecided", None, tied, leading, slower, within, risk, more, pair)
    status = "decided" if len(tied) == 1 else "tied"
    chosen = min(fit, key=lambda i: (field.cost_of_choice[i], i))
    return Decision(status, chosen, tied, leading, slower, within, risk, None, None)


def told_slower(comparison: Comparison, field: Field, policy: Policy) -> Bools:
    """Batch sizes that are told from the best (K,); all that are no rivals count as told."""
    against = max(1, int(field.rivals.sum()) - 1)
    chance = 1 - comparison.worse_by(0.0)
    told = np.where(np.isnan(chance), np.inf, chance) <= policy.error / 2 / against
    return np.asarray((told & field.rivals).any(1) | ~field.rivals)


def risks(comparison: Comparison, field: Field, policy: Policy, growth: float = 1.0) -> Floats:
    """Bound on the probability of being worse than the best by more than the tolerance (K,)."""
    chances = _over_rivals(comparison.worse_by(policy.log_tolerance, growth), field)
    return np.asarray(chances.sum(1), dtype=np.float64)


def shown_within(
    comparison: Comparison, field: Field, policy: Policy, growth: float = 1.0
) -> Bools:
    """Whether a batch size is shown to be within the tolerance of the best (K,).

    The risk must be small, and small beside the chance that the choice matters at all: that some
    rival is no worse than the tolerance allows. Otherwise noise much larger than the tolerance
    would now and then, by luck alone, single out a batch size, and of those few answers many would
    be wrong. A risk under NEGLIGIBLE needs no such comparison.
    """
    risk = risks(comparison, field, policy, growth)
    near = _over_rivals(comparison.worse_by(-policy.log_tolerance, growth), field)
    limit = policy.error * np.clip(2 * near.max(1, initial=0.0), NEGLIGIBLE, 1.0)
    return np.asarray(risk <= limit)


def _over_rivals(chances: Floats, field: Field) -> Floats:
    """Chances against rivals alone; unknown ones are certain to be bad."""
    others = field.rivals & ~np.eye(len(field.rivals), dtype=bool)
    return np.where(others, np.where(np.isnan(chances), 1.0, chances), 0.0)


def seeds_needed(
    comparison: Comparison, field: Field, policy: Policy, leading: int
) -> tuple[int | None, tuple[int, int] | None]:
    """About how many further seeds would show the leading batch size within the tolerance.

    Were all differences and the noise as they are now. None for the number when it is over
    MOST_SEEDS or when the noise is unknown; the pair is the leading one and its worst rival.
    """
    chances = _over_rivals(comparison.worse_by(policy.log_tolerance), field)[leading]
    if not (chances > 0).any():
        return None, None
    rival = int(np.argmax(chances))
    pair = (min(leading, rival), max(leading, rival))
    runs = float(field.seeds[field.rivals].min())
    enough = [k for k in _steps() if shown_within(comparison, field, policy, 1 + k / runs)[leading]]
    return (enough[0] if enough else None), pair


def _steps() -> list[int]:
    return sorted({math.ceil(1.15**i) for i in range(round(math.log(MOST_SEEDS, 1.15)))})
