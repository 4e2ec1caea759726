"""The cells of a named table as rows of values in base units, each with its place for messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tune_jobs.errors import UserError
from tune_jobs.reading import cells
from tune_jobs.reading.cells import COUNTS, JOULES, MIB, SECONDS, Never
from tune_jobs.reading.columns import (
    IN_NAME,
    RATE_IN_NAME,
    SEED_IN_NAME,
    Column,
    Named,
    spent_of,
)
from tune_jobs.reading.names import ACCURACIES, COSTS, SPENT, TO_TARGET
from tune_jobs.reading.table_file import TableFile

WORDS = ("workload", "device", "run", "state", "fault")
COUNTS_TO_TARGET = (*TO_TARGET, "epochs_to_target", "tokens_to_target")
SUMMARY = re.compile(
    r"(?:mean|average|avg|median|total|sum|std|st\.?\s?dev|s\.?d|min(?:imum)?|max(?:imum)?|overall)\.?:?",
    re.IGNORECASE,
)
UNITS = {"time": SECONDS, "memory": MIB, "energy": JOULES}
# A dash or a word for never says that these are unknown.
MAY_FAIL = (*SPENT, *COSTS, "epochs", "tokens", "epoch_seconds", "update_seconds",
            "updates_per_second", "tokens_per_second", "wall_time", "reports")  # fmt: skip


@dataclass(frozen=True)
class NamedRow:
    """One row as it was found: its place, for messages, and its cells by our column names."""

    place: str
    cells: Mapping[str, object]


@dataclass(frozen=True)
class Row:
    """One row read.

    Attributes:
        values: by our names: numbers in base units, or words; what is unknown is left out.
        settings: cells of the columns that are not read, by their names.
        machine: of those, the ones that say what the run ran on.
        never: the word, where a cell says that the run did not get there.
        resolution: within what part of themselves the values to the target are known.
    """

    place: str
    values: Mapping[str, Any]
    settings: Mapping[str, str]
    machine: Mapping[str, str]
    never: str | None = None
    resolution: float | None = None

    def get(self, ours: str) -> Any:
        return self.values.get(ours)

    def having(self, **values: Any) -> Row:
        """The row with further values; one that is None takes its name away."""
        known = {k: v for k, v in (dict(self.values) | values).items() if v is not None}
        return replace(self, values=known)


def read_rows(table: TableFile, named: Named, source: str) -> tuple[list[Row], list[str]]:
    """Every row that names a batch size, and what is told of those that do not."""
    rows, unsized, summaries = [], [], []
    for n, found in table.rows:
        place = f"{source}, {table.unit} {n}"
        sized = named.sized_by
        if sized is not None and not IN_NAME.search(str(found[sized.at])):
            unsized.append(f"{table.unit} {n}")
            continue
        size = named.by_ours.get("batch_size")
        if size is not None and SUMMARY.fullmatch(str(found[size.at]).strip()):
            summaries.append(f"{table.unit} {n}")
            continue
        row = _read(place, {c.ours: (c, found[c.at]) for c in named.by_ours.values()})
        settings = {c: _shown(found[at]) for c, at in named.unread}
        machine = {c: _shown(found[at]) for c, at in named.machines}
        row = replace(row, settings=settings, machine=machine)
        rows.append(_from_name(row, sized, found[sized.at]) if sized else row)
    told = [f"{len(unsized)} of {len(table.rows)} rows have no batch size in their name "
            f"({some(unsized)})"] if unsized else []  # fmt: skip
    if summaries:
        told.append(f"{len(summaries)} of {len(table.rows)} rows left out, which sum others up "
                    f"({some(summaries)})")  # fmt: skip
    return [_whole_batch(row) for row in rows], told


def some(places: Sequence[str], most: int = 5) -> str:
    """A few places, and how many more."""
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return ", ".join(places[:most]) + more


def row_of(named_row: NamedRow) -> Row:
    """A row whose columns bear our names already."""
    found = {ours: (Column(ours, ours, 0), cell) for ours, cell in named_row.cells.items()}
    return _read(named_row.place, found)


def _shown(cell: object) -> str:
    return "" if cells.missing(cell) else cells.printable(str(cell)).strip()


def _read(place: str, found: Mapping[str, tuple[Column, object]]) -> Row:
    values: dict[str, Any] = {}
    never = None
    for ours, (column, cell) in found.items():
        value = _value(place, column, cell)
        if isinstance(value, Never):
            if ours in COUNTS_TO_TARGET:
                values[spent_of(ours)] = values.get(spent_of(ours)) or value.limit
            if ours in COUNTS_TO_TARGET or value.word.lower() not in cells.BLANK:
                never = value.word
        elif value is not None:
            values[ours] = value
    return Row(place, {k: v for k, v in values.items() if v is not None}, {}, {}, never)


def _value(place: str, column: Column, cell: object) -> Any:
    """What one cell says. Raises UserError with place, column, cell, rule and remedy."""
    if column.ours in WORDS:
        return None if cells.missing(cell) else cells.printable(str(cell)).strip()
    try:
        return _number(column, cell)
    except ValueError as error:
        shown = "an empty cell" if cells.missing(cell) else repr(cell)
        raise UserError(f"{place}, column {column.theirs}: {shown} {error}") from None


def _number(column: Column, cell: object) -> Any:
    ours = column.ours
    if ours in ("batch_size", "per_device_batch_size"):
        return cells.batch_size(_size(cell))
    if ours == "wall_time":
        return cells.date(cell)
    if ours == "seed":
        return cells.seed(None if cells.blank(cell) else cells.number(cell))
    units = UNITS.get(column.kind, COUNTS)
    if ours in COUNTS_TO_TARGET:
        value = cells.amount(cell, column.factor, units)
        return value if isinstance(value, Never) else cells.to_target(value)
    if ours in (*ACCURACIES, "metric", "target"):
        return _metric(ours, cells.amount(cell, column.factor))
    if ours in MAY_FAIL:
        value = cells.amount(cell, column.factor, units)
        if isinstance(value, Never):
            return value
        rule = cells.not_negative if ours in ("epochs", *SPENT, "reports") else cells.positive
        if ours == "learning_rate":  # a schedule may begin or end at 0
            return rule(value or None)
        return rule(cells.measured(value))
    return cells.positive(None if cells.blank(cell) else cells.number(cell))


def _size(cell: object) -> float | None:
    """The number of `32`, `bs_32` or `8k` (8192)."""
    text = cell.strip() if isinstance(cell, str) else ""
    if inside := IN_NAME.fullmatch(text):
        return int(inside["size"])
    if suffixed := cells.SUFFIXED.fullmatch(text):
        value = float(suffixed[1]) * cells.FACTORS[suffixed[2]]
        return int(value) if value.is_integer() else value
    return cells.number(cell)


def _metric(ours: str, value: cells.Amount) -> Any:
    if isinstance(value, Never):
        return value
    if ours == "target":
        return cells.finite(value)
    if value is not None and cells.measured(value) is None:
        return Never(str(value))
    return cells.accuracy(value) if ours in ACCURACIES else value


def _from_name(row: Row, sized: Column, cell: object) -> Row:
    """Batch size, seed and learning rate from within a name; the rest of it is a setting."""
    text = str(cell)
    rest, values = text, {}
    for pattern, ours in ((IN_NAME, "batch_size"), (SEED_IN_NAME, "seed"), (RATE_IN_NAME, "lr")):
        if found := pattern.search(text):
            values[ours] = found[1] or found[found.lastindex or 1]
            rest = rest.replace(found[0], "*", 1)
    size = _value(row.place, replace(sized, ours="batch_size"), int(values["batch_size"]))
    rate = float(values["lr"]) if "lr" in values else None
    own = row.having(batch_size=size, run=row.get("run") or cells.printable(text))
    if own.get("seed") is None and "seed" in values:
        own = own.having(seed=int(values["seed"]))
    if own.get("learning_rate") is None and rate:
        own = own.having(learning_rate=rate)
    return replace(own, settings={**own.settings, sized.theirs: cells.printable(rest)})


def _whole_batch(row: Row) -> Row:
    """The batch of all devices, from that of one."""
    one = row.get("per_device_batch_size")
    if row.get("batch_size") is not None:
        return row
    if one is None:
        raise UserError(
            f"{row.place}: no batch size; fill it in, or name another column with "
            f"--map {shlex.quote('batch_size=COLUMN')}"
        )
    parts = [row.get(name) or 1 for name in ("devices", "gradient_accumulation")]
    return row.having(batch_size=round(one * parts[0] * parts[1]))
