"""Stores that do not answer, or die under a sweep: told, never waited for, made up for later."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

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


def test_a_port_that_does_not_speak_http_is_told_like_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            caller, _ = listener.accept()
            with caller:
                caller.recv(1_000)
                caller.sendall(b"220 mail.example\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(TrackingUnreachable, match="220 mail"):
            check_reachable(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


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


def run_server(folder: Path, port: int) -> None:
    """What `mlflow server` runs, told by the same variables; never returns."""
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.fastapi_app import app

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
    }
    uvicorn.run(app, port=port, log_level="warning")


def serve(folder: Path, port: int) -> Any:
    """A process of its own that serves; each is forked from one that has imported MLflow's server.

    That import, which `mlflow server` makes twice at each start, takes ten seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uvicorn", "mlflow.server.fastapi_app"])
    server = context.Process(target=run_server, args=(folder, port), daemon=True)
    server.start()
    wait_for(lambda: answers(f"http://127.0.0.1:{port}"), seconds=120)
    return server


def stop(server: Any) -> None:
    """End the server as the kernel ends a process: nothing is said or written any more."""
    server.kill()
    server.join()


@pytest.mark.slow
def test_a_server_that_dies_never_blocks_the_sweep_and_is_completed_when_it_is_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    shutil.copy(tracked.empty_store(tmp_path_factory.getbasetemp()), tmp_path / "server.db")
    server = serve(tmp_path, port)
    try:
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
