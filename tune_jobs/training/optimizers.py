"""Optimizers by name, and the rule that carries a learning rate from one batch size to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from tune_jobs.config import REFERENCE_BATCH_SIZE
from tune_jobs.errors import unknown_name

Parameters = Iterable[torch.nn.Parameter]


@dataclass(frozen=True)
class OptimizerEntry:
    """How to make an optimizer, how its rate scales with the batch, and where to begin.

    `scaling_power` is p in `lr(B) = base x (B/256)^p`: 1 for the SGD family (Goyal et al. 2017),
    1/2 for the Adam family and RMSprop (Malladi et al. 2022). `base_learning_rate` is the centre of
    the search range at batch 256.
    """

    make: Callable[[Parameters, float], torch.optim.Optimizer]
    scaling_power: float
    base_learning_rate: float


REGISTRY: dict[str, OptimizerEntry] = {
    "adam": OptimizerEntry(lambda p, lr: torch.optim.Adam(p, lr=lr), 0.5, 3e-3),
    "adamw": OptimizerEntry(lambda p, lr: torch.optim.AdamW(p, lr=lr), 0.5, 3e-3),
    "sgd": OptimizerEntry(
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True), 1.0, 0.1
    ),
    "rmsprop": OptimizerEntry(lambda p, lr: torch.optim.RMSprop(p, lr=lr), 0.5, 1e-3),
}


def entry(name: str) -> OptimizerEntry:
    """The optimizer's entry; raises UserError listing the known names."""
    if name not in REGISTRY:
        raise unknown_name("optimizer", name, REGISTRY)
    return REGISTRY[name]


def scaled_learning_rate(optimizer: str, base_learning_rate: float, batch_size: int) -> float:
    """`base x (B/256)^p` with the optimizer's p."""
    power = entry(optimizer).scaling_power
    return float(base_learning_rate * (batch_size / REFERENCE_BATCH_SIZE) ** power)
