"""What a kill, a power loss or a damaged disk does to a sweep's folder.

1. a row whose `write` has returned is read from then on, at whatever instant the writer is killed,
   and stands once;
2. what a killed writer leaves never stands in the way of the next one;
3. a file that is there was synced before it was put there, and its folder after;
4. a file that is damaged is never read as something else: it is named, with what is lost with it
   and what to do;
5. a part that is damaged or gone takes no other with it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.rows import measurement, profile, result
from tune_jobs import durable
from tune_jobs.config import SweepConfig, to_toml
from tune_jobs.errors import StoreError
from tune_jobs.records import Look
from tune_jobs.store import SweepStore, part_of
from tune_jobs.tables import decoded, encoded

ROWS = "abc"
WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.fsync")


def a_sweeps_writes(store: SweepStore, done: Callable[[str], None]) -> None:
    """Every kind of write that a sweep makes; `done` hears of each row once it is promised."""
    store.create()
    store.write_config(SweepConfig(name="it"))
    table = store.growing_trials()
    for name in ROWS:
        table.add(result(trial_id=name))
        table.write()
        done(name)
    table.merge()
    table.add(result(trial_id="h"))
    table.write()
    done("h")
    table.merge()


def killed_at(instant: int, folder: Path) -> tuple[str, bool]:
    """Run the writes in a process that dies before its n-th step; the rows promised till then, and
    whether it ended before."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        steps, fsync = 0, os.fsync

        def step(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if event in WRITES and (event != "open" or str(arguments[0]).startswith(str(folder))):
                steps += 1
                if steps == instant:
                    os._exit(9)

        def synced(handle: int) -> None:
            step("os.fsync", ())
            fsync(handle)

        os.fsync = synced  # it has no audit event
        sys.addaudithook(step)
        a_sweeps_writes(SweepStore(folder), lambda name: bool(os.write(write, name.encode())))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as promised:
        rows = promised.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return rows, os.waitstatus_to_exitcode(status) == 0


def test_no_instant_of_any_write_loses_or_doubles_a_row_or_stops_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_jobs.store.PART_ROWS", 2)
    monkeypatch.setattr("tune_jobs.store.LEFT_BEHIND_SECONDS", 0)
    instant, ended = 0, False
    while not ended:
        instant += 1
        folder = tmp_path / str(instant)
        promised, ended = killed_at(instant, folder)
        store = SweepStore(folder)
        found = [row.trial_id for row in store.read_trials()]
        assert set(promised) <= set(found) and len(found) == len(set(found)), instant  # 1
        if store.exists():
            assert store.read_config() == SweepConfig(name="it")
        a_sweeps_writes(store, lambda _: None)  # 2
        assert sorted(row.trial_id for row in store.read_trials()) == list("abch")
        left = sorted(p.name for p in folder.rglob("*"))
        assert left == ["sweep.toml", "trials.parquet"], instant
    assert instant > 60


def test_a_file_is_synced_before_it_is_put_there_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        seen.append("sync " + Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def replaced(old: Path, new: Path) -> None:
        seen.append(f"put {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    SweepStore(tmp_path).write_trials([result()])
    assert seen == [
        f"sync .trials.parquet.{os.getpid()}.tmp", "put trials.parquet", f"sync {tmp_path.name}",
    ]  # fmt: skip


# Damage

ROWS_OF_A_TABLE = [
    result(trial_id=str(k), learning_rate=10.0**-k, reason=f"because {k}", val_accuracy=1 / (k + 1))
    for k in range(40)
]


def test_a_flipped_bit_is_never_read_as_another_number() -> None:
    whole, chance = encoded(type(ROWS_OF_A_TABLE[0]), ROWS_OF_A_TABLE), random.Random(0)
    refused = 0
    for _ in range(400):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        try:
            assert decoded(type(ROWS_OF_A_TABLE[0]), bytes(flipped)) == ROWS_OF_A_TABLE
        except ValueError:
            refused += 1
    assert refused > 200


def emptied(content: bytes) -> bytes:
    return b""


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_by_a_line(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:-2]) if len(lines) > 2 else content[:-5]


def not_utf_8(content: bytes) -> bytes:
    return content[:5] + b"\xff\xfe" + content[5:]


def another_thing(content: bytes) -> bytes:
    return b"3\n"


def in_a_whole_sweep(folder: Path) -> SweepStore:
    store = SweepStore(folder)
    store.create()
    store.write_config(SweepConfig(name="it", seed=3))
    store.write_environment({"host": "here"})
    store.write_looks([Look(2, 2, (16, 32))])
    store.write_profiles([profile()])
    store.write_trials([result()])
    store.write_measurements([measurement()])
    store.growing_trials().write()
    return store


READERS: dict[str, Callable[[SweepStore], Any]] = {
    "sweep.toml": SweepStore.read_config,
    "environment.json": SweepStore.read_environment,
    "looks.json": SweepStore.read_looks,
    "profiles.parquet": SweepStore.read_profiles,
    "trials.parquet": SweepStore.read_trials,
    "measurements.parquet": SweepStore.read_measurements,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", [emptied, cut, cut_by_a_line, not_utf_8, another_thing])
def test_a_damaged_file_is_named_with_what_is_lost_and_what_to_do(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    store = in_a_whole_sweep(tmp_path)
    READERS[name](store)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(StoreError) as told:
        READERS[name](store)
    for part in (str(tmp_path / name), "With it is lost: ", "To go on: "):
        assert part in str(told.value)


def test_any_cut_of_the_configuration_is_refused_or_whole(tmp_path: Path) -> None:
    config = SweepConfig(name="it", seed=3, trials=60)
    store = SweepStore(tmp_path)
    store.write_config(config)
    whole = store.config.read_bytes()
    assert store.read_config() == config
    for end in range(len(whole) - 1):
        store.config.write_bytes(whole[:end])
        try:
            assert store.read_config() == config
        except StoreError:
            continue
    chance = random.Random(1)
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        store.config.write_bytes(bytes(flipped))
        try:
            assert store.read_config() == config
        except StoreError:
            continue


def test_a_configuration_of_an_earlier_version_or_of_the_users_hand_is_read(tmp_path: Path) -> None:
    config = SweepConfig(name="it", seed=3)
    store = SweepStore(tmp_path)
    store.write_text(store.config, to_toml(config))
    assert store.read_config() == config


def test_a_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    store = in_a_whole_sweep(tmp_path)
    table = pq.read_table(store.trials).replace_schema_metadata(None)
    k = table.column_names.index("learning_rate")
    pq.write_table(table.set_column(k, "learning_rate", pa.array(["fast"])), store.trials)
    with pytest.raises(StoreError, match=r"trials\.parquet .*string in the column learning_rate"):
        store.read_trials()


def test_a_part_that_is_damaged_or_gone_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_jobs.store.PART_ROWS", 1)
    store = SweepStore(tmp_path)
    rows = store.growing_trials()
    for name in "abc":
        rows.add(result(trial_id=name))
        rows.write()
    second = part_of(store.trials, 2)
    second.write_bytes(cut(second.read_bytes()))
    with pytest.raises(StoreError, match=r"00002\.parquet is damaged.* other parts stand.*delete"):
        store.read_trials()
    second.unlink()
    assert [row.trial_id for row in store.read_trials()] == ["a", "c"]
    heir = store.growing_trials()
    heir.add(result(trial_id="d"))
    heir.write()
    assert [row.trial_id for row in store.read_trials()] == ["a", "c", "d"]


@pytest.mark.parametrize("number", durable.NO_ROOM)
def test_a_full_disk_is_told_with_folder_and_leaves_what_stood(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SweepStore(tmp_path)
    store.write_trials([result()])

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=rf"no room in {tmp_path} for trials\.parquet"):
        store.write_trials([])
    monkeypatch.undo()
    assert store.read_trials() == [result()]
    assert [p.name for p in tmp_path.iterdir()] == ["trials.parquet"]
