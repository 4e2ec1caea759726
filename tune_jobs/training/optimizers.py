"""Optimizers by name, fused where torch has that: one kernel for all parameters.

A new one: make it here, and give its rule in `scaling.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from tune_jobs.errors import unknown_name

Parameters = Iterable[torch.nn.Parameter]

REGISTRY: dict[str, Callable[[Parameters, float], torch.optim.Optimizer]] = {
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, fused=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True),
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, fused=True),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
}


def make(name: str, parameters: Parameters, learning_rate: float) -> torch.optim.Optimizer:
    """The named optimizer; raises UserError listing the known names."""
    if name not in REGISTRY:
        raise unknown_name("optimizer", name, REGISTRY)
    return REGISTRY[name](parameters, learning_rate)
