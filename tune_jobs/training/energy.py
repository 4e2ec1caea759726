"""The energy that a GPU has used, from its own counter, through the optional package zeus.

The counter is of the whole GPU, whoever works on it, so only a run that has a GPU to itself may
count. It moves every few tens of milliseconds: a sum over many short stretches is right on average,
a single short stretch is not. CPUs are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

Joules = Callable[[], float]


def counter(device: torch.device) -> Joules | None:
    """Reads the joules used since the GPU's driver was loaded; None where there is no counter."""
    if why_not(device) is not None:
        return None
    from zeus.device import get_gpus

    # zeus counts the visible GPUs as CUDA does.
    gpus, index = get_gpus(), device.index or 0
    return lambda: float(gpus.get_total_energy_consumption(index)) / 1000


def why_not(device: torch.device) -> str | None:
    """Why the energy of this device is not counted; None where it is."""
    if device.type != "cuda":
        return "a CPU has no such counter"
    if find_spec("zeus") is None:
        return "the package zeus is not installed there"
    from zeus.device import get_gpus
    from zeus.device.exception import ZeusBaseGPUError

    try:
        counts = get_gpus().supports_get_total_energy_consumption(device.index or 0)
    except (ZeusBaseGPUError, ValueError) as error:  # ValueError: CUDA_VISIBLE_DEVICES of UUIDs
        return f"zeus cannot read the GPU ({error})"
    return None if counts else "the GPU has no energy counter (NVIDIA has since Volta)"
