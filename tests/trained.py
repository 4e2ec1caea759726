"""Small training runs on digits, for the tests of what happens in one."""

from __future__ import annotations

from typing import Any

import torch

from tune_jobs.data.dataset import Dataset
from tune_jobs.data.examples import splits_of
from tune_jobs.training.loop import Report, RunSettings, TrainingRun
from tune_jobs.workload_source import WorkloadSource

CPU = torch.device("cpu")


def make(digits: Dataset, **changes: Any) -> TrainingRun:
    """100 updates of 32 examples of the small network, 300 examples held out, unless changed."""
    settings: dict[str, Any] = {
        "batch_size": 32, "micro_batch_size": 32, "learning_rate": 3e-3, "optimizer": "adam",
        "seed": 0, "budget_examples": 3200, "target": 0.8,
        "rungs": (1067,),
    }  # fmt: skip
    workload = WorkloadSource("mlp", digits.name, None).of_dataset(digits)
    splits = splits_of(workload, 300, 0, CPU)
    return TrainingRun(RunSettings(**{**settings, **changes}), workload, splits, CPU)


def to_end(run: TrainingRun) -> list[Report]:
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    return reports
