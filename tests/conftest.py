"""What several test files share, and which of them are slow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.s3_server import s3_server
from tune_jobs.data.sources import prepare
from tune_jobs.measure.fresh import FreshProcesses

if TYPE_CHECKING:
    from tune_jobs.measure.probe import Subject

_REPOSITORY = Path(__file__).resolve().parent.parent

# A busy machine must not fail a property; the time limit of pytest stays.
settings.register_profile("sweep", deadline=None)
settings.load_profile("sweep")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data folder of all tests: SWEEP_TEST_DATA, or .data in the repository (git-ignored)."""
    return Path(os.environ.get("SWEEP_TEST_DATA") or _REPOSITORY / ".data")


@pytest.fixture(scope="session")
def mnist_dir(data_dir: Path) -> Path:
    """A data folder that holds the prepared mnist.arrow."""
    prepare("mnist", data_dir)
    return data_dir


@pytest.fixture(scope="module")
def fresh() -> Iterator[FreshProcesses]:
    """Processes to measure in."""
    with FreshProcesses() as processes:
        yield processes


@pytest.fixture(scope="session")
def digits(data_dir: Path) -> Subject:
    """The MLP on digits, as probes take it."""
    from tune_jobs.measure.probe import Subject  # torch, which most files do without
    from tune_jobs.workload_source import WorkloadSource

    path = prepare("digits", data_dir)
    return Subject(WorkloadSource("mlp", "digits", str(path)), "adam", 3e-3, 300, 0, 1, 0.0, None)


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A real S3 server on loopback with an empty bucket `sweeps`."""
    with s3_server() as port:
        yield port


# `--quick` leaves out what is marked slow or cluster. The rule is kept here: these fixtures make a
# test slow, and a test that is not marked cannot start what these words name.
_SLOW_FIXTURES = {"fresh"}
_SLOW_COMMANDS = (
    "gcs_server", "raylet", "measure.fresh", "simulated_sweep", "local.sh", "mlflow server",
)  # fmt: skip
_quick: list[str] = []  # the test that runs, where it is not marked


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "cluster"))


def pytest_itemcollected(item: pytest.Item) -> None:
    if _SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _quick[:] = [] if _is_slow(item) else [item.nodeid]
    try:
        return (yield)
    finally:
        _quick.clear()


def _refuse_slow_commands(event: str, arguments: tuple[Any, ...]) -> None:
    if _quick and event == "subprocess.Popen":
        words = arguments[1] if isinstance(arguments[1], str) else " ".join(map(str, arguments[1]))
        started = [word for word in _SLOW_COMMANDS if word in words]
        assert not started, f"{_quick[0]} starts {started[0]}: mark it slow"


sys.addaudithook(_refuse_slow_commands)
