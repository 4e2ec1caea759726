"""Tracking URIs: what is wrong before any is used, and what may be shown of them."""

from __future__ import annotations

import re
from importlib import metadata
from urllib.parse import urlsplit

from tune_jobs.errors import UserError

HIDDEN = "***"
SCHEMES = (
    "databricks", "databricks-uc", "file", "http", "https", "mssql", "mysql", "postgresql",
    "sqlite", "uc",
)  # fmt: skip
# What stands before the last `@`, but not a port: `user:password` also with a `/` in it.
_PASSWORD = re.compile(r"(://[^:/@]*):(?!\d+(?:/|$)).*@", re.DOTALL)
_TOKEN = re.compile(r"(https?://)[^:/?#]+@")
_PARAMETER = re.compile(r"([?&][^=&]*(?:password|passwd|pwd|token|secret|api_key)=)[^&#]*", re.I)


def shown(uri: str) -> str:
    """The URI with `***` for its passwords: what is printed, logged and stored."""
    without = _PASSWORD.sub(rf"\1:{HIDDEN}@", uri)
    without = _TOKEN.sub(rf"\1{HIDDEN}@", without)
    return _PARAMETER.sub(rf"\1{HIDDEN}", without)


def check_tracking_uri(uri: str, named: str = "tracking URI") -> None:
    """Raises UserError for what no MLflow could be reached by."""
    amiss = _amiss(uri)
    if amiss:
        raise UserError(
            f"{named} {shown(uri)!r}: {amiss}; give an address such as http://127.0.0.1:5000 or "
            "sqlite:////absolute/path/mlflow.db"
        )


def _amiss(uri: str) -> str | None:
    if not uri or re.search(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]", uri):
        return "is empty, or holds blanks or control characters"
    if "://" not in uri:
        return None  # a folder, or a name that MLflow knows
    try:
        scheme, host = urlsplit(uri).scheme, urlsplit(uri).hostname
        _ = urlsplit(uri).port
    except ValueError as error:
        # Its words may hold a password that was taken for a port.
        return "has no valid host and port" + (" (IPv6)" if "IPv6" in str(error) else "")
    if scheme.partition("+")[0] not in (*SCHEMES, *_plugins()):
        return f"{scheme!r} is unknown; known: {', '.join(SCHEMES)}"
    if scheme in ("http", "https") and not host:
        return "names no host"
    return None


def _plugins() -> set[str]:
    return {point.name for point in metadata.entry_points(group="mlflow.tracking_store")}
