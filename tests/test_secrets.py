"""A password in a tracking URI: it is used, and nowhere shown or stored.

1. what is printed, logged, stored, pickled or sent to MLflow has `***` in its place;
2. the check whether the server answers sends it, as MLflow's client does;
3. --resume takes it from the environment or the flag, and says so where neither has it.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tracked
from tests.test_tracking_outages import free_port, stop
from tests.tracked import wait_for
from tune_jobs.config import resolve, to_be_kept, to_toml
from tune_jobs.errors import TrackingUnreachable, UserError
from tune_jobs.store import SweepStore
from tune_jobs.tracking.mlflow_copy import MlflowCopy
from tune_jobs.tracking.of_sweep import SweepCopy
from tune_jobs.tracking.reachable import check_reachable
from tune_jobs.uris import credentials, hidden, shown, with_password, without_user

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "hush%2F1"  # as it stands in a URI
PLAIN = "hush/1"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://me:hush@host:5000/x", "http://me:***@host:5000/x"),
        ("http://me:hu@sh@host", "http://me:***@host"),
        ("http://me:hu/sh@host", "http://me:***@host"),
        ("https://token@host/x", "https://***@host/x"),
        ("postgresql+psycopg2://me:hush@db/x", "postgresql+psycopg2://me:***@db/x"),
        ("postgresql://db/x?user=me&password=hush&a=b", "postgresql://db/x?user=me&password=***&a=b"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_uri_has_no_password(uri: str, expected: str) -> None:
    assert shown(uri) == expected


def test_a_uri_that_is_refused_is_refused_without_its_password() -> None:
    for uri in ("http://me:hush/@:x", "http://me:hu sh@host", "gopher://me:hush@host"):
        with pytest.raises(UserError) as refused:
            resolve(None, {"tracking_uri": uri})
        assert "hu" not in str(refused.value).replace("such", "")


def test_a_librarys_words_are_told_without_the_password() -> None:
    uri = f"http://me:{PASSWORD}@host"
    assert credentials(uri) == ("me", PLAIN)
    assert (
        hidden(f"GET {uri}/api: {PLAIN} refused", uri) == "GET http://me:***@host/api: *** refused"
    )
    assert without_user(uri + "/x") == "http://host/x"


def test_the_configuration_is_kept_without_the_password(tmp_path: Path) -> None:
    config = resolve(None, {"tracking_uri": f"http://me:{PASSWORD}@host"})
    assert "hush" not in to_toml(config)
    assert b"hush" not in pickle.dumps(to_be_kept(config))
    store = SweepStore(tmp_path)
    store.write_config(config)
    assert "hush" not in store.config.read_text()
    assert store.read_config().tracking_uri == "http://me:***@host"


def test_mlflow_is_told_the_configuration_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(MlflowCopy, "start", lambda _, params, tags: told.extend([params, tags]))
    uri = f"http://me:{PASSWORD}@host"
    SweepCopy.begin(resolve(None, {"tracking_uri": uri}), SweepStore(tmp_path), uri, {})
    assert told[1]["tracking_uri"] == "http://me:***@host"
    assert "hush" not in str(told)


def test_a_resume_takes_the_password_from_mlflows_own_variables() -> None:
    kept, whole = "http://me:***@host", f"http://me:{PASSWORD}@host"
    assert with_password(whole, {}) == whole
    assert with_password(kept, {"MLFLOW_TRACKING_PASSWORD": PLAIN}) == whole
    assert with_password(kept, {"MLFLOW_TRACKING_URI": whole}) == whole
    for environment in ({}, {"MLFLOW_TRACKING_URI": "http://me:hush@other"}):
        with pytest.raises(
            UserError, match=r"http://me:\*\*\*@host is not stored; set MLFLOW_TRAC"
        ):
            with_password(kept, environment)


def guarded(app: Any) -> Any:
    """The server for those who know the password; /health is for everybody, as in MLflow's own."""
    word = b"Basic " + base64.b64encode(f"me:{PLAIN}".encode())

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        asked = dict(scope.get("headers", []))
        if scope["type"] != "http" or scope["path"] == "/health" or asked.get(
            b"authorization") == word:  # fmt: skip
            return await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"who are you?"})

    return answer


def run_server(folder: Path, port: int) -> None:
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.fastapi_app import app

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
    }
    uvicorn.run(guarded(app), port=port, log_level="warning")


@pytest.fixture
def server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The port of a real MLflow server that asks for user and password."""
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    shutil.copy(tracked.empty_store(tmp_path_factory.getbasetemp()), folder / "server.db")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uvicorn", "mlflow.server.fastapi_app"])
    process = context.Process(target=run_server, args=(folder, port), daemon=True)
    process.start()

    def answers() -> bool:
        try:
            check_reachable(f"http://me:{PASSWORD}@127.0.0.1:{port}", 1)
        except TrackingUnreachable:
            return False
        return True

    try:
        wait_for(answers, seconds=120)
        yield port
    finally:
        stop(process)


@pytest.mark.slow
def test_the_check_sends_what_the_client_sends(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = f"http://127.0.0.1:{server}"
    check_reachable(f"http://me:{PASSWORD}@127.0.0.1:{server}")
    for uri in (bare, f"http://me:wrong@127.0.0.1:{server}"):
        with pytest.raises(TrackingUnreachable, match=r"401.*MLFLOW_TRACKING_USERNAME") as told:
            check_reachable(uri)
        assert "wrong" not in str(told.value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PLAIN)
    check_reachable(bare)


def swept(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--name", "it", *arguments],
        cwd=folder, env={**os.environ, "HOME": str(folder / "home"), **environment},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_leaves_the_password_nowhere(server: int, tmp_path: Path, data_dir: Path) -> None:
    uri = f"http://me:{PASSWORD}@127.0.0.1:{server}"
    work, temporary = tmp_path / "work", tmp_path / "t"
    work.mkdir()
    temporary.mkdir()
    (work / "it.toml").write_text(
        'model = "mlp"\ndata = "digits"\nvalidation_examples = 300\nbudget_examples = 1024\n'
        "batch_sizes = [16, 64]\ntrials = 2\nseeds = 1\nprofile_seconds = 5\nnoise_scale = false\n"
        f'target = 0.5\ncpus_per_trial = "1"\ndata_dir = "{data_dir}"\n'
    )
    done = swept(work, "--config", "it.toml", "--only", "measure", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    refused = swept(work, "--resume", "--tracking-uri", f"http://me:***@127.0.0.1:{server}")
    assert refused.returncode == 2 and "set MLFLOW_TRACKING_PASSWORD" in refused.stderr
    # The flag stands in the process table, which is the user's to avoid; it is stored nowhere.
    again = swept(work, "--resume", "--tracking-uri", uri)
    assert again.returncode == 0, again.stderr
    kept = SweepStore(work / "runs" / "it").read_config().tracking_uri
    assert kept == f"http://me:***@127.0.0.1:{server}"
    for said in (done, refused, again):
        assert "hush" not in said.stdout + said.stderr
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert any(f.suffix == ".pkl" for f in files) and any("artifacts" in f.parts for f in files)
    assert [f for f in files if b"hush" in f.read_bytes()] == []
    assert "some rows are missing" not in again.stdout
