"""Where MLflow's copy goes, and whether it can go there: asked before anything imports MLflow."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tune_jobs.errors import TrackingUnreachable
from tune_jobs.uris import check_tracking_uri


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
    elif uri.startswith("file:") or "://" not in uri:
        raise TrackingUnreachable(
            f"tracking store {uri!r} is a folder, which MLflow no longer writes; "
            "use sqlite:////absolute/path/mlflow.db or the http(s) address of a server"
        )


def _check_server(uri: str, timeout_seconds: float) -> None:
    health = uri.rstrip("/") + "/health"
    remedy = (
        "start it (mlflow server --host 127.0.0.1 --port 5000), correct --tracking-uri or "
        "MLFLOW_TRACKING_URI, or leave both out to use SQLite in the working folder"
    )
    try:
        with urllib.request.urlopen(health, timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as error:
        failed = f"answered {error.code} {error.reason}"
        if error.code == 403:
            remedy = "start the server with this host in --allowed-hosts"
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        failed = f"failed ({getattr(error, 'reason', None) or error})"
    raise TrackingUnreachable(f"tracking server {uri!r}: GET {health} {failed}; {remedy}")


def _check_sqlite(uri: str, path: Path) -> None:
    writable = path if path.exists() else path.parent
    if not path.parent.is_dir():
        failed = f"folder {path.parent} does not exist"
    elif path.is_dir() or not (os.access(writable, os.W_OK) and os.access(path.parent, os.W_OK)):
        failed = f"{writable} cannot be written"
    else:
        return
    raise TrackingUnreachable(
        f"tracking store {uri!r}: {failed}; make it writable, or name another with --tracking-uri"
    )
