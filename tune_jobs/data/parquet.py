"""Parquet files as a table: one file, a folder of parts, or a folder with a split in each."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tune_jobs.data.folders import TITLES
from tune_jobs.data.tables import Table, make_table
from tune_jobs.errors import DataError


def load_parquet(
    name: str,
    path: Path,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    task: str | None = None,
) -> Table:
    """The table in `path`, as `make_table` makes it.

    Where `path` holds `train.parquet` or a folder `train`, `test` and `validation` beside it are
    splits of their own.

    Errors:
        UserError, DataError: as of `make_table`; or `path` is not there or holds no such file.
    """
    splits = {title: _read(place) for title, place in _places(path).items()}
    return make_table(name, splits, label, drop, task)


def _places(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise DataError(f"there is no file {path}; give the path of a Parquet file or a folder")
    if path.is_dir():
        found = {
            TITLES[place.stem]: place
            for place in sorted(path.iterdir())
            if place.stem in TITLES and (place.is_dir() or place.suffix == ".parquet")
        }
        if "train" in found:
            return found
    return {"train": path}


def _read(path: Path) -> pa.Table:
    """All columns but the numbering that pandas adds to a frame."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it anew") from error
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return table.drop_columns([name for name in index if name in table.column_names])
