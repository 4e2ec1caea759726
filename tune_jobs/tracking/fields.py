"""A row of the store as MLflow knows it: its run's name, its numbers and words, its time.

The names are DESIGN.md's; dashboards rely on them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.space import from_text
from tune_jobs.tracking.client import MAX_TAG_CHARACTERS

# The metric logged first is the one that MLflow's Compare draws (from SQLite; a server's database
# may order otherwise), so a quantity that every trial has from its first report on leads.
CURVES = (
    "val_accuracy", "val_metric", "val_loss", "train_loss", "test_accuracy", "train_accuracy",
    "test_metric", "train_metric", "train_seconds", "wall_time_seconds",
)  # fmt: skip
PARAMS = (
    "batch_size", "micro_batch_size", "learning_rate", "base_learning_rate", "optimizer", "seed",
    "model", "data", "metric", "mode", "recipe", "schedule",
)  # fmt: skip
# batch_size and learning_rate stand here too: runs sort, and charts draw, by a metric as a number.
END_METRICS = (
    "wall_time_seconds", "train_seconds", "measured_train_seconds", "evaluation_seconds",
    "waited_seconds", "energy_joules", "peak_memory_mib", "test_accuracy", "val_accuracy",
    "train_accuracy", "val_metric", "test_metric", "train_metric", "examples_per_second",
    "examples_seen", "updates", "examples_to_target",
    "updates_to_target", "time_to_target_seconds", "measured_time_to_target_seconds",
    "batch_size", "learning_rate",
)  # fmt: skip
PROFILE_PARAMS = ("batch_size", "micro_batch_size", "optimizer", "model", "data")
PROFILE_METRICS = (
    "step_seconds", "step_seconds_low", "step_seconds_high", "step_seconds_min", "step_deviation",
    "examples_per_second", "evaluation_examples_per_second", "peak_memory_mib",
    "reserved_memory_mib", "base_memory_mib", "allocator_retries", "batch_size",
)  # fmt: skip
END_TAGS = ("outcome", "reason", "device", "node")

End = TrialResult | BatchSizeProfile  # a row that ends its run
Row = Measurement | End


@dataclass(frozen=True)
class Item:
    """A row and the time it came at, under which it is written however late that is."""

    row: Row
    timestamp_ms: int


class Clock:
    """Each time later than the one before: MLflow's latest value is the one of latest time."""

    def __init__(self) -> None:
        self._last_ms = 0

    def now_ms(self) -> int:
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
        return self._last_ms


def identity(row: Row) -> str:
    """What the row's run is found by: its `trial_id`, or what tells one profile from another."""
    if isinstance(row, BatchSizeProfile):
        return f"profile-{row.device}-b{row.batch_size}-m{row.micro_batch_size}"
    return row.trial_id


def run_name(row: Row) -> str:
    """The name that the runs table shows; a trial's own is known when it has ended."""
    if isinstance(row, TrialResult):
        return row.name
    if isinstance(row, Measurement):
        return f"b{row.batch_size}-{row.trial_id}"
    whole = row.micro_batch_size == row.batch_size
    return f"b{row.batch_size}{'' if whole else f'-m{row.micro_batch_size}'}-profile"


def curve_metrics(row: Measurement) -> dict[str, float]:
    """What one point of the curves says."""
    return _finite(row, CURVES)


def end_metrics(row: End) -> dict[str, float]:
    """What the closed run of `row` says in numbers."""
    return _finite(row, PROFILE_METRICS if isinstance(row, BatchSizeProfile) else END_METRICS)


def end_params(row: End) -> dict[str, str]:
    """What was chosen for the run of `row`."""
    names = PROFILE_PARAMS if isinstance(row, BatchSizeProfile) else PARAMS
    found = {name: str(getattr(row, name)) for name in names}
    if isinstance(row, TrialResult):
        found |= {name: str(value) for name, value in from_text(row.space).items()}
    return found


def end_tags(row: End) -> dict[str, str]:
    """What the closed run of `row` says in words."""
    found = ((name, getattr(row, name)) for name in END_TAGS)
    return {name: str(value)[:MAX_TAG_CHARACTERS] for name, value in found if value is not None}


def _finite(row: Row, names: Iterable[str]) -> dict[str, float]:
    """The row's finite numbers by name; +inf, which MLflow makes 1.8e308, is left out like None."""
    found = ((name, getattr(row, name)) for name in names)
    return {name: value for name, value in found if value is not None and math.isfinite(value)}
