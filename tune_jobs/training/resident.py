"""What a process holds in memory, read and limited without torch. proc(5), setrlimit(2)."""

from __future__ import annotations

import resource
from pathlib import Path

_MIB = 1024 * 1024
STATUS = Path("/proc/self/status")


def resident_mib() -> float | None:
    """What this process holds now; None on a system without /proc."""
    return _mib("VmRSS")


def peak_resident_mib() -> float | None:
    """The most that it held since it began, or since the peak was reset; None without /proc."""
    return _mib("VmHWM")


def limit_data(limit_mib: float, held_mib: float) -> None:
    """Let this process allocate up to `limit_mib` in all, of which it holds `held_mib` now.

    RLIMIT_DATA counts private memory; what does not fit raises in the process that asked. Nothing
    is limited without /proc.
    """
    data = _mib("VmData")
    if data is None:
        return
    soft = int((data + max(0.0, limit_mib - held_mib)) * _MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _mib(name: str) -> float | None:
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    line = next((at for at in lines if at.startswith(f"{name}:")), None)
    return float(line.split()[1]) / 1024 if line else None
