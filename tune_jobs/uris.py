"""Tracking URIs: what is wrong before any is used, and what may be shown of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from urllib.parse import quote, unquote, urlsplit, urlunsplit

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
    if not uri or re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", uri):
        return "is empty, or holds control characters"
    if re.match(r"https?:", uri) and re.search(r"\s", uri):
        return "holds blanks"  # those of a folder's path are no mistake
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


def is_hidden(uri: str) -> bool:
    """Whether `shown` took a password out of it, so that nothing can be reached by it."""
    return HIDDEN in uri


def without_user(uri: str) -> str:
    """The address alone, for links and for what asks for credentials beside it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def credentials(uri: str) -> tuple[str, str] | None:
    """User and password that stand in the URI."""
    found = urlsplit(uri).netloc.rpartition("@")[0]
    user, _, password = found.partition(":")
    return (unquote(user), unquote(password)) if found else None


def hidden(text: str, uri: str) -> str:
    """The text, such as a library's error, without what must not be shown of the URI."""
    text = text.replace(uri, shown(uri))
    found = credentials(uri)
    for password in {found[1], quote(found[1], safe="")} if found else ():
        text = text.replace(password, HIDDEN) if password else text
    return text


def with_password(uri: str, environment: Mapping[str, str]) -> str:
    """The URI with the password that was not stored, from MLflow's own variables.

    Raises UserError where they do not hold it.
    """
    given = environment.get("MLFLOW_TRACKING_URI", "")
    if not is_hidden(uri) or (given and shown(given) == uri):
        return given if is_hidden(uri) else uri
    password = environment.get("MLFLOW_TRACKING_PASSWORD")
    if password is None or f":{HIDDEN}@" not in uri:
        raise UserError(
            f"--resume: the password of {uri} is not stored; set MLFLOW_TRACKING_PASSWORD, or give "
            "the whole URI in MLFLOW_TRACKING_URI or with --tracking-uri"
        )
    return uri.replace(f":{HIDDEN}@", f":{quote(password, safe='')}@")
