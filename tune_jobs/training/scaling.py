"""How a learning rate is carried from one batch size to another, and where its search begins.

No torch is needed to know it, so whoever plans may ask.
"""

from __future__ import annotations

from dataclasses import dataclass

from tune_jobs.errors import unknown_name
from tune_jobs.recipe import REFERENCE_BATCH_SIZE


@dataclass(frozen=True)
class Scaling:
    """An optimizer's rule.

    `power` is p in `lr(B) = base x (B/256)^p`: 1 for the SGD family (Goyal et al. 2017), 1/2 for
    the Adam family and RMSprop (Malladi et al. 2022). `base_learning_rate` is the centre of the
    search range at batch 256.
    """

    power: float
    base_learning_rate: float


RULES: dict[str, Scaling] = {
    "adam": Scaling(0.5, 3e-3),
    "adamw": Scaling(0.5, 3e-3),
    "sgd": Scaling(1.0, 0.1),
    "rmsprop": Scaling(0.5, 1e-3),
}


def scaling_of(optimizer: str) -> Scaling:
    """The optimizer's rule; raises UserError listing the known names.

    Of a class (`package.module:Class`) the SGD family's where its name says so, else the Adam
    family's; the centre of its range has to be given.
    """
    if ":" in optimizer:
        return RULES["sgd" if "sgd" in optimizer.lower() else "adam"]
    if optimizer not in RULES:
        raise unknown_name("optimizer", optimizer, RULES)
    return RULES[optimizer]


def scaled_learning_rate(optimizer: str, base_learning_rate: float, batch_size: int) -> float:
    """`base x (B/256)^p` with the optimizer's p."""
    power = scaling_of(optimizer).power
    return float(base_learning_rate * (batch_size / REFERENCE_BATCH_SIZE) ** power)
