"""The device a run trains on: which one, waiting for it, and the run's own peak memory."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from tune_jobs.training import allocator, resident

_MIB = 1024 * 1024
# On a CPU the activations of 50 images stay in its caches: 1.6 times the speed of 250.
EVALUATION_BATCH = {"cpu": 50, "cuda": 250}


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
    allocator.give_pages_back()
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5")  # proc(5): resets VmHWM to the current resident set


def peak_memory_mib(device: torch.device) -> float | None:
    """The peak since the last reset: CUDA's allocated bytes, or the process's resident set.

    None where the system cannot tell (a CPU without /proc).
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / _MIB
    return resident.peak_resident_mib()


def reserved_memory_mib(device: torch.device) -> float | None:
    """CUDA: the most that the allocator held, freed blocks included. None on a CPU."""
    if device.type != "cuda":
        return None
    return float(torch.cuda.max_memory_reserved(device)) / _MIB


def allocator_retries(device: torch.device) -> int | None:
    """CUDA: how often the allocator gave its cache back to find room. None on a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.memory_stats(device).get("num_alloc_retries", 0))


def total_memory_mib(device: torch.device) -> float:
    """All of a GPU's memory; for a CPU the host's, or the control group's where that is less."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / _MIB
    total = float(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, float(text))
    return total / _MIB


def limit_memory(device: torch.device, limit_mib: float, held_mib: float) -> None:
    """Let this process allocate up to `limit_mib` in all, of which it holds `held_mib` now.

    What does not fit raises in the process that asked: on CUDA through the allocator's own limit,
    on a CPU through RLIMIT_DATA, which counts private memory (setrlimit(2)).
    """
    if device.type == "cuda":
        share = min(1.0, limit_mib / total_memory_mib(device))
        torch.cuda.set_per_process_memory_fraction(share, device)
        return
    resident.limit_data(limit_mib, held_mib)


def resident_memory_mib() -> float:
    """What this process holds now."""
    return float(psutil.Process(os.getpid()).memory_info().rss) / _MIB
