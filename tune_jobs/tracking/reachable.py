"""Where MLflow's copy goes, and whether it can go there: asked before anything imports MLflow."""

from __future__ import annotations

import base64
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking.sqlite_store import amiss
from tune_jobs.uris import check_tracking_uri, credentials, hidden, shown, without_user

DATABASES = ("postgresql", "mysql", "mssql")


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def sqlite_path(uri: str) -> Path | None:
    """The database file that `uri` names; None for every other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0])


def check_reachable(uri: str, timeout_seconds: float = 5) -> None:
    """Raise TrackingUnreachable when `uri` cannot take a run; costs no import of MLflow.

    Raises UserError for what is no address of anything.
    """
    check_tracking_uri(uri)
    if uri.startswith(("http://", "https://")):
        _check_server(uri, timeout_seconds)
    elif (path := sqlite_path(uri)) is not None:
        _check_sqlite(uri, path)
    elif uri.partition("://")[0].partition("+")[0] in DATABASES:
        _check_database(uri, timeout_seconds)
    elif uri.startswith("file:") or "://" not in uri:
        raise TrackingUnreachable(
            f"tracking store {shown(uri)!r} is a folder, which MLflow no longer writes; "
            "use sqlite:////absolute/path/mlflow.db or the http(s) address of a server"
        )


def check_experiment(uri: str, name: str) -> None:
    """Raise TrackingUnreachable where the store, which is reachable, holds the experiment as
    deleted: it takes no run then."""
    if uri.startswith(("http://", "https://")):
        stage = _stage_on_server(uri, name)
    else:
        stage = _stage_in_database(uri, name)
    if stage == "deleted":
        raise TrackingUnreachable(
            f"MLflow's experiment {name!r} at {shown(uri)} was deleted, and takes no run; restore "
            "it (mlflow experiments restore), or name another (experiment = ... in the TOML)"
        )


def _stage_on_server(uri: str, name: str) -> str | None:
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=" + urllib.parse.quote(name)
    request = urllib.request.Request(_address(uri, path), headers=_authorization(uri))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(json.load(answer)["experiment"]["lifecycle_stage"])
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None  # there is none yet; what else is amiss has been looked for


def _stage_in_database(uri: str, name: str) -> str | None:
    path = sqlite_path(uri)
    if path is not None and not (path.exists() and path.stat().st_size):
        return None
    import sqlalchemy

    asked = sqlalchemy.text("SELECT lifecycle_stage FROM experiments WHERE name = :name")
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            return connection.execute(asked, {"name": name}).scalar()
    except sqlalchemy.exc.SQLAlchemyError:
        return None
    finally:
        engine.dispose()


def _check_server(uri: str, timeout_seconds: float) -> None:
    """It answers, and takes the credentials: /health asks for none."""
    remedy = (
        "start it (mlflow server --host 127.0.0.1 --port 5000), correct --tracking-uri or "
        "MLFLOW_TRACKING_URI, or leave both out to use SQLite in the working folder"
    )
    failed = _failure(uri, "/health", timeout_seconds)
    if failed is None:
        failed = _failure(uri, "/api/2.0/mlflow/experiments/search?max_results=1", timeout_seconds)
        failed = failed if failed and failed.code in (401, 403) else None
    if failed is None:
        return
    if failed.code == 401:
        remedy = (
            "give user and password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "in the URI"
        )
    elif failed.code == 403:
        remedy = "start the server with this host in --allowed-hosts, or let this user read it"
    raise TrackingUnreachable(
        f"tracking server {shown(uri)!r}: GET {failed.address} {hidden(failed.said, uri)}; {remedy}"
    )


@dataclass(frozen=True)
class _Failure:
    """A request that failed; `code` is the server's, None where it gave none."""

    address: str
    said: str
    code: int | None = None


def _failure(uri: str, path: str, timeout_seconds: float) -> _Failure | None:
    address = _address(uri, path)
    request = urllib.request.Request(address, headers=_authorization(uri))
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return _Failure(address, f"answered {error.code} {error.reason}", error.code)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _Failure(address, f"failed ({getattr(error, 'reason', None) or error})")


def _address(uri: str, path: str) -> str:
    return without_user(uri).rstrip("/") + path


def _authorization(uri: str) -> dict[str, str]:
    """As MLflow's client sends it: what stands in the URI, else its environment variables."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    beside = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    found, token = credentials(uri) or beside, os.environ.get("MLFLOW_TRACKING_TOKEN")
    if found is not None:
        word = base64.b64encode(":".join(found).encode()).decode()
        return {"Authorization": f"Basic {word}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _check_sqlite(uri: str, path: Path) -> None:
    writable = path if path.exists() else path.parent
    if not path.parent.is_dir():
        failed = f"folder {path.parent} does not exist"
    elif path.is_dir() or not (os.access(writable, os.W_OK) and os.access(path.parent, os.W_OK)):
        failed = f"{writable} cannot be written"
    elif unusable := amiss(path):
        raise TrackingUnreachable(f"tracking store {path} {unusable}")
    else:
        return
    raise TrackingUnreachable(
        f"tracking store {uri!r}: {failed}; make it writable, or name another with --tracking-uri"
    )


def _check_database(uri: str, timeout_seconds: float) -> None:
    """Its driver is installed, and it lets us in."""
    import sqlalchemy

    connects = {"connect_timeout": int(timeout_seconds)} if not uri.startswith("mssql") else {}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=connects)
        engine.connect().close()
        engine.dispose()
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        said = hidden(str(error).splitlines()[0], uri)
        raise TrackingUnreachable(
            f"tracking store {shown(uri)!r}: {said}; install its driver, correct the URI, or start "
            "the database"
        ) from error
