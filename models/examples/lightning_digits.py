"""A LightningModule and its data: handwritten digits. Needs the package lightning.

./scripts/sweep --lightning models/examples/lightning_digits.py:make
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from tune_jobs.own_loop import Settings, own_loop


class Digits(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        right = self.layers(batch[0]).argmax(1) == batch[1]
        self.log("val_accuracy", right.float().mean(), on_epoch=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class Data(lightning.LightningDataModule):  # type: ignore[misc]
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        images, labels = load_digits(return_X_y=True)
        self.all = TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        part = Subset(self.all, range(1_400))
        return DataLoader(part, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Subset(self.all, range(1_400, 1_797)), 397)


@own_loop(metric="val_accuracy", target=0.9, budget_examples=14_000)
def make(settings: Settings) -> tuple[Digits, Data]:
    return Digits(settings.learning_rate), Data(settings.batch_size)
