"""Which batch sizes are worth timing further, once the search has ended: those that may be fastest.

How fast the others are, to a tenth, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.planning.confirm_plan import best_rates
from tune_jobs.records import TrialResult

MAY_WIN = 1.5  # times the fastest, each by its best trial of the search
FEWEST = 3


def seconds_decide(config: SweepConfig) -> bool:
    """Whether batch sizes are compared by what they take on the clock."""
    return config.compared_by in ("time", "cost")


def worth_timing(
    config: SweepConfig, trials: Sequence[TrialResult], cost: Mapping[int, float]
) -> set[int]:
    """Of those tried; `cost` is seconds an example by batch size. None where seconds are not what
    the sweep compares by."""
    if not seconds_decide(config):
        return set()
    spent = {
        size: (trial.examples_to_target or math.inf) * cost[size]
        for size, trial in best_rates(config, trials).items()
    }
    if min(spent.values(), default=math.inf) == math.inf:  # none reached
        return set()
    fastest = sorted(spent, key=lambda size: (spent[size], size))
    near = {size for size in spent if spent[size] <= MAY_WIN * spent[fastest[0]]}
    return near | set(fastest[:FEWEST])
