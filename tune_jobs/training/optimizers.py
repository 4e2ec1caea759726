"""Optimizers by name, fused where torch has that: one kernel for all parameters.

A new one: add it here, and give its rule in `scaling.py`. Any other is given as
`package.module:Class`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from tune_jobs.errors import UserError, unknown_name
from tune_jobs.recipe import ADAM_BETA2, HALF_LIFE, PLAIN, Recipe
from tune_jobs.training import compiler

Optimizer = torch.optim.Optimizer
REGISTRY: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}


def make(
    name: str,
    model: torch.nn.Module,
    learning_rate: float,
    recipe: Recipe = PLAIN,
    batch_size: int = 256,
) -> Optimizer:
    """The named optimizer over a model's parameters that are trained.

    Errors:
        UserError: the name is unknown, or the optimizer does not take the recipe's arguments.
    """
    compiler.import_later()
    kind, given = _named(name)
    given = given | dict(recipe.optimizer_arguments) | betas(recipe, batch_size)
    try:
        return kind(_groups(model, recipe), lr=learning_rate, **given)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optimizer {name!r} with [recipe] {_shown(given)}: {error}; correct its arguments"
        ) from error


def betas(recipe: Recipe, batch_size: int) -> dict[str, Any]:
    """Adam's betas at a batch size, where the recipe has them depend on it."""
    if recipe.beta2 != HALF_LIFE:
        return {}
    given = recipe.optimizer_arguments.get("betas", (0.9, ADAM_BETA2))
    return {"betas": recipe.beta2_at(batch_size, given)}


def _named(name: str) -> tuple[type[Optimizer], dict[str, Any]]:
    if ":" not in name:
        if name not in REGISTRY:
            raise unknown_name("optimizer", name, REGISTRY)
        return REGISTRY[name]
    module, _, kind = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"optimizer {name!r}: {type(error).__name__}: {error}; give package.module:Class of an "
            "optimizer that can be imported"
        ) from error
    return found, {}


def _groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """All parameters in one group, or norms and biases in a second one without weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if recipe.decay_vectors:
        return [{"params": trained}]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def _shown(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in given.items())
