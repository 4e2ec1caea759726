"""SIGINT and SIGTERM end a sweep with an exception, wherever they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tune_jobs.errors import Terminated

AGAIN_SECONDS = 0.05


@contextmanager
def raised() -> Iterator[None]:
    """KeyboardInterrupt in the block on SIGINT, Terminated on SIGTERM; a second SIGTERM ends the
    process at once.

    What a finalizer raises is dropped by Python, an interrupt that came while one ran as well: such
    a signal comes once more.
    """
    before = sys.unraisablehook

    def come_again(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        number = signal.SIGINT
        if issubclass(dropped.exc_type, Terminated):
            number = signal.SIGTERM
            signal.signal(number, _terminate)
        later = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        later.daemon = True
        later.start()

    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = come_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
