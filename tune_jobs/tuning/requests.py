"""What a trial asks of Ray, from what its batch size was measured to need. Pure functions.

Requests are quantised: actors are reused only between trials that ask for the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.config import SweepConfig, requested_cpus, requested_gpus
from tune_jobs.measure.clock import chosen
from tune_jobs.records import BatchSizeProfile

WORKER_MIB = 1024  # Ray's worker process itself, which a probe does not have
QUANTUM_MIB = 512
CUDA_CONTEXT_MIB = 600


@dataclass(frozen=True)
class TrialRequest:
    """CPUs, GPUs (fractions allowed) and host memory of one trial."""

    cpus: float
    gpus: float
    memory_mib: int | None

    def bundle(self) -> dict[str, float]:
        """As Ray's placement groups take it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        if self.memory_mib is not None:
            asked["memory"] = self.memory_mib * 2**20
        return {name: amount for name, amount in asked.items() if amount}


def trial_requests(
    config: SweepConfig, profiles: Sequence[BatchSizeProfile], gpus_in_cluster: float
) -> dict[int, TrialRequest]:
    """The request of every feasible batch size: the most that any device type needs for it."""
    by_size: dict[int, list[BatchSizeProfile]] = {}
    for row in chosen(profiles):
        by_size.setdefault(row.batch_size, []).append(row)
    return {size: _request(config, rows, gpus_in_cluster) for size, rows in by_size.items()}


def _request(
    config: SweepConfig, rows: Sequence[BatchSizeProfile], gpus_in_cluster: float
) -> TrialRequest:
    cpus = requested_cpus(config) or max(row.cpus for row in rows)
    gpus = requested_gpus(config, gpus_in_cluster)
    if gpus and config.gpus_per_trial == "auto":
        gpus = max(gpu_fraction(row, config) for row in rows)
    if gpus:
        return TrialRequest(cpus, gpus, None)
    peaks = [row.peak_memory_mib for row in rows if row.peak_memory_mib is not None]
    return TrialRequest(cpus, 0.0, host_memory_mib(max(peaks)) if peaks else None)


def gpu_fraction(row: BatchSizeProfile, config: SweepConfig) -> float:
    """1, 1/2, 1/4 ...: the least that holds the measured peak, the margin and CUDA's context.

    Never less than 1/max_trials_per_gpu. The whole GPU where memory was not measured.
    """
    peak = row.reserved_memory_mib or row.peak_memory_mib
    if peak is None or row.memory_limit_mib is None:
        return 1.0
    needed = (peak * (1 + config.memory_margin) + CUDA_CONTEXT_MIB) / row.memory_limit_mib
    neighbours = min(config.max_trials_per_gpu, math.floor(1 / needed) if needed < 1 else 1)
    return float(1 / 2 ** math.floor(math.log2(max(1, neighbours))))


def host_memory_mib(peak_memory_mib: float) -> int:
    """The measured peak and a worker's own memory, rounded up."""
    return math.ceil((peak_memory_mib + WORKER_MIB) / QUANTUM_MIB) * QUANTUM_MIB
