"""What it would take to know better: how many further runs, what they cost, and when that pays.

For every draw of what is true, the further runs are imagined and the answer given again; so many
runs are enough that an answer stands in four of five draws. A later training gains at the most what
the answer is expected to be short of the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from scipy import special

from tune_jobs.judging import regret as regrets
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import Floats
from tune_jobs.judging.rate_luck import Shortfall
from tune_jobs.judging.samples import TIME
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Settling

BLOCKS = (3, 5, 8, 13, 20, 32, 50)  # runs of a batch size, in all, after a further block
ENOUGH = 0.8
DRAWS = 2000
WIDE = 0.15  # a bound that further trials and seeds are made for, where they make it tighter
MATTERS = 0.9  # of the bound, what is left of it at the best rates, for searching them to pay
RATES = 9  # tried at one batch size: a further one is far from its best, or near to one of them
LONGEST = 1.5  # a run is worth no more than so many times the one to use: it ends there


def settling_of(
    contest: Contest, policy: Policy, short: Mapping[int, Shortfall] | None = None
) -> Settling | None:
    """None where nothing is open, or there is nothing to compare with; `short` as `hold` takes
    it. Where the batch size stands, its learning rate may be open."""
    decision = contest.decision
    if decision.used is None:
        return None
    everyone = sorted({decision.used, *decision.open, *decision.tied})
    unsure = _unsure_rates(contest.sizes(everyone), short or {}, policy)
    rates = _telling(contest, [s for s in unsure if (short or {})[s].tried < RATES], policy)
    if decision.status not in ("undecided", "unproven"):
        return Settling((), None, None, None, None, rates) if rates else None
    if len(everyone) < 2:
        return None
    slower = [i for i in slower_as_run(contest, policy) if contest.size(i) in unsure]
    alive = sorted(set(everyone) - set(slower))
    sizes = contest.sizes(alive)
    if any(ended_early(contest, index) for index in decision.open):
        need: int | None = None  # further runs would end as early
    elif contest.regret is None:
        need = next((n for n in BLOCKS if n > contest.seeds[alive].min()), None)
    else:
        need = seeds_needed(contest, everyone, alive, policy)
    seconds = None if need is None else _device_seconds(contest, alive, need)
    trainings = _trainings(contest, seconds)
    worth = None if trainings is None else trainings <= policy.trainings_to_come
    return Settling(sizes, need, seconds, trainings, worth, rates, _tightens(contest, alive))


def _tightens(contest: Contest, alive: Sequence[int]) -> bool:
    """Whether the scatter of the runs of one that is `alive` is half of what they share at the
    least."""
    if contest.regret is None:
        return False
    scatter = contest.regret.raw.variance[0][:, alive].mean(axis=0) / contest.seeds[alive]
    return bool((2 * scatter > contest.shared[alive]).any())


def _unsure_rates(
    sizes: Sequence[int], short: Mapping[int, Shortfall], policy: Policy
) -> tuple[int, ...]:
    """Those whose best rate may save half the tolerance and more, by the root mean square."""
    least = (policy.log_tolerance / 2) ** 2
    return tuple(s for s in sizes if s in short and short[s].mean ** 2 + short[s].variance > least)


def _telling(contest: Contest, unsure: Sequence[int], policy: Policy) -> tuple[int, ...]:
    """Of batch sizes whose best rates are not known, those that a WIDE bound is wide by: none where
    it would be hardly less had they all run at them, else each by which it falls half as much as by
    the one that matters most."""
    found, used = contest.regret, contest.decision.used
    if found is None or used is None or not unsure:
        return ()

    def bound(of: regrets.Regret) -> float:
        return float(regrets.bound(of.as_told(np.array([used])), policy.confidence, of.seen)[0])

    at = {size: contest.batch_sizes.index(size) for size in unsure}
    now = bound(found)
    if bound(found.as_best(list(at.values()))) > MATTERS * now or now <= WIDE:
        return ()
    falls = {size: now - bound(found.as_best([index])) for size, index in at.items()}
    return tuple(s for s in unsure if falls[s] >= max(falls.values()) / 2)


def slower_as_run(contest: Contest, policy: Policy) -> list[int]:
    """Those that are open and were each slower at the learning rate that they ran at, by the level
    of a look. Where that rate is not known well, it is what keeps them open, and further runs tell
    nothing of it."""
    of, found = contest.decision, contest.regret
    if found is None or of.used is None or not of.open:
        return []
    ran = found.ran[0][:, of.open] - found.ran[0][:, [of.used]]
    better = (ran < -policy.log_tolerance).mean(axis=0)
    return [i for i, chance in zip(of.open, better, strict=True) if chance <= _level(policy)]


def _level(policy: Policy) -> float:
    """The risk that is allowed at a later look, by which further runs are judged."""
    return replace(policy, looks=1).risk_allowed


def ended_early(contest: Contest, index: int) -> bool:
    """Whether most runs of a batch size were cut, sooner than the one to use takes."""
    sample, used = contest.sample, contest.decision.used
    if used is None or 2 * sample.observed[index] > sample.runs[index]:
        return False
    ends = sample.value[(sample.cell == index) & sample.known]
    return bool(len(ends) and np.median(ends) < contest.typical.median[used])


def seeds_needed(
    contest: Contest, everyone: Sequence[int], alive: Sequence[int], policy: Policy
) -> int | None:
    """Runs in all of each batch size that is `alive`, of `everyone` who may be best, after which an
    answer stands in ENOUGH of the draws; None where not even the most of BLOCKS would do."""
    found = contest.regret
    assert found is not None, "something was repeated"
    every = np.linspace(0, found.first.shape[1] - 1, DRAWS).astype(int)
    middle, noise = found.first[0][every][:, everyone], found.raw.variance[0][every][:, everyone]
    have, goes_on = contest.seeds[list(everyone)], np.isin(everyone, alive)
    luck = np.random.default_rng(0).standard_normal(middle.shape)
    for total in BLOCKS:
        runs = np.where(goes_on, np.maximum(have, total), have)
        if (runs == have).all():
            continue
        error = noise / runs + contest.shared[list(everyone)]
        seen = middle + np.sqrt(error) * luck
        if _stands(seen, error, policy.log_tolerance, _level(policy)) >= ENOUGH:
            return total
    return None


def _stands(seen: Floats, error: Floats, log_tolerance: float, level: float) -> float:
    """Part of the draws in which the best that is seen (T, K) is shown to be near enough."""
    best = np.argmin(seen, axis=1)[:, None]
    short = seen - np.take_along_axis(seen, best, axis=1) + log_tolerance
    between = np.sqrt(error + np.take_along_axis(error, best, axis=1))
    risks = special.ndtr(-short / between)
    np.put_along_axis(risks, best, 0.0, axis=1)
    return float((risks.sum(axis=1) <= level).mean())


def _device_seconds(contest: Contest, alive: Sequence[int], total: int) -> float | None:
    """What the further runs take: each its typical seconds, ended where it has lost."""
    seconds = [_typical_seconds(contest, i) for i in alive]
    known = [s for s in seconds if s is not None]
    if len(known) < len(seconds):
        return None
    limit = LONGEST * min(known)
    further = [max(0, total - int(contest.seeds[i])) for i in alive]
    return sum(n * min(s, limit) for n, s in zip(further, known, strict=True))


def _typical_seconds(contest: Contest, index: int | None) -> float | None:
    of = [r for r in contest.runs if r.batch_size == contest.size(index)]
    taken = [s for run in of if (s := _seconds(run)) is not None]
    return median(taken) if taken else None


def _seconds(run: TargetRun) -> float | None:
    return TIME.of(run) or run.train_seconds


def _trainings(contest: Contest, seconds: float | None) -> int | None:
    """How many trainings the saving has to be made in; None where it is not known."""
    used, found = contest.decision.used, contest.regret
    mine = _typical_seconds(contest, used)
    if seconds is None or mine is None or contest.quantity.name != TIME.name:
        return None
    if used is None or found is None:
        return None
    short = float(regrets.expected(found.of(np.array([used])))[0])  # seeds mend no learning rate
    if not short * mine > 0 or not math.isfinite(seconds / (short * mine)):
        return None
    return max(1, math.ceil(float(f"{seconds / (short * mine):.2g}")))
