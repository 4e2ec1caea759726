"""What is searched beside batch size and learning rate: `[space]` of the TOML, a range each.

    [space]
    momentum = [0.5, 0.99]        # of SGD and RMSprop alone: left out with Adam
    weight_decay = [1e-6, 1e-2]

No torch is needed to know it, so whoever plans may ask.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tune_jobs.errors import UserError, unknown_name
from tune_jobs.recipe import ADAM_BETA2, Recipe

MOMENTUM, ADAM = ("sgd", "rmsprop"), ("adam", "adamw")


@dataclass(frozen=True)
class Field:
    """A field that may be searched: within `low` and `high`, of some optimizers alone where they
    are `named`; evenly on the log of the value (`log`), or of what it is short of 1 (`near_one`).
    """

    low: float
    high: float
    named: tuple[str, ...] = ()
    log: bool = False
    near_one: bool = False

    def to_unit(self, value: float) -> float:
        """Where a value lies on the scale that is searched evenly."""
        return math.log(1 - value) if self.near_one else math.log(value) if self.log else value

    def from_unit(self, place: float) -> float:
        value = 1 - math.exp(place) if self.near_one else math.exp(place) if self.log else place
        return float(f"{value:.6g}")


FIELDS = {
    "momentum": Field(0.0, 0.9999, MOMENTUM, near_one=True),
    "beta1": Field(0.0, 0.9999, ADAM, near_one=True),
    "beta2": Field(0.0, 0.999999, ADAM, near_one=True),
    "weight_decay": Field(1e-12, 10.0, log=True),
    "warmup": Field(0.0, 0.9),
}
Axes = dict[str, tuple[float, float]]  # least and largest value, by field


def axes_of(space: Mapping[str, Any], optimizer: str) -> Axes:
    """The ranges that an optimizer's sweep searches; those of other optimizers are left out.

    Errors:
        UserError: an unknown field, no range, an empty one, or one outside what the field may be.
    """
    axes: Axes = {}
    for name, given in space.items():
        if name not in FIELDS:
            raise unknown_name("[space]", name, FIELDS)
        low, high = _range(name, given)
        if not FIELDS[name].named or optimizer in FIELDS[name].named:
            axes[name] = (low, high)
    return axes


def _range(name: str, given: Any) -> tuple[float, float]:
    numbers = isinstance(given, (list, tuple)) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) for x in given
    )
    if not numbers or len(given) != 2:
        raise UserError(f"[space] {name} = {given!r}: must be a range, such as [0.5, 0.9]")
    field, (low, high) = FIELDS[name], given
    if not field.low <= low < high <= field.high:
        raise UserError(
            f"[space] {name} = {given!r}: must rise, within {field.low:g} and {field.high:g}"
        )
    return float(low), float(high)


def applied(recipe: Recipe, values: Mapping[str, float]) -> Recipe:
    """The recipe of a trial whose searched values are these."""
    arguments = dict(recipe.optimizer_arguments)
    betas = tuple(arguments.get("betas", (0.9, ADAM_BETA2)))
    if {"beta1", "beta2"} & set(values):
        arguments["betas"] = (values.get("beta1", betas[0]), values.get("beta2", betas[1]))
    arguments |= {k: v for k, v in values.items() if k in ("momentum", "weight_decay")}
    changed = replace(recipe, optimizer_arguments=arguments)
    return replace(changed, warmup=values["warmup"]) if "warmup" in values else changed


def as_text(values: Mapping[str, float]) -> str | None:
    """As a record keeps them; None of none."""
    return json.dumps(dict(values), sort_keys=True) if values else None


def from_text(text: str | None) -> dict[str, float]:
    """What `as_text` gave."""
    return json.loads(text) if text else {}


def in_words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in sorted(values.items()))
