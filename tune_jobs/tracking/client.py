"""MLflow's client as this room uses it: it gives up soon, keeps quiet, and keeps to its limits."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_jobs.tracking.reachable import sqlite_path
from tune_jobs.tracking.sqlite_store import make_whole

PARENT = "mlflow.parentRunId"  # the tag that makes a run a nested one
MAX_METRICS = 1_000  # MLflow's limits for one log_batch
MAX_PARAMS_AND_TAGS = 100
MAX_PARAM_CHARACTERS = 6_000
MAX_TAG_CHARACTERS = 8_000

Metric = tuple[str, float, int, int]  # name, value, timestamp in milliseconds, step


def connect(uri: str) -> Any:
    """An MlflowClient that gives up soon and keeps quiet. The import takes seconds."""
    # With MLflow's own 7 retries one call to a dead server blocks for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # Two lines for each run that ends, into the job's log.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # tells of each try to reach a server
    if (path := sqlite_path(uri)) is not None:
        make_whole(path, _build)
    return MlflowClient(tracking_uri=uri)


def _build(uri: str) -> None:
    """An empty store in a new SQLite file, which is closed again."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, "./mlruns")._dispose_engine()


def search(client: Any, experiment_id: str, tag: tuple[str, str] | None = None) -> Iterator[Any]:
    """The experiment's runs (with this tag) that are not deleted, the first begun first."""
    name, value = tag or ("", "")
    quoted = value.replace("'", "")
    wanted = f"tags.`{name}` = '{quoted}'" if tag else ""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            wanted,
            max_results=1_000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def log_batch(
    client: Any,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """log_batch in pieces of the size that MLflow takes; nothing at all costs no call."""
    from mlflow import entities

    words, marks = params or {}, tags or {}
    parts = [entities.Param(key, str(v)[:MAX_PARAM_CHARACTERS]) for key, v in words.items()]
    labels = [entities.RunTag(key, str(v)[:MAX_TAG_CHARACTERS]) for key, v in marks.items()]
    points = [entities.Metric(*metric) for metric in metrics]
    half = MAX_PARAMS_AND_TAGS // 2
    while points or parts or labels:
        head = points[: MAX_METRICS - MAX_PARAMS_AND_TAGS]
        client.log_batch(run_id, metrics=head, params=parts[:half], tags=labels[:half])
        points, parts, labels = points[len(head) :], parts[half:], labels[half:]
