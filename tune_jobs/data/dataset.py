"""A data set as one Arrow IPC file of uint8 images or float32 features, opened memory-mapped.

The file holds a record batch for each split, so that each split's images are one contiguous buffer
and a numpy view of it costs nothing: every trial on a host shares the page cache's one copy.
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

from tune_jobs.data.tables import Table, TableSet
from tune_jobs.errors import DataError

_METADATA_KEY = b"batch_size_sweep.dataset"


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (n, c, h, w), `labels` int64 (n,); read-only if of a file."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> npt.NDArray[np.uint8]:
        """The images, as the file knows them."""
        return self.images


@dataclass(frozen=True)
class Dataset:
    """A decoded data set of images.

    `mean` and `std` are of all pixels of the train split, in units where 255 is 1. `validation`
    is None where it is to be carved from train; `test` where there is none.
    """

    name: str
    train: ImageSet
    test: ImageSet | None
    classes: int
    mean: float
    std: float
    validation: ImageSet | None = None

    @property
    def described(self) -> dict[str, Any]:
        """What the file says of it beside its splits."""
        named = ("name", "classes", "mean", "std")
        return {"kind": "images", **{name: getattr(self, name) for name in named}}


def splits_in(dataset: Dataset | Table) -> dict[str, ImageSet | TableSet]:
    """The splits that there are, by title, in the order of the file."""
    all_splits = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    return {title: split for title, split in all_splits.items() if split is not None}


def make_dataset(
    name: str,
    train: ImageSet,
    test: ImageSet | None,
    classes: int,
    validation: ImageSet | None = None,
) -> Dataset:
    """A Dataset whose mean and std are computed, exactly, from the train split."""
    parts = (train.images[at : at + 1024] for at in range(0, len(train), 1024))  # bincount's int64
    counts = sum(np.bincount(part.reshape(-1), minlength=256) for part in parts)
    levels = np.arange(256) / 255.0
    mean = float(np.average(levels, weights=counts))
    std = float(np.sqrt(np.average((levels - mean) ** 2, weights=counts)))
    return Dataset(name, train, test, classes, mean, std or 1.0, validation)


def write_dataset(dataset: Dataset | Table, path: Path) -> None:
    """Write `dataset` as an Arrow IPC file; `path` appears whole or not at all.

    Errors:
        DataError: the splits do not belong together (shapes, lengths, labels out of range).
    """
    if isinstance(dataset, Dataset):
        _check(dataset)
    schema = _schema(dataset)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for title, split in splits_in(dataset).items():
                writer.write_batch(_record_batch(split, title, schema))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_dataset(path: Path) -> Dataset | Table:
    """The data set in the file at `path`, memory-mapped: its arrays are read-only views, no copies.

    Errors:
        DataError: there is no such file, or it is not one that `write_dataset` wrote.
    """
    try:
        # The map stays open as long as one of the arrays lives.
        return _decode(pa.memory_map(str(path)), str(path))
    except OSError as error:
        raise DataError(f"data file {path} cannot be opened: {error}") from error


def read_dataset(buffer: bytes | memoryview | pa.Buffer | npt.NDArray[np.uint8]) -> Dataset | Table:
    """The data set in the bytes of such a file; its arrays are views of `buffer`, no copies.

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


def _digest(dataset: Dataset | Table) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for split in splits_in(dataset).values():
        digest.update(np.ascontiguousarray(split.inputs).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def _digest_of(described: Mapping[str, Any]) -> str:
    """Of what the metadata say, their own digest left out."""
    said = {name: value for name, value in described.items() if name != "description_md5"}
    text = json.dumps(said, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _check(dataset: Dataset) -> None:
    for title, split in splits_in(dataset).items():
        images, labels = split.inputs, split.labels
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
    if len({split.inputs.shape[1:] for split in splits_in(dataset).values()}) > 1:
        raise DataError(f"the splits of {dataset.name!r} differ in image shape")


def _schema(dataset: Dataset | Table) -> pa.Schema:
    inputs, labels = dataset.train.inputs, dataset.train.labels
    described = {**dataset.described, "shape": inputs.shape[1:], "md5": _digest(dataset)}
    described["description_md5"] = _digest_of(described)
    fields = [
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(inputs[0].nbytes), nullable=False),
        pa.field("label", pa.from_numpy_dtype(labels.dtype), nullable=False),
    ]
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(described).encode()})


def _record_batch(split: ImageSet | TableSet, title: str, schema: pa.Schema) -> pa.RecordBatch:
    content = pa.py_buffer(np.ascontiguousarray(split.inputs))
    inputs = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("image").type, len(split), [None, content]
    )
    titles = pa.array([title] * len(split), pa.string())
    return pa.record_batch([titles, inputs, pa.array(split.labels)], schema=schema)


def _decode(source: Any, origin: str) -> Dataset | Table:
    try:
        reader = pa.ipc.open_file(source)
        described = json.loads(reader.schema.metadata[_METADATA_KEY])
        # Files of earlier versions have no such digest.
        if described.get("description_md5", said := _digest_of(described)) != said:
            raise ValueError("its metadata are not those that were written")
        described.pop("description_md5", None)
        # Files from before there were tables name no kind.
        kind, shape = described.pop("kind", "images"), tuple(described.pop("shape"))
        del described["md5"]
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        of_kind, split, dtype = _KINDS[kind]
        missing = {"test": None, "validation": None}
        found = {str(b.column("split")[0]): split(*_view(b, shape, dtype)) for b in batches}
        dataset: Dataset | Table = of_kind(**described, **{**missing, **found})
        return dataset
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{origin} is not a whole Arrow file of a data set as this project writes them "
            f"({error}); delete it and run again to make it anew"
        ) from error


_KINDS: dict[str, Any] = {
    "images": (Dataset, ImageSet, np.uint8),
    "table": (Table, TableSet, np.float32),
}


def _view(
    batch: pa.RecordBatch, shape: tuple[int, ...], dtype: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    column = batch.column("image")
    size = int(np.prod(shape))
    inputs = np.frombuffer(
        column.buffers()[1],
        dtype,
        len(column) * size,
        offset=column.offset * size * np.dtype(dtype).itemsize,
    )
    labels = batch.column("label").to_numpy(zero_copy_only=True)
    return inputs.reshape(len(column), *shape), labels
