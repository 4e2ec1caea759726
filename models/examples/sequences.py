"""What kind of character has this name? Texts of unequal length, a collate of one's own, weights.

./scripts/sweep --workload models/examples/sequences.py:workload
"""

from __future__ import annotations

import unicodedata
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_jobs.workload import Metric, Workload

KINDS = ("Lu", "Ll", "Lo", "Mn", "So", "Sm", "No", "Po")  # of Unicode; others are left out


class Reader(nn.Module):
    """Names (b, t), padded with 0, to scores of each kind (b, kinds)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(128, width, padding_idx=0)
        self.pieces = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.scores = nn.Linear(2 * width, len(KINDS))

    def forward(self, names: Tensor) -> Tensor:
        seen = F.relu(self.pieces(self.letters(names).transpose(1, 2)))
        seen = seen * (names > 0)[:, None]  # the padding says nothing
        return self.scores(seen.amax(2))  # type: ignore[no-any-return]


def workload(width: int = 64) -> Workload:
    named = [(unicodedata.name(c, ""), unicodedata.category(c)) for c in map(chr, range(0x3000))]
    examples = [(name, KINDS.index(kind)) for name, kind in named if name and kind in KINDS]
    often = Counter(kind for _, kind in examples)

    def collate(chosen: list[tuple[str, int]]) -> dict[str, Tensor]:
        names = [torch.tensor(list(name.encode())) for name, _ in chosen]
        return {
            "names": nn.utils.rnn.pad_sequence(names, batch_first=True),
            "kinds": torch.tensor([kind for _, kind in chosen]),
            "weights": torch.tensor([len(examples) / often[kind] for _, kind in chosen]),
        }

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        losses = F.cross_entropy(model(batch["names"]), batch["kinds"], reduction="none")
        return losses, batch["weights"]  # every kind weighs the same, however rare it is

    def right(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return (model(batch["names"]).argmax(1) == batch["kinds"]).float(), batch["weights"]

    return Workload(
        name="kinds of characters", build=lambda: Reader(width), train=examples, loss=loss,
        metric=Metric("balanced accuracy", of=right), target=0.82, collate=collate,
        budget_examples=16_384,
    )  # fmt: skip
