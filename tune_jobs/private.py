"""What is its user's alone: a sweep's folder, and the token by which anyone runs code in Ray."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tune_jobs.errors import UserError

GROUP_WRITES = 0o020


def folder_mode() -> int:
    """The owner's alone, but where the umask lets the group write: there sharing is meant."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o700 if mask & GROUP_WRITES else 0o777 & ~mask


def is_open_to_others(path: Path) -> bool:
    """Whether the file is there, and others than its owner may read or write it."""
    return path.exists() and bool(path.stat().st_mode & 0o077)


def token_path(environment: Mapping[str, str]) -> Path:
    """Where Ray looks for the token of a cluster that it starts on this machine."""
    given = environment.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def secure_token(environment: Mapping[str, str]) -> str | None:
    """Make Ray's token, or take it from others: to be called before anything of Ray listens.

    Ray itself makes it readable by everyone of the machine. Returns what is to be told.
    """
    if environment.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    path = token_path(environment)
    try:
        if is_open_to_others(path):
            path.chmod(0o600)
            return (
                f"note: {path} could be read by others of this machine, and is yours alone now. If "
                "one of them may have it, delete it while no Ray runs: the next start makes another"
            )
        if not environment.get("RAY_AUTH_TOKEN") and not path.exists():
            _make(path)
    except OSError as error:
        raise UserError(
            f"{path}, the token of a local Ray, cannot be made yours alone ({error.strerror}); "
            "name another file in RAY_AUTH_TOKEN_PATH"
        ) from error
    return None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    with suppress(FileExistsError):  # of two that start at once the first one's token stands
        os.link(unfinished, path)
    unfinished.unlink()
