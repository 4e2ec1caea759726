"""MLflow's database in a file: made whole or not at all; one that cannot be used is told."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import tracked
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking.client import connect
from tune_jobs.tracking.reachable import check_reachable

uri = tracked.uri
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_database_that_is_killed_while_it_is_made_is_not_there(tmp_path: Path) -> None:
    """The unfinished file is there for as long as the migrations take; killed at six moments."""
    path, killed = tmp_path / "mlflow.db", 0
    make = f"from tune_jobs.tracking.client import connect; connect('sqlite:///{path}')"
    for k in range(6):
        process = subprocess.Popen([sys.executable, "-c", make], cwd=ROOT)
        while not list(tmp_path.glob(".mlflow.db.*.tmp")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1 * k)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL and not path.exists()
        check_reachable(f"sqlite:///{path}")
        path.unlink(missing_ok=True)
    assert killed > 2
    assert connect(f"sqlite:///{path}").search_experiments()
    assert path.stat().st_mode & 0o077 == 0
    check_reachable(f"sqlite:///{path}")


KILLED_WRITER = """
import os, signal, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("pragma cache_size = 5")  # so that it writes before it is done
base.execute("begin immediate")
base.execute("create table more (word text)")
base.executemany("insert into more values (?)", [("x" * 500,)] * 5000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_database_whose_writer_was_killed_is_used(uri: str, tmp_path: Path) -> None:
    """Its journal is there still, and whoever opens it takes back what was half written."""
    path = tmp_path / "mlflow.db"
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert path.with_name("mlflow.db-journal").stat().st_size
    check_reachable(uri)
    with closing(sqlite3.connect(path)) as base:
        names = {name for (name,) in base.execute("select name from sqlite_master")}
    assert "more" not in names and "runs" in names


def test_of_two_that_make_it_at_once_the_first_stands(uri: str, tmp_path: Path) -> None:
    from tune_jobs.tracking.sqlite_store import make_whole

    new = tmp_path / "new.db"

    def make(place: str) -> None:
        shutil.copy(tmp_path / "mlflow.db", place.removeprefix("sqlite:///"))
        new.write_text("the first")

    make_whole(new, make)
    assert new.read_text() == "the first"
    assert not list(tmp_path.glob(".*.tmp"))


def with_schema(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute(statement)
        base.commit()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("update alembic_version set version_num = '0a8213491aaa'", "half made, or by an earlier"),
        ("delete from alembic_version", "half made"),
        ("drop table alembic_version", "half made"),
        ("update alembic_version set version_num = 'feedfeedfeed'", "of a newer MLflow than this"),
    ],
)
def test_a_database_of_another_schema_is_told_the_right_way_round(
    uri: str, tmp_path: Path, statement: str, says: str
) -> None:
    check_reachable(uri)
    with_schema(tmp_path / "mlflow.db", statement)
    with pytest.raises(TrackingUnreachable, match=says) as told:
        check_reachable(uri)
    assert "--tracking-uri" in str(told.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("three rows of text" * 100)
    with pytest.raises(TrackingUnreachable, match="not a SQLite database"):
        check_reachable(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_database_whose_driver_is_missing_or_that_is_away_is_told_without_password() -> None:
    for address in ("postgresql://me:hush@127.0.0.1:9/x", "mysql+pymysql://me:hush@127.0.0.1:9/x"):
        with pytest.raises(TrackingUnreachable, match="install its driver") as told:
            check_reachable(address)
        assert "hush" not in str(told.value) and os.linesep not in str(told.value)
