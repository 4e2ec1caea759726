"""The sweep's folder, on a disk and on a real S3 server on loopback: one contract for both.

1. what is written is read back the same, by another process's store too;
2. a file is there whole or not at all;
3. what cannot be written or read is told with its address and a remedy;
4. no credential stands in what is recorded.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.rows import measurement, result
from tests.s3_server import credentials, query
from tune_jobs.config import SweepConfig
from tune_jobs.errors import StoreError, UserError
from tune_jobs.remote_folder import is_remote, joined
from tune_jobs.store import SweepStore

Place = Callable[[str], str]


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The address of a runs folder by its name, on either storage."""
    if request.param == "disk":
        return lambda name: str(tmp_path / name)
    port: int = request.getfixturevalue("s3_port")
    s3_credentials(monkeypatch, tmp_path)
    return lambda name: f"s3://sweeps/{tmp_path.name}/{name}{query(port)}"


def s3_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in credentials(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)


def test_records_are_read_back_as_they_were_written(place: Place) -> None:
    store = SweepStore.open(place("runs"), "first")
    assert not store.exists() and store.read_trials() == []
    store.create()
    assert not store.exists()
    store.write_text(store.config, 'name = "first"\n')
    store.write_trials([result(trial_id="a"), result(trial_id="b", node=None)])
    store.write_measurements([measurement(trial_id="a", val_loss=None)])
    again = SweepStore.open(place("runs"), "first")
    assert again.exists() and again.read_text(again.config) == 'name = "first"\n'
    assert again.read_trials() == [result(trial_id="a"), result(trial_id="b", node=None)]
    assert again.read_measurements() == [measurement(trial_id="a", val_loss=None)]
    store.write_trials([result(trial_id="a")])
    assert again.read_trials() == [result(trial_id="a")]


def test_a_growing_table_is_read_whole_whoever_wrote_its_parts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_jobs.store.PART_ROWS", 2)
    store = SweepStore.open(place("runs"), "first")
    store.create()
    store.write_trials([result(trial_id="a"), result(trial_id="b")])
    rows = store.growing_trials()
    for name in "cdefg":
        rows.add(result(trial_id=name))
        rows.write()
    rows.add(result(trial_id="never written"))
    assert [row.trial_id for row in store.read_trials()] == list("abcdefg")
    heir = SweepStore.open(place("runs"), "first").growing_trials()
    heir.add(result(trial_id="b", updates=7))
    heir.write()
    assert [(r.trial_id, r.updates) for r in store.read_trials()][:3] == [
        ("a", 28), ("b", 7), ("c", 28),
    ]  # fmt: skip
    heir.merge()
    assert [row.trial_id for row in store.read_trials()] == list("abcdefg")
    assert [p.name for p in store.folder.iterdir()] == ["trials.parquet"]
    heir.add(result(trial_id="h"))
    heir.write()
    assert len(SweepStore.open(place("runs"), "first").read_trials()) == 8


def test_a_reader_loses_no_row_while_parts_are_merged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_jobs.store.PART_ROWS", 1)
    store = SweepStore.open(place("runs"), "first")
    store.create()
    rows = store.growing_trials()
    for name in "abc":
        rows.add(result(trial_id=name))
        rows.write()
    reader = SweepStore.open(place("runs"), "first")
    read, merges = reader._read, iter([rows.merge])

    def and_then_it_is_merged(path: Path) -> bytes | None:
        content = read(path)
        for merge in merges:
            merge()
        return content

    monkeypatch.setattr(reader, "_read", and_then_it_is_merged)
    assert [row.trial_id for row in reader.read_trials()] == list("abc")


def test_points_of_a_curve_that_are_made_again_stand_once(place: Place) -> None:
    store = SweepStore.open(place("runs"), "first")
    store.create()
    points = store.growing_measurements()
    for _ in range(2):
        for seen in (320, 640):
            points.add(measurement(trial_id="a", examples_seen=seen))
        points.write()
        points = store.growing_measurements()
    assert [row.examples_seen for row in store.read_measurements()] == [320, 640]


def test_a_store_travels_by_its_address_and_its_files_are_at_hand(place: Place) -> None:
    store = SweepStore.open(place("runs"), "first")
    store.create()
    store.write_text(store.config, "seed = 3\n")
    (store.folder / "mlflow.json").write_text("{}")
    (store.folder / "figures").mkdir()
    (store.folder / "figures" / "time.svg").write_text("<svg/>")
    store.publish()
    far: SweepStore = pickle.loads(pickle.dumps(store))
    assert far.address == store.address
    assert far.config.read_text() == "seed = 3\n"
    assert (far.folder / "mlflow.json").read_text() == "{}"
    assert far.read_text(far.folder / "figures" / "time.svg") == "<svg/>"
    assert SweepStore.at(store.address).exists()


def test_nothing_but_the_sweeps_files_is_left_behind(place: Place) -> None:
    store = SweepStore.open(place("runs"), "first")
    store.create()
    store.write_text(store.config, "")
    store.write_trials([result()])
    assert sorted(p.name for p in store.folder.iterdir()) == ["sweep.toml", "trials.parquet"]
    if store.remote is not None:
        assert store.remote.names() == ["sweep.toml", "trials.parquet"]


def test_a_damaged_table_is_refused_by_name(place: Place) -> None:
    store = SweepStore.open(place("runs"), "first")
    store.create()
    store.write_text(store.trials, "not a table")
    with pytest.raises(StoreError, match=r"trials\.parquet is damaged \(not a readable Parquet"):
        store.read_trials()


def test_another_machine_without_a_copy_reads_what_the_first_wrote(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_credentials(monkeypatch, tmp_path)
    runs = f"s3://sweeps/{tmp_path.name}{query(s3_port)}"
    first = SweepStore.open(runs, "far")
    first.create()
    first.write_text(first.config, "seed = 4\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    second = SweepStore.open(runs, "far")
    assert second.folder != first.folder and second.config.read_text() == "seed = 4\n"
    second.write_trials([result()])
    assert first.read_trials() == [result()]


def test_ray_is_told_path_and_filesystem(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_credentials(monkeypatch, tmp_path)
    path, filesystem = SweepStore.open(f"s3://sweeps/x{query(s3_port)}", "one").ray_storage()
    assert path == "sweeps/x/one/ray" and filesystem.type_name == "s3"
    path, filesystem = SweepStore.open(str(tmp_path), "one").ray_storage()
    assert path == str(tmp_path / "one" / "ray") and filesystem is None


def test_a_bucket_that_does_not_exist_is_refused_with_the_remedy(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_credentials(monkeypatch, tmp_path)
    store = SweepStore.open(f"s3://missing/runs{query(s3_port)}", "one")
    with pytest.raises(UserError, match=r"s3://missing.*bucket.*credentials in the environment"):
        store.create()


def test_a_scheme_that_pyarrow_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"gopher://x.*pyarrow cannot open it.*s3://bucket/runs"):
        SweepStore.open("gopher://x/y", "one")


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(UserError) as refused:
        SweepStore.open("s3://key:hush@bucket/runs", "one")
    assert "environment" in str(refused.value) and "hush" not in str(refused.value)


def test_what_was_begun_and_has_no_row_is_taken_back(place: Place) -> None:
    for rows, stays in (([], False), ([result()], True)):
        store = SweepStore.at(place("begun"))
        store.create()
        store.write_config(SweepConfig())
        store.write_trials(rows)
        store.take_back()
        assert SweepStore.at(place("begun")).exists() is stays


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --runs-dir"):
        SweepStore.open(str(tmp_path / "file"), "one").create()


def test_a_path_and_a_file_uri_are_the_same_store(tmp_path: Path) -> None:
    assert SweepStore.open(f"file://{tmp_path}", "one").folder == tmp_path / "one"
    assert SweepStore(tmp_path / "one").folder == SweepStore.open(str(tmp_path), "one").folder


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("runs", "runs/a"),
        ("/shared/runs/", "/shared/runs/a"),
        ("s3://b/runs/?region=x", "s3://b/runs/a?region=x"),
        ("s3://b", "s3://b/a"),
    ],
)
def test_a_name_is_joined_before_the_query(address: str, expected: str) -> None:
    assert joined(address, "a") == expected


def test_only_uris_of_other_storage_are_remote() -> None:
    assert is_remote("s3://b/x") and not is_remote("file:///x") and not is_remote("runs")


def test_a_reader_never_sees_half_a_table_while_it_is_rewritten(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    store.create()
    many = [result(trial_id=str(k)) for k in range(200)]
    writer = (
        "import sys; from pathlib import Path; from tests.rows import result\n"
        "from tune_jobs.store import SweepStore\n"
        "many = [result(trial_id=str(k)) for k in range(200)]\n"
        "for _ in range(150): SweepStore(Path(sys.argv[1])).write_trials(many)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], env={**os.environ, "PYTHONPATH": "."}
    )
    seen = 0
    while process.poll() is None:
        rows = store.read_trials()
        assert rows in ([], many)
        seen += bool(rows)
    assert process.returncode == 0 and seen > 0


def test_a_table_from_before_a_column_was_added_is_read_with_its_default(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    store.write_trials([result(trial_id="a", alone=True)])
    older = pq.read_table(store.trials).drop_columns(["alone"]).replace_schema_metadata(None)
    pq.write_table(older, store.trials)
    assert store.read_trials() == [result(trial_id="a", alone=None)]
