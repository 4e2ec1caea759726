"""SimpleCNN: the two-convolution network of PyTorch's MNIST example."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tune_jobs.errors import UserError

_SMALLEST_SIDE = 6


class SimpleCNN(nn.Module):
    """Images (b, c, h, w) to log-probabilities (b, classes); 1,199,882 weights for 1x28x28, 10.

    Errors:
        UserError: images smaller than 6x6, of which the convolutions leave nothing to pool.
    """

    def __init__(self, input_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> None:
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < _SMALLEST_SIDE:
            raise UserError(
                f"simple_cnn cannot take images of {height}x{width}: each side must have at least "
                f"{_SMALLEST_SIDE} pixels; use --model mlp"
            )
        features = 64 * ((height - 4) // 2) * ((width - 4) // 2)
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.dropout1 = nn.Dropout(0.25)
        self.linear1 = nn.Linear(features, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.linear2 = nn.Linear(128, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv1(images), inplace=True)
        # Of the largest of four: the same as the largest of four that went through relu, at less.
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2), inplace=True)
        x = self.dropout1(x)
        x = functional.relu(self.linear1(torch.flatten(x, 1)), inplace=True)
        return functional.log_softmax(self.linear2(self.dropout2(x)), dim=1)
