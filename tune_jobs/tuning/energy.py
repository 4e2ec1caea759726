"""Whether the devices that a verdict on energy would be of count it, asked of their own nodes."""

from __future__ import annotations

from collections.abc import Callable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.training import device, energy
from tune_jobs.tuning.cluster import Cluster, main_accelerator
from tune_jobs.tuning.measuring import DeviceType, device_types

SHARE = 0.01  # of a GPU, while asking


def check_energy(config: SweepConfig, cluster: Cluster, say: Callable[[str], None]) -> None:
    """Raises UserError for `--goal energy` where the GPUs of the confirm runs do not count it."""
    if config.goal != "energy":
        return
    judged = main_accelerator(config)
    for kind in device_types(config, cluster, say):
        reason = why_not(kind) if judged in (None, kind.name) else None
        if reason is not None:
            raise UserError(
                f"--goal energy: the energy of {kind.name} is not counted: {reason}; it needs GPUs "
                "with an energy counter and the package zeus on their nodes (pip install zeus), or "
                "ask for another goal, such as time"
            )


def why_not(kind: DeviceType) -> str | None:
    """Why this type of device does not count its energy; a GPU's own node says."""
    if not kind.gpus:
        return energy.why_not(device.pick(0))
    asked = ray.remote(num_cpus=0, num_gpus=SHARE, max_retries=0)(energy.why_not).options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(kind.node_id, soft=False)
    )
    answer: str | None = ray.get(asked.remote(device.pick(kind.gpus)))
    return answer
