"""What comes next, once the search has made its first trials: a pure function of rows and looks.

The sweep, the replay of recorded tables and a driver taken up again all ask here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune_jobs.config import SweepConfig
from tune_jobs.planning.confirm_plan import next_runs, run_anew
from tune_jobs.planning.looks import (
    is_due,
    last_look,
    rates_are_due,
    trials_wanted,
    was_searched_since,
)
from tune_jobs.records import ConfirmRun, Look, TrialResult


@dataclass(frozen=True)
class Step:
    """One of these; with none of them all is done.

    Attributes:
        trials: the search goes on, at the batch sizes whose rates the last look left open, until
            there are so many trials in all.
        look: the runs there are are judged, or judged again for what the search has told since.
        runs: confirm runs that are missing.
    """

    trials: int = 0
    look: bool = False
    runs: Sequence[ConfirmRun] = ()


def next_step(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    looks: Sequence[Look],
    bases: Mapping[int, float] | None = None,
    *,
    may_search: bool = True,
    may_run: bool = True,
) -> Step:
    """What to do now; `bases` as `next_runs` takes them. Learning rates come before seeds, and a
    look before the next block of either; runs at a better rate that was found before that look."""
    if may_search and rates_are_due(looks, trials, config):
        return Step(trials=trials_wanted(last_look(looks), config))
    runs = next_runs(config, trials, looks, bases) if may_run else []
    if was_searched_since(looks, trials) and not run_anew(runs, trials):
        return Step(look=True)
    return Step(runs=runs, look=not runs and is_due(looks, trials))
