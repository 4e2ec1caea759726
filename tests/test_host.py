"""What keeps Ray from starting, or from joining a cluster, is told or got around."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from models import registry
from tune_jobs.environment import cluster_address
from tune_jobs.errors import UserError
from tune_jobs.reporting.table import places
from tune_jobs.store import SweepStore
from tune_jobs.tuning import host
from tune_jobs.tuning.host import check_address, object_store, short_folder

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own idea of the temporary folder comes back after the test."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_is_left_for_a_short_one(
    name: str, tmp_path: Path, temporary: None
) -> None:
    environment, said = {name: str(tmp_path / ("scratch" * 12))}, list[str]()
    short_folder(environment, said.append)
    assert environment == {name: "/tmp"}
    assert len(said) == 1 and name in said[0] and "/tmp is used" in said[0]


def test_the_longest_folder_that_sockets_allow_stays(temporary: None) -> None:
    longest = "/tmp/" + "x" * (host.LONGEST_SOCKET - len(host.SOCKET) - len("/tmp/"))
    for folder, stays in ((longest, True), (longest + "x", False)):
        environment = {"TMPDIR": folder}
        short_folder(environment, lambda _: None)
        assert (environment["TMPDIR"] == folder) is stays


def test_where_no_folder_is_short_enough_it_is_told(
    tmp_path: Path, temporary: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "SHORT_FOLDERS", (str(tmp_path / ("y" * 60)),))
    with pytest.raises(UserError, match=r"TMPDIR .*name a folder of at most 3\d"):
        short_folder({"TMPDIR": str(tmp_path / ("z" * 60))}, lambda _: None)


@pytest.mark.parametrize(
    "address", ["nohost", "http://127.0.0.1:8265", "ray://h:1", "h:", ":6379", "h:port", "h:99999"]
)
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"RAY_ADDRESS .*must be HOST:PORT.*unset it"):
        check_address(address)


def test_an_address_that_nobody_answers_at_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"RAY_ADDRESS {address}: .*unset it"):
        check_address(address)


def test_another_service_at_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="what listens there is no Ray"):
            check_address(address)


def test_local_and_nothing_are_no_cluster() -> None:
    assert [cluster_address({"RAY_ADDRESS": word}) for word in ("", "local")] == [None, None]
    assert cluster_address({}) is None
    assert cluster_address({"RAY_ADDRESS": "10.0.0.1:6379"}) == "10.0.0.1:6379"


def test_without_room_in_shared_memory_objects_lie_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for free, expected in ((64 * 2**20, str(tmp_path)), (2**34, None)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        options = object_store({"RAY_TMPDIR": str(tmp_path)})
        assert options.get("_plasma_directory") == expected


def test_a_model_whose_module_exits_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves_early.py").write_text("import sys\nsys.exit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'leaves_early' does not import \(SystemExit: 4\)"):
        registry.resolve("leaves_early:model")


def test_a_command_to_be_copied_is_quoted() -> None:
    told = dict(places(SweepStore.at("of mine (1)/it's"), None, None))
    assert told["report"].endswith("""report.py 'of mine (1)/it'"'"'s'""")
