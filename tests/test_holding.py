"""Two drivers and one folder, on a disk and on a real S3 server on loopback.

1. a second driver is refused, with the first one's host, process and since when;
2. a lock whose owner is gone is taken over: its process is dead, or another has its number, or it
   has been silent for longer than `GONE_SECONDS` on another machine;
3. a driver that lost its folder stops, and says why;
4. of two that begin at once one gets in;
5. what was refused leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.rows import measurement, result
from tests.s3_server import credentials, query
from tune_jobs import holding
from tune_jobs.errors import StoreError, UserError
from tune_jobs.holding import Holder, held
from tune_jobs.store import SweepStore

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["disk", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SweepStore:
    if request.param == "disk":
        return SweepStore.open(str(tmp_path / "runs"), "it")
    for name, value in credentials(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    port: int = request.getfixturevalue("s3_port")
    return SweepStore.open(f"s3://sweeps/{tmp_path.name}{query(port)}", "it")


@pytest.fixture
def elsewhere() -> Holder:
    """A driver on another machine."""
    return replace(Holder.me(), host="far", machine="far away", pid=7)


@pytest.fixture
def gone() -> Holder:
    """A driver of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Holder.me(), pid=process.pid)


def left(store: SweepStore, holder: Holder | str) -> None:
    store.create()
    text = holder if isinstance(holder, str) else json.dumps(asdict(holder))
    store.write_text(store.lock, text)


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(SweepStore, "age_seconds", lambda *_: seconds)


def test_a_second_driver_is_refused_with_host_process_and_since_when(store: SweepStore) -> None:
    with held(store):
        since = json.loads(store.read_text(store.lock) or "")["since"]
        with pytest.raises(UserError) as refused, held(SweepStore.at(store.address)):
            pass
        for part in (f"process {os.getpid()}", os.uname().nodename, since, "another --name"):
            assert part in str(refused.value)
        assert store.read_text(store.lock) is not None  # the first one's stands
    with held(store):
        pass


def test_a_driver_elsewhere_is_believed_for_as_long_as_it_shows_itself(
    store: SweepStore, elsewhere: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(store, elsewhere)
    with pytest.raises(UserError, match=r"process 7 on far since .*counts as gone after 60 s"):
        held(store).__enter__()
    aged(monkeypatch, holding.GONE_SECONDS + 1)
    with held(store):
        assert f'"pid": {os.getpid()}' in (store.read_text(store.lock) or "")


def test_the_age_of_a_lock_is_taken_by_the_clock_of_the_storage(store: SweepStore) -> None:
    left(store, "")
    assert 0 <= store.age_seconds(store.lock) < 30
    if store.remote is None:
        os.utime(store.lock, (0, 0))
        assert store.age_seconds(store.lock) > 1e9


def test_a_lock_of_a_process_that_is_gone_is_taken_over(store: SweepStore, gone: Holder) -> None:
    left(store, gone)
    with held(store):
        pass
    left(store, replace(Holder.me(), started=Holder.me().started - 60))  # the number is another's
    with held(store):
        pass


def test_a_lock_that_cannot_be_read_is_one_until_it_is_old(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(store, '{"host": ')
    with pytest.raises(UserError, match=r"driver\.json is not readable"):
        held(store).__enter__()
    aged(monkeypatch, holding.GONE_SECONDS + 1)
    with held(store):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(holding, "BEAT_SECONDS", 0.05)
    yield


@pytest.mark.parametrize(
    ("loses", "says"),
    [
        (lambda store, far: store.write_text(store.lock, json.dumps(asdict(far))),
         "taken over by process 7 on far"),
        (lambda store, far: store.delete(store.lock), "was removed"),
    ],
)  # fmt: skip
def test_a_driver_that_lost_its_folder_stops_and_says_so(
    store: SweepStore, elsewhere: Holder, quick: None,
    loses: Callable[[SweepStore, Holder], None], says: str,
) -> None:  # fmt: skip
    with pytest.raises(StoreError, match=says), held(store):
        for _ in range(30):  # a beat that had read the lock before writes it over
            loses(store, elsewhere)
            holding.time.sleep(1)
        raise AssertionError("never interrupted")
    found = store.read_text(store.lock)
    assert (found is None) == ("removed" in says)  # another's lock is left alone


def test_a_lock_is_renewed(store: SweepStore, quick: None) -> None:
    with held(store):
        first = store._written_at(store.lock)
        for _ in range(600):
            if store._written_at(store.lock) != first:
                return
            holding.time.sleep(0.05)
    raise AssertionError("the lock is as old as its driver")


def test_what_was_refused_leaves_nothing_behind(store: SweepStore, tmp_path: Path) -> None:
    with pytest.raises(UserError), held(store):
        raise UserError("no node holds a trial")
    assert not (tmp_path / "runs").exists()
    if store.remote is not None:
        assert store.remote.names() == []


def test_of_many_that_begin_at_once_one_gets_in(tmp_path: Path) -> None:
    """Each says whether it got in, and stays until all have tried."""
    claim = (
        "import sys; from tune_jobs.store import SweepStore; from tune_jobs.holding import held\n"
        "from tune_jobs.errors import UserError\n"
        "store = SweepStore.open(sys.argv[1], 'it'); print('ready', flush=True); input()\n"
        "try:\n"
        "    with held(store): print('in', flush=True); input()\n"
        "except UserError: print('refused', flush=True)\n"
    )
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(subprocess.Popen(
                [sys.executable, "-c", claim, str(tmp_path)], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ))
            for _ in range(6)
        ]  # fmt: skip

        def answers(send: bool) -> list[str]:
            for driver in drivers if send else []:
                _of(driver.stdin).write("\n")
                _of(driver.stdin).flush()
            return [_of(driver.stdout).readline().strip() for driver in drivers]

        assert answers(send=False) == ["ready"] * 6
        assert sorted(answers(send=True)) == ["in"] + ["refused"] * 5
        for driver in drivers:
            _of(driver.stdin).close()


def _of(stream: Any) -> Any:
    assert stream is not None
    return stream


def test_rows_are_unique_by_trial_and_step_whatever_was_written(store: SweepStore) -> None:
    store.create()
    twice = [result(trial_id="a", updates=1), result(trial_id="a", updates=2)]
    store.write_trials(twice)
    store.write_measurements([measurement(trial_id="a"), measurement(trial_id="a")])
    for rows, row in (
        (store.growing_trials(), result(trial_id="a", updates=3)),
        (store.growing_measurements(), measurement(trial_id="a")),
    ):
        rows.add(row)
        rows.write()
    assert [row.updates for row in store.read_trials()] == [3]
    assert len(store.read_measurements()) == 1
