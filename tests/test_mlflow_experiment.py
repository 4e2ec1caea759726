"""A finished MLflow experiment as rows, from real SQLite stores: anyone's, and our own sweeps'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tune_jobs.errors import TrackingUnreachable, UserError
from tune_jobs.reading.table_of_runs import COLUMNS, NamedRow, runs_of_rows
from tune_jobs.records import TrialResult
from tune_jobs.tracking.mlflow_copy import MlflowCopy
from tune_jobs.tracking.mlflow_experiment import ExperimentRows, read_experiment
from tune_jobs.tracking.reachable import default_uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with an experiment of anyone's, and one of two sweeps of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("mlflow"))  # MLflow makes ./mlruns
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = default_uri()
        anyones(found)
        ours(found, "first", Path("first"))
        ours(found, "second", Path("second"))
        yield found


def anyones(uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.create_experiment("resnet")
    client.create_experiment("empty")

    def log(status: str, params: dict[str, Any], metrics: dict[str, float], **tags: str) -> str:
        run = client.create_run(experiment, tags=tags)
        for name, value in params.items():
            client.log_param(run.info.run_id, name, value)
        for name, value in metrics.items():
            client.log_metric(run.info.run_id, name, value)
        client.set_terminated(run.info.run_id, status=status)
        return str(run.info.run_id)

    parent = log("FINISHED", {"bs": 32}, {}, kind="search of everything")
    for seed in (0, 1):
        for size in (32, 64):
            log("FINISHED", {"bs": size, "seed": seed, "opt.lr": 0.1}, {"ttt": size / 10 + seed},
                **{"mlflow.parentRunId": parent})  # fmt: skip
    log("FINISHED", {"bs": 128, "seed": 0, "opt.lr": 0.1}, {"ttt": float("inf")})
    log("FINISHED", {"bs": 128, "seed": 1, "opt.lr": 0.1}, {"ttt": float("nan")})
    log("FINISHED", {"note": "no batch size here"}, {})
    log("FAILED", {"bs": 256, "seed": 0}, {})


def ours(uri: str, sweep: str, folder: Path) -> None:
    copy = MlflowCopy(uri, "batch-size", sweep, folder / "mlflow.json")
    copy.start({"target": "0.9"}, {"sweep": sweep})
    for result in results():
        copy.result(result)
    assert copy.complete(results(), [])
    assert copy.finish("", {}, [])


def results() -> list[TrialResult]:
    never = {"examples_to_target": None, "updates_to_target": None, "time_to_target_seconds": None}
    trained = {"model": "simple_cnn", "data": "mnist"}
    return [
        rows.result(trial_id="s", stage="search", batch_size=32, **trained),
        rows.result(trial_id="c0", stage="confirm", seed=0, **trained),
        rows.result(trial_id="c1", stage="confirm", seed=1, **trained, **never),
        rows.result(trial_id="c2", stage="confirm", seed=2, outcome="failed", **trained, **never),
    ]


def read(uri: str, experiment: str, **mapping: str) -> ExperimentRows:
    return read_experiment(experiment, uri, COLUMNS, mapping)


MAPPED = {"batch_size": "params.bs", "time_to_target_seconds": "ttt", "learning_rate": "opt.lr"}


def test_anyones_runs_are_read_by_mapped_names(uri: str) -> None:
    """A parent run, one without a batch size and one that failed are left out, and told."""
    found = read(uri, "resnet", **MAPPED)
    table = runs_of_rows([NamedRow(*row) for row in found.rows], "resnet", found.notes)
    judged = {(r.batch_size, r.seed): r.time_to_target_seconds for r in table.runs}
    assert judged == {(32, 0): 3.2, (32, 1): 4.2, (64, 0): 6.4, (64, 1): 7.4,
                      (128, 0): None, (128, 1): None}  # fmt: skip
    assert {r.learning_rate for r in table.runs} == {0.1}
    assert {r.workload for r in table.runs} == {"resnet"}
    assert set(table.notes) == {
        "parents of other runs: 1 left out",
        "runs without a batch size: 1 left out",
        "runs of status FAILED: 1 left out",
    }


def test_names_of_ours_need_no_mapping(uri: str) -> None:
    found = read(uri, "resnet", **MAPPED)
    assert {cells["seed"] for _, cells in found.rows} == {"0", "1"}
    assert "seed" in found.found
    assert "workload" not in found.found


def test_a_mapped_name_that_no_run_has_is_told_with_those_found(uri: str) -> None:
    with pytest.raises(UserError, match=r"--map seed=params\.sed.*'params\.seed'\?"):
        read(uri, "resnet", seed="params.sed")
    with pytest.raises(UserError, match=r"metrics\.ttt"):
        read(uri, "resnet", time_to_target_seconds="metrics.time")


def test_our_sweeps_are_read_by_their_confirm_runs_each_a_workload(uri: str) -> None:
    found = read(uri, "batch-size")
    table = runs_of_rows([NamedRow(*row) for row in found.rows], "batch-size", found.notes)
    judged = [(r.workload, r.seed, r.target, r.time_to_target_seconds) for r in table.runs]
    assert sorted(judged, key=str) == [
        ("first: simple_cnn on mnist", 0, 0.9, 5.0),
        ("first: simple_cnn on mnist", 1, 0.9, None),
        ("second: simple_cnn on mnist", 0, 0.9, 5.0),
        ("second: simple_cnn on mnist", 1, 0.9, None),
    ]
    assert table.runs[0].examples_to_target == 500
    assert table.runs[0].peak_memory_mib == 500
    assert table.runs[0].device == "cpu"
    assert table.notes == ("confirm runs that failed or have not ended: 2 left out",)


def test_what_is_not_there_is_told(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'resnett' is unknown; .*Did you mean 'resnet'"):
        read(uri, "resnett")
    with pytest.raises(UserError, match="holds no run to judge"):
        read(uri, "empty")
    absent = tmp_path / "absent.db"
    with pytest.raises(UserError, match="no such database"):
        read(f"sqlite:///{absent}", "resnet")
    assert not absent.exists()
    other = tmp_path / "other.db"
    other.write_text("something else entirely")
    with pytest.raises(UserError, match="not a SQLite database"):
        read(f"sqlite:///{other}", "resnet")
    with pytest.raises(TrackingUnreachable, match="refused"):
        read("http://127.0.0.1:9", "resnet")
