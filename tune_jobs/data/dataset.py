"""A data set as one Arrow IPC file of uint8 images, opened memory-mapped.

The file holds two record batches, train then test, so that each split's images are one contiguous
buffer and a numpy view of it costs nothing: every trial on a host shares the page cache's one copy.
Shape, name, classes, mean and std stand in the schema's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tune_jobs.errors import DataError

_METADATA_KEY = b"batch_size_sweep.dataset"


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (n, c, h, w), `labels` int64 (n,); read-only if of a file."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A decoded data set.

    `mean` and `std` are of all pixels of the train split, in units where 255 is 1.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: int
    mean: float
    std: float


def make_dataset(name: str, train: ImageSet, test: ImageSet, classes: int) -> Dataset:
    """A Dataset whose mean and std are computed, exactly, from the train split."""
    counts = np.bincount(train.images.reshape(-1), minlength=256)
    levels = np.arange(256) / 255.0
    mean = float(np.average(levels, weights=counts))
    std = float(np.sqrt(np.average((levels - mean) ** 2, weights=counts)))
    return Dataset(name, train, test, classes, mean, std or 1.0)


def write_dataset(dataset: Dataset, path: Path) -> None:
    """Write `dataset` as an Arrow IPC file; `path` appears whole or not at all.

    Errors:
        DataError: the splits do not belong together (shapes, lengths, labels out of range).
    """
    _check(dataset)
    schema = _schema(dataset)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(_record_batch(dataset.train, "train", schema))
            writer.write_batch(_record_batch(dataset.test, "test", schema))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_dataset(path: Path) -> Dataset:
    """The Dataset in the file at `path`, memory-mapped: its arrays are read-only views, no copies.

    Errors:
        DataError: there is no such file, or it is not one that `write_dataset` wrote.
    """
    try:
        # The map stays open as long as one of the arrays lives.
        return _decode(pa.memory_map(str(path)), str(path))
    except OSError as error:
        raise DataError(f"data file {path} cannot be opened: {error}") from error


def read_dataset(buffer: bytes | memoryview | pa.Buffer | npt.NDArray[np.uint8]) -> Dataset:
    """The Dataset in the bytes of such a file; its arrays are views of `buffer`, no copies.

    Errors:
        DataError: the bytes are not what `write_dataset` wrote.
    """
    return _decode(pa.BufferReader(buffer), "the buffer")


def verify_dataset(path: Path) -> None:
    """Read the file once and compare its content with the digest that was written with it.

    Errors:
        DataError: they differ; names the file, both digests and the remedy.
    """
    dataset = open_dataset(path)
    metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata
    expected = json.loads(metadata[_METADATA_KEY])["md5"]
    found = _digest(dataset)
    if found != expected:
        raise DataError(
            f"data file {path} has md5 {found} of its content, not {expected}; "
            f"delete it and run again to make it anew"
        )


def _digest(dataset: Dataset) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for split in (dataset.train, dataset.test):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def _digest_of(described: Mapping[str, Any]) -> str:
    """Of what the metadata say, their own digest left out."""
    said = {name: value for name, value in described.items() if name != "description_md5"}
    text = json.dumps(said, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _check(dataset: Dataset) -> None:
    for title, split in (("train", dataset.train), ("test", dataset.test)):
        images, labels = split.images, split.labels
        where = f"the {title} split of {dataset.name!r}"
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(
                f"{where} has images of {images.dtype} {images.shape}, not uint8 (n, c, h, w)"
            )
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{where} has labels of {labels.dtype} {labels.shape}, not int64 ({len(images)},)"
            )
        if not len(labels):
            raise DataError(f"{where} is empty; it needs at least one example")
        if labels.min() < 0 or labels.max() >= dataset.classes:
            raise DataError(f"{where} has a label outside 0..{dataset.classes - 1}")
    if dataset.train.images.shape[1:] != dataset.test.images.shape[1:]:
        raise DataError(f"the splits of {dataset.name!r} differ in image shape")


def _schema(dataset: Dataset) -> pa.Schema:
    shape = dataset.train.images.shape[1:]
    described = {
        "name": dataset.name,
        "shape": shape,
        "classes": dataset.classes,
        "mean": dataset.mean,
        "std": dataset.std,
        "md5": _digest(dataset),
    }
    described["description_md5"] = _digest_of(described)
    fields = [
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(int(np.prod(shape))), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
    ]
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(described).encode()})


def _record_batch(split: ImageSet, title: str, schema: pa.Schema) -> pa.RecordBatch:
    pixels = pa.py_buffer(np.ascontiguousarray(split.images))
    images = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("image").type, len(split), [None, pixels]
    )
    titles = pa.array([title] * len(split), pa.string())
    return pa.record_batch([titles, images, pa.array(split.labels)], schema=schema)


def _decode(source: Any, origin: str) -> Dataset:
    try:
        reader = pa.ipc.open_file(source)
        described = json.loads(reader.schema.metadata[_METADATA_KEY])
        # Files of earlier versions have no such digest.
        if described.get("description_md5", found := _digest_of(described)) != found:
            raise ValueError("its metadata are not those that were written")
        shape = tuple(described["shape"])
        train, test = (_view(reader.get_batch(i), shape) for i in (0, 1))
        return Dataset(
            described["name"],
            train,
            test,
            described["classes"],
            described["mean"],
            described["std"],
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{origin} is not a whole Arrow file of images as this project writes them ({error}); "
            f"delete it and run again to make it anew"
        ) from error


def _view(batch: pa.RecordBatch, shape: tuple[int, ...]) -> ImageSet:
    column = batch.column("image")
    size = int(np.prod(shape))
    pixels = np.frombuffer(
        column.buffers()[1], np.uint8, len(column) * size, offset=column.offset * size
    )
    labels = batch.column("label").to_numpy(zero_copy_only=True)
    return ImageSet(pixels.reshape(len(column), *shape), labels)
