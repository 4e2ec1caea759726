"""What a workload's loss or metric gives for a batch, and its mean over many batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tune_jobs.errors import UserError

Values = tuple[torch.Tensor, torch.Tensor | None]


def per_example(given: Any, what: str) -> Values:
    """Values (b,) and their weights (b,), None where all weigh the same.

    Errors:
        UserError: there is not one value for each example, or weights do not fit the values.
    """
    values, weights = given if isinstance(given, tuple) else (given, None)
    if not isinstance(values, torch.Tensor) or values.ndim == 0:
        shown = "one number" if isinstance(values, (float, torch.Tensor)) else type(values).__name__
        raise UserError(
            f"the {what} gave {shown} for a batch; it must give one value for each example, (b,): "
            'leave the mean out, as with reduction="none"'
        )
    if values.ndim > 1:
        values = values.flatten(1).mean(1)
    if weights is not None and weights.shape != values.shape:
        raise UserError(
            f"the {what} gave weights of shape {tuple(weights.shape)} for values of shape "
            f"{tuple(values.shape)}; let them agree"
        )
    return values, weights


@dataclass
class Mean:
    """A weighted mean that grows batch by batch: `total` over `weight`, of `examples` so far."""

    total: float = 0.0
    weight: float = 0.0
    examples: int = 0

    def add(self, given: Values) -> None:
        values, weights = given
        self.examples += len(values)
        self.weight += len(values) if weights is None else float(weights.sum())
        self.total += float(values.sum() if weights is None else (values * weights).sum())

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    def at_best(self, best: float, of: int) -> float:
        """What it comes to if all the rest of `of` examples have the value `best`."""
        return (self.total + best * (of - self.examples)) / of


def weighed(given: Sequence[Values], each: npt.NDArray[np.float64]) -> float:
    """The weighted mean of the values of several batches, of which the n-th example counts
    `each[n]` times."""
    values = torch.cat([v.cpu().double() for v, _ in given])
    weights = torch.cat([torch.ones(len(v)) if w is None else w.cpu() for v, w in given])
    weights = weights * torch.from_numpy(each)
    return float((values * weights).sum() / weights.sum())


class Once:
    """A model that computes the output of one batch once, for loss and metric alike."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model
        self._outputs: dict[Any, Any] = {}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        key = (tuple(map(id, inputs)), tuple((name, id(value)) for name, value in named.items()))
        if key not in self._outputs:
            # The inputs are kept with the output: an id stands for what still lives.
            self._outputs[key] = (inputs, named, self._model(*inputs, **named))
        return self._outputs[key][2]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forget(self) -> None:
        self._outputs.clear()
