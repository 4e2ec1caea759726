"""What follows from the regret: the batch size to use, how sure that is, and who is still open.

*tied* are batch sizes shown to be equal to the one to use, within the tolerance; *open* those that
may or may not be worse. An answer stands (`decided`, `tied`) when the chance that the batch size to
use is worse than the best by more than the tolerance is at most what the look allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tune_jobs.judging import regret as regrets
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import Bools, Floats
from tune_jobs.judging.regret import Regret

# Of the chance of error that is allowed, the part in which one may wrongly be told to be slower:
# half of it, and less since draws are a little narrow. Of two equals, one is in 2 to 6 % (with half
# of it in 5 to 8 %).
TOLD = 0.3


@dataclass(frozen=True)
class Field:
    """Who takes part, all (K,).

    Attributes:
        may_be_used: reached the target in most runs, one at least.
        candidates: of these, with enough runs for an answer to be made of.
        rivals: something is known of them.
        reached: part of the runs that reached the target; `whole` says that none was cut.
        memory: where it is known of all, else the batch size: the least among equals wins.
        equal_by: typical values of the other goals that are known, less being better.
    """

    may_be_used: Bools
    candidates: Bools
    rivals: Bools
    reached: Floats
    whole: Bools
    memory: Floats
    equal_by: tuple[Floats, ...]


@dataclass(frozen=True)
class Decision:
    """Indices into the sample's batch sizes; see verdicts.Verdict for the meaning of each.

    `expected`, `bound` (K,) are regrets as parts, NaN where nothing was repeated; `slower` (K,) are
    told to be worse than the one to use.
    """

    status: str
    used: int | None
    tied: tuple[int, ...]
    open: tuple[int, ...]
    slower: Bools
    expected: Floats
    bound: Floats
    risk: float | None


def decide(found: Regret, field: Field, median: Floats, policy: Policy) -> Decision:
    """The decision of a contest in which something was repeated."""
    k = len(field.rivals)
    draws = found.second[0]
    leading = int(found.chosen[0])
    over = draws - draws[:, [leading]]
    equal = (np.abs(over) <= policy.log_tolerance).mean(axis=0) >= policy.confidence
    slower = (over > 0).mean(axis=0) >= 1 - TOLD * (1 - policy.confidence)
    each = np.stack([found.of(np.array([i]))[0] for i in range(k)])
    told_of = np.stack([found.as_told(np.array([i]))[0] for i in range(k)])
    risk = regrets.risk(each, policy.log_tolerance)
    whole = equal & field.candidates & field.whole
    alike = [int(i) for i in np.flatnonzero(whole) if i != leading]
    used = leading
    if risk[leading] <= policy.risk_allowed:
        fit = [i for i in alike if risk[i] <= policy.risk_allowed]
        used = _of_equals([leading, *fit], median, field, policy)
    sure = risk[used] <= policy.risk_allowed
    if not sure:
        # Whoever has a part in the risk that leaves the answer open is open.
        better = (over < -policy.log_tolerance).mean(axis=0)
        slower &= better * max(1, field.rivals.sum() - 1) <= policy.risk_allowed
    tied = tuple(int(i) for i in sorted({leading, *alike} - {used}))
    told = np.array([slower[i] or not field.rivals[i] for i in range(k)])
    open_ones = tuple(int(i) for i in np.flatnonzero(~told) if i not in (used, *tied))
    status = "undecided" if not sure else "tied" if tied else "decided"
    return Decision(
        status=status,
        used=used,
        tied=tied,
        open=open_ones,
        slower=told,
        expected=np.where(field.rivals, regrets.expected(told_of), np.nan),
        bound=np.where(field.rivals, regrets.bound(told_of, policy.confidence, found.seen), np.nan),
        risk=float(risk[used]),
    )


def _of_equals(equals: list[int], median: Floats, field: Field, policy: Policy) -> int:
    """The least memory, of those that no goal would pass over for another of them."""
    if len(equals) == 1:
        return equals[0]
    fit = set(equals)
    for values in (np.exp(median - median[equals[0]]), *field.equal_by):
        if all(math.isfinite(values[i]) for i in equals):
            most = min(values[i] for i in equals) * (1 + policy.tolerance)
            fit &= {i for i in equals if values[i] <= most}
    return min(fit or {equals[0]}, key=lambda i: (field.memory[i], i))


def decide_unproven(field: Field, median: Floats) -> Decision:
    """Nothing was repeated, or nothing that reached the target in most runs: the best there is."""
    k = len(median)
    nothing = np.full(k, np.nan)
    told = np.zeros(k, dtype=bool)
    some = np.flatnonzero((field.reached > 0) & field.rivals)
    if not len(some):
        return Decision("unreached", None, (), (), told, nothing, nothing, None)
    pool = [i for i in some if field.may_be_used[i]] or list(some)
    used = int(min(pool, key=lambda i: (-field.reached[i], median[i], i)))
    if field.may_be_used.any():
        used = int(min(pool, key=lambda i: (median[i], i)))
    others = tuple(int(i) for i in np.flatnonzero(field.rivals) if i != used)
    return Decision("unproven", used, (), others, told, nothing, nothing, None)
