"""Anyone's table of runs, one row for each run and target, as rows that can be judged.

    batch_size     examples for each update, a positive integer; required
    seed           an integer; runs that share one are compared in pairs; blank makes it careful
    time_to_target_seconds, examples_to_target, updates_to_target
                   one of them required; empty (or nan, none, inf) where it was never reached
    target         what was to be reached; several for each run show how the answer moves with it
    workload       what was trained; one verdict for each
    train_seconds, examples_seen, updates
                   how far the run went, whether it reached the target or not
    examples_per_second, peak_memory_mib, learning_rate
    energy_joules  of the whole run where `examples_seen` is known, else to the target
    val_accuracy   at the end of the run; for the goal `accuracy`
    test_accuracy, train_accuracy
                   at the end of the run; they decide nothing
    device         what it ran on

Other columns are left alone; an empty cell is unknown. What is missing is derived where that is
possible: examples = updates x batch size, seconds = examples / examples per second, the run's own
or else the median of its batch size. In what comes out, each of the three quantities is known for
every run of a workload that reached its target, or for none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tune_jobs.errors import UserError, unknown_name
from tune_jobs.reading import cells
from tune_jobs.reading.table_file import read_table
from tune_jobs.records import TargetRun

TO_TARGET = ("time_to_target_seconds", "examples_to_target", "updates_to_target")
SPENT = ("train_seconds", "examples_seen", "updates")
COSTS = ("examples_per_second", "peak_memory_mib", "energy_joules", "learning_rate")
ACCURACIES = ("val_accuracy", "train_accuracy", "test_accuracy")
COLUMNS = ("workload", "batch_size", "seed", "target", *TO_TARGET, *SPENT, *COSTS, *ACCURACIES,
           "device")  # fmt: skip

SLACK = 1.001  # rounded numbers may contradict one another by so much


@dataclass(frozen=True)
class NamedRow:
    """One row as it was found: its place, for messages, and its cells by our column names."""

    place: str
    cells: Mapping[str, object]


@dataclass(frozen=True)
class TableOfRuns:
    """The runs of a table, and what a reader should know of how they were read.

    Attributes:
        notes: what was read as what, one line for each thing.
        left_out: how many rows are no part of any verdict, and why; one line for each reason.
        searched: the runs of a grid of learning rates that `runs` were chosen from, by workload and
            batch size, at each rate and seed; what the choice of a rate is worth is told from them.
        said: what can be said where there is nothing to judge by; it stands in a verdict's place.
    """

    runs: tuple[TargetRun, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    searched: tuple[TargetRun, ...] = ()
    said: tuple[str, ...] = ()


def runs_of_table(path: Path, mapping: Mapping[str, str] | None = None) -> TableOfRuns:
    """Read a CSV or Parquet file of runs. `mapping` is our column name to the file's.

    Raises UserError, which names the row, the column, the rule and the remedy.
    """
    table = read_table(path)
    found = theirs_of(table.columns, mapping or {}, str(path))
    require_columns(found, table.columns, str(path))
    at = {ours: table.columns.index(theirs) for ours, theirs in found.items()}
    rows = [
        NamedRow(f"{path}, {table.unit} {n}", {ours: found_cells[k] for ours, k in at.items()})
        for n, found_cells in table.rows
    ]
    unread = [c for c in table.columns if c and c not in found.values()]
    notes = [f"columns not read: {', '.join(unread)}"] if unread else []
    return runs_of_rows(rows, path.stem, notes)


def theirs_of(columns: Sequence[str], mapping: Mapping[str, str], source: str) -> dict[str, str]:
    """Our column names to those of `columns`: as mapped, else those of the same name."""
    for ours, theirs in mapping.items():
        if ours not in COLUMNS:
            raise unknown_name("--map: the column", ours, COLUMNS)
        if theirs not in columns:
            raise unknown_name(f"--map {ours}={theirs}: in {source} the column", theirs, columns)
    same = {c: c for c in COLUMNS if c in columns and c not in mapping}
    return same | dict(mapping)


def require_columns(found: Iterable[str], columns: Sequence[str], source: str) -> None:
    """Raise UserError unless there is a batch size and one quantity to the target."""
    have = set(found)
    lacking = [] if "batch_size" in have else ["batch_size"]
    if not have & set(TO_TARGET):
        lacking.append(" or ".join(TO_TARGET))
    if not lacking:
        return
    names = [n for part in lacking for n in part.split(" or ")]
    near = [n for name in names for n in _nearest(name, columns)]
    hint = f" Is it {near[0]!r}? Then add --map {names[0]}={near[0]}." if near else ""
    raise UserError(
        f"{source} lacks the column {', and '.join(lacking)}; it has: "
        f"{', '.join(c for c in columns if c)}. Rename one, or say which with --map.{hint}"
    )


def _nearest(name: str, columns: Sequence[str]) -> list[str]:
    theirs = {c.lower(): c for c in columns if c not in COLUMNS}
    return [theirs[c] for c in difflib.get_close_matches(name, theirs, n=1)]


def runs_of_rows(rows: Sequence[NamedRow], workload: str, notes: Sequence[str] = ()) -> TableOfRuns:
    """Rows with our column names as runs, everything derived that can be. Raises UserError.

    `workload` is the name of what was trained where the rows do not tell.
    """
    read = [_read(row, workload) for row in rows]
    _refuse_mixed_targets(rows, read)
    _refuse_duplicates(rows, read)
    for row, run in zip(rows, read, strict=True):
        _refuse_contradiction(row, run)
    told = list(notes)
    if any(run.seed is None for run in read):
        told.append("some runs name no seed: runs are not compared in pairs")
    derived, cleared = _known_for_all(rows, read, _derived(read))
    fractions, percent = _as_fractions(rows, derived)
    return TableOfRuns(tuple(fractions), (*told, *cleared, *percent))


# Cells


def _read(row: NamedRow, workload: str) -> TargetRun:
    """The row's own cells as a run; what it does not say is None."""

    def number(name: str, rule: Callable[[Any], Any]) -> Any:
        cell = row.cells.get(name)
        try:
            return rule(cells.number(cell))
        except ValueError as error:
            shown = "an empty cell" if cells.missing(cell) else repr(cell)
            raise UserError(f"{row.place}, column {name}: {shown} {error}") from None

    values = {name: number(name, cells.to_target) for name in TO_TARGET}
    values |= {name: number(name, cells.positive) for name in (*SPENT, *COSTS)}
    values |= {name: number(name, cells.accuracy) for name in ACCURACIES}
    return TargetRun(
        workload=_text(row, "workload") or workload,
        batch_size=number("batch_size", cells.batch_size),
        seed=number("seed", cells.seed),
        target=number("target", cells.finite),
        interpolated=False,
        measured_time_to_target_seconds=None,
        test_accuracy_at_equal_updates=None,
        device=_text(row, "device"),
        **values,
    )


def _text(row: NamedRow, name: str) -> str | None:
    cell = row.cells.get(name)
    return None if cells.missing(cell) else str(cell).strip()


# What contradicts


def _refuse_mixed_targets(rows: Sequence[NamedRow], runs: Sequence[TargetRun]) -> None:
    named = {run.workload for run in runs if run.target is not None}
    for row, run in zip(rows, runs, strict=True):
        if run.target is None and run.workload in named:
            raise UserError(
                f"{row.place}, column target: empty, while other rows of {run.workload} name "
                "theirs; fill it in"
            )


def _refuse_duplicates(rows: Sequence[NamedRow], runs: Sequence[TargetRun]) -> None:
    first: dict[tuple[object, ...], int] = {}
    for n, run in enumerate(runs):
        key = (run.workload, run.batch_size, run.seed, run.target)
        before = first.setdefault(key, n)
        if before == n or run.seed is None:
            continue
        rates = (runs[before].learning_rate, run.learning_rate)
        differ = rates[0] != rates[1]
        raise UserError(
            f"{rows[before].place} and {rows[n].place} are both batch size {run.batch_size}, seed "
            f"{run.seed}{'' if run.target is None else f', target {run.target:.6g}'} of "
            f"{run.workload}"
            + (
                f" (learning rates {rates[0]} and {rates[1]}): keep the learning rate that was "
                "chosen for this batch size"
                if differ
                else "; keep one, or give each run a seed of its own"
            )
        )


def _refuse_contradiction(row: NamedRow, run: TargetRun) -> None:
    for to_target, spent in zip(TO_TARGET, SPENT, strict=True):
        reached, whole = getattr(run, to_target), getattr(run, spent)
        if reached is not None and whole is not None and reached > whole * SLACK:
            raise UserError(
                f"{row.place}: {to_target} {reached:.6g} is more than {spent} {whole:.6g}, which "
                "the whole run took; correct one"
            )
    examples, updates = run.examples_to_target, run.updates_to_target
    if examples is not None and updates is not None:
        # An epoch's last batch may be short; an accumulated or per-device batch is a mistake.
        size = examples / updates
        if not 0.5 * run.batch_size < size <= run.batch_size * 1.5:
            raise UserError(
                f"{row.place}: examples_to_target / updates_to_target is {size:.4g} examples for "
                f"each update, and batch_size is {run.batch_size}; batch_size means the examples "
                "of one update over all devices"
            )


# What can be derived


def reached(run: TargetRun) -> bool:
    """Whether the run reached its target by any of its quantities."""
    return any(getattr(run, name) is not None for name in TO_TARGET)


def _derived(runs: Sequence[TargetRun]) -> list[TargetRun]:
    """Examples from updates, throughput from both, seconds from throughput, and back."""
    counted = [_with_throughput(_counted(run)) for run in runs]
    rates: dict[tuple[str, int, str | None], list[float]] = {}
    for run in counted:
        if run.examples_per_second is not None:
            key = (run.workload, run.batch_size, run.device)
            rates.setdefault(key, []).append(run.examples_per_second)
    typical = {key: median(of) for key, of in rates.items()}
    return [_timed(r, typical.get((r.workload, r.batch_size, r.device))) for r in counted]


def _counted(run: TargetRun) -> TargetRun:
    size = run.batch_size
    return replace(
        run,
        examples_to_target=_or(run.examples_to_target, run.updates_to_target, size),
        updates_to_target=_or(run.updates_to_target, run.examples_to_target, 1 / size),
        examples_seen=_whole(_or(run.examples_seen, run.updates, size)),
        updates=_whole(_or(run.updates, run.examples_seen, 1 / size)),
    )


def _with_throughput(run: TargetRun) -> TargetRun:
    if run.examples_per_second is not None:
        return run
    pairs = (
        (run.examples_to_target, run.time_to_target_seconds),
        (run.examples_seen, run.train_seconds),
    )
    rates = [n / seconds for n, seconds in pairs if n is not None and seconds is not None]
    return replace(run, examples_per_second=rates[0]) if rates else run


def _timed(run: TargetRun, typical: float | None) -> TargetRun:
    rate = run.examples_per_second or typical
    if rate is None:
        return run
    timed = replace(
        run,
        time_to_target_seconds=_or(run.time_to_target_seconds, run.examples_to_target, 1 / rate),
        examples_to_target=_or(run.examples_to_target, run.time_to_target_seconds, rate),
        train_seconds=_or(run.train_seconds, run.examples_seen, 1 / rate),
        examples_seen=_whole(_or(run.examples_seen, run.train_seconds, rate)),
    )
    return _counted(timed)


def _or(known: float | None, other: float | None, factor: float) -> float | None:
    """What is known, else the other quantity times the factor between them."""
    if known is not None or other is None:
        return known
    return other * factor


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _known_for_all(
    rows: Sequence[NamedRow], read: Sequence[TargetRun], derived: Sequence[TargetRun]
) -> tuple[list[TargetRun], list[str]]:
    """Each quantity for every run of a workload that reached its target, or for none.

    A quantity that some rows give and another cannot have is the table's mistake; one that could
    only be derived here and there is taken away, and told.
    """
    runs, notes = list(derived), []
    for workload in dict.fromkeys(run.workload for run in derived):
        of = [n for n, run in enumerate(derived) if run.workload == workload]
        for name in TO_TARGET:
            unknown = [n for n in of if reached(derived[n]) and getattr(derived[n], name) is None]
            if not unknown:
                continue
            if any(getattr(read[n], name) is not None for n in of):
                raise UserError(
                    f"{rows[unknown[0]].place}: the run reached its target, but {name} is empty "
                    "and nothing else in the table tells it; fill it in, or empty the others "
                    "if the target was not reached"
                )
            if any(getattr(derived[n], name) is not None for n in of):
                notes.append(
                    f"{workload}: {name} can be derived for some runs only and is not used"
                )
            nothing: dict[str, Any] = {name: None}
            for n in of:
                runs[n] = replace(runs[n], **nothing)
    return runs, notes


def _as_fractions(
    rows: Sequence[NamedRow], runs: Sequence[TargetRun]
) -> tuple[list[TargetRun], list[str]]:
    """Accuracies as fractions; a workload's column with one above 1 is in per cent."""
    changed, notes = list(runs), []
    for workload in dict.fromkeys(run.workload for run in runs):
        of = [n for n, run in enumerate(runs) if run.workload == workload]
        for name in ACCURACIES:
            values = {n: v for n in of if (v := getattr(runs[n], name)) is not None}
            if max(values.values(), default=0) <= 1:
                continue
            notes.append(f"{workload}: {name} read as per cent")
            for n, value in values.items():
                changed[n] = replace(changed[n], **{name: value / 100})
    return changed, notes
