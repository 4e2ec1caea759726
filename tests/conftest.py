"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.s3_server import s3_server
from tune_jobs.data.sources import prepare

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


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A real S3 server on loopback with an empty bucket `sweeps`."""
    with s3_server() as port:
        yield port
