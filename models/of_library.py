"""A library's network as the registry's models are."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class OfLibrary(nn.Module):
    """Images (b, c, h, w) to log-probabilities (b, classes).

    A single channel is repeated `repeats` times, so that the network stays as it is known; that
    costs work in the first convolution alone.
    """

    def __init__(self, network: nn.Module, repeats: int) -> None:
        super().__init__()
        self.network = network
        self.repeats = repeats

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.repeats > 1:
            images = images.expand(-1, self.repeats, -1, -1)
        return functional.log_softmax(self.network(images), dim=1)
