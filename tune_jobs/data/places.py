"""Data by its place: `folder:PATH`, `parquet:PATH?label=price`, `hf:PATH`.

What may stand behind the `?` may as well stand in the TOML, under `[data_arguments]`.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tune_jobs.data.dataset import Dataset
from tune_jobs.data.folders import load_folder
from tune_jobs.data.hugging_face import load_hugging_face
from tune_jobs.data.parquet import load_parquet
from tune_jobs.data.tables import Table
from tune_jobs.errors import UserError, unknown_name

KINDS: dict[str, Callable[..., Dataset | Table]] = {
    "folder": load_folder,
    "parquet": load_parquet,
    "hf": load_hugging_face,
}
_FORM = re.compile(r"(?P<kind>\w+):(?P<path>.*?)(\?(?P<arguments>\w+=[^?]*))?", re.DOTALL)
WRITE = "write it as " + ", ".join(f"{kind}:PATH" for kind in KINDS)


@dataclass(frozen=True)
class Place:
    """Where a user's data lies; `arguments` are those of its kind's loader."""

    name: str
    kind: str
    path: Path
    arguments: Mapping[str, Any]

    def load(self) -> Dataset | Table:
        """The data set, decoded. Raises UserError, DataError."""
        return KINDS[self.kind](self.name, self.path, **self.arguments)

    @property
    def file_name(self) -> str:
        """Of the decoded file: another one as soon as the data or the arguments change."""
        said = repr((str(self.path), sorted(self.arguments.items()), _listing(self.path)))
        digest = hashlib.md5(said.encode(), usedforsecurity=False).hexdigest()[:12]
        return f"{self.kind}-{re.sub(r'[^A-Za-z0-9._-]+', '-', self.path.stem)}-{digest}.arrow"


def names_a_place(name: str) -> bool:
    """Whether data of this name is a user's own, by its place."""
    return ":" in name


def place_of(name: str, arguments: Mapping[str, Any]) -> Place:
    """The place that `name` says, with what the TOML says of it.

    Errors:
        UserError: another kind, no path, or an argument that is unknown or stands twice.
    """
    parts = _FORM.fullmatch(name)
    if parts is None or not parts["path"].strip():
        raise UserError(f"--data {name!r} names no path; {WRITE}")
    kind = parts["kind"]
    if kind not in KINDS:
        raise unknown_name("--data: kind", kind, KINDS)
    said = dict(_pair(name, pair) for pair in (parts["arguments"] or "").split("&") if pair)
    known = [n for n in inspect.signature(KINDS[kind]).parameters if n not in ("name", "path")]
    for key in (*said, *arguments):
        if key not in known:
            raise unknown_name(f"--data {name!r}: argument", key, known)
        if key in said and key in arguments:
            raise UserError(
                f"--data {name!r}: {key} stands here and under [data_arguments]; leave one out"
            )
    plain = name.removesuffix(f"?{parts['arguments']}")
    both = {key: _value(name, key, value) for key, value in {**arguments, **said}.items()}
    return Place(plain, kind, Path(parts["path"]).expanduser().resolve(), both)


def _pair(name: str, pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not (equals and value):
        raise UserError(f"--data {name!r}: {pair!r} is not of the form ARGUMENT=VALUE; write it so")
    return key, unquote(value)


def _value(name: str, key: str, value: Any) -> Any:
    """Text, but for `drop`: a list, or text with commas."""
    if key == "drop":
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return tuple(parts)
    elif isinstance(value, str) or (key == "size" and type(value) is int):
        return str(value)
    raise UserError(f"--data {name!r}: {key} = {value!r} is {type(value).__name__}; make it text")


def _listing(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files there."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    there = [(file, file.stat()) for file in files if file.is_file()]
    return [(str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f, s in there]
