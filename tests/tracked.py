"""A sweep's copy in MLflow under test: rows that show any rounding, a store, and what it holds."""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.tracking import fields
from tune_jobs.tracking.client import connect
from tune_jobs.tracking.mlflow_copy import MlflowCopy
from tune_jobs.tracking.reachable import default_uri

EXPERIMENT = "batch size"
THIRD = 1 / 3  # has no short decimal form: shows any rounding


def measurement(trial_id: str, step: int, **changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "examples_seen": step,
        "updates": step // 32,
        "train_loss": THIRD / step,
        "val_loss": THIRD / (step + 1),
        "val_accuracy": 1 - THIRD / step,
        "train_seconds": step * THIRD,
        "wall_time_seconds": step * THIRD * 2,
    }
    return rows.measurement(**(values | changes))


def result(trial_id: str, step: int, **changes: Any) -> TrialResult:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "name": f"b32-lr0.01-{trial_id}",
        "micro_batch_size": 16,
        "base_learning_rate": 0.1 + 0.2,
        "learning_rate": THIRD / 100,
        "seed": 7,
        "model": "simple_cnn",
        "data": "mnist",
        "budget_examples": 640,
        "target": 0.97,
        "examples_seen": step,
        "updates": step // 32,
        "examples_to_target": None,
        "updates_to_target": None,
        "time_to_target_seconds": None,
        "train_seconds": step * THIRD,
        "evaluation_seconds": THIRD / 7,
        "wall_time_seconds": step * THIRD * 2 + 1,
        "examples_per_second": 1000 * THIRD,
        "peak_memory_mib": 300 * THIRD + 0.01,
        "val_accuracy": 1 - THIRD / step,
        "test_accuracy": 1 - THIRD / 50,
    }
    return rows.result(**(values | changes))


def profile(batch_size: int, micro_batch_size: int, **changes: Any) -> BatchSizeProfile:
    values: dict[str, Any] = {
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "chosen": batch_size == micro_batch_size,
        "model": "simple_cnn",
        "data": "mnist",
        "step_seconds": batch_size * THIRD / 100,
        "step_seconds_low": batch_size * THIRD / 101,
        "step_seconds_high": batch_size * THIRD / 99,
        "step_seconds_min": batch_size * THIRD / 102,
        "examples_per_second": 300 * THIRD + batch_size,
        "evaluation_examples_per_second": 1000 * THIRD,
        "peak_memory_mib": 500 * THIRD + batch_size,
        "base_memory_mib": 400 * THIRD,
    }
    return rows.profile(**(values | changes))


CURVE = [measurement("t1", step) for step in (64, 128, 192)]
END = result("t1", 192)
PROFILES = [
    profile(128, 128),
    profile(128, 64),
    profile(2048, 2048, outcome="out_of_memory", reason="9 GiB", step_seconds=None),
]


@functools.cache
def empty_store(session_folder: Path) -> Path:
    """An empty SQLite store: to make one anew costs a second for each test."""
    path = session_folder / "empty.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An empty SQLite store in the working folder. A test file takes it by `uri = tracked.uri`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store(tmp_path_factory.getbasetemp()), tmp_path / "mlflow.db")
    return default_uri()


def copy_of(uri: str, tmp_path: Path) -> MlflowCopy:
    return MlflowCopy(uri, EXPERIMENT, "first", tmp_path / "mlflow.json")


def nested_runs(uri: str, copy: MlflowCopy) -> list[Any]:
    api = connect(uri)
    experiment = api.get_experiment_by_name(EXPERIMENT).experiment_id
    return list(
        api.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{copy.parent_run_id}'")
    )


def steps_of(uri: str, run: Any, name: str) -> list[int]:
    return sorted(point.step for point in connect(uri).get_metric_history(run.info.run_id, name))


def check_numbers(run: Any, row: TrialResult | BatchSizeProfile) -> None:
    """Every number of the row to the last bit, and none that the row does not have."""
    trial = isinstance(row, TrialResult)
    names = fields.END_METRICS if trial else fields.PROFILE_METRICS
    curves = fields.CURVES if trial else ()
    for name in names:
        value = getattr(row, name)
        if value is not None:
            assert run.data.metrics[name] == value, name
    assert {name for name in run.data.metrics if name not in curves} == {
        name for name in names if name not in curves and getattr(row, name) is not None
    }


def check_curve(uri: str, run: Any, curve: list[Measurement]) -> None:
    """Every point of the curve to the last bit, once, at its step; the end stands at its own."""
    for name in fields.CURVES:
        points = {m.examples_seen: getattr(m, name) for m in curve}
        history = connect(uri).get_metric_history(run.info.run_id, name)
        found = {p.step: p.value for p in history if p.step != curve[-1].examples_seen}
        del points[curve[-1].examples_seen]
        assert found == {step: v for step, v in points.items() if v is not None}, name


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Poll until `condition()` holds; the assertion fails when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        time.sleep(0.05)


def has_points(copy: MlflowCopy, trial_id: str) -> bool:
    """Whether the copy's thread has written points of the trial."""
    run = copy._writer and copy._writer.nested.known.get(trial_id)
    return bool(run and run.steps)


def live_sweep(uri: str, tmp_path: Path, *rows: fields.Row) -> MlflowCopy:
    copy = copy_of(uri, tmp_path)
    copy.start({"model": "simple_cnn"}, {"goal": "time"})
    for row in rows:
        if isinstance(row, BatchSizeProfile):
            copy.profile(row)
        else:
            copy.measurement(row) if isinstance(row, Measurement) else copy.result(row)
    return copy


ARTIFACTS = {"report.html", "trials.parquet", "figures/time.svg", "figures/time.png"}


def artifacts_in(folder: Path) -> list[Path]:
    """What a sweep hands over: a file of each kind, and the folder of figures."""
    (folder / "figures").mkdir(parents=True)
    for name in ARTIFACTS:
        (folder / name).write_text("<svg/>")
    return [folder / "report.html", folder / "trials.parquet", folder / "figures"]


def artifacts_of(uri: str, copy: MlflowCopy) -> set[str]:
    api, run_id = connect(uri), copy.parent_run_id
    root = {entry.path for entry in api.list_artifacts(run_id) if not entry.is_dir}
    return root | {entry.path for entry in api.list_artifacts(run_id, "figures")}
