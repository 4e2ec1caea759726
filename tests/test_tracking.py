"""What a copied sweep holds in MLflow: DESIGN.md's names, the store's values, artifacts, charts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import rows, tracked
from tests.tracked import (
    ARTIFACTS,
    CURVE,
    END,
    EXPERIMENT,
    PROFILES,
    THIRD,
    artifacts_in,
    artifacts_of,
    check_curve,
    check_numbers,
    copy_of,
    live_sweep,
    measurement,
    nested_runs,
    result,
)
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking import compare_view
from tune_jobs.tracking.client import connect
from tune_jobs.tracking.fields import run_name
from tune_jobs.tracking.parent import Parent, Sweep, log_artifacts

uri = tracked.uri


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
    history = connect(uri).get_metric_history(run.info.run_id, "val_loss")
    assert {p.step: p.value for p in history} == {m.examples_seen: m.val_loss for m in CURVE}

    parent = connect(uri).get_run(copy.parent_run_id)
    assert parent.info.run_name == "first"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"model": "simple_cnn"}
    assert parent.data.tags["mlflow.note.content"].startswith("32 is fastest\n\n[Charts")
    assert parent.data.tags["fastest_batch_size"] == "32"
    assert parent.data.tags["goal"] == "time"
    (artifact,) = connect(uri).list_artifacts(copy.parent_run_id)
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
        run = runs[run_name(row)]
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
        history = connect(uri).get_metric_history(copy.parent_run_id, name)
        assert [(p.step, p.value) for p in history] == [(s, s * THIRD) for s in (1024, 4096)]


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
    parent = connect(uri).get_run(copy.parent_run_id)
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
    uri: str, place: str, taken: bool
) -> None:
    parent = Parent(Sweep(uri, EXPERIMENT, "first", None), Answers(place), "1", "r")
    if taken:
        log_artifacts(parent, [])
    else:
        with pytest.raises(TrackingUnreachable, match="--serve-artifacts"):
            log_artifacts(parent, [])


def test_a_sweep_leaves_charts_in_the_experiment_and_the_newest_ten_sweeps_keep_theirs(
    uri: str, tmp_path: Path
) -> None:
    copy = live_sweep(uri, tmp_path, *PROFILES, *CURVE, END)
    assert copy.finish("", {}, [])
    experiment = connect(uri).get_experiment_by_name(EXPERIMENT)
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
