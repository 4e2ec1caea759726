"""Nothing listens to strangers, and what a sweep keeps is its user's alone.

1. Ray's token is its owner's alone before anything listens;
2. what a local sweep opens is on loopback;
3. a sweep's folder is its owner's alone, unless the umask says that the group may write.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tune_jobs import doctor
from tune_jobs.errors import UserError
from tune_jobs.private import is_open_to_others, secure_token
from tune_jobs.store import SweepStore

ROOT = Path(__file__).resolve().parents[1]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_the_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ray" / "auth_token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)}
    with masked(0o000):
        assert secure_token(environment) is None
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    token = path.read_text()
    assert len(token) == 64
    assert secure_token(environment) is None and path.read_text() == token
    assert [p.name for p in path.parent.iterdir()] == ["auth_token"]


def test_a_token_that_others_can_read_is_taken_from_them_and_told(tmp_path: Path) -> None:
    path = tmp_path / "auth_token"
    path.write_text("t")
    path.chmod(0o644)
    assert "could be read by others" in str(secure_token({"RAY_AUTH_TOKEN_PATH": str(path)}))
    assert mode(path) == 0o600 and path.read_text() == "t"


def test_no_token_is_made_where_none_is_wanted_or_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "auth_token"
    for more in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "t"}):
        assert secure_token({"RAY_AUTH_TOKEN_PATH": str(path), **more}) is None
    assert not path.exists()


def test_a_token_that_cannot_be_made_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH"):
        secure_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "file" / "auth_token")})


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o700), (0o077, 0o700), (0o007, 0o770)])
def test_a_sweeps_folder_is_its_owners_alone(tmp_path: Path, mask: int, expected: int) -> None:
    with masked(mask):
        SweepStore.open(str(tmp_path / "runs"), "it").create()
    assert mode(tmp_path / "runs" / "it") == expected


LISTENERS = """
import os, sys, time, psutil, ray
from pathlib import Path
from tune_jobs.tuning.starting import start_ray
start_ray(Path.cwd())
ray.get(ray.remote(lambda: os.getpid()).remote())
time.sleep(3)  # agents open their ports a while after the node is there
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
for process in family:
    for at in process.net_connections("inet"):
        if at.status == psutil.CONN_LISTEN or at.type == 2 and not at.raddr:
            print(at.laddr.ip)
"""


@pytest.mark.slow
def test_what_a_local_sweep_opens_is_on_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = done.stdout.split()
    assert len(opened) >= 5 and set(opened) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not is_open_to_others(tmp_path / ".ray" / "auth_token")


def test_doctor_tells_what_of_ray_and_mlflow_listens_and_to_whom(tmp_path: Path) -> None:
    hold = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1]"
    )
    ports = []
    with ExitStack() as stack:
        for host, name in (("127.0.0.1", "mlflow.server"), ("0.0.0.0", "ray::Dashboard")):
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, "-c", hold + ", flush=True); sys.stdin.read()", host, name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ))  # fmt: skip
            assert process.stdout is not None
            ports.append(process.stdout.readline().strip())
        said, amiss = doctor.listening()
    inner, outer = (next(line for line in said if port in line) for port in ports)
    assert "127.0.0.1" in inner and "from this machine alone" in inner
    assert "0.0.0.0" in outer and "from the network" in outer and "runs code as you" in outer
    assert amiss >= 1


def test_doctor_tells_of_a_token_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert doctor.token() == ("none yet; the first sweep makes it", 0)
    path.write_text("t")
    path.chmod(0o644)
    said, amiss = doctor.token()
    assert amiss == 1 and f"chmod 600 {path}" in said
    path.chmod(0o600)
    assert doctor.token() == (f"{path}, yours alone", 0)
