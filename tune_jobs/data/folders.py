"""A folder of images as a data set, one folder for each class, decoded once.

PATH/train/CLASS/any.png, and where they are there PATH/test/..., PATH/validation/...
PATH/CLASS/any.png, all of them to train on
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tune_jobs.data.dataset import Dataset, ImageSet, make_dataset
from tune_jobs.errors import DataError, UserError

TITLES = {
    "train": "train", "test": "test", "validation": "validation", "val": "validation",
    "valid": "validation",
}  # fmt: skip
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
MOST_MEMORY = 0.5
LEFT_OUT = ("Thumbs.db", "desktop.ini")
Size = tuple[int, int]
Opener = Callable[[], Any]


@dataclass(frozen=True)
class Picture:
    """One image: `said` names it in errors, `open` gives it as PIL has it, `label` is its class."""

    said: str
    open: Opener
    label: int


def load_folder(name: str, path: Path, size: str | None = None) -> Dataset:
    """The images under `path`; `size` (`64` or `64x48`, width x height) fits all of them to it.

    Errors:
        DataError: no images, a class without any, a file that is none, or images that differ in
            size where none is given.
    """
    places = split_folders(path)
    classes = sorted(folder.name for folder in _class_folders(places["train"]))
    if len(classes) < 2:
        raise DataError(
            f"--data {name}: {places['train']} holds {len(classes)} folders; it needs one folder "
            f"of images for each class, at least two, as in {path}/train/cat/1.png or "
            f"{path}/cat/1.png"
        )
    found = {title: _pictures(place, classes) for title, place in places.items()}
    return decoded(name, found, len(classes), size)


def split_folders(path: Path) -> dict[str, Path]:
    """Where each split lies; all of it is train where there is no folder of that name.

    Errors:
        DataError: there is no such folder.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; give the path of a folder of images")
    if not (path / "train").is_dir():
        return {"train": path}
    return {TITLES[f.name]: f for f in sorted(path.iterdir()) if f.is_dir() and f.name in TITLES}


def _class_folders(place: Path) -> list[Path]:
    return [f for f in place.iterdir() if f.is_dir() and not f.name.startswith(".")]


def _pictures(place: Path, classes: list[str]) -> list[Picture]:
    from PIL import Image

    new = sorted({folder.name for folder in _class_folders(place)} - set(classes))
    if new:
        raise DataError(f"{place} has the class {new[0]!r}, which train has not; let them agree")
    pictures = []
    for label, name in enumerate(classes):
        folder = place / name
        files = sorted(f for f in folder.rglob("*") if f.is_file() and not _hidden(f))
        if not files:
            raise DataError(
                f"class {name!r} has no image in {folder}; put images there, or remove the class"
            )
        pictures += [Picture(str(file), partial(Image.open, file), label) for file in files]
    return pictures


def _hidden(file: Path) -> bool:
    return file.name.startswith(".") or file.name in LEFT_OUT


def decoded(
    name: str, found: Mapping[str, list[Picture]], classes: int, size: str | None = None
) -> Dataset:
    """The Dataset of pictures by split; grey where all of them are, else in three colours.

    Errors:
        DataError: a picture cannot be read, or they differ in size where none is given.
    """
    wanted = None if size is None else _size(size)
    heads = {p.said: _head(p) for pictures in found.values() for p in pictures}
    sizes = Counter(size for size, _ in heads.values())
    usual = sizes.most_common(1)[0][0]
    if wanted is None and len(sizes) > 1:
        other = next(said for said, (size, _) in heads.items() if size != usual)
        raise DataError(
            f"{other} has {_shown(heads[other][0])} pixels, {sizes[usual]} of {len(heads)} images "
            f"have {_shown(usual)}; let all be of one size, or have them scaled and cut to it with "
            f"size={usual[0]}x{usual[1]}"
        )
    grey = all(mode in GREY for _, mode in heads.values())
    _check_memory(name, len(heads), wanted or usual, 1 if grey else 3)
    sets = {title: _decoded(p, wanted or usual, grey) for title, p in found.items()}
    return make_dataset(
        name, sets["train"], sets.get("test"), classes, validation=sets.get("validation")
    )


def _check_memory(name: str, images: int, size: Size, channels: int) -> None:
    """Decoded images are laid out in memory once, and read from a file that is as large."""
    needed, free = images * size[0] * size[1] * channels, psutil.virtual_memory().available
    if needed > MOST_MEMORY * free:
        raise DataError(
            f"--data {name}: {images} images of {_shown(size)} take {needed / 2**30:.1f} GiB "
            f"decoded, over half of the {free / 2**30:.1f} GiB that are free here; have them "
            "scaled with size=WIDTHxHEIGHT, or give a Dataset that reads them with --workload"
        )


def _size(text: str) -> Size:
    """Width and height."""
    width, _, height = text.partition("x")
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?", text):
        raise UserError(f"size {text!r} is no size in pixels; write it as 64 or 64x48")
    return int(width), int(height or width)


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _head(picture: Picture) -> tuple[Size, str]:
    """Size and mode, of which only the file's head is read."""
    with _read(picture) as image:
        if image.mode not in GREY + COLOUR:
            raise DataError(
                f"{picture.said} has pixels of mode {image.mode}, not of 8 bits; convert it"
            )
        return image.size, image.mode


def _decoded(pictures: list[Picture], size: Size, grey: bool) -> ImageSet:
    """uint8 (n, 1 or 3, h, w)."""
    from PIL import ImageOps

    images = np.empty((len(pictures), 1 if grey else 3, size[1], size[0]), np.uint8)
    for n, picture in enumerate(pictures):
        with _read(picture) as image:
            try:
                whole = image.convert("L" if grey else "RGB")
            except Exception as error:  # a damaged file may raise anything; all of it is told
                raise _no_image(picture, error) from error
        fitted = whole if whole.size == size else ImageOps.fit(whole, size)
        pixels = np.asarray(fitted)
        images[n] = pixels[np.newaxis] if grey else pixels.transpose(2, 0, 1)
    return ImageSet(images, np.array([picture.label for picture in pictures], np.int64))


def _read(picture: Picture) -> Any:
    try:
        return picture.open()
    except Exception as error:  # as above
        raise _no_image(picture, error) from error


def _no_image(picture: Picture, error: Exception) -> DataError:
    return DataError(
        f"{picture.said} cannot be read as an image ({type(error).__name__}: {error}); mend it, or "
        "take it out of the folder"
    )
