"""How fast examples come: loading alone, and training on a batch that is there already.

Arrays are there already; only what goes through a loader is measured. Loaders work ahead, so what
they have in stock is used up first:

    update update (timed elsewhere) | update on a kept batch x3 | stock used up | load load load
                                      ^ training alone                            ^ loading alone
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tune_jobs.data.examples import Items
from tune_jobs.training import device as devices
from tune_jobs.training.loop import TrainingRun

KEPT_UPDATES = 3
AHEAD = 2  # batches that each worker of torch's DataLoader prepares before they are asked for


@dataclass(frozen=True)
class InputPipeline:
    """Seconds for one update's examples: to load them, and to train on them once loaded."""

    workers: int
    loading_seconds: float
    training_seconds: float


def input_pipeline(run: TrainingRun, seconds: float) -> InputPipeline | None:
    """Measure the run's loader for about so many seconds; None where it has none."""
    examples = run.train.examples
    if not isinstance(examples, Items):
        return None
    kept = list(run.next_batch())
    training = [_seconds(lambda: run.update(kept), run) for _ in range(KEPT_UPDATES)]
    passes = max(1, run.settings.batch_size // run.settings.micro_batch_size)
    for _ in range(-(-AHEAD * examples.workers // passes)):
        list(run.next_batch())
    loads, began = 0, time.perf_counter()
    while loads < max(2, examples.workers) or time.perf_counter() - began < seconds:
        list(run.next_batch())
        loads += 1
    devices.synchronize(run.device)
    loading = (time.perf_counter() - began) / loads
    return InputPipeline(examples.workers, loading, statistics.median(training))


def _seconds(action: Callable[[], object], run: TrainingRun) -> float:
    devices.synchronize(run.device)
    began = time.perf_counter()
    action()
    devices.synchronize(run.device)
    return time.perf_counter() - began
