"""Where seconds decide, and which batch sizes are worth timing further once the search has ended:
those that may be fastest.

How fast the others are, to a tenth, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.planning.confirm_plan import best_rates, may_win
from tune_jobs.records import TrialResult


def seconds_decide(config: SweepConfig) -> bool:
    """Whether batch sizes are compared by what they take on the clock."""
    return config.compared_by in ("time", "cost")


def worth_timing(config: SweepConfig, trials: Sequence[TrialResult]) -> set[int]:
    """Of those tried; none where seconds are not what the sweep compares by, or none reached."""
    rates = best_rates(config, trials)
    if not seconds_decide(config) or all(t.examples_to_target is None for t in rates.values()):
        return set()
    return may_win(config, rates)
