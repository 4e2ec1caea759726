"""Which column of a table is what: by `--map`, by name, and by what its cells look like.

One line is told for each column that was read under another name or in another unit.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tune_jobs.errors import UserError, unknown_name
from tune_jobs.reading import cells
from tune_jobs.reading.names import (
    ACCURACIES,
    ACCURACY,
    EQUAL_UPDATES,
    MACHINE,
    MAPPABLE,
    MEANINGS,
    OF_SEVERAL,
    OPEN,
    SPENT,
    TO_TARGET,
    Meaning,
    is_metric,
    meaning,
    meant_as,
    mode_of,
    split_of,
    words,
)
from tune_jobs.reading.state_words import tells_endings
from tune_jobs.reading.table_file import TableFile

FAULT = re.compile(r"errors?|exception|failure|fault|error_message")
IN_NAME = re.compile(
    r"(?<![a-z])(?:batch[ _-]?size|batch|bsz?|b)[=_: -]*(?P<size>\d+)(?![\d.]*\d)", re.IGNORECASE
)
SEED_IN_NAME = re.compile(
    r"(?<![a-z])seed[=_: -]*(?P<seed>\d+)|(?<=[-_ .])s(?P<short>\d+)(?![\d.a-z])", re.IGNORECASE
)
RATE_IN_NAME = re.compile(r"(?<![a-z])lr[=_: -]*(?P<rate>\d*\.?\d+(?:e-?\d+)?)", re.IGNORECASE)
UNIT_OF = {
    "time_to_target_seconds": "seconds", "train_seconds": "seconds", "epoch_seconds": "seconds",
    "update_seconds": "seconds", "peak_memory_mib": "MiB", "energy_joules": "joules",
}  # fmt: skip
COUNTED = ("epochs", "updates", "examples_seen", "tokens", "epochs_to_target",
           "updates_to_target", "examples_to_target", "tokens_to_target")  # fmt: skip
A_DATE = 3e8  # seconds since 1970 are more, trainings take less


@dataclass(frozen=True)
class Column:
    """A column that is read: ours, theirs, where it stands, and its unit in base units."""

    ours: str
    theirs: str
    at: int
    kind: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Metric:
    """What training is to make better: the column's name, where its values are, its direction."""

    name: str
    role: str
    mode: str | None
    split: str = ""
    is_accuracy: bool = False


@dataclass(frozen=True)
class Named:
    """The columns of a table under our names.

    Attributes:
        by_ours: one column for each of our names that the table has.
        unread: (name, index) of those that are not read; `machines` are read as the device.
        sized_by: the column whose cells hold the batch size in a name, where no column is it.
        equal_updates: metrics at equal updates, which say nothing at a fixed budget of examples.
    """

    by_ours: Mapping[str, Column]
    unread: tuple[tuple[str, int], ...]
    machines: tuple[tuple[str, int], ...] = ()
    metric: Metric | None = None
    sized_by: Column | None = None
    equal_updates: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def name_columns(
    table: TableFile, mapping: Mapping[str, str], source: str, mode: str | None = None
) -> Named:
    """Find our columns. Raises UserError where a mapped one is unknown or has another unit."""
    mapped = _mapped(table, mapping, source)
    taken = {column.at for column in mapped.values()}
    of = _cells_by_column(table)
    found = mapped | _by_name(table, of, mapped, taken)
    _not_both_sizes(found, mapping)
    size = found.get("batch_size")
    suffixed = [cells.SUFFIXED.fullmatch(str(c).strip()) for c in of[size.at]] if size else []
    suffixes = sorted({found[2] for found in suffixed if found})
    metric = _metric(table, of, found, mode)
    sized_by = None if {"batch_size", "per_device_batch_size"} & set(found) else _sized(table, of)
    used = {c.at for c in found.values()} | ({sized_by.at} if sized_by else set())
    rest = [(c, at) for at, c in enumerate(table.columns) if c and at not in used]
    rest = [(c, at) for c, at in rest if not _is_index(c, of[at])]
    machines = [(c, at) for c, at in rest if _is_machine(c, of[at])]
    equal = [c for c, _ in rest if EQUAL_UPDATES.fullmatch(words(c))]
    return Named(
        by_ours=found,
        unread=tuple(p for p in rest if p not in machines),
        machines=tuple(machines),
        metric=metric,
        sized_by=sized_by,
        equal_updates=tuple(equal),
        notes=(
            *table.notes,
            *_told(found, mapping, sized_by),
            *(f"{s} read as {cells.FACTORS[s]}" for s in suffixes),
        ),
    )


def _mapped(table: TableFile, mapping: Mapping[str, str], source: str) -> dict[str, Column]:
    found = {}
    for ours, theirs in mapping.items():
        if ours not in MAPPABLE:
            raise unknown_name("--map: the column", ours, MAPPABLE)
        if theirs not in table.columns:
            what = f"--map {ours}={theirs}: in {source} the column"
            raise unknown_name(what, theirs, [c for c in table.columns if c])
        own = meaning(theirs)
        if own and own.ours in COUNTED and UNIT_OF.get(ours):
            right = next(n for n in COUNTED if n.split("_")[0] in own.ours and "_to_" in n)
            raise UserError(
                f"--map {ours}={theirs}: {theirs!r} counts {right.split('_')[0]}, which are no "
                f"{UNIT_OF[ours]}; give --map {shlex.quote(f'{right}={theirs}')}"
            )
        meant = meant_as(ours, theirs)
        found[ours] = Column(ours, theirs, table.columns.index(theirs), meant.kind, meant.factor)
    return found


def _cells_by_column(table: TableFile) -> list[list[object]]:
    return [[row[at] for _, row in table.rows] for at in range(len(table.columns))]


def _by_name(
    table: TableFile, of: Sequence[Sequence[object]], mapped: Mapping[str, Column], taken: set[int]
) -> dict[str, Column]:
    """Of columns with the same meaning the one whose name fits best, then the first."""
    best: dict[str, tuple[int, Column]] = {}
    for at, theirs in enumerate(table.columns):
        if at in taken or not theirs:
            continue
        meant = _by_cells(theirs, meaning(theirs), of[at])
        if meant is None or meant.ours in mapped:
            continue
        column = Column(meant.ours, theirs, at, meant.kind, meant.factor)
        if meant.ours not in best or meant.rank < best[meant.ours][0]:
            best[meant.ours] = (meant.rank, column)
    return {ours: column for ours, (_, column) in best.items()}


def _by_cells(theirs: str, meant: Meaning | None, of: Sequence[object]) -> Meaning | None:
    """The meaning of a name, mended by what stands below it."""
    some_numbers = any(cells.numeric(c) for c in of)
    if FAULT.fullmatch(words(theirs)) and not some_numbers and any(not cells.blank(c) for c in of):
        return Meaning("fault", "", None, 1.0, 0)
    if meant is None and tells_endings(words(str(c)) for c in of if not cells.missing(c)):
        return Meaning("state", "", None, 1.0, len(MEANINGS))
    if meant is None or meant.rank < 0:
        return meant
    if meant.ours == "wall_time" and not all(map(cells.is_date, of)):
        return None
    if meant.ours == "devices" and not all(cells.numeric(c) or cells.blank(c) for c in of):
        return None
    if meant.ours == "train_seconds" and _are_dates(of):
        return Meaning("wall_time", "", None, 1.0, 0)
    return meant


def _are_dates(of: Sequence[object]) -> bool:
    values = [float(v) for c in of if cells.numeric(c) and (v := cells.number(c)) is not None]
    return bool(values) and min(values) > A_DATE


def _not_both_sizes(found: dict[str, Column], mapping: Mapping[str, str]) -> None:
    """The batch size of all devices, where it is told, goes before that of one."""
    if "batch_size" in found and "per_device_batch_size" not in mapping:
        found.pop("per_device_batch_size", None)
    elif "per_device_batch_size" in mapping and "batch_size" not in mapping:
        found.pop("batch_size", None)


def _is_index(name: str, of: Sequence[object]) -> bool:
    """pandas' own index under a name: 0, 1, 2 and so on."""
    return bool(re.fullmatch(r"unnamed: \d+|index|level_0|#", name, re.IGNORECASE)) and all(
        str(cell).strip() == str(n) for n, cell in enumerate(of)
    )


def _is_machine(name: str, of: Sequence[object]) -> bool:
    return MACHINE.fullmatch(words(name)) is not None and any(
        not cells.blank(c) and not cells.numeric(c) for c in of
    )


def _sized(table: TableFile, of: Sequence[Sequence[object]]) -> Column | None:
    """The column whose cells hold a batch size within a name, in most of its rows."""
    for at, theirs in enumerate(table.columns):
        hits = sum(IN_NAME.search(cell) is not None for cell in of[at] if isinstance(cell, str))
        if 2 * hits > len(of[at]):
            return Column("batch_size", theirs, at)
    return None


# The metric


def _metric(
    table: TableFile, of: Sequence[Sequence[object]], found: dict[str, Column], mode: str | None
) -> Metric | None:
    """The best of the columns that may be one; it is added to `found`."""
    if "metric" in found:
        name = found["metric"].theirs
        return _as_metric(name, "metric", mode)
    known = {column.at: ours for ours, column in found.items()}
    able = []
    for at, name in enumerate(table.columns):
        role = known.get(at, "metric")
        if role not in (*ACCURACIES, "metric") or not _are_values(of[at]):
            continue
        if role == "metric" and (not is_metric(name) or EQUAL_UPDATES.fullmatch(words(name))):
            continue
        able.append((_order(name), at, name, role))
    if not able:
        return None
    _, at, name, role = min(able)
    if role == "metric":
        meant = meant_as("metric", name)
        found["metric"] = Column("metric", name, at, meant.kind, meant.factor)
    return _as_metric(name, role, mode)


def _as_metric(name: str, role: str, mode: str | None) -> Metric:
    plain = words(name)
    is_accuracy = re.fullmatch(rf"(?:.*_)?{ACCURACY}{OF_SEVERAL}", plain) is not None
    shown = "accuracy" if name in ACCURACIES[:1] else re.sub(r"\s*[([]\s*%\s*[)\]]", "", name)
    return Metric(shown, role, mode or mode_of(name), split_of(name), is_accuracy)


def _are_values(of: Sequence[object]) -> bool:
    good = 0
    for cell in of:
        try:
            value = cells.amount(cell)
        except ValueError:
            continue
        good += isinstance(value, int | float)
    return 2 * good >= len(of) or good > 2


def _order(name: str) -> tuple[int, int, int]:
    """Validation first, training last; a loss after other metrics, unknown names at the end."""
    splits = ("val", "", "test", "train")
    plain = words(name)
    open_name = OPEN.fullmatch(plain) is not None
    exact = 0 if re.search(ACCURACY, plain) else 1
    return splits.index(split_of(name)) + 4 * open_name, "loss" in plain, exact


# What is told, and asked for


def _told(
    found: Mapping[str, Column], mapping: Mapping[str, str], sized_by: Column | None
) -> list[str]:
    told = []
    for ours, column in found.items():
        if column.theirs == ours or ours in ("metric", *ACCURACIES):
            continue
        unit = f", {UNIT_OF[ours]}" if ours in UNIT_OF else ""
        scaled = f" (times {column.factor:g})" if column.factor != 1 else ""
        if ours not in mapping or scaled:
            told.append(f"{column.theirs!r} read as {ours}{unit}{scaled}")
    if sized_by is not None:
        told.append(f"batch_size read from the names in {sized_by.theirs!r}")
    return told


def told_of_metric(named: Named) -> str:
    """Which metric is judged, and in which direction."""
    assert named.metric is not None
    better = "smaller" if named.metric.mode == "min" else "larger"
    column = named.by_ours[named.metric.role]
    per_cent = ", per cent" if column.factor == 0.01 else ""
    return f"{column.theirs!r} read as the metric{per_cent}; {better} is better"


def require_columns(named: Named, table: TableFile, source: str) -> None:
    """Raise UserError unless there is a batch size and something to judge it by."""
    have = set(named.by_ours)
    sized = named.sized_by is not None or have & {"batch_size", "per_device_batch_size"}
    lacking = [] if sized else ["batch_size"]
    usable = {*TO_TARGET, "epochs_to_target", "tokens_to_target", "examples_per_second",
              "updates_per_second", "tokens_per_second", "epoch_seconds", "update_seconds",
              "train_seconds"}  # fmt: skip
    if not have & usable and named.metric is None:
        lacking.append(" or ".join(TO_TARGET))
    if lacking:
        raise lacks(lacking, table.columns, source, named)


def lacks(
    lacking: Sequence[str], columns: Sequence[str], source: str, named: Named | None = None
) -> UserError:
    """The error for what is not there, with a command that helps where a name is near."""
    sized = _near_size(columns) if lacking[0] == "batch_size" else None
    near = ("batch_size", sized) if sized else None
    if lacking[0] != "batch_size":
        near = _near_value(columns, named)
    hint = ""
    if near is not None:
        hint = f" Is it {near[1]!r}? Then add --map {shlex.quote('='.join(near))}."
    return UserError(
        f"{source} lacks the column {', and '.join(lacking)}; it has: "
        f"{', '.join(c for c in columns if c)}. Rename one, or say which with --map.{hint}"
    )


def _near_size(columns: Sequence[str]) -> str | None:
    plain = {words(c): c for c in columns if c and c not in MAPPABLE}
    near = difflib.get_close_matches("batch_size", plain, n=1, cutoff=0.6)
    sized = [w for w in plain if re.search(r"batch|\bbs|size", w)]
    return plain[(near or sized)[0]] if near or sized else None


def _near_value(columns: Sequence[str], named: Named | None) -> tuple[str, str] | None:
    """The unread column whose name speaks of a time, a count or a metric, and which it may be."""
    by_word = (("time_to_target_seconds", r"time|sec|hour|min|dur"), ("epochs_to_target", "epoch"),
               ("updates_to_target", "step|iter|update"), ("examples_to_target", "example|sample"),
               ("tokens_to_target", "tok"), ("metric", r"met|eval|qual|perf|res"))  # fmt: skip
    counted = [c.theirs for o, c in named.by_ours.items() if o in COUNTED] if named else []
    unread = [c for c, _ in named.unread] if named else list(columns)
    for ours, pattern in by_word:
        for theirs in (*counted, *unread):
            free = theirs in counted or theirs not in MAPPABLE
            if theirs and free and re.search(pattern, words(theirs)):
                return ours, theirs
    return None


def spent_of(to_target: str) -> str:
    """How far a run went, in the unit of what it took to the target."""
    both = dict(zip(TO_TARGET, SPENT, strict=True))
    return both.get(to_target, to_target.split("_")[0])  # epochs and tokens
