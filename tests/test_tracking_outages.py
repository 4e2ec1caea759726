"""Stores that do not answer, or die under a sweep: told, never waited for, made up for later."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tracked
from tests.tracked import (
    ARTIFACTS,
    CURVE,
    END,
    PROFILES,
    artifacts_in,
    artifacts_of,
    check_curve,
    check_numbers,
    copy_of,
    has_points,
    live_sweep,
    nested_runs,
    steps_of,
    wait_for,
)
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking import outbox
from tune_jobs.tracking.fields import run_name
from tune_jobs.tracking.reachable import check_reachable, default_uri

uri = tracked.uri


def test_a_full_queue_drops_and_counts_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "QUEUE_SIZE", 2)
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
    port: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    uri = f"http://127.0.0.1:{port}"
    shutil.copy(tracked.empty_store(tmp_path_factory.getbasetemp()), tmp_path / "server.db")
    server = serve(tmp_path, port)
    try:
        wait_for(lambda: answers(uri), seconds=120)
        copy = live_sweep(uri, tmp_path, CURVE[0])
        wait_for(lambda: has_points(copy, "t1"))
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
            check_numbers(by_name[run_name(row)], row)
        run = by_name[END.name]
        assert run.info.status == "FINISHED"
        assert steps_of(uri, run, "val_loss") == [64, 128, 192]
        check_curve(uri, run, CURVE)
    finally:
        stop(server)
