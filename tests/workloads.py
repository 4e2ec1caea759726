"""Workloads of a user's, as small as they come, for the tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tune_jobs.workload import Metric, Workload, accuracy, cross_entropy, squared_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 6)).astype(np.float32)
Y = (X @ np.arange(1.0, 7.0) / 4 + 0.1 * RNG.standard_normal(400)).astype(np.float32)
RMSE = Metric("rmse", mode="min", of=squared_error, finish=math.sqrt)


def absolute(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch[0]).squeeze(1) - batch[1]).square()


def prices(width: int = 16, target: float = 0.8, unit: str = "", **changes: Any) -> Workload:
    """Regression on arrays, smaller is better."""
    given: dict[str, Any] = {
        "name": "prices",
        "build": lambda: nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1)),
        "train": (X, Y), "loss": absolute, "metric": replace(RMSE, unit=unit), "target": target,
    }  # fmt: skip
    return Workload(**{**given, **changes})


class Sequences(torch.utils.data.Dataset[Any]):
    """Sequences of unequal length; each label says whether the sum of a sequence is positive."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.items = [rng.standard_normal(n).astype(np.float32) for n in rng.integers(2, 9, count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        values = torch.from_numpy(self.items[index])
        return values + 0.01 * torch.randn(len(values)), int(values.sum() > 0)


def padded(examples: list[Any]) -> dict[str, torch.Tensor]:
    values = nn.utils.rnn.pad_sequence([v for v, _ in examples], batch_first=True)
    lengths = torch.tensor([len(v) for v, _ in examples])
    return {
        "values": values, "lengths": lengths, "labels": torch.tensor([n for _, n in examples]),
    }  # fmt: skip


class Summing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(1, 8), nn.Linear(8, 2)

    def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        there = torch.arange(values.shape[1])[None] < lengths[:, None]
        hidden = torch.tanh(self.inner(values[..., None])) * there[..., None]
        return self.outer(hidden.sum(1))


def weighted(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A sequence weighs by its length."""
    losses = F.cross_entropy(
        model(batch["values"], batch["lengths"]), batch["labels"], reduction="none"
    )
    return losses, batch["lengths"].float()


def right(model: Any, batch: Any) -> torch.Tensor:
    output = model(batch["values"], batch["lengths"])
    return (output.argmax(1) == batch["labels"]).float()


def sequences(workers: int = 0, **changes: Any) -> Workload:
    """A Dataset, dict batches of a collate of its own, weights, no test split."""
    given: dict[str, Any] = {
        "name": "sequences", "build": Summing, "train": Sequences(300),
        "validation": Sequences(100, seed=1), "loss": weighted,
        "metric": Metric("accuracy", of=right, best=1.0), "target": 0.8, "collate": padded,
        "workers": workers,
    }  # fmt: skip
    return Workload(**{**given, **changes})


def classes(**changes: Any) -> Workload:
    """Classification of arrays by the ready-made metric and loss."""
    labels = (X.sum(1) > 0).astype(np.int64) + (X[:, 0] > 1)
    given: dict[str, Any] = {
        "name": "classes", "build": lambda: nn.Linear(6, 3), "train": (X, labels),
        "loss": cross_entropy, "metric": accuracy, "target": 0.8,
    }  # fmt: skip
    return Workload(**{**given, **changes})


def raises() -> Workload:
    raise RuntimeError("no data here")


def something_else() -> str:
    return "no workload"


def misbehaving(seconds: float = 1e6) -> Workload:
    """In a trial on Ray, and there alone: 16 raises, 32 calls sys.exit, 64 hangs; 128 is good."""
    import sys
    import time

    import ray

    def loss(model: Any, batch: Any) -> torch.Tensor:
        size = len(batch[0])
        if model.training and ray.is_initialized():
            if size == 16:
                raise ValueError("a bad row was met")
            if size == 32:
                sys.exit(3)
            if size == 64:
                time.sleep(seconds)
        return absolute(model, batch)

    return prices(loss=loss, name="misbehaving")


def talkative() -> Workload:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        for line in range(500):
            print("line", line)
        return absolute(model, batch)

    return prices(loss=loss)
