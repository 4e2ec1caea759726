"""Wide tables as long ones: runs, batch sizes or a tracker's curves in columns of their own.

| batch size | run 1 | run 2 |        a column for each repeat
| epoch | bs=32 | bs=64 |             a column for each batch size
| Step | bs32 - val_loss | ... |      a column for each run, as W&B exports a chart
| batch size | 32 | 64 | 128 |        a row for each quantity
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tune_jobs.reading import cells
from tune_jobs.reading.columns import IN_NAME, RATE_IN_NAME
from tune_jobs.reading.names import meaning, mode_of
from tune_jobs.reading.table_file import TableFile

REPEAT = re.compile(
    r"(?P<what>.*?)[\s_/(-]*(?P<kind>run|seed|trial|rep|repeat|repetition|replicate|fold|attempt)"
    r"[\s_#=-]*(?P<n>\d+)[\s)]*", re.IGNORECASE
)  # fmt: skip
CHART = re.compile(r"(?P<run>.+?) - (?P<what>[^-]+?)(?P<bound>__MIN|__MAX)?")
VALUE = "value"


def long_table(table: TableFile) -> TableFile:
    """The table with one value of each kind in a row; one that is long already as it is."""
    for reshape in (_transposed, _repeats, _charts, _sizes, _rates):
        found = reshape(table)
        if found is not None:
            return found
    return table


def _melted(
    table: TableFile, wide: Sequence[tuple[int, str, str]], key: str, told: str
) -> TableFile:
    """`wide` is (index, key, what) of each column; the others stand in each of the new rows."""
    at_all = {at for at, _, _ in wide}
    kept = [n for n in range(len(table.columns)) if n not in at_all]
    whats = list(dict.fromkeys(what for _, _, what in wide))
    keys = list(dict.fromkeys(of for _, of, _ in wide))
    at = {(of, what): n for n, of, what in wide}
    rows = []
    for number, row in table.rows:
        for of in keys:
            values = [row[at[of, what]] if (of, what) in at else "" for what in whats]
            if all(cells.missing(value) for value in values):
                continue
            rows.append((number, (*(row[n] for n in kept), of, *values)))
    columns = (*(table.columns[n] for n in kept), key, *whats)
    if len(set(columns)) < len(columns) or not rows:
        return table
    return replace(table, columns=columns, rows=tuple(rows), notes=(*table.notes, told))


def _what(name: str, caption: str) -> str:
    """What the values of wide columns are: by their names, else by the heading of the table."""
    name = name.strip(" _-/(:=")
    if name:
        return name
    return caption if caption and (meaning(caption) or mode_of(caption)) else VALUE


def _is_size(name: str) -> bool:
    meant = meaning(name)
    return meant is not None and meant.ours in ("batch_size", "per_device_batch_size")


def _repeats(table: TableFile) -> TableFile | None:
    found = [(at, REPEAT.fullmatch(name)) for at, name in enumerate(table.columns)]
    wide = [(at, of) for at, of in found if of]
    if len(wide) < 2 or not any(_is_size(c) for c in table.columns):
        return None
    kind = "seed" if all(of["kind"].lower() == "seed" for _, of in wide) else "run"
    melt = [(at, of["n"], _what(of["what"], table.caption)) for at, of in wide]
    told = f"{len(wide)} columns ({table.columns[wide[0][0]]!r} and so on) read as a {kind} each"
    return _melted(table, melt, kind, told)


def _charts(table: TableFile) -> TableFile | None:
    found = [(at, CHART.fullmatch(name)) for at, name in enumerate(table.columns)]
    wide = [(at, of) for at, of in found if of]
    if not wide or any(_is_size(c) for c in table.columns):
        return None
    bounds = {at for at, of in wide if of["bound"] or of["what"].startswith("_")}
    kept = [n for n in range(len(table.columns)) if n not in bounds]
    lean = replace(
        table,
        columns=tuple(table.columns[n] for n in kept),
        rows=tuple((number, tuple(row[n] for n in kept)) for number, row in table.rows),
    )
    melt = [(kept.index(at), of["run"], of["what"]) for at, of in wide if at not in bounds]
    if not melt:
        return None
    return _melted(lean, melt, "Run", f"{len(melt)} columns read as the curve of a run each")


def _sizes(table: TableFile) -> TableFile | None:
    if any(_is_size(c) for c in table.columns):
        return None
    wide = []
    for at, name in enumerate(table.columns):
        if inside := IN_NAME.search(name):
            wide.append((at, inside[1], _what(name.replace(inside[0], ""), table.caption)))
        elif name.isascii() and name.isdigit() and int(name) > 0:
            wide.append((at, name, _what("", table.caption)))
    if len(wide) < 2:
        return None
    told = (
        f"{len(wide)} columns ({table.columns[wide[0][0]]!r} and so on) read as a batch size each"
    )
    return _melted(table, wide, "batch_size", told)


def _rates(table: TableFile) -> TableFile | None:
    found = [(at, RATE_IN_NAME.fullmatch(name)) for at, name in enumerate(table.columns)]
    wide = [(at, of["rate"], _what("", table.caption)) for at, of in found if of]
    if len(wide) < 2:
        return None
    told = f"{len(wide)} columns ({table.columns[wide[0][0]]!r} and so on) read as a rate each"
    return _melted(table, wide, "learning_rate", told)


def _transposed(table: TableFile) -> TableFile | None:
    """A header of batch sizes above rows that each name a quantity."""
    first, *sizes = table.columns
    if not sizes or not all(c.isascii() and c.isdigit() and int(c) > 0 for c in sizes):
        return None
    names = [str(row[0]).strip() for _, row in table.rows]
    if first and not _is_size(first) and not any(meaning(n) or mode_of(n) for n in names):
        return None
    if all(cells.numeric(n) for n in names) or len(set(names)) < len(names) or "" in names:
        return None
    columns = ("batch_size", *names)
    if len(set(columns)) < len(columns):
        return None
    body = [row for _, row in table.rows]
    rows = [(k, (size, *(row[k] for row in body))) for k, size in enumerate(sizes, 1)]
    told = "each row is a quantity, each column a batch size"
    return TableFile(columns, "column", tuple(rows), table.caption, (*table.notes, told))
