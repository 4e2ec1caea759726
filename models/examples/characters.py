"""A transformer that writes Python's own documentation, one character after the other.

./scripts/sweep --workload models/examples/characters.py:workload
"""

from __future__ import annotations

from pydoc_data import topics

import torch
from torch import Tensor, nn

from tune_jobs.workload import Workload, cross_entropy, perplexity

LENGTH = 32  # characters that the model sees
CHARACTERS = 128


class Transformer(nn.Module):
    """Characters (b, t) to scores of each next one (b, t, CHARACTERS)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, width)
        self.places = nn.Parameter(torch.zeros(LENGTH, width))
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.scores = nn.Linear(width, CHARACTERS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, text: Tensor) -> Tensor:
        inner = self.characters(text) + self.places
        scores: Tensor = self.scores(self.layers(inner, mask=self.mask, is_causal=True))
        return scores


def workload(width: int = 64, layers: int = 2) -> Workload:
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    codes = torch.tensor([min(ord(c), CHARACTERS - 1) for c in text[:400_000]])
    windows = codes.unfold(0, LENGTH + 1, LENGTH)  # (n, LENGTH + 1)
    pairs = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    held_out = len(windows) * 9 // 10  # the end of the text, of which nothing else overlaps
    return Workload(
        name="characters",
        build=lambda: Transformer(width, layers),
        train=tuple(part[:held_out] for part in pairs),
        validation=tuple(part[held_out::2] for part in pairs),
        test=tuple(part[held_out + 1 :: 2] for part in pairs),
        loss=cross_entropy,
        metric=perplexity,
        target=9.0,
        budget_examples=12_288,
    )
