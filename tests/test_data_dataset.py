"""The Arrow file: what is written comes back, without a copy, or is told to be damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tune_jobs.data.dataset import (
    Dataset,
    ImageSet,
    make_dataset,
    open_dataset,
    read_dataset,
    write_dataset,
)
from tune_jobs.errors import DataError


def some_split(examples: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (examples, 3, 4, 5)).astype(np.uint8)
    return ImageSet(images, rng.integers(0, 7, examples))


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset("some", some_split(50, 1), some_split(9, 2), classes=7)


@pytest.fixture
def path(dataset: Dataset, tmp_path: Path) -> Path:
    write_dataset(dataset, tmp_path / "deep" / "some.arrow")
    return tmp_path / "deep" / "some.arrow"


def assert_same(one: Dataset, other: Dataset) -> None:
    for name in ("name", "classes", "mean", "std"):
        assert getattr(one, name) == getattr(other, name)
    for mine, yours in ((one.train, other.train), (one.test, other.test)):
        assert np.array_equal(mine.images, yours.images)
        assert np.array_equal(mine.labels, yours.labels)


def test_what_was_written_comes_back_from_the_file_and_from_its_bytes(
    dataset: Dataset, path: Path
) -> None:
    assert_same(open_dataset(path), dataset)
    assert_same(read_dataset(path.read_bytes()), dataset)
    assert_same(read_dataset(np.frombuffer(path.read_bytes(), np.uint8)), dataset)


def test_opening_a_file_copies_nothing(path: Path) -> None:
    before = pa.total_allocated_bytes()
    opened = open_dataset(path)
    assert pa.total_allocated_bytes() == before
    for split in (opened.train, opened.test):
        for array in (split.images, split.labels):
            assert not array.flags.owndata
            assert not array.flags.writeable
            assert _is_mapped(array, path)


def test_reading_bytes_gives_views_of_those_bytes(path: Path) -> None:
    content = np.fromfile(path, np.uint8)
    read = read_dataset(content)
    for split in (read.train, read.test):
        assert np.shares_memory(split.images, content)
        assert np.shares_memory(split.labels, content)


def test_an_open_data_set_outlives_the_replacement_of_its_file(
    dataset: Dataset, path: Path
) -> None:
    opened = open_dataset(path)
    write_dataset(replace(dataset, train=some_split(50, 3)), path)
    assert_same(opened, dataset)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    dataset: Dataset, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tune_jobs.data.dataset.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(replace(dataset, name="new"), path)
    assert list(path.parent.iterdir()) == [path]
    assert open_dataset(path).name == "some"


def test_a_file_cut_short_is_told_with_the_remedy(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="delete it and run again"):
        open_dataset(path)


def test_an_empty_file_and_a_missing_one_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.arrow").touch()
    for name in ("empty.arrow", "missing.arrow"):
        with pytest.raises(DataError, match=name):
            open_dataset(tmp_path / name)


def test_an_arrow_file_of_something_else_is_a_data_error(tmp_path: Path) -> None:
    table = pa.table({"x": [1]})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"x\.arrow"):
        open_dataset(tmp_path / "x.arrow")


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        (ImageSet(np.zeros((2, 3, 4, 5), np.float32), np.zeros(2, np.int64)), "not uint8"),
        (ImageSet(np.zeros((2, 4, 5), np.uint8), np.zeros(2, np.int64)), "not uint8"),
        (ImageSet(np.zeros((2, 3, 4, 5), np.uint8), np.zeros(3, np.int64)), "not int64"),
        (ImageSet(np.zeros((2, 3, 4, 5), np.uint8), np.array([0, 7])), "outside 0..6"),
        (ImageSet(np.zeros((0, 3, 4, 5), np.uint8), np.zeros(0, np.int64)), "empty"),
        (ImageSet(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64)), "differ"),
    ],
)
def test_splits_that_do_not_fit_are_not_written(
    split: ImageSet, rule: str, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rule):
        write_dataset(replace(dataset, test=split), tmp_path / "x.arrow")
    assert not (tmp_path / "x.arrow").exists()


def _is_mapped(array: np.ndarray, path: Path) -> bool:
    """Whether the array's first byte lies within a mapping of `path`."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, _, last = line.split()[0].partition("-")
        if line.endswith(str(path)) and int(first, 16) <= address < int(last, 16):
            return True
    return False


def test_a_flipped_bit_in_the_metadata_is_never_read_as_something_else(
    dataset: Dataset, path: Path
) -> None:
    whole = path.read_bytes()
    start = whole.rindex(b'{"kind"')  # of its two copies the footer's is read
    refused = 0
    for at in range(start, whole.index(b"}", start) + 1):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            try:
                assert_same(read_dataset(bytes(flipped)), dataset)
            except DataError:
                refused += 1
    assert refused > 1_000
