"""The device a run trains on: which one, waiting for it, and the run's own peak memory."""

from __future__ import annotations

from pathlib import Path

import torch

_MIB = 1024 * 1024


def pick(gpus: float) -> torch.device:
    """The GPU that the trial was given, or the CPU when it asked for none."""
    return torch.device("cuda", 0) if gpus > 0 else torch.device("cpu")


def describe(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device is done; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Forget earlier peaks, so that a reused process does not report its predecessor's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5")  # proc(5): resets VmHWM to the current resident set


def peak_memory_mib(device: torch.device) -> float | None:
    """The peak since the last reset: CUDA's allocated bytes, or the process's resident set.

    None where the system cannot tell (a CPU without /proc).
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / _MIB
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next((at for at in status.read_text().splitlines() if at.startswith("VmHWM:")), None)
    return float(line.split()[1]) / 1024 if line else None
