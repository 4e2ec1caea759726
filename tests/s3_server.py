"""A real S3-compatible server on loopback, for tests of what lies at a URI."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of moto's S3 server, which holds an empty bucket `sweeps`."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _make_bucket(port)
        yield port
    finally:
        server.terminate()
        server.wait()


def _make_bucket(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/sweeps", method="PUT")
    for _ in range(150):
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the S3 server did not start")


def query(port: int) -> str:
    """The end of an `s3://bucket/path` URI that names this server."""
    return f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def credentials(cache: Path) -> dict[str, str]:
    """What a process needs in its environment; `cache` holds its copies of remote folders."""
    return {
        "AWS_ACCESS_KEY_ID": "key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(cache),
    }
