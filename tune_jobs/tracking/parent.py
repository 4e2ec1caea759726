"""The parent run of a sweep in MLflow: found again or begun, and ended with the verdict."""

from __future__ import annotations

import json
import os
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking import compare_view
from tune_jobs.tracking.client import PARENT, connect, log_batch, search
from tune_jobs.tracking.reachable import sqlite_path
from tune_jobs.uris import shown, without_user

LOCAL_UI = "http://127.0.0.1:5000"  # where scripts/mlflow_ui serves a local store


@dataclass(frozen=True)
class Sweep:
    """Which sweep is copied, and where to; `state_path` as `MlflowCopy` takes it."""

    uri: str
    experiment: str
    name: str
    state_path: Path | None


@dataclass(frozen=True)
class Parent:
    """A sweep's parent run, and the client that reaches it."""

    sweep: Sweep
    client: Any
    experiment_id: str
    run_id: str


def open_parent(sweep: Sweep, params: Mapping[str, str], tags: Mapping[str, str]) -> Parent:
    """The sweep's own parent run, set going again, or a new one with these params and tags."""
    client = connect(sweep.uri)
    experiment_id = _experiment_id(client, sweep)
    key, value = _mark(sweep)
    for run in search(client, experiment_id, (key, value)):
        if PARENT not in run.data.tags:
            client.update_run(run.info.run_id, status="RUNNING")
            log_batch(client, run.info.run_id, tags=tags)
            return Parent(sweep, client, experiment_id, str(run.info.run_id))
    marks = {**tags, "sweep": sweep.name, key: value}
    run = client.create_run(experiment_id, tags=marks, run_name=sweep.name)
    log_batch(client, run.info.run_id, params=params)
    return Parent(sweep, client, experiment_id, str(run.info.run_id))


def _experiment_id(client: Any, sweep: Sweep) -> str:
    found = client.get_experiment_by_name(sweep.experiment)
    if found is not None:
        return str(found.experiment_id)
    path = sqlite_path(sweep.uri)
    # Beside the database, and not in whatever folder a process happens to run.
    place = None if path is None else (path.absolute().parent / "mlruns").as_uri()
    return str(client.create_experiment(sweep.experiment, artifact_location=place))


def _mark(sweep: Sweep) -> tuple[str, str]:
    """The tag that marks this sweep's parent run. Its token is kept before it is used."""
    path = sweep.state_path
    if path is None:
        return "sweep", sweep.name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".tmp")
        unfinished.write_text(json.dumps({"sweep_id": uuid.uuid4().hex}))
        os.replace(unfinished, path)
    return "sweep_id", str(json.loads(path.read_text())["sweep_id"])


def save_charts(parent: Parent, stages: Set[str], now_ms: int) -> str | None:
    """Save a view of the most telling of these stages; the address where MLflow's UI shows it."""
    stage = next((stage for stage in compare_view.AXES if stage in stages), None)
    if stage is None:
        return None
    client, experiment_id = parent.client, parent.experiment_id
    metric = client.get_run(parent.run_id).data.params.get("metric", "accuracy")
    view = compare_view.tag_value(parent.sweep.name, parent.run_id, stage, now_ms, metric)
    client.set_experiment_tag(experiment_id, compare_view.tag_name(parent.run_id), view)
    for name in compare_view.outdated(client.get_experiment(experiment_id).tags):
        client.delete_experiment_tag(experiment_id, name)
    uri = parent.sweep.uri
    base = without_user(uri).rstrip("/") if uri.startswith("http") else LOCAL_UI
    return base + compare_view.page(experiment_id, parent.run_id)


def write_verdict(parent: Parent, note: str, page: str | None, tags: Mapping[str, str]) -> None:
    """The verdict as the parent's note and tags."""
    marks = {**tags, "mlflow.note.content": _with_link(note, page)}
    log_batch(parent.client, parent.run_id, tags=marks)


def _with_link(note: str, page: str | None) -> str:
    """The note with the charts' address after its first paragraph: MLflow folds away what follows.

    Without the host, so that the link holds wherever the store is served.
    """
    if page is None:
        return note
    first, _, rest = note.partition("\n\n")
    link = f"[Charts of batch size](#{page.partition('#')[2]})"
    return "\n\n".join(part for part in (first, link, rest) if part)


def log_artifacts(parent: Parent, artifacts: Sequence[Path]) -> None:
    """Files under the run's root, folders under their name.

    Errors:
        TrackingUnreachable: MLflow would write to this machine's disk, not the server's.
    """
    _check_artifact_place(parent)
    for path in artifacts:
        if path.is_dir():
            parent.client.log_artifacts(parent.run_id, str(path), path.name)
        else:
            parent.client.log_artifact(parent.run_id, str(path))


def _check_artifact_place(parent: Parent) -> None:
    run = parent.client.get_run(parent.run_id)
    place, server = map(urllib.parse.urlsplit, (run.info.artifact_uri, parent.sweep.uri))
    if place.scheme not in ("", "file") or server.scheme not in ("http", "https"):
        return
    if server.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise TrackingUnreachable(
            f"tracking server {shown(parent.sweep.uri)!r} keeps artifacts in {place.path}, a "
            "folder of its own machine; start it with --serve-artifacts, and name a new experiment"
        )
