"""Equal shares of the trials for each batch size, its learning rates a search of its own.

The last trial of a share is kept for what the others left: where all were stopped or diverged, the
best of their rates (a tenth of the lowest, had all diverged) runs once more outside the race, so
that no batch size ends without a finisher; where the best is the highest or the lowest of three or
more, the rate goes on in that direction, past the range where need be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.planning.known import Known, Proposal, count_of, rates_of
from tune_jobs.planning.search_plan import Range, learning_rate_range, shares
from tune_jobs.planning.tree_parzen import draw, draw_all
from tune_jobs.reading.choosing import score
from tune_jobs.records import TrialResult
from tune_jobs.space import FIELDS, Axes, axes_of, from_text

FIRST = 3  # of TPE's rates: the centre, and half the span to either side
FEWEST_TO_BRACKET = 3  # rates tried before the next may go beyond them
BRACKETS = 2  # of the last trials of a share
RESCUE_STEP = 10.0
RATE = "base_learning_rate"
SAME = 1e-6  # logs of rates so near are of one rate

Rate = Callable[[SweepConfig, int, Known], float]


def in_turn(rate: Rate) -> Callable[[SweepConfig, Sequence[int], Known], Proposal | None]:
    """A way that gives each batch size its share, in turn, at the base rates of `rate`."""

    def propose(config: SweepConfig, sizes: Sequence[int], known: Known) -> Proposal | None:
        of = shares(config.trials, config.batch_sizes)
        given = {size: count_of(size, known) for size in sizes}
        for size in sorted(sizes, key=lambda s: given[s] / of[s]):
            found = _next(config, size, known, rate, given[size], of[size])
            if found is not None:
                return found
        return None

    return propose


def tree_parzen(config: SweepConfig, size: int, known: Known) -> float:
    """HyperOpt's TPE on the log of the base rate, told each trial's score."""
    within = learning_rate_range(config)
    tried = rates_of(size, known)
    for first in within.first_points(FIRST):
        if _is_new(first, tried):
            return first
    told = [(t.base_learning_rate, -score_of(t, config)) for t in of_size(size, known)]
    return draw(within, told, config.seed + size + len(tried))


def log_uniform(config: SweepConfig, size: int, known: Known) -> float:
    """Independent draws, uniform on the log, after the scaling rule's own value."""
    within = learning_rate_range(config)

    def draws() -> Iterator[float]:
        yield within.centre
        chance = np.random.default_rng([config.seed, size])
        while True:
            yield math.exp(chance.uniform(math.log(within.low), math.log(within.high)))

    return next(base for base in draws() if _is_new(base, rates_of(size, known)))


def grid(config: SweepConfig, size: int, known: Known) -> float:
    """The rates that were given, or as many as trials, evenly spaced on the log; the one nearest
    the centre first."""
    within = learning_rate_range(config)
    share = shares(config.trials, config.batch_sizes)[size]
    points = config.base_learning_rates or _spaced(within, share)
    by_distance = sorted(points, key=lambda base: abs(math.log(base / within.centre)))
    tried = rates_of(size, known)
    return next((base for base in by_distance if _is_new(base, tried)), by_distance[0])


def _spaced(within: Range, count: int) -> Sequence[float]:
    return [float(base) for base in np.geomspace(within.low, within.high, count + 2)[1:-1]]


def _is_new(base: float, tried: Sequence[float]) -> bool:
    return all(abs(math.log(base) - other) > SAME for other in tried)


def score_of(trial: TrialResult, config: SweepConfig) -> float:
    """What races and searches compare a trial by, the larger the better."""
    if trial.outcome in ("diverged", "failed", "out_of_memory"):
        return 0.0
    reached = None if config.compared_by == "accuracy" else trial.examples_to_target
    return score(trial.val_metric, reached, config.budget_examples, trial.mode)


def of_size(size: int, known: Known) -> list[TrialResult]:
    """The trials of a batch size that have ended."""
    return [t for t in known.trials if t.batch_size == size]


def _next(
    config: SweepConfig, size: int, known: Known, rate: Rate, given: int, share: int
) -> Proposal | None:
    """A batch size's next trial; None once its share is used up, or has to wait for its others."""
    if given >= share:
        return None
    ended, whole = of_size(size, known), config.budget_examples
    under_way = len(ended) < given
    is_last, is_given = given == share - 1, bool(config.base_learning_rates)
    if is_last and given and not any(t.outcome == "finished" for t in ended):
        if under_way:
            return None
        best = _best(config, ended)
        space = from_text(best.space)
        return Proposal(size, _rescue(config, ended), whole, "a finisher", races=False, space=space)
    brackets = given >= max(FEWEST_TO_BRACKET, share - BRACKETS) and not is_given
    if brackets and not under_way:
        side = open_side(config, ended)
        if side:
            best = _best(config, ended)
            base = best.base_learning_rate * math.sqrt(config.learning_rate_span) ** side
            why, space = "beyond its best, the last of those tried", from_text(best.space)
            return Proposal(size, base, whole, why, space=space)
    base = rate(config, size, known)
    if not config.space:
        return Proposal(size, base, whole, "its share")
    return _with_space(config, size, known, base, given)


def _with_space(config: SweepConfig, size: int, known: Known, base: float, given: int) -> Proposal:
    """A trial in more than the rate: the middle of every range first, then drawn, or TPE's own."""
    axes, within = axes_of(config.space, config.optimizer), learning_rate_range(config)
    places: Axes = {}
    for name, (low, high) in axes.items():
        ends = FIELDS[name].to_unit(low), FIELDS[name].to_unit(high)
        places[name] = min(ends), max(ends)
    chance = np.random.default_rng([config.seed, size, given])
    if not given:
        found = {name: (low + high) / 2 for name, (low, high) in places.items()}
    elif config.search == "random" or given < FIRST:
        found = {name: float(chance.uniform(*ends)) for name, ends in places.items()}
    else:
        every = {RATE: (math.log(within.low), math.log(within.high)), **places}
        found = draw_all(every, _tried(config, size, known), config.seed + size + given)
        base = math.exp(found.pop(RATE))
    values = {name: FIELDS[name].from_unit(place) for name, place in found.items()}
    return Proposal(size, base, config.budget_examples, "its share", space=values)


def _tried(config: SweepConfig, size: int, known: Known) -> list[tuple[dict[str, float], float]]:
    """Places and losses of the trials that have ended, on the scales that are searched."""
    found = []
    for trial in of_size(size, known):
        values = from_text(trial.space)
        place = {name: FIELDS[name].to_unit(value) for name, value in values.items()}
        place[RATE] = math.log(trial.base_learning_rate)
        if values:
            found.append((place, -score_of(trial, config)))
    return found


def open_side(config: SweepConfig, ended: Sequence[TrialResult]) -> int:
    """+1 or -1 where the best rate is the highest or lowest tried: the optimum may lie beyond.
    Rates that diverged or scored worse close a side."""
    best, rates = _best(config, ended), [t.base_learning_rate for t in ended]
    if score_of(best, config) <= 0:
        return 0
    return int(best.base_learning_rate >= max(rates)) - int(best.base_learning_rate <= min(rates))


def _best(config: SweepConfig, ended: Sequence[TrialResult]) -> TrialResult:
    return max(ended, key=lambda t: (score_of(t, config), t.base_learning_rate))


def _rescue(config: SweepConfig, ended: Sequence[TrialResult]) -> float:
    best = _best(config, ended)
    if score_of(best, config) > 0:
        return best.base_learning_rate
    return min(t.base_learning_rate for t in ended) / RESCUE_STEP
