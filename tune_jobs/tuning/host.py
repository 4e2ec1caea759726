"""What a Ray needs of this machine, or the way to a cluster: looked at before Ray is started."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from ray._private import services

from tune_jobs.errors import UserError

LONGEST_SOCKET = 107  # bytes of a Unix socket's path, unix(7)
SOCKET = "/ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store"
SHORT_FOLDERS = ("/tmp", "/var/tmp")
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 200 * 2**20  # for the objects of a sweep on one machine, which are small
CONNECT_SECONDS = 5.0


def check_address(address: str) -> None:
    """Raises UserError where no cluster is at this RAY_ADDRESS: Ray itself would ask for ever."""
    place = address
    if address == "auto":
        try:
            place = services.canonicalize_bootstrap_address_or_die("auto")
        except ConnectionError as error:
            raise not_joined(address, error) from error
    host, _, port = place.rpartition(":")
    if "/" in place or not (host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise UserError(
            f"RAY_ADDRESS {address!r}: must be HOST:PORT of a Ray cluster, such as 10.0.0.1:6379 "
            "(an http:// address is for scripts/submit --address); correct or unset it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            with grpc.insecure_channel(place, [("grpc.enable_http_proxy", 0)]) as channel:
                grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
    except OSError as error:
        raise not_joined(address, error) from error
    except grpc.FutureTimeoutError as error:
        raise not_joined(address, TimeoutError("what listens there is no Ray")) from error


def not_joined(address: str, error: Exception) -> UserError:
    """The error for a cluster that does not let this driver in."""
    said = str(getattr(error, "strerror", None) or error).strip().splitlines()
    why = said[0].rstrip(".") if said else type(error).__name__
    return UserError(
        f"RAY_ADDRESS {address}: no Ray cluster could be joined there ({why}); start it, correct "
        "the address, or unset it for a Ray on this machine"
    )


def short_folder(environment: MutableMapping[str, str], say: Callable[[str], None]) -> None:
    """See that temporary files lie where paths of sockets stay short enough; another place is told.

    Errors:
        UserError: there is no such place.
    """
    name = "RAY_TMPDIR" if environment.get("RAY_TMPDIR") else "TMPDIR"
    given = environment.get(name) or SHORT_FOLDERS[0]
    if _fits(given):
        return
    place = next(filter(_fits, SHORT_FOLDERS), None)
    if place is None:
        raise UserError(
            f"{name} {given!r}: cannot be written, or Ray's sockets in it would have paths of over "
            f"{LONGEST_SOCKET} bytes; name a folder of at most {LONGEST_SOCKET - len(SOCKET)}"
        )
    say(f"note: {name} {given} is too long for Ray's sockets, or not writable: {place} is used")
    environment[name] = place
    tempfile.tempdir = None  # found anew


def _fits(folder: str) -> bool:
    path = Path(folder).absolute()
    there = next(at for at in (path, *path.parents) if at.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return writable and len(os.fsencode(f"{path}{SOCKET}")) <= LONGEST_SOCKET


def object_store(environment: MutableMapping[str, str]) -> dict[str, Any]:
    """Options of ray.init where shared memory has no room for Ray's objects: they lie on disk."""
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free >= ROOM_BYTES:
        return {}
    folder = environment.get("RAY_TMPDIR") or tempfile.gettempdir()
    return {"_plasma_directory": folder, "object_store_memory": ROOM_BYTES}
