"""Regression on a table: how far a disease goes on in a year, from ten measurements of a patient.

./scripts/sweep --workload models/examples/tabular.py:workload
"""

from __future__ import annotations

import math

from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional as F

from tune_jobs.workload import Metric, Workload, squared_error

HELD_OUT = 82  # patients of the test split


def workload(width: int = 64) -> Workload:
    """`width` of the hidden layer; another one with [workload_arguments] width = 128."""
    features, progress = load_diabetes(return_X_y=True)
    mean, deviation = progress[HELD_OUT:].mean(), progress[HELD_OUT:].std()
    features, wanted = features / features.std(axis=0), (progress - mean) / deviation
    return Workload(
        name="diabetes",
        build=lambda: nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 1)),
        train=(features[HELD_OUT:], wanted[HELD_OUT:]),  # validation is carved from it
        test=(features[:HELD_OUT], wanted[:HELD_OUT]),
        loss=lambda model, batch: F.mse_loss(model(batch[0])[:, 0], batch[1], reduction="none"),
        metric=Metric("rmse", mode="min", of=squared_error, finish=math.sqrt),
        target=0.76,
        budget_examples=4_608,
    )
