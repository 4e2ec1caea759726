"""A small multilayer perceptron, sized for the 8x8 digits."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class MLP(nn.Module):
    """Images (b, c, h, w) to log-probabilities (b, classes), through one hidden layer of 64."""

    def __init__(self, input_shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.hidden = nn.Linear(channels * height * width, 64)
        self.output = nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.hidden(torch.flatten(images, 1)))
        return functional.log_softmax(self.output(x), dim=1)
