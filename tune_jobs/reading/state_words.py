"""The words for how a run ended, in lower case with `_` between them."""

from __future__ import annotations

from collections.abc import Iterable

SUCCESS = frozenset((
    "success", "successful", "succeeded", "converged", "reached", "true", "yes", "y", "passed",
    "pass", "ok", "1",
))  # fmt: skip
ENDED = frozenset((
    "", "finished", "finish", "complete", "completed", "done", "terminated", "ended",
))  # fmt: skip
NEVER = frozenset((
    "aborted", "abort", "diverged", "diverge", "oom", "out_of_memory", "pruned", "stopped",
    "early_stopped", "timeout", "timed_out", "did_not_converge", "not_converged", "unconverged",
    "unreached", "not_reached", "dnf", "nan",
))  # fmt: skip
GONE = frozenset((
    "crashed", "crash", "failed", "fail", "failure", "error", "errored", "killed", "running",
    "pending", "queued", "scheduled", "paused", "preempted", "preempting", "interrupted",
    "cancelled", "canceled", "unfinished", "lost", "waiting", "starting",
))  # fmt: skip
NO = frozenset(("false", "no", "n", "0"))
BAD_IF_TRUE = frozenset(("diverged", "oom", "failed", "crashed", "early_stopped"))


def tells_endings(words: Iterable[str]) -> bool:
    """Whether a column's words all say how runs ended, some of them not as meant."""
    found = set(words) - {""}
    known = SUCCESS | ENDED | NEVER | GONE | NO
    return bool(found) and found <= known and bool(found & (NEVER | GONE))
