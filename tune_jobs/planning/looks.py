"""Looks: each judging of the growing confirm runs by which spending could stop.

Several looks share one chance of error, so that they are kept in the sweep's folder: `--resume`
cannot look again for free. The last one says which batch sizes further seeds are worth making of.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.records import Look, TrialResult


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


def alive_at(looks: Sequence[Look], seeds: int) -> tuple[int, ...] | None:
    """Batch sizes that the last look before so many seeds left open; None where none did."""
    before = [look for look in looks if look.seeds < seeds and look.alive]
    return before[-1].alive if before else None
