"""What the end of a process says of it, where it did not say anything itself."""

from __future__ import annotations

import signal


def how_it_ended(exit_code: int) -> tuple[str, bool]:
    """In words, and whether for want of memory. A negative code is the signal that ended it; the
    kernel's killer of processes sends SIGKILL."""
    if exit_code >= 0:
        return f"exited with status {exit_code}", False
    starved = -exit_code == signal.SIGKILL
    told = " (the kernel does so when the host's memory is used up)" if starved else ""
    return f"ended by {signal.Signals(-exit_code).name}{told}", starved
