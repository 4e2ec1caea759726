"""What a row is: a run, or one point (an evaluation, an epoch) of a run's curve.

Rows are points where, for the same batch size, seed, run and setting, several rows stand and an
epoch, step or number of reports rises through them from its beginning. Where it begins again, a
further run begins. Where it differs in another way, the rows can be read both ways: that is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tune_jobs.errors import UserError
from tune_jobs.reading import cells
from tune_jobs.reading.columns import Named
from tune_jobs.reading.rows import COUNTS_TO_TARGET, Row

COUNTERS = ("epochs", "updates", "examples_seen", "tokens", "reports")
CLOCKS = ("wall_time", "train_seconds")
LEAST = 3  # rows that make a curve beyond doubt


@dataclass(frozen=True)
class Groups:
    """Rows by run.

    Attributes:
        index: our name of what rises from point to point; None where each row is a run.
    """

    runs: tuple[tuple[Row, ...], ...]
    index: str | None = None
    notes: tuple[str, ...] = ()


def grouped(rows: Sequence[Row], named: Named, asked: str | None, source: str) -> Groups:
    """The rows by run. `asked` is `run`, `point` or None. Raises UserError where it must be."""
    alone = Groups(tuple((row,) for row in rows))
    has_target = any(name in named.by_ours for name in COUNTS_TO_TARGET)
    if asked == "run" or named.metric is None or (asked is None and has_target):
        if asked == "point":
            raise UserError(f"--rows point: {source} has no metric that rises or falls in a curve; "
                            "name one with --map metric=COLUMN")  # fmt: skip
        return alone
    role = named.metric.role
    measured = [row for row in rows if row.get(role) is not None or row.never]
    groups = _by_key(measured, by_rate=True)
    index = _index(_by_key(measured, by_rate=False), named, asked)
    if index is None:
        if asked == "point":
            raise UserError(f"--rows point: {source} has no column that counts epochs or steps; "
                            "name one with --map epochs=COLUMN")  # fmt: skip
        return alone
    curves = _curves(groups, index)
    if not _are_curves(curves, index):  # a rate that changes along a run is a schedule
        scheduled = _curves(_by_key(measured, by_rate=False), index)
        curves = scheduled if asked or _are_curves(scheduled, index) else curves
    if asked is None and not _are_curves(curves, index):
        return _in_doubt(alone, groups, index, named, source)
    return Groups(tuple(map(tuple, curves)), index, _told(rows, measured, curves, index, named))


def _told(
    rows: Sequence[Row],
    measured: Sequence[Row],
    curves: Sequence[Sequence[Row]],
    index: str,
    named: Named,
) -> tuple[str, ...]:
    assert named.metric is not None
    sizes = len({run[0].get("batch_size") for run in curves})
    theirs = named.by_ours[index].theirs
    told = (
        f"each row is a point of a curve, by {theirs!r}: {len(measured)} points of {len(curves)} "
        f"runs at {sizes} batch sizes (--rows run reads each row as a run)"
    )
    empty = len(rows) - len(measured)
    without = f"{empty} rows without {named.by_ours[named.metric.role].theirs!r} are no points"
    return (told, without) if empty else (told,)


def _curves(groups: Sequence[Sequence[Row]], index: str) -> list[list[Row]]:
    return [run for group in groups for run in _stretches(group, index)]


def _by_key(rows: Sequence[Row], by_rate: bool) -> list[list[Row]]:
    """Rows of the same batch size, seed, run, rate and words, in the order of the file."""
    names = dict.fromkeys(name for row in rows for name in (*row.settings, *row.machine))
    kept = [name for name in names if _tells_runs_apart([_setting(r, name) for r in rows])]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        own = [row.get(n) for n in ("workload", "batch_size", "seed", "run", "devices", "device")]
        own += [row.get("learning_rate")] * by_rate
        groups.setdefault((*own, *(_setting(row, name) for name in kept)), []).append(row)
    return list(groups.values())


def _setting(row: Row, name: str) -> str:
    return row.settings.get(name) or row.machine.get(name) or ""


def _tells_runs_apart(of: Sequence[str]) -> bool:
    """Words of which several rows share each; numbers may be measured anew in each row."""
    return not all(cells.numeric(c) or cells.blank(c) for c in of) and 2 * len(set(of)) <= len(of)


def _index(groups: Sequence[Sequence[Row]], named: Named, asked: str | None) -> str | None:
    """The first counter that differs within a group; a clock only beside the names of runs."""
    runs_are_named = any(
        group[0].get("run") or group[0].get("seed") is not None for group in groups
    )
    for name in (*COUNTERS, *CLOCKS):
        if name not in named.by_ours or (name in CLOCKS and not runs_are_named and not asked):
            continue
        told = [[row.get(name) for row in group] for group in groups]
        if any(None in of for of in told):
            continue
        if asked or any(len(set(of)) > 1 for of in told):
            return name
    return None


def _stretches(group: Sequence[Row], index: str) -> list[list[Row]]:
    """The runs of one group: a further one begins where the index begins again."""
    runs: list[list[Row]] = []
    for row in group:
        if not runs or row.get(index) <= runs[-1][0].get(index):
            runs.append([])
        runs[-1].append(row)
    ordered = []
    for run in runs:
        last = {row.get(index): row for row in run}  # of a point that was logged twice the later
        ordered.append([last[at] for at in sorted(last)])
    return ordered


def _are_curves(curves: Sequence[Sequence[Row]], index: str) -> bool:
    """Most runs have points enough, and begin as near to zero as their points lie apart."""
    good = 0
    for run in curves:
        at = [float(row.get(index)) for row in run]
        step = median([after - before for before, after in pairwise(at)] or [0.0])
        begins = index in CLOCKS or at[0] <= 1.5 * step
        good += len(run) >= LEAST and begins
    return 2 * good > len(curves)


def _in_doubt(
    alone: Groups, groups: Sequence[Sequence[Row]], index: str, named: Named, source: str
) -> Groups:
    """Runs, where the index could as well be the budget that each of them had; else ask."""
    several = [group for group in groups if len(group) > 1]
    rising = [all(b.get(index) > a.get(index) for a, b in pairwise(group)) for group in several]
    if index in CLOCKS or not several or 2 * sum(rising) <= len(several):
        return alone
    theirs = named.by_ours[index].theirs
    raise UserError(
        f"{source}: rows of the same batch size differ in {theirs!r} ({several[0][0].place} and "
        f"{several[0][1].place.rpartition(', ')[2]}): each may be a run, or a point of one run's "
        "curve; say which with --rows run or --rows point"
    )
