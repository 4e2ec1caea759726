"""Looks: each judging of the growing confirm runs by which spending could stop.

Several looks share one chance of error, so that they are kept in the sweep's folder: `--resume`
cannot look again for free. The last one says which batch sizes further seeds are worth making of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.judging.settling import WIDE
from tune_jobs.records import Look, TrialResult
from tune_jobs.verdicts import Verdict

FURTHER = 2  # search trials for each batch size whose best rate is not known well enough
MOST_TRIALS = 2.0  # times those asked for, those searched further included
ENOUGH = 5  # seeds of what is open, also where none would settle it: they make the bound tighter


def confirm_runs(trials: Sequence[TrialResult]) -> int:
    """How many runs a look is at; one that was made again, for longer, counts once."""
    of = (t for t in trials if t.stage == "confirm" and t.outcome != "failed")
    return len({(t.batch_size, t.seed, t.learning_rate) for t in of})


def open_looks(looks: Sequence[Look], trials: Sequence[TrialResult]) -> int:
    """How often fewer runs than these were looked at and left open."""
    return sum(look.runs < confirm_runs(trials) and look.alive != () for look in looks)


def with_look(looks: Sequence[Look], look: Look) -> list[Look]:
    """The looks, this one among them in place of one at as many runs."""
    kept = [other for other in looks if other.runs != look.runs]
    return sorted([*kept, look], key=lambda one: one.runs)


def last_look(looks: Sequence[Look]) -> Look | None:
    """The look at the most runs; None before the first."""
    return max(looks, key=lambda look: look.runs, default=None)


def goes_on(look: Look, config: SweepConfig) -> bool:
    """Whether further seeds are made after it: something is open, more are allowed, and they are
    worth it, or were asked for since."""
    if not look.alive or look.seeds >= config.seeds:
        return False
    return look.worth is not False or config.seeds > look.asked


def is_due(looks: Sequence[Look], trials: Sequence[TrialResult]) -> bool:
    """Whether there are runs that were not looked at."""
    last = last_look(looks)
    return confirm_runs(trials) > (last.runs if last else 0)


def searched(trials: Sequence[TrialResult]) -> int:
    """How many trials of the search have ended."""
    return sum(t.stage == "search" for t in trials)


def trials_wanted(look: Look | None, config: SweepConfig) -> int:
    """Trials of the search that there are to be in all, before seeds go on after a look."""
    if look is None or not look.rates:
        return 0
    return min(look.searched + FURTHER * len(look.rates), math.ceil(MOST_TRIALS * config.trials))


def rates_are_due(
    looks: Sequence[Look], trials: Sequence[TrialResult], config: SweepConfig
) -> bool:
    """Whether learning rates are to be searched further before any seed."""
    return searched(trials) < trials_wanted(last_look(looks), config)


def was_searched_since(looks: Sequence[Look], trials: Sequence[TrialResult]) -> bool:
    """Whether the search that a look asked for has told what it was at not."""
    last = last_look(looks)
    return last is not None and bool(last.rates) and searched(trials) > last.searched


def look_of(
    verdict: Verdict, config: SweepConfig, trials: Sequence[TrialResult], seeds: int
) -> Look:
    """What the sweep's verdict amounts to as a look, at so many seeds of what was alive."""
    settling, made = verdict.settling, (confirm_runs(trials), seeds)
    used = verdict.use.batch_size if verdict.use else None
    rates = settling.rates if settling and config.structured else ()
    if settling is None or not settling.batch_sizes:
        return Look(*made, (), used, None, config.seeds, rates, searched(trials))
    bound = verdict.use.regret_bound if verdict.use else None
    wide = settling.tightens and bound is not None and bound > WIDE
    tighter = len(settling.batch_sizes) > 1 and (seeds < ENOUGH or wide)
    hopeless = settling.seeds is None and not tighter  # no number of seeds would settle it
    worth = False if hopeless else settling.worth_it
    return Look(*made, settling.batch_sizes, used, worth, config.seeds, rates, searched(trials))
