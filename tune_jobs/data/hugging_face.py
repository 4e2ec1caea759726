"""A data set that Hugging Face's `datasets` has saved to disk: of images, or a table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tune_jobs.data.dataset import Dataset
from tune_jobs.data.folders import TITLES, Picture, decoded
from tune_jobs.data.tables import TASKS, Table, make_table
from tune_jobs.errors import DataError, UserError, unknown_name


def load_hugging_face(
    name: str,
    path: Path,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    task: str | None = None,
    size: str | None = None,
) -> Dataset | Table:
    """What `save_to_disk(path)` wrote. Where a column is of images, they are what is trained on.

    `label` names the label's column: without it, the only one of the type ClassLabel. `drop` and
    `task` are as of `make_table`, `size` as of `load_folder`.

    Errors:
        UserError: `datasets` is not installed, or no label is named.
        DataError: there is no such data set, or what a table or a folder could have wrong.
    """
    found = _opened(path)
    titled = {TITLES[t]: part for t, part in found.items() if t in TITLES}
    if "train" not in titled:
        raise DataError(f"{path} has the splits {', '.join(found)}; one must be named train")
    features = titled["train"].features
    images = [c for c, kind in features.items() if type(kind).__name__ == "Image"]
    named = [c for c, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    label = label or (named[0] if len(named) == 1 else None)
    if not images:
        tables = {title: part.with_format("arrow")[:] for title, part in titled.items()}
        return make_table(name, tables, label, drop, task or (label in named and TASKS[0]) or None)
    if label is None or label not in features:
        known = ", ".join(features)
        raise (
            UserError(f"--data {name}: add ?label=COLUMN, the classes; its columns: {known}")
            if label is None
            else unknown_name(f"data {name!r}: column", label, features)
        )
    classes = sorted(set(titled["train"][label]))
    pictures = {t: _pictures(f"{name}, {t}", p, images[0], label, classes)
                for t, p in titled.items()}  # fmt: skip
    return decoded(name, pictures, len(classes), size)


def _opened(path: Path) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "data of the kind hf: needs Hugging Face's datasets, which does not import "
            f"({error}); install it with `pip install datasets`"
        ) from error
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no data set that datasets' save_to_disk wrote ({error}); save it anew"
        ) from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _pictures(where: str, part: Any, image: str, label: str, classes: list[Any]) -> list[Picture]:
    number = {value: n for n, value in enumerate(classes)}
    labels = list(part[label])
    new = sorted(set(labels) - set(number))
    if new:
        raise DataError(f"{where} has the label {new[0]!r}, which train has not; let them agree")
    return [
        Picture(f"{where}, example {n}", partial(_image, part, n, image), number[value])
        for n, value in enumerate(labels)
    ]


def _image(part: Any, example: int, column: str) -> Any:
    return part[example][column]
