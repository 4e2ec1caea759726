"""Every exception that this project raises on purpose.

`SweepError` is the root. What a user asked wrongly is a `UserError` (exit status 2), also a
`ValueError`; it names the value, the rule and the remedy.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class SweepError(Exception):
    """The root of this project's exceptions."""


class UserError(SweepError, ValueError):
    """Something that was asked for cannot be done as asked; nothing has been started."""


class DataError(UserError):
    """A data set cannot be found, or a file of it is not what it should be."""


class StoreError(SweepError):
    """A sweep's folder cannot be read or written, or holds something that is not ours."""


class TrackingUnreachable(SweepError):
    """The MLflow tracking server does not answer."""


class LoopFailed(SweepError):
    """A user's own training function raised, exited, was ended or made no report.

    Attributes:
        said: that in one line, with the line of the user's code.
        trace: the traceback there, or what it printed last.
    """

    def __init__(self, said: str, trace: str = "") -> None:
        super().__init__(said, trace)
        self.said, self.trace = said, trace

    def __str__(self) -> str:
        return self.said


class LoopSilent(LoopFailed):
    """It made no report within its time."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: what Ctrl-C is, with a status of its own."""


def unknown_name(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UserError:
    """The error for a name that no registry holds: the known ones, and the nearest of them."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    tail = f" {remedy}" if remedy else ""
    return UserError(f"{kind} {name!r} is unknown; known: {', '.join(names)}.{hint}{tail}")


def exit_status(run: Callable[[], int]) -> int:
    """What an entry's `run` returns; an error of this project is one line and status 2 or 1."""
    try:
        return run()
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError | TrackingUnreachable) else 1
