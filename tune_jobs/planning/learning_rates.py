"""Which batch size to try next, at which learning rate: a pure function of the rows so far.

What all trials say of all batch sizes' valleys (`judging/valley.py`) is one model; a proposal is a
draw from it (Thompson 1933): of each batch size's best seconds, whose least names the batch size,
then of where its best rate lies. So trials go to what may still win, at rates that may still be
best, and end once they have taken twice as long as the fastest. One proposal in five is TPE's own,
over the base rates of all batch sizes together, told how far each was from its own batch size's
best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.judging.valley import Tried, Valley, valleys
from tune_jobs.planning import shares
from tune_jobs.planning.known import (
    Known,
    Proposal,
    by_what_was_reached,
    count_of,
    rates_of,
)
from tune_jobs.planning.search_plan import Range, learning_rate_range
from tune_jobs.planning.tree_parzen import draw
from tune_jobs.reading.sweep_runs import curve
from tune_jobs.records import TrialResult
from tune_jobs.training.schedule import crossing
from tune_jobs.workload import reaches

GUARD = 5  # one proposal in so many is TPE's own
FIRST = 3  # rates tried at the first batch size: the centre and half the span to either side
LONGEST = 2.0  # times the fastest: a trial ends there in vain
APART = math.log(1.2)  # a rate nearer to one that was tried says little more
NOISE, GUESSED = 0.15, 0.35  # deviations of what a trial needed, read off, or guessed from a curve
OFF, MOST_OFF = 2.5, 4  # deviations by which so many trials lie off the model before it is left
SAVES = math.log(1.1)  # what a better rate is expected to save, for runs to be made again at it
UNTRIED = 0.5  # deviation of what a batch size needs from what its neighbour does, a doubling


def propose(
    config: SweepConfig, sizes: Sequence[int], known: Known, among: Sequence[int] | None = None
) -> Proposal | None:
    """The next trial; None once as many were made as were asked for.

    With `among` it is of the one of those batch sizes of which it is least known what its best rate
    would save: not to find a winner, but to know it.
    """
    made = len(known.trials) + len(known.pending)
    if made >= config.trials:
        return None
    within = learning_rate_range(config)
    most = ends(config, sizes, known)
    known = by_what_was_reached(known)
    counts = {s: count_of(s, known) for s in sizes}
    first = sizes[len(sizes) // 2]
    chance = np.random.default_rng([config.seed, made])
    if is_off(config, sizes, known):
        return shares.in_turn(shares.tree_parzen)(config, sizes, known)
    if made == counts[first] < min(FIRST, config.trials - len(sizes) + 1):
        base = within.first_points(FIRST)[counts[first]]
        return Proposal(first, base, most[first], "where the valley lies")
    found = valleys_of(config, sizes, known)
    untried = [s for s in sizes if not counts[s]]
    if untried:
        size = min(untried, key=lambda s: abs(math.log(s / first)))
        base = math.exp(found[size].best()[0])
        return Proposal(size, _inside(base, within), most[size], "where the model sees its best")
    if among:
        size = _least_known(among, found, known)
        new = not count_of(size, known)  # a first rate is the model's best guess
        log = found[size].best()[0] if new else _may_be_best(
            found[size], rates_of(size, known), chance
        )  # fmt: skip
        base = math.exp(log)
        return Proposal(size, _inside(base, within), most[size], "least known")
    if made % GUARD == GUARD - 1:
        size = min(sizes, key=lambda s: (counts[s], s))
        base = draw(within, _regrets(known), config.seed + made)
        return Proposal(size, base, most[size], "TPE's own")
    size = _may_win({s: found[s] for s in sizes}, known.cost, chance)
    base = math.exp(_may_be_best(found[size], rates_of(size, known), chance))
    return Proposal(size, _inside(base, within), most[size], "may win")


def is_off(config: SweepConfig, sizes: Sequence[int], known: Known) -> bool:
    """Whether the model misses several trials, each read off from all others: TPE goes on alone."""
    told = [t for t in known.trials if t.examples_to_target and t.batch_size in sizes]
    if len(told) <= MOST_OFF:
        return False
    off = 0
    for trial in told:
        others = replace(known, trials=[t for t in known.trials if t is not trial])
        valley = valleys_of(config, sizes, others)[trial.batch_size]
        mean, deviation = valley.at(math.log(trial.base_learning_rate))
        apart = abs(math.log(trial.examples_to_target or 1) - mean)
        off += apart > OFF * math.hypot(deviation, NOISE)  # of NaN nothing is told
    return off >= MOST_OFF


def bases_to_confirm(
    config: SweepConfig,
    sizes: Sequence[int],
    known: Known,
    confirmed: Sequence[TrialResult] = (),
) -> dict[int, float]:
    """The base learning rate that each batch size is expected to be least short with; the one that
    was `confirmed` last stays where that saves less than SAVES. None where the model is off."""
    known, last = (
        by_what_was_reached(known),
        {t.batch_size: t.base_learning_rate for t in confirmed},
    )
    if is_off(config, sizes, known):
        return last
    found = valleys_of(config, sizes, known)
    within = learning_rate_range(config)
    tried = [s for s in sizes if any(t.batch_size == s for t in known.trials)]
    bases = {s: float(f"{_inside(math.exp(found[s].best()[0]), within):.3g}") for s in tried}
    stays = {
        s: base for s, base in last.items()
        if s not in bases or _saved(found[s], base, bases[s]) < SAVES
    }  # fmt: skip
    return bases | stays


def _saved(valley: Valley, base: float, better: float) -> float:
    """The log of what is expected to be saved by another base learning rate."""
    (short, _), (then, _) = valley.shortfall(math.log(base)), valley.shortfall(math.log(better))
    return float(short - then)


def valleys_of(config: SweepConfig, sizes: Sequence[int], known: Known) -> dict[int, Valley]:
    """The valley of each batch size, over the log of the base rate: about level, by the rule."""
    within = learning_rate_range(config)
    span = (math.log(within.low), math.log(within.high))
    return valleys({s: evidence(s, known) for s in sizes}, span, slope=0.0)


def after(config: SweepConfig, known: Known, used: int | None) -> list[str]:
    """That the model was left, where it was."""
    sizes = sorted({t.batch_size for t in known.trials})
    told = f"{MOST_OFF} trials or more lay {OFF:g} deviations off the model of all batch sizes"
    return [f"{told}, so TPE went on alone."] if is_off(config, sizes, known) else []


def evidence(size: int, known: Known) -> Tried:
    """A batch size's trials and confirm runs. One that was ended before the target is taken to need
    as much more than the best as it needed for what it had reached; one that reached nothing needs
    over what it had seen."""
    every = (*known.trials, *known.repeated)
    mine = [t for t in every if t.batch_size == size and t.outcome != "failed"]
    best = min(
        (t for t in mine if t.examples_to_target is not None),
        key=lambda t: t.examples_to_target or 0,
        default=None,
    )
    rows = [_read(t, best, known) for t in mine if t.examples_seen > 0]
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0)] * 4
    return Tried(columns[0], columns[1], columns[2].astype(bool), columns[3])


def _read(
    trial: TrialResult, best: TrialResult | None, known: Known
) -> tuple[float, float, bool, float]:
    rate = math.log(trial.base_learning_rate)
    if trial.examples_to_target is not None:
        return rate, math.log(trial.examples_to_target), False, NOISE
    if trial.outcome != "diverged" and best is not None:
        mine = curve(trial, known.curves.get(trial.trial_id, ()))
        theirs = curve(best, known.curves.get(best.trial_id, ()))
        later = mine and not reaches(theirs[0][1], mine[-1][1], trial.mode)
        at = crossing(theirs, mine[-1][1], trial.mode) if later else None
        if at is not None:
            needed = math.log(best.examples_to_target or 1) + math.log(mine[-1][0] / at)
            return rate, max(needed, math.log(trial.examples_seen)), False, GUESSED
    return rate, math.log(trial.examples_seen), True, NOISE


def ends(config: SweepConfig, sizes: Sequence[int], known: Known) -> dict[int, int]:
    """Examples at which a trial of each batch size ends in vain."""
    spent = [
        t.examples_to_target * known.cost[t.batch_size]
        for t in known.trials
        if t.examples_to_target is not None and t.batch_size in known.cost
    ]
    if not spent or config.goal not in ("time", "cost", "examples"):
        return dict.fromkeys(sizes, config.budget_examples)
    longest = LONGEST * min(spent)
    return {s: min(config.budget_examples, math.ceil(longest / known.cost[s])) for s in sizes}


def _may_win(
    found: Mapping[int, Valley], cost: Mapping[int, float], chance: np.random.Generator
) -> int:
    """A draw of the batch size that takes least, each at its best rate."""
    known = {s: v.needs() for s, v in found.items()}
    told = [s for s, (mean, _) in known.items() if math.isfinite(mean)]
    drawn: dict[int, float] = {}
    for size in sorted(known, key=lambda s: (s not in told, s)):
        mean, deviation = known[size]
        if told and size not in told:
            near = min(told, key=lambda s: abs(math.log(s / size)))
            mean, deviation = known[near]
            deviation = math.hypot(deviation, UNTRIED * math.sqrt(abs(math.log2(near / size))))
        luck = float(chance.standard_normal())
        drawn[size] = (mean if told else 0.0) + deviation * luck
        if size not in told:
            drawn[size] = max([drawn[size], *(_at_least(size, s, drawn[s]) for s in told)])
    return min(drawn, key=lambda s: (drawn[s] + math.log(cost[s]), s))


def _at_least(size: int, other: int, needs: float) -> float:
    """The log of the examples that a batch size takes at the least, by those of another: with tuned
    rates neither examples to target fall nor updates rise as it grows (Shallue 2019)."""
    return needs + min(0.0, math.log(size / other))


def _least_known(among: Sequence[int], found: Mapping[int, Valley], known: Known) -> int:
    """Of these batch sizes the one whose shortfall at its best guess is spread most, a trial under
    way taken to halve that. One of which none of FIRST trials reached comes last: what a trial that
    does not reach either needs, nobody knows."""
    under_way = [size for size, _ in known.pending]
    reached = {t.batch_size for t in known.trials if t.examples_to_target is not None}
    telling = [s for s in among if s in reached or count_of(s, known) < FIRST]

    def unsure(size: int) -> float:
        _, variance = found[size].shortfall(found[size].best()[0])
        return float(variance / 2 ** under_way.count(size))

    return max(telling or among, key=lambda s: (unsure(s), -s))


def _may_be_best(valley: Valley, tried: Sequence[float], chance: np.random.Generator) -> float:
    """A draw of the log of the best base rate, moved away from what was tried."""
    weights = valley.chance.sum(axis=0)
    free = np.all([np.abs(valley.places - t) >= APART for t in tried] or [weights >= 0], axis=0)
    weights = np.where(free, weights, 0.0)
    if weights.sum() <= 0:
        weights = valley.chance.sum(axis=0)
    return float(chance.choice(valley.places, p=weights / weights.sum()))


def _regrets(known: Known) -> list[tuple[float, float]]:
    """Each trial's base rate, and how far it was from the best of its own batch size, as a log."""
    found = []
    for size in {t.batch_size for t in known.trials}:
        tried = evidence(size, known)
        if len(tried.rate):
            least = tried.needed.min()
            found += [
                (math.exp(r), float(n - least))
                for r, n in zip(tried.rate, tried.needed, strict=True)
            ]
    return found


def _inside(base: float, within: Range) -> float:
    """A proposal may leave the range that was asked for by its half span, and no further."""
    reach = math.sqrt(within.span)
    return min(max(base, within.low / reach), within.high * reach)
