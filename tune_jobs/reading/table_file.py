"""A CSV or Parquet file as columns and numbered rows of cells, whatever they hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_jobs.errors import UserError

DELIMITERS = ",;\t|"
# How files begin that are often given in a CSV file's stead.
NOT_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; export it as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"ARROW1": "an Arrow or Feather file; write it as Parquet or CSV",
    b"\xff\xfe": "text in UTF-16; save it in UTF-8",
    b"\xfe\xff": "text in UTF-16; save it in UTF-8",
}


@dataclass(frozen=True)
class TableFile:
    """What a file holds.

    Attributes:
        unit: what `rows` are numbered by: `line` of a text, the header being line 1, or `row`.
        rows: number, and one cell for each column: text from CSV, any value from Parquet.
    """

    columns: tuple[str, ...]
    unit: str
    rows: tuple[tuple[int, tuple[object, ...]], ...]


def read_table(path: Path) -> TableFile:
    """Read `path`, Parquet if it begins as Parquet does, else CSV. Raises UserError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a readable CSV or Parquet file") from error
    if not content.strip():
        raise _empty(path)
    if content.startswith(b"PAR1"):
        table = _read_parquet(path)
    elif path.suffix.lower() in (".parquet", ".pq"):
        raise UserError(f"{path} is not a Parquet file: it does not begin with PAR1; write it anew")
    else:
        table = _read_csv(path, content)
    twice = sorted({c for c in table.columns if c and table.columns.count(c) > 1})
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} stands twice; name each column once")
    if not table.rows:
        raise UserError(f"{path} has a header and no rows; give one row for each run")
    return table


def _empty(path: Path) -> UserError:
    return UserError(f"{path} is empty; give a table with a header and one row for each run")


def _read_parquet(path: Path) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}; write it anew") from error
    cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return TableFile(tuple(table.column_names), "row", tuple(enumerate(cells, 1)))


def _read_csv(path: Path, content: bytes) -> TableFile:
    text = _decoded(path, content)
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, tuple[object, ...]]] = []
    columns: tuple[str, ...] | None = None
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = tuple(cell.strip() for cell in cells)
            else:
                rows.append((lines.line_num, _fitted(path, lines.line_num, cells, columns)))
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num}: not valid CSV: {error}") from error
    if columns is None:
        raise _empty(path)
    return TableFile(columns, "line", tuple(rows))


def _decoded(path: Path, content: bytes) -> str:
    for beginning, what in NOT_TEXT.items():
        if content.startswith(beginning):
            raise UserError(f"{path} is {what}")
    if b"\0" in content:
        raise UserError(f"{path} is not text: it holds zero bytes; give CSV in UTF-8, or Parquet")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; "
            "save the file in UTF-8"
        ) from error


def _fitted(path: Path, line: int, cells: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """As many cells as columns; blank ones past the last column are a spreadsheet's habit."""
    if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
        raise UserError(
            f"{path}, line {line}: {len(cells)} cells for the {len(columns)} columns of the "
            "header; write one cell for each, an empty one where nothing is known"
        )
    return tuple(cells[: len(columns)])
