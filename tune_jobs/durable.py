"""Files that are there whole or not at all, and still there after a power loss."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from tune_jobs.errors import StoreError

LEFT_BEHIND_SECONDS = 60.0  # no write takes as long
ROOM_BYTES = 4 * 2**20  # less than a small sweep's report and Ray's state take
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Write the file beside its place, then put it there; `lasting` waits for the disk to have it.

    Errors:
        StoreError: it cannot be written; what stood there stands, and no more is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            if lasting:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
        if lasting:
            sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(_refusal(path, len(content), error)) from error


def _refusal(path: Path, size: int, error: OSError) -> str:
    if error.errno in NO_ROOM:
        return (
            f"no room in {path.parent} for {path.name} ({size:,} bytes); what was written before "
            "stands. Make room, then take the sweep up with --resume"
        )
    if error.errno == errno.ENOENT:
        return f"{path.parent} is gone, so {path.name} cannot be written; restore the folder"
    return f"{path} cannot be written ({error.strerror}); make its folder writable"


def fault_of(folder: Path) -> str | None:
    """What is wrong with a folder that something failed in; None where it seems in order."""
    if not folder.exists():
        return (
            f"{folder} was removed while the sweep ran, and what it had written with it. Restore "
            "the folder and take it up with --resume, or begin another"
        )
    free = shutil.disk_usage(folder).free
    if free >= ROOM_BYTES:
        return None
    return (
        f"no room in {folder} ({free:,} bytes free); what was written before stands. Make at least "
        f"{ROOM_BYTES // 2**20} MiB of room, then take the sweep up with --resume"
    )


def sync_folder(folder: Path) -> None:
    """Wait until the names in the folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot: some network shares
            raise
    finally:
        os.close(handle)


def remove_left_behind(folder: Path, older_than_seconds: float) -> None:
    """Delete what writers that were killed left beside their files."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime >= older_than_seconds:
                temporary.unlink()
