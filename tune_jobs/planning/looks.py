"""Looks: each judging of the growing confirm runs by which spending could stop.

Several looks share one chance of error, so that they are kept in the sweep's folder: `--resume`
cannot look again for free. The last one says which batch sizes further seeds are worth making of.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.records import Look, TrialResult
from tune_jobs.verdicts import Verdict


def confirm_runs(trials: Sequence[TrialResult]) -> int:
    """How many runs a look is at."""
    return sum(t.stage == "confirm" for t in trials)


def open_looks(looks: Sequence[Look], trials: Sequence[TrialResult]) -> int:
    """How often fewer runs than these were looked at and left open."""
    return sum(look.runs < confirm_runs(trials) and look.alive != () for look in looks)


def with_look(looks: Sequence[Look], look: Look) -> list[Look]:
    """The looks, this one among them in place of one at as many runs."""
    kept = [other for other in looks if other.runs != look.runs]
    return sorted([*kept, look], key=lambda one: one.runs)


def look_before(looks: Sequence[Look], seeds: int) -> Look | None:
    """The last look at fewer seeds that left something open; None where there was none."""
    before = [look for look in looks if look.seeds < seeds and look.alive]
    return before[-1] if before else None


def look_of(verdict: Verdict, config: SweepConfig, trials: Sequence[TrialResult]) -> Look:
    """What the sweep's verdict amounts to as a look."""
    left = verdict.status in ("undecided", "unproven") and verdict.settling is not None
    alive = verdict.settling.batch_sizes if left and verdict.settling else ()
    return Look(confirm_runs(trials), config.seeds, alive)
