"""A user's code that hangs or exits ends its own trial alone, and says where it stood."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 30  # for what does not even hear the alarm: then the process goes
LEAST_SECONDS, TIMES_EXPECTED = 60.0, 5.0


class NoReport(RuntimeError):
    """A trial made no report within its time."""


class Exited(RuntimeError):
    """A trial's code called `sys.exit`."""


def allowed_seconds(expected: float) -> float:
    """How long a trial may take to its next report that needs so many seconds for its whole run."""
    return LEAST_SECONDS + TIMES_EXPECTED * expected


@contextmanager
def guarded(seconds: float) -> Iterator[None]:
    """Raise `NoReport` in the block once so many seconds have passed, at the line that runs then.

    Code that Python cannot interrupt has its stacks written to stderr, and its process ended. Only
    for the main thread of a process, where Ray runs an actor's methods.

    Errors:
        NoReport: the time is over.
        Exited: the block called `sys.exit`.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise NoReport(f"no report within {seconds:.0f} s, many times what its profile says")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.stderr)
    try:
        yield
    except SystemExit as error:
        raise Exited(f"the workload called sys.exit({error.code!r})") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
