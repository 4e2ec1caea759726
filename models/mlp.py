"""A small multilayer perceptron, sized for the 8x8 digits and for tables."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class MLP(nn.Module):
    """Inputs (b, ...) through one hidden layer of 64 to log-probabilities (b, classes).

    With `classes` None, a regression, to one number for each example, (b, 1).
    """

    def __init__(self, input_shape: tuple[int, ...] = (1, 8, 8), classes: int | None = 10) -> None:
        super().__init__()
        self.classes = classes
        self.hidden = nn.Linear(torch.Size(input_shape).numel(), 64)
        self.output = nn.Linear(64, classes or 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.output(functional.relu(self.hidden(torch.flatten(inputs, 1))))
        return functional.log_softmax(x, dim=1) if self.classes else x
