"""Why a trial failed: the error in one line, then the traceback of the code that raised it."""

from __future__ import annotations

from collections.abc import Iterable

from ray.exceptions import RayTaskError

from tune_jobs.errors import LoopFailed
from tune_jobs.records import TrialResult

MOST_CHARACTERS = 4000  # of a traceback: its end tells
TRIES = 2  # failed trials of a batch size, none of it having run, after which it is left alone


def reason_of(error: BaseException | None) -> str:
    """What a record keeps of the error that Ray hands over."""
    if error is None:
        return "no reason given"
    if not isinstance(error, RayTaskError):
        return f"{type(error).__name__}: {error}"
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, LoopFailed):  # the traceback that tells is of another process
        return f"{cause}\n{cause.trace[-MOST_CHARACTERS:]}".rstrip()
    return f"{type(cause).__name__}: {cause}\n{str(error)[-MOST_CHARACTERS:]}"


def given_up(trials: Iterable[TrialResult]) -> set[int]:
    """Batch sizes of which every trial so far failed, and more than one did."""
    failed: dict[int, int] = {}
    ran = set()
    for trial in trials:
        if trial.outcome == "failed":
            failed[trial.batch_size] = failed.get(trial.batch_size, 0) + 1
        else:
            ran.add(trial.batch_size)
    return {size for size, times in failed.items() if times >= TRIES and size not in ran}
