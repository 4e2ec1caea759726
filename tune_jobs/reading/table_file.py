"""A file as columns and numbered rows of cells, whatever they hold: CSV, Markdown, JSON or Parquet.

JSON is a list of objects, one object a line, or columns by their names; what is nested becomes a
column of its own, `config.batch_size`.

CSV in UTF-8 or UTF-16, separated by commas, semicolons, tabs, bars or blanks, with `#` comments;
the first Markdown table of a text. Numbers with decimal commas or thousands are written with
points.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_jobs.config import may_wait
from tune_jobs.errors import UserError
from tune_jobs.reading.cells import numeric, printable

DELIMITERS = ",;\t|"
# How files begin that are often given in a CSV file's stead.
NOT_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; export it as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"ARROW1": "an Arrow or Feather file; write it as Parquet or CSV",
}
# How texts begin that hold a table in another form.
MARKUP = {
    re.compile(r"<(?:!doctype|html|table|\?xml|div|body)\b", re.IGNORECASE): "a web page",
    re.compile(r"(?:%.*\n\s*)*\\(?:begin|documentclass|centering|toprule|hline)\b"): "LaTeX",
}
RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:[|+]\s*:?-+:?\s*)*\|?\s*")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+(?:[eE][+-]?\d+)?(?=$|\s|%|[a-zA-Z])")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?(?=$|\s|%|[a-zA-Z])")


@dataclass(frozen=True)
class TableFile:
    """What a file holds.

    Attributes:
        unit: what `rows` are numbered by: `line` of a text, the header being line 1, or `row`.
        rows: number, and one cell for each column: text from CSV, any value from Parquet or JSON.
        caption: the heading or comment before the table.
        notes: what was read as what.
    """

    columns: tuple[str, ...]
    unit: str
    rows: tuple[tuple[int, tuple[object, ...]], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> TableFile:
    """Read `path`, Parquet if it begins as Parquet does, else as text. Raises UserError."""
    if may_wait(path):
        raise UserError(f"{path} is a pipe or a device; write the table to a file, and give that")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a readable table") from error
    if not content.strip():
        raise _empty(path)
    if content.startswith(b"PAR1"):
        table = _read_parquet(path)
    elif path.suffix.lower() in (".parquet", ".pq"):
        raise UserError(f"{path} is not a Parquet file: it does not begin with PAR1; write it anew")
    else:
        table = _read_text(path, _decoded(path, content))
    table = _printable(table)
    twice = sorted({c for c in table.columns if c and table.columns.count(c) > 1})
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} stands twice; name each column once")
    if not table.rows:
        raise UserError(f"{path} has a header and no rows; give one row for each run")
    return table


def _empty(path: Path) -> UserError:
    return UserError(f"{path} is empty; give a table with a header and one row for each run")


def _printable(table: TableFile) -> TableFile:
    def shown(cell: object) -> object:
        return printable(cell).strip() if isinstance(cell, str) else cell

    return replace(
        table,
        columns=tuple(printable(str(c)).strip() for c in table.columns),
        rows=tuple((n, tuple(shown(cell) for cell in row)) for n, row in table.rows),
        caption=printable(table.caption),
    )


def _read_parquet(path: Path) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}; write it anew") from error
    return TableFile(tuple(table.column_names), "row", tuple(enumerate(cells, 1)))


def _decoded(path: Path, content: bytes) -> str:
    for beginning, what in NOT_TEXT.items():
        if content.startswith(beginning):
            raise UserError(f"{path} is {what}")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in content and not wide:
        raise UserError(f"{path} is not text: it holds zero bytes; give CSV in UTF-8, or Parquet")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not "
            f"{'UTF-16' if wide else 'UTF-8'}; save the file in UTF-8"
        ) from error


def _read_text(path: Path, text: str) -> TableFile:
    for beginning, what in MARKUP.items():
        if beginning.match(text.lstrip()):
            raise UserError(f"{path} is {what}; write its table as CSV or Markdown")
    if text.lstrip()[:1] in ("{", "["):
        return _read_json(path, text)
    lines = list(io.StringIO(text, newline=""))
    heading = _markdown_header(lines)
    if heading is not None:
        return _read_markdown(path, lines, heading)
    lines, caption = _without_comments(lines)
    return replace(_read_csv(path, lines), caption=caption)


# JSON


def _read_json(path: Path, text: str) -> TableFile:
    objects = [dict(_flat(of)) for of in _objects(path, text)]
    columns = tuple(dict.fromkeys(name for of in objects for name in of))
    rows = enumerate((tuple(of.get(name) for name in columns) for of in objects), 1)
    return TableFile(columns, "row", tuple(rows))


def _objects(path: Path, text: str) -> list[Mapping[str, Any]]:
    """One for each row."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = [_parsed(path, n, line) for n, line in enumerate(text.splitlines(), 1)
                 if line.strip()]  # fmt: skip
    if isinstance(whole, dict):
        whole = _of_columns(whole)
    if not all(isinstance(of, dict) for of in whole):
        raise UserError(f"{path}: JSON that is no list of objects; give one object for each run")
    return list(whole)


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error).split(";")[0]
        raise UserError(
            f"{path}, line {line}: not valid JSON: {why}; give a list of objects, or one a line"
        ) from error


def _of_columns(whole: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Columns by their names, lists or by the rows' own names as pandas writes them, as rows."""
    of = list(whole.values())
    if all(isinstance(column, dict) for column in of) and len({tuple(c) for c in of}) == 1:
        return [{name: whole[name][key] for name in whole} for key in of[0]]
    if all(isinstance(column, list) for column in of) and len({len(c) for c in of}) == 1:
        return [dict(zip(whole, row, strict=True)) for row in zip(*of, strict=True)]
    return [whole]


def _flat(of: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in of.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, str(value) if isinstance(value, list) else value


# Markdown


def _markdown_header(lines: Sequence[str]) -> int | None:
    """The index of the first line that a rule of dashes and bars follows."""
    for at, rule in enumerate(lines[1:]):
        if (
            re.search(r"[|+]", rule)
            and "-" in rule
            and RULE.fullmatch(rule.strip())
            and "|" in lines[at]
        ):
            return at
    return None


def _read_markdown(path: Path, lines: Sequence[str], at: int) -> TableFile:
    columns = tuple(_markdown_cells(lines[at]))
    rows: list[tuple[int, tuple[object, ...]]] = []
    end = at + 2
    for n, line in enumerate(lines[at + 2 :], at + 3):
        if "|" not in line:
            break
        cells, end = _markdown_cells(line), n
        rows.append((n, _fitted(path, n, cells + [""] * (len(columns) - len(cells)), columns)))
    rows = [(n, row) for n, row in rows if any(str(cell).strip() for cell in row)]
    further = _markdown_header(lines[end:]) is not None
    notes = ("only the first table of the file is read",) if further else ()
    rows, told = with_points(rows, "|")
    before = [line.strip(" #*_\r\n") for line in lines[:at] if line.strip(" #*_\r\n")]
    caption = before[-1] if before else ""
    return TableFile(columns, "line", tuple(rows), caption, (*notes, *told))


def _markdown_cells(line: str) -> list[str]:
    line = line.strip().removeprefix("|")
    line = line[:-1] if line.endswith("|") and not line.endswith("\\|") else line
    cells = [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)]
    return [LINK.sub(r"\1", cell).strip("*`").strip() for cell in cells]


# CSV


def _without_comments(lines: Sequence[str]) -> tuple[list[str], str]:
    """The lines, comments blank so that numbers stay; and the last comment before the header.

    A comment directly before numbers that has as many cells as they is the header: so `numpy` and
    `gnuplot` write it.
    """
    kept, caption, quoted, header = list(lines), "", False, None
    for n, line in enumerate(lines):
        if not quoted and line.lstrip().startswith("#"):
            kept[n] = "\n"
            if header is None:
                caption, last = line.strip().lstrip("#").strip(), n
                continue
        elif line.strip() and header is None:
            header = n
            if caption and _is_header(caption, line):
                kept[last] = lines[last].replace("#", " ", 1).lstrip(" ")
                caption = ""
        quoted ^= line.count('"') % 2 == 1
    return kept, caption


def _is_header(comment: str, first: str) -> bool:
    for delimiter in (*DELIMITERS, None):
        names = comment.split(delimiter)
        cells = first.strip("\r\n").split(delimiter)
        if len(names) == len(cells) > 1:
            return any(numeric(c) for c in cells) and not any(numeric(n) for n in names)
    return False


def _read_csv(path: Path, text: Sequence[str]) -> TableFile:
    delimiter = _delimiter([line for line in text if line.strip()][:20])
    blanks = delimiter == " "
    lines = csv.reader(
        [line.strip(" ") for line in text] if blanks else text,
        delimiter=delimiter,
        strict=True,
        skipinitialspace=blanks,
    )
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
    rows, notes = with_points(rows, delimiter)
    return TableFile(columns, "line", tuple(rows), notes=notes)


def _delimiter(lines: Sequence[str]) -> str:
    """The one that every line holds as often as the header, else the header's most frequent."""
    header = lines[0] if lines else ""

    def fits(delimiter: str) -> tuple[bool, int]:
        often = header.count(delimiter)
        return often > 0 and all(line.count(delimiter) == often for line in lines), often

    best = max(DELIMITERS, key=fits)
    if best in header or len(header.split()) < 2:
        return best
    even = len({len(line.split()) for line in lines}) == 1 and len(lines) > 1
    return " " if even and '"' not in header else best


def _fitted(path: Path, line: int, cells: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """As many cells as columns; blank ones past the last column are a spreadsheet's habit."""
    if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
        raise UserError(
            f"{path}, line {line}: {len(cells)} cells for the {len(columns)} columns of the "
            "header; write one cell for each, an empty one where nothing is known"
        )
    return tuple(cells[: len(columns)])


Rows = list[tuple[int, tuple[object, ...]]]


def with_points(rows: Rows, delimiter: str) -> tuple[Rows, tuple[str, ...]]:
    """Numbers with decimal commas, or with commas between thousands, as numbers with points.

    Where semicolons separate, a comma is a decimal one. Elsewhere commas before three digits, all
    over the table, are thousands'; in a CSV file any other stays what it was, and is refused.
    """
    found = [str(c).strip() for _, row in rows for c in row if COMMA.match(str(c).strip())]
    found += [str(c).strip() for _, row in rows for c in row if THOUSANDS.match(str(c).strip())]
    if not found:
        return rows, ()
    if delimiter != ";" and all(THOUSANDS.match(cell) for cell in found):
        return _replaced(rows, THOUSANDS, ",", ""), ("commas read as those between thousands",)
    if delimiter == ",":
        return rows, ()
    return _replaced(rows, COMMA, ".", "", ",", "."), ("decimal commas read as points",)


def _replaced(rows: Rows, which: re.Pattern[str], *pairs: str) -> Rows:
    def cell_of(cell: object) -> object:
        text = str(cell).strip()
        number = which.match(text)
        if number is None:
            return cell
        plain = number[0]
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            plain = plain.replace(old, new)
        return plain + text[number.end() :]

    return [(n, tuple(cell_of(cell) for cell in row)) for n, row in rows]
