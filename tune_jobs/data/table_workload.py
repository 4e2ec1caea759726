"""A table as a workload: a model's function on standardised features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tune_jobs.data.dataset import ImageSet
from tune_jobs.data.tables import Table, TableSet
from tune_jobs.errors import UserError
from tune_jobs.workload import Batch, Metric, PerExample, Workload, accuracy, squared_error


def table_workload(name: str, table: Table, build: Callable[[], nn.Module]) -> Workload:
    """Batches are (features float32 (b, d), labels (b,)).

    A regression trains on the squared error of its standardised label; its metric, RMSE, is in the
    label's own unit.
    """
    rmse = Metric("rmse", of=squared_error, finish=lambda mean: table.label_std * math.sqrt(mean))
    return Workload(
        name=name,
        build=build,
        train=arrays_of(table.train),
        validation=arrays_of(table.validation),
        test=arrays_of(table.test),
        loss=squared_error if table.classes is None else class_loss(table.classes),
        metric=rmse if table.classes is None else accuracy,
    )


def arrays_of(split: ImageSet | TableSet | None) -> tuple[Any, Any] | None:
    """A split as a workload takes it."""
    return None if split is None else (split.inputs, split.labels)


def class_loss(classes: int) -> PerExample:
    """Cross entropy of each example (b,), for models that give (b, classes)."""

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        inputs, labels = batch
        output = model(inputs)
        wanted = (len(labels), classes)
        if output.shape != wanted:
            raise UserError(
                f"the model gives {tuple(output.shape)}, the data's classes ask for {wanted}: let "
                f"its last layer have {classes} outputs"
            )
        return F.cross_entropy(output, labels, reduction="none")

    return loss
