"""The copy in MLflow: the names of DESIGN.md, the store's values, and faults that cost nothing."""

from __future__ import annotations

import json
import os
import shutil
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
from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.tracking import compare_view, mlflow_copy
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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store: to make one anew costs a second for each test."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_copy._client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
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


def check_numbers(run: Any, row: TrialResult | BatchSizeProfile) -> None:
    """Every number of the row to the last bit, and none that the row does not have."""
    trial = isinstance(row, TrialResult)
    names = mlflow_copy.END_METRICS if trial else mlflow_copy.PROFILE_METRICS
    curves = mlflow_copy.CURVES if trial else ()
    for name in names:
        value = getattr(row, name)
        if value is not None:
            assert run.data.metrics[name] == value, name
    assert {name for name in run.data.metrics if name not in curves} == {
        name for name in names if name not in curves and getattr(row, name) is not None
    }


def check_curve(uri: str, run: Any, curve: list[Measurement]) -> None:
    """Every point of the curve to the last bit, once, at its step; the end stands at its own."""
    for name in mlflow_copy.CURVES:
        points = {m.examples_seen: getattr(m, name) for m in curve}
        history = client(uri).get_metric_history(run.info.run_id, name)
        found = {p.step: p.value for p in history if p.step != curve[-1].examples_seen}
        del points[curve[-1].examples_seen]
        assert found == {step: v for step, v in points.items() if v is not None}, name


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Poll until `condition()` holds; the assertion fails when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        time.sleep(0.05)


def live_sweep(uri: str, tmp_path: Path, *rows: mlflow_copy.Row) -> MlflowCopy:
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
    api, run_id = client(uri), copy.parent_run_id
    root = {entry.path for entry in api.list_artifacts(run_id) if not entry.is_dir}
    return root | {entry.path for entry in api.list_artifacts(run_id, "figures")}


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
    check_numbers(run, END)
    check_curve(uri, run, CURVE)
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
    assert parent.data.tags["mlflow.note.content"].startswith("32 is fastest\n\n[Charts")
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


def test_search_trials_and_confirm_runs_stand_side_by_side_in_one_parent(
    uri: str, tmp_path: Path
) -> None:
    confirmed = result(
        "c1",
        192,
        stage="confirm",
        name="b128-lr0.002-s1",
        batch_size=128,
        train_accuracy=1 - THIRD / 90,
        examples_to_target=128,
        updates_to_target=1,
        time_to_target_seconds=THIRD * 3.3,
        measured_train_seconds=THIRD * 7,
        measured_time_to_target_seconds=THIRD * 3.5,
        waited_seconds=THIRD / 11,
        energy_joules=THIRD * 1e5,
    )
    points = {"stage": "confirm", "batch_size": 128, "train_accuracy": THIRD * 2}
    curve = [measurement("c1", step, **points) for step in (64, 128, 192)]
    copy = live_sweep(uri, tmp_path, *CURVE, END, *curve, confirmed)
    assert copy.finish("", {}, [])
    runs = {run.data.tags["stage"]: run for run in nested_runs(uri, copy)}
    assert runs.keys() == {"search", "confirm"}
    for row, its_curve in ((END, CURVE), (confirmed, curve)):
        run = runs[row.stage]
        assert run.info.run_name == row.name
        assert run.data.tags["trial_id"] == row.trial_id
        check_numbers(run, row)
        check_curve(uri, run, its_curve)


def test_a_profile_bears_its_batch_size_its_outcome_and_its_values_to_the_last_digit(
    uri: str, tmp_path: Path
) -> None:
    copy = live_sweep(uri, tmp_path, *PROFILES)
    assert copy.finish("", {}, [])
    runs = {run.info.run_name: run for run in nested_runs(uri, copy)}
    assert runs.keys() == {"b128-profile", "b128-m64-profile", "b2048-profile"}
    for row, run in zip(PROFILES, runs.values(), strict=True):
        run = runs[mlflow_copy._name(row)]
        check_numbers(run, row)
        assert run.info.status == "FINISHED"
        assert run.data.tags["stage"] == "measure"
        assert run.data.tags["outcome"] == row.outcome
        assert run.data.params == {
            "batch_size": str(row.batch_size),
            "micro_batch_size": str(row.micro_batch_size),
            "optimizer": "adam",
            "model": "simple_cnn",
            "data": "mnist",
        }
    assert runs["b2048-profile"].data.tags["reason"] == "9 GiB"
    assert runs["b128-m64-profile"].data.tags["trial_id"] == "profile-cpu-b128-m64"


def test_a_profile_is_found_again_and_a_changed_one_replaces_it(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *PROFILES)
    assert copy.finish("", {}, [])
    before = {run.info.run_name: run.info.run_id for run in nested_runs(uri, copy)}

    again = profile(128, 64, step_seconds=THIRD, reserved_memory_mib=1.5, base_memory_mib=None)
    gpu = profile(128, 128, device="H200")
    resumed = live_sweep(uri, tmp_path, PROFILES[0], again)
    for _ in range(2):
        assert resumed.complete([], [], [PROFILES[0], again, gpu])
    assert resumed.finish("", {}, [])
    assert resumed.parent_run_id == copy.parent_run_id
    runs = {run.data.tags["trial_id"]: run for run in nested_runs(uri, copy)}
    assert len(nested_runs(uri, copy)) == len(runs) == 3
    assert runs["profile-cpu-b128-m128"].info.run_id == before["b128-profile"]
    check_numbers(runs["profile-cpu-b128-m64"], again)
    check_numbers(runs["profile-H200-b128-m128"], gpu)


def test_a_late_row_never_replaces_a_newer_profile(uri: str, tmp_path: Path) -> None:
    copy = copy_of(uri, tmp_path)
    copy.profile(PROFILES[0])  # queued, and not written before the store is copied
    newer = profile(128, 128, step_seconds=THIRD)
    assert copy.complete([], [], [newer])
    copy.start({}, {})
    assert copy.finish("", {}, [])
    (run,) = nested_runs(uri, copy)
    check_numbers(run, newer)


def test_the_noise_scale_stands_on_the_parent_once_for_each_point(uri: str, tmp_path: Path) -> None:
    noise = [
        rows.noise_scale(examples_seen=step, kind=kind, noise_scale=step * THIRD)
        for step in (1024, 4096)
        for kind in ("raw", "preconditioned")
    ]
    unknown = rows.noise_scale(examples_seen=8192, noise_scale=None)
    for _ in range(2):
        copy = copy_of(uri, tmp_path)
        assert copy.complete([], [], noise=[*noise, unknown])
        assert copy.complete([], [], noise=[*noise, unknown])
    for name in ("noise_scale_raw", "noise_scale_preconditioned"):
        history = client(uri).get_metric_history(copy.parent_run_id, name)
        assert [(p.step, p.value) for p in history] == [(s, s * THIRD) for s in (1024, 4096)]


def test_a_trial_whose_record_changed_is_written_anew(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    assert copy.finish("", {}, [])
    recomputed = result("t1", 192, train_seconds=THIRD, time_to_target_seconds=THIRD / 2)
    resumed = copy_of(uri, tmp_path)
    assert resumed.complete([recomputed], CURVE)
    (run,) = nested_runs(uri, resumed)
    check_numbers(run, recomputed)
    check_curve(uri, run, CURVE)


def test_artifacts_lie_beside_the_database_and_nowhere_else(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    assert copy.finish("", {}, artifacts_in(tmp_path / "made"))
    assert artifacts_of(uri, copy) == ARTIFACTS
    place = tmp_path / "mlruns" / str(copy.parent_run_id) / "artifacts"
    assert (place / "figures" / "time.svg").read_text() == "<svg/>"
    assert not any(elsewhere.iterdir())


def test_a_parent_whose_artifacts_cannot_be_written_is_closed_and_told(
    uri: str, tmp_path: Path
) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    assert not copy.finish("32 is fastest", {}, [tmp_path / "no such file"])
    assert "no such file" in str(copy.last_error)
    parent = client(uri).get_run(copy.parent_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"].startswith("32 is fastest")


class Answers:
    """A server's answer to `get_run`: where it keeps the artifacts."""

    def __init__(self, artifact_uri: str) -> None:
        self.artifact_uri = artifact_uri
        self.info = self

    def get_run(self, run_id: str) -> Any:
        return self


@pytest.mark.parametrize(
    ("uri", "place", "taken"),
    [
        ("http://server:5000", "mlflow-artifacts:/1/r/artifacts", True),
        ("http://server:5000", "s3://bucket/1/r/artifacts", True),
        ("http://server:5000", "/srv/mlruns/1/r/artifacts", False),
        ("http://server:5000", "file:///srv/mlruns/1/r/artifacts", False),
        ("http://127.0.0.1:5000", "file:///home/mlruns/1/r/artifacts", True),
        ("sqlite:////home/mlflow.db", "file:///home/mlruns/1/r/artifacts", True),
    ],
)
def test_artifacts_never_land_in_a_folder_that_only_bears_the_server_s_name(
    uri: str, place: str, taken: bool, tmp_path: Path
) -> None:
    copy = copy_of(uri, tmp_path)
    copy._client = Answers(place)
    if taken:
        copy._check_artifact_place("r")
    else:
        with pytest.raises(TrackingUnreachable, match="--serve-artifacts"):
            copy._check_artifact_place("r")


def test_a_sweep_leaves_charts_in_the_experiment_and_the_newest_ten_sweeps_keep_theirs(
    uri: str, tmp_path: Path
) -> None:
    copy = live_sweep(uri, tmp_path, *PROFILES, *CURVE, END)
    assert copy.finish("", {}, [])
    experiment = client(uri).get_experiment_by_name(copy.experiment)
    (name,) = experiment.tags
    assert name == f"mlflow.sharedViewState.batch-size-{copy.parent_run_id[:12]}"
    assert json.loads(experiment.tags[name])["name"] == "first: search"
    assert copy.page is not None
    assert f"/#/experiments/{experiment.experiment_id}/runs?" in copy.page

    tags = {
        compare_view.tag_name(f"{n:012}"): compare_view.tag_value("s", "r", "confirm", now_ms=n)
        for n in range(12)
    }
    mine = {"mlflow.sharedViewState.somebody": "{}"}
    assert compare_view.outdated(tags | mine) == [
        compare_view.tag_name("000000000001"),
        compare_view.tag_name("000000000000"),
    ]


def test_a_reason_longer_than_mlflow_takes_is_cut_and_not_lost(uri: str, tmp_path: Path) -> None:
    end = result("t1", 192, outcome="failed", reason="x" * 9000)
    copy = live_sweep(uri, tmp_path, end)
    assert copy.finish("", {}, [])
    assert copy.complete([end], [])
    (run,) = nested_runs(uri, copy)
    assert run.data.tags["reason"] == "x" * 8000


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
    port: int, tmp_path: Path, empty_store: Path
) -> None:
    uri = f"http://127.0.0.1:{port}"
    shutil.copy(empty_store, tmp_path / "server.db")
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
        assert resumed.complete([END], CURVE, PROFILES)
        assert resumed.finish("done", {}, artifacts_in(tmp_path / "made"))
        assert artifacts_of(uri, resumed) == ARTIFACTS
        by_name = {run.info.run_name: run for run in nested_runs(uri, resumed)}
        assert len(by_name) == len(nested_runs(uri, resumed)) == 1 + len(PROFILES)
        for row in (END, *PROFILES):
            check_numbers(by_name[mlflow_copy._name(row)], row)
        run = by_name[END.name]
        assert run.info.status == "FINISHED"
        assert steps_of(uri, run, "val_loss") == [64, 128, 192]
        check_curve(uri, run, CURVE)
    finally:
        stop(server)
