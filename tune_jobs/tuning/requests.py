"""What a trial asks of Ray, from what its batch size was measured to need. Pure functions.

Requests are quantised: actors are reused only between trials that ask for the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tune_jobs.config import SweepConfig, custom_resources, requested_cpus, requested_gpus
from tune_jobs.measure.clock import chosen
from tune_jobs.records import BatchSizeProfile
from tune_jobs.training.segments import segments_of

WORKER_MIB = 1024  # Ray's worker process itself, which a probe does not have
QUANTUM_MIB = 512
CUDA_CONTEXT_MIB = 600
LABEL = "accelerator_type:"  # Ray's mark of a node's type of GPU
SHARE_OF_LABEL = 0.001  # what a trial takes of the mark, so that many find room


@dataclass(frozen=True)
class TrialRequest:
    """CPUs, GPUs (fractions allowed) and host memory of one trial.

    Attributes:
        accelerator: the type of GPU, as Ray names it, that it has to be; None where any will do.
        custom: amounts of the cluster's own resources, by name.
    """

    cpus: float
    gpus: float
    memory_mib: int | None
    accelerator: str | None = None
    custom: tuple[tuple[str, float], ...] = ()

    def bundle(self) -> dict[str, float]:
        """As Ray's placement groups take it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, **dict(self.custom)}
        if self.memory_mib is not None:
            asked["memory"] = self.memory_mib * 2**20
        if self.accelerator is not None:
            asked[LABEL + self.accelerator] = SHARE_OF_LABEL
        return {name: amount for name, amount in asked.items() if amount}


@dataclass(frozen=True)
class Requests:
    """What trials ask for, by batch size: `beside` neighbours, or `alone` on a device."""

    beside: dict[int, TrialRequest]
    alone: dict[int, TrialRequest]

    def of(self, asked: Mapping[str, Any]) -> TrialRequest:
        """The request of the trial of a configuration; of a batch schedule what its most
        demanding batch size needs, of a member of a population what any may need."""
        of = self.alone if asked.get("alone") else self.beside
        if not asked.get("schedule") and "member" not in asked:
            return of[asked["batch_size"]]
        sizes = {segment.batch_size for segment in segments_of(asked.get("schedule") or "")}
        sizes = set(of) if "member" in asked else sizes
        return max(
            (of[s] for s in sorted(sizes)), key=lambda r: (r.gpus, r.cpus, r.memory_mib or 0)
        )


def trial_requests(
    config: SweepConfig,
    profiles: Sequence[BatchSizeProfile],
    gpus_in_cluster: float,
    preferred: str | None = None,
) -> dict[int, TrialRequest]:
    """The request of every feasible batch size: the most that any device type needs for it.

    A batch size that does not fit every profiled type asks for one that it fits, the `preferred`
    where that is among them.
    """
    types = {row.accelerator for row in profiles}
    by_size: dict[int, list[BatchSizeProfile]] = {}
    for row in chosen(profiles):
        by_size.setdefault(row.batch_size, []).append(row)
    return {
        size: replace(
            _request(config, rows, gpus_in_cluster),
            accelerator=_accelerator(config, types, rows, preferred),
        )
        for size, rows in by_size.items()
    }


def evened(
    requests: dict[int, TrialRequest], places_for: Callable[[Mapping[str, float]], float]
) -> dict[int, TrialRequest]:
    """The most memory for every batch size, where that leaves no place for a trial unused.

    Trials that ask for the same follow each other in one process; starting one takes seconds.
    """
    asked = set(requests.values())
    most = max((r.memory_mib or 0 for r in asked), default=0)
    alike = {replace(r, memory_mib=most) for r in asked if r.memory_mib is not None}
    if len(alike) != 1 or len(asked) < 2 or any(r.memory_mib is None for r in asked):
        return requests
    (common,) = alike
    kept = places_for(common.bundle()) >= max(places_for(r.bundle()) for r in asked)
    return dict.fromkeys(requests, common) if kept else requests


def _accelerator(
    config: SweepConfig,
    types: set[str | None],
    rows: Sequence[BatchSizeProfile],
    preferred: str | None,
) -> str | None:
    fitting = {row.accelerator for row in rows}
    if config.accelerator or fitting == types:
        return config.accelerator
    return preferred if preferred in fitting else min(filter(None, fitting), default=None)


def _request(
    config: SweepConfig, rows: Sequence[BatchSizeProfile], gpus_in_cluster: float
) -> TrialRequest:
    cpus = requested_cpus(config) or max(row.cpus for row in rows)
    gpus = requested_gpus(config, gpus_in_cluster)
    custom = tuple(custom_resources(config).items())
    if gpus and config.gpus_per_trial == "auto":
        gpus = max(gpu_fraction(row, config) for row in rows)
    if gpus:
        return TrialRequest(cpus, gpus, None, custom=custom)
    peaks = [row.peak_memory_mib for row in rows if row.peak_memory_mib is not None]
    memory = host_memory_mib(max(peaks)) if peaks else None
    return TrialRequest(cpus, 0.0, memory, custom=custom)


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
