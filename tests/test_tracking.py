"""The copy in MLflow: the names of DESIGN.md, the store's values, and faults that cost nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.records import Measurement, TrialResult
from tune_jobs.tracking import mlflow_copy
from tune_jobs.tracking.mlflow_copy import MlflowCopy, check_reachable, default_uri

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


CURVE = [measurement("t1", step) for step in (64, 128, 192)]
END = result("t1", 192)


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # MLflow makes ./mlruns
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return default_uri()


def copy_of(uri: str, tmp_path: Path) -> MlflowCopy:
    return MlflowCopy(uri, "batch size", "first", tmp_path / "mlflow.json")


def client(uri: str) -> Any:
    return mlflow_copy._client(uri)


def nested_runs(uri: str, copy: MlflowCopy) -> list[Any]:
    api = client(uri)
    experiment = api.get_experiment_by_name(copy.experiment).experiment_id
    return list(
        api.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{copy.parent_run_id}'")
    )


def steps_of(uri: str, run: Any, name: str) -> list[int]:
    return sorted(point.step for point in client(uri).get_metric_history(run.info.run_id, name))


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Poll until `condition()` holds; the assertion fails when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        time.sleep(0.05)


def live_sweep(uri: str, tmp_path: Path, *rows: Measurement | TrialResult) -> MlflowCopy:
    copy = copy_of(uri, tmp_path)
    copy.start({"model": "simple_cnn"}, {"goal": "time"})
    for row in rows:
        copy.measurement(row) if isinstance(row, Measurement) else copy.result(row)
    return copy


def test_a_trial_bears_the_names_of_the_design_and_the_values_of_the_store_to_the_last_digit(
    uri: str, tmp_path: Path
) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    report = tmp_path / "report.html"
    report.write_text("<p>32</p>")
    assert copy.finish("32 is fastest", {"fastest_batch_size": "32"}, [report])

    (run,) = nested_runs(uri, copy)
    for name in ["batch_size", "micro_batch_size", "learning_rate", "base_learning_rate"]:
        assert float(run.data.params[name]) == getattr(END, name)
    for name in ["optimizer", "seed", "model", "data"]:
        assert run.data.params[name] == str(getattr(END, name))
    names = (
        "wall_time_seconds train_seconds peak_memory_mib test_accuracy val_accuracy "
        "examples_per_second examples_seen updates evaluation_seconds batch_size learning_rate"
    )
    for name in names.split():
        assert run.data.metrics[name] == getattr(END, name), name
    assert "time_to_target_seconds" not in run.data.metrics
    assert run.data.tags["stage"] == "search"
    assert run.data.tags["sweep"] == "first"
    assert run.data.tags["outcome"] == "finished"
    assert run.data.tags["trial_id"] == "t1"
    assert run.info.run_name == END.name
    assert run.info.status == "FINISHED"
    history = client(uri).get_metric_history(run.info.run_id, "val_loss")
    assert {p.step: p.value for p in history} == {m.examples_seen: m.val_loss for m in CURVE}

    parent = client(uri).get_run(copy.parent_run_id)
    assert parent.info.run_name == "first"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"model": "simple_cnn"}
    assert parent.data.tags["mlflow.note.content"] == "32 is fastest"
    assert parent.data.tags["fastest_batch_size"] == "32"
    assert parent.data.tags["goal"] == "time"
    (artifact,) = client(uri).list_artifacts(copy.parent_run_id)
    assert artifact.path == "report.html"


def test_a_failed_trial_is_failed_and_a_diverged_one_is_finished(uri: str, tmp_path: Path) -> None:
    ends = [
        result("t1", 64, outcome="failed", reason="boom", val_accuracy=None),
        result("t2", 64, outcome="diverged"),
    ]
    copy = live_sweep(uri, tmp_path, measurement("t2", 64, train_loss=float("nan")), *ends)
    assert copy.finish("", {}, [])
    status = {run.data.tags["outcome"]: run.info.status for run in nested_runs(uri, copy)}
    assert status == {"failed": "FAILED", "diverged": "FINISHED"}


def test_completing_twice_holds_each_trial_and_each_point_once(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    other = [measurement("t2", 64), result("t2", 64)]
    for _ in range(2):
        assert copy.complete([END, other[1]], [*CURVE, other[0]])
    assert copy.finish("", {}, [])

    again = copy_of(uri, tmp_path)
    assert again.complete([END, other[1]], [*CURVE, other[0]])
    assert again.parent_run_id == copy.parent_run_id
    runs = {run.data.tags["trial_id"]: run for run in nested_runs(uri, copy)}
    assert len(nested_runs(uri, copy)) == len(runs) == 2
    assert steps_of(uri, runs["t1"], "val_accuracy") == [64, 128, 192]
    assert steps_of(uri, runs["t2"], "val_accuracy") == [64]


def test_a_killed_and_resumed_sweep_holds_each_trial_once_and_no_point_twice(
    uri: str, tmp_path: Path
) -> None:
    killed = live_sweep(uri, tmp_path, *CURVE[:2])
    wait_for(lambda: killed._nested and killed._nested.get("t1") and killed._nested["t1"].steps)
    # The resumed trial starts again at its checkpoint and reports the second point once more.
    resumed = live_sweep(uri, tmp_path, *CURVE[1:], END)
    wait_for(lambda: "t1" in resumed._incomplete)
    assert resumed.complete([END], CURVE)
    assert resumed.finish("", {}, [])
    assert resumed.parent_run_id == killed.parent_run_id
    (run,) = nested_runs(uri, resumed)
    assert steps_of(uri, run, "val_loss") == [64, 128, 192]
    assert run.info.status == "FINISHED"
    killed._closing.set()


def test_a_run_with_points_that_the_store_lacks_is_written_anew(uri: str, tmp_path: Path) -> None:
    killed = live_sweep(uri, tmp_path, *CURVE)
    wait_for(lambda: killed._nested and killed._nested.get("t1") and killed._nested["t1"].steps)
    killed.finish("", {}, [])
    repaired = copy_of(uri, tmp_path)
    assert repaired.complete([result("t1", 128)], CURVE[:2])
    (run,) = nested_runs(uri, repaired)
    assert run.data.metrics["examples_seen"] == 128
    assert run.data.metrics["val_accuracy"] == CURVE[1].val_accuracy


def test_without_a_state_file_the_parent_is_found_by_its_sweep_tag(
    uri: str, tmp_path: Path
) -> None:
    parents = set()
    for _ in range(2):
        copy = MlflowCopy(uri, "batch size", "first", None)
        copy.start({}, {})
        assert copy.finish("", {}, [])
        parents.add(copy.parent_run_id)
    assert len(parents) == 1


def test_another_folder_s_sweep_of_the_same_name_has_a_parent_of_its_own(
    uri: str, tmp_path: Path
) -> None:
    parents = set()
    for folder in ("mine", "yours"):
        copy = copy_of(uri, tmp_path / folder)
        copy.start({}, {})
        assert copy.finish("", {}, [])
        parents.add(copy.parent_run_id)
    assert len(parents) == 2


def test_a_full_queue_drops_and_counts_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_copy, "QUEUE_SIZE", 2)
    copy = copy_of("http://127.0.0.1:9", tmp_path)  # not started: nothing empties the queue
    for row in CURVE:
        copy.measurement(row)
    assert copy.dropped == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_unreachable_server_is_told_at_once_with_its_address_and_a_remedy() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(TrackingUnreachable) as refused:
        check_reachable(uri)
    assert time.monotonic() - began < 3
    for part in (uri, "/health", "refused", "mlflow server"):
        assert part in str(refused.value)


def test_a_sqlite_store_wants_a_folder_that_can_be_written(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(TrackingUnreachable, match="does not exist"):
        check_reachable(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    with pytest.raises(TrackingUnreachable, match="no longer writes"):
        check_reachable(f"file:{tmp_path}/mlruns")


def test_importing_the_copy_does_not_import_mlflow() -> None:
    program = "import sys, tune_jobs.tracking.mlflow_copy; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_default_store_is_the_environment_s_or_sqlite_in_the_working_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert default_uri() == "http://server:5000"


def answers(uri: str) -> bool:
    try:
        check_reachable(uri, timeout_seconds=1)
    except TrackingUnreachable:
        return False
    return True


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server's processes: the group that it leads, which is ours alone."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.fixture
def port() -> Iterator[int]:
    yield free_port()


@pytest.mark.slow
def test_a_server_that_dies_never_blocks_the_sweep_and_is_completed_when_it_is_back(
    port: int, tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{port}"
    server = serve(tmp_path, port)
    try:
        wait_for(lambda: answers(uri), seconds=120)
        copy = live_sweep(uri, tmp_path, CURVE[0])
        wait_for(lambda: copy._nested and copy._nested.get("t1") and copy._nested["t1"].steps)
        stop(server)

        began = time.monotonic()
        for row in CURVE[1:]:
            copy.measurement(row)
        copy.result(END)
        assert time.monotonic() - began < 0.5
        wait_for(lambda: copy.last_error is not None)
        assert not copy.finish("", {}, [], timeout_seconds=30)
        assert not copy.complete([END], CURVE)

        server = serve(tmp_path, port)
        wait_for(lambda: answers(uri), seconds=120)
        resumed = copy_of(uri, tmp_path)
        assert resumed.complete([END], CURVE)
        report = tmp_path / "report.html"
        report.write_text("<p>32</p>")
        assert resumed.finish("done", {}, [report])
        (run,) = nested_runs(uri, resumed)
        assert run.info.status == "FINISHED"
        assert steps_of(uri, run, "val_loss") == [64, 128, 192]
        for name in ("wall_time_seconds", "val_accuracy", "learning_rate"):
            assert run.data.metrics[name] == getattr(END, name)
    finally:
        stop(server)
