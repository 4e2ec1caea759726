"""MLflow's server away and back: the copy recovers, or what it lacks is told and completed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import tracked
from tests.test_report import sweep_folder
from tests.test_tracking_outages import free_port, serve, stop
from tests.tracked import CURVE, END, EXPERIMENT, has_points, nested_runs, wait_for
from tune_jobs.config import SweepConfig
from tune_jobs.holding import held
from tune_jobs.store import SweepStore
from tune_jobs.tracking import of_sweep
from tune_jobs.tracking.client import connect
from tune_jobs.tracking.of_sweep import SweepCopy

uri = tracked.uri
ROOT = Path(__file__).resolve().parents[1]


def a_store(folder: Path) -> SweepStore:
    store = SweepStore(folder / "runs")
    store.create()
    store.write_config(SweepConfig(name="first"))
    store.write_trials([END])
    store.write_measurements(CURVE)
    return store


@pytest.mark.slow
def test_a_server_that_is_back_at_the_end_is_filled_within_the_sweep(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port, servers = free_port(), []
    shutil.copy(tracked.empty_store(tmp_path_factory.getbasetemp()), tmp_path / "server.db")
    servers.append(serve(tmp_path, port))
    store = a_store(tmp_path)
    copy = SweepCopy.begin(
        SweepConfig(name="first", experiment=EXPERIMENT), store, f"http://127.0.0.1:{port}", {}
    )
    assert copy.copy is not None
    copy(CURVE[0])
    wait_for(lambda: copy.copy and has_points(copy.copy, "t1"))
    stop(servers[0])
    copy(END)
    back = threading.Timer(3, lambda: servers.append(serve(tmp_path, port)))
    back.start()
    try:
        assert copy.finish("done", {}) is None
        back.join()
        (run,) = nested_runs(f"http://127.0.0.1:{port}", copy.copy)
        assert run.info.status == "FINISHED"
        parent = connect(f"http://127.0.0.1:{port}").get_run(str(copy.copy.parent_run_id))
        assert parent.info.status == "FINISHED"
    finally:
        back.join()
        stop(servers[-1])


def test_what_mlflow_lacks_is_told_with_its_reason_and_what_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_sweep, "TRIES", ((0, 1),))
    store = a_store(tmp_path)
    away = f"http://127.0.0.1:{free_port()}"
    copy = SweepCopy.begin(SweepConfig(name="first"), store, away, {})
    began = time.monotonic()
    lacks = copy.finish("done", {}) or ""
    assert time.monotonic() - began < 30
    assert lacks.startswith("1 of 1 rows missing there (TrackingUnreachable: ")
    assert lacks.endswith(f"python tune_jobs/report.py {store.folder} --sync-mlflow completes it")


def synced(folder: Path, uri: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tune_jobs" / "report.py"), str(folder), "--sync-mlflow",
         "--tracking-uri", uri, *more],
        cwd=folder.parent, capture_output=True, text=True,
    )  # fmt: skip


def test_report_completes_the_copy_and_may_be_asked_again(uri: str, tmp_path: Path) -> None:
    store = sweep_folder(tmp_path / "it", confirmed=True)
    for _ in range(2):
        done = synced(store.folder, uri)
        assert done.returncode == 0, done.stderr
        assert "every row of the sweep stands there" in done.stderr
        client = connect(uri)
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        trials = [run.data.tags["trial_id"] for run in found if "trial_id" in run.data.tags]
        assert sorted(trials) == sorted(row.trial_id for row in store.read_trials())
        (parent,) = (run for run in found if "trial_id" not in run.data.tags)
        assert parent.info.status == "FINISHED" and parent.data.tags["verdict"]


def test_a_sweep_that_runs_is_not_completed_beside_it(uri: str, tmp_path: Path) -> None:
    store = sweep_folder(tmp_path / "it", confirmed=True)
    with held(store):
        refused = synced(store.folder, uri)
    assert refused.returncode == 2 and "is in use by process" in refused.stderr
    away = synced(store.folder, f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 2 and "refused" in away.stderr
