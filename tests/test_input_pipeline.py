"""The input pipeline is a limit like memory and throughput: measured, and named where it binds."""

from __future__ import annotations

import time
from typing import Any

import torch

from tests import workloads
from tests.tracked import profile
from tests.trained import CPU
from tune_jobs.data.examples import splits_of
from tune_jobs.judging.binding import loading_limit
from tune_jobs.measure.input_pipeline import input_pipeline
from tune_jobs.training.loop import RunSettings, TrainingRun

SECONDS = 0.02  # that an example takes to load


class Slow(workloads.Sequences):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(SECONDS)
        return super().__getitem__(index)


def run_of(**changes: Any) -> TrainingRun:
    workload = workloads.sequences(**changes)
    settings = RunSettings(8, 8, 1e-2, "adam", 0, 800, 2.0)
    return TrainingRun(settings, workload, splits_of(workload, 0, 0, CPU), CPU)


def test_loading_alone_is_told_from_training_alone() -> None:
    alone = input_pipeline(run_of(train=Slow(300)), 0.5)
    assert alone is not None and alone.loading_seconds >= 8 * SECONDS > alone.training_seconds


def test_workers_load_side_by_side_once_their_stock_is_used_up() -> None:
    shared = input_pipeline(run_of(train=Slow(300), workers=2), 1.5)
    assert shared is not None and shared.workers == 2
    assert 8 * SECONDS / 2 * 0.9 < shared.loading_seconds < 8 * SECONDS


def test_arrays_have_no_loader() -> None:
    workload = workloads.prices()
    settings = RunSettings(8, 8, 1e-2, "adam", 0, 800, -1.0)
    run = TrainingRun(settings, workload, splits_of(workload, 50, 0, CPU), CPU)
    assert input_pipeline(run, 0.1) is None


def test_a_loader_that_is_slower_than_the_model_is_named_with_the_remedy() -> None:
    told = {"chosen": True, "loader_workers": 2, "model_examples_per_second": 4100.0}
    slow = profile(64, 64, loading_examples_per_second=900.0, **told)
    assert loading_limit(64, [slow]) == (
        "the loader, at 2 workers, gives 900 examples/s at batch size 64; the model could take "
        "4100: more workers, or keep the data in memory"
    )
    assert loading_limit(64, [profile(64, 64, loading_examples_per_second=4000.0, **told)]) is None
    assert loading_limit(64, [profile(64, 64)]) is None
