"""Anyone's table of runs, CSV, Markdown or Parquet, as runs that can be judged.

    batch_size     examples for each update, a positive integer, or within a name as in `bs32-seed1`
    seed           an integer; runs that share one are compared in pairs; blank makes it careful
    time_to_target_seconds, examples_to_target, updates_to_target, epochs_to_target,
    tokens_to_target
                   what it took to reach the target; empty (or nan, none, inf, `-`, OOM, `did not
                   converge`) where it was never reached
    target         what was to be reached; several for each run show how the answer moves with it
    metric         without any of those: how good the run was at its end, at an equal budget; or,
                   with a row for each epoch, how good it was then (--target says what is wanted)
    workload       what was trained; one verdict for each
    train_seconds, examples_seen, updates, epochs, tokens
                   how far the run went, whether it reached the target or not
    examples_per_second, peak_memory_mib, learning_rate
    energy_joules  of the whole run where `examples_seen` is known, else to the target
    val_accuracy   at the end of the run; for the goal `accuracy`
    test_accuracy, train_accuracy
                   at the end of the run; they decide nothing beside others
    device         what it ran on
    run, state     the run's name, and how it ended: one that crashed is left out, one that diverged
                   or was aborted never got there

Columns are found by the names that people give them (`BatchSize`, `config.batch_size`, `hours`,
`Test F1`); what was read as what is told. Where words that are no such column differ within a batch
size (an optimizer, a machine), each is judged apart. A grid of learning rates is judged at the best
of each batch size. An empty cell is unknown, and derived where that is possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tune_jobs.errors import UserError
from tune_jobs.reading.apart import judged_apart, searched_along, without_twins
from tune_jobs.reading.cells import printable
from tune_jobs.reading.columns import (
    Named,
    lacks,
    name_columns,
    require_columns,
    told_of_metric,
)
from tune_jobs.reading.curves import collapsed, require_mode, trend
from tune_jobs.reading.grid import at_best_rates
from tune_jobs.reading.names import ACCURACIES
from tune_jobs.reading.names import COLUMNS as COLUMNS
from tune_jobs.reading.names import MAPPABLE as MAPPABLE
from tune_jobs.reading.names import TO_TARGET as TO_TARGET
from tune_jobs.reading.per_cent import as_fractions, parts_of
from tune_jobs.reading.reshaped import long_table
from tune_jobs.reading.rows import COUNTS_TO_TARGET, Row, read_rows, row_of, some
from tune_jobs.reading.rows import NamedRow as NamedRow
from tune_jobs.reading.rows_as import Groups, grouped
from tune_jobs.reading.runs import reached as reached
from tune_jobs.reading.runs import runs_of
from tune_jobs.reading.said import of_final_metric, of_throughput, of_times_alone
from tune_jobs.reading.states import ended
from tune_jobs.reading.table import Asked as Asked
from tune_jobs.reading.table import TableOfRuns as TableOfRuns
from tune_jobs.reading.table_file import read_table
from tune_jobs.records import TargetRun

NOTHING_NAMED = Named({}, ())


def runs_of_table(
    path: Path, mapping: Mapping[str, str] | None = None, asked: Asked | None = None
) -> TableOfRuns:
    """Read a file of runs. `mapping` is our column name to the file's.

    Raises UserError, which names the row, the column, the rule and the remedy.
    """
    asked, source, stem = asked or Asked(), str(path), printable(path.stem)
    table = long_table(read_table(path))
    named = name_columns(table, mapping or {}, source, asked.mode)
    require_columns(named, table, source)
    rows, unsized = read_rows(table, named, source)
    unread = [c for c, _ in named.unread]
    notes = [*named.notes, *([f"columns not read: {', '.join(unread)}"] if unread else [])]
    if not _names_target(named) and named.metric is None and not _asks_for_cost(rows, asked):
        told = of_throughput(rows, named, stem) or of_times_alone(rows, named, stem)
        return TableOfRuns((), tuple(notes), tuple(unsized), said=(told,))
    read = _one_for_each_run(rows, named, asked, source, stem)
    named, by_metric = read.named, read.by_metric
    accuracy = by_metric or asked.goal == "accuracy"
    finished = _finished(read.rows, named, stem, accuracy, must_have_metric=by_metric)
    return replace(
        finished,
        notes=(*notes, *read.notes, *finished.notes),
        left_out=(*unsized, *finished.left_out),
        goal="accuracy" if by_metric else None,
        target=read.target,
    )


def runs_of_rows(rows: Sequence[NamedRow], workload: str, notes: Sequence[str] = ()) -> TableOfRuns:
    """Rows with our column names as runs, everything derived that can be. Raises UserError.

    `workload` is the name of what was trained where the rows do not tell.
    """
    read = [row_of(row) for row in rows]
    runs = [(row,) for row in read]
    fractions, percent, _ = as_fractions(runs, parts_of(NOTHING_NAMED), workload)
    finished = _finished([row for (row,) in fractions], NOTHING_NAMED, workload, accuracy=False)
    return replace(finished, notes=(*notes, *finished.notes, *percent))


def require_our_columns(found: Iterable[str], columns: Sequence[str], source: str) -> None:
    """Raise UserError unless our names of a batch size and one quantity to the target are found."""
    have = set(found)
    lacking = [] if "batch_size" in have else ["batch_size"]
    if not have & set(TO_TARGET):
        lacking.append(" or ".join(TO_TARGET))
    if lacking:
        raise lacks(lacking, columns, source)


# From rows to one row for each run


@dataclass(frozen=True)
class _Read:
    """One row for each run, judged by what a target took or by the final metric."""

    rows: tuple[Row, ...]
    named: Named
    by_metric: bool
    target: float | None
    notes: tuple[str, ...]


def _names_target(named: Named) -> bool:
    return any(name in named.by_ours for name in COUNTS_TO_TARGET)


def _asks_for_cost(rows: Sequence[Row], asked: Asked) -> bool:
    name = {"memory": "peak_memory_mib", "energy": "energy_joules"}.get(asked.goal or "")
    return name is not None and any(row.get(name) is not None for row in rows)


def _one_for_each_run(
    rows: Sequence[Row], named: Named, asked: Asked, source: str, stem: str
) -> _Read:
    groups = grouped(rows, named, asked.rows, source)
    fractions, notes, percent = as_fractions(groups.runs, parts_of(named), stem)
    groups = replace(groups, runs=tuple(map(tuple, fractions)))
    curves = groups.index is not None
    by_target = _names_target(named) or (curves and asked.target is not None)
    by_metric = not by_target and named.metric is not None
    told = list(groups.notes)
    if curves or by_metric:
        named = _with_mode(named, groups, source)
        told.append(told_of_metric(named))
    if not curves:
        if by_metric:
            _require_no_target(asked, source)
        read, target = [run[0] for run in groups.runs], asked.target
    else:
        target = _scaled(asked.target, named, percent)
        read, of_time = collapsed(groups, named, target)
        told += of_time
    if by_metric:
        told += of_final_metric(read, named, curves)
    return _Read(tuple(read), named, by_metric, target, (*told, *notes))


def _with_mode(named: Named, groups: Groups, source: str) -> Named:
    """The direction of the metric: as asked, by its name, else as its curves go."""
    assert named.metric is not None
    found = None if groups.index is None else trend(groups, named.metric)
    mode = require_mode(named.metric, found, source)
    return replace(named, metric=replace(named.metric, mode=mode))


def _require_no_target(asked: Asked, source: str) -> None:
    if asked.target is not None:
        raise UserError(
            f"--target {asked.target:g}: {source} tells one metric for each run, and not when it "
            "was reached; leave --target out, or give a row for each epoch"
        )
    if asked.goal not in (None, "accuracy", "memory", "energy"):
        raise UserError(
            f"--goal {asked.goal} needs the column time_to_target_seconds, examples_to_target or "
            f"updates_to_target; {source} has none. Ask for --goal accuracy, or leave it out"
        )


def _scaled(target: float | None, named: Named, percent: Collection[str]) -> float | None:
    """A target in per cent as a fraction where the metric is one."""
    assert named.metric is not None
    role = named.metric.role
    fraction = role in percent or role in ACCURACIES or named.by_ours[role].factor == 0.01
    return target / 100 if target is not None and target > 1 and fraction else target


# From runs to those that are judged


def _finished(
    rows: Sequence[Row],
    named: Named,
    stem: str,
    accuracy: bool,
    must_have_metric: bool = False,
) -> TableOfRuns:
    """States, twins, settings, derived quantities, equal seeds, learning rates: in this order."""
    kept, gone = ended(rows, named)
    kept, twins = without_twins(kept)
    left_out = [*gone, *twins]
    if must_have_metric:
        kept, without = _with_metric(kept, named)
        left_out += without
    if not kept:
        told = f"{stem}: no run is left to judge: {'; '.join(left_out) or 'none was made'}."
        return TableOfRuns((), (), tuple(left_out), said=(told,))
    kept, apart = judged_apart(kept, named, stem, by_budget=must_have_metric)
    # Beside a target the validation accuracy has a field of its own.
    plain = named.metric is not None and named.metric.role == "val_accuracy"
    metric = None if plain and not must_have_metric else named.metric
    runs, derived = runs_of(kept, stem, metric)
    grid = at_best_rates(runs, accuracy)
    seeds = _of_seeds(grid.runs)
    runs, alike = _unpaired(grid.runs)
    notes = [*apart, *searched_along(kept), *seeds, *derived, *grid.notes, *alike]
    return TableOfRuns(
        runs=tuple(runs),
        notes=tuple(dict.fromkeys([*notes, *_of_choices(runs)])),
        left_out=(*left_out, *grid.left_out),
        searched=grid.searched,
    )


def _with_metric(rows: Sequence[Row], named: Named) -> tuple[list[Row], list[str]]:
    """The runs that have a final metric; the others are left out, by what stands in its place."""
    assert named.metric is not None
    kept, without = [], dict[str, list[str]]()
    for row in rows:
        if row.get(named.metric.role) is not None:
            kept.append(row)
        else:
            why = row.never or "no value"
            without.setdefault(why, []).append(row.place.rpartition(", ")[2])
    return kept, [
        f"{len(places)} of {len(rows)} runs left out: {named.metric.name}: {why} ({some(places)})"
        for why, places in without.items()
    ]


def _of_seeds(runs: Sequence[TargetRun]) -> list[str]:
    several = max(Counter((r.workload, r.batch_size, r.target) for r in runs).values(), default=0)
    unseeded = any(run.seed is None for run in runs)
    return ["some runs name no seed: runs are not compared in pairs"] * (unseeded and several > 1)


def _unpaired(runs: Sequence[TargetRun]) -> tuple[list[TargetRun], list[str]]:
    """Runs that drew the same seed stay, as repeats that are paired with none."""

    def key(run: TargetRun) -> tuple[object, ...]:
        return run.workload, run.batch_size, run.seed, run.target, run.device

    counted = Counter(key(run) for run in runs if run.seed is not None)
    told = [
        f"{workload}: {n} runs of batch size {size} drew the seed {seed}: all stay, and are "
        "compared with others unpaired"
        for (workload, size, seed, *_), n in counted.items()
        if n > 1
    ]
    alone = [replace(run, seed=None) if counted[key(run)] > 1 else run for run in runs]
    return alone, told[:3] + [f"and {len(told) - 3} more such seeds"] * (len(told) > 3)


def _of_choices(runs: Sequence[TargetRun]) -> list[str]:
    """Batch sizes 1, 2, 3 and so on are more likely the numbers of choices."""
    sizes = sorted({run.batch_size for run in runs})
    if len(sizes) < 3 or sizes != list(range(1, len(sizes) + 1)):
        return []
    return [f"batch sizes 1 to {len(sizes)}: are they the numbers of choices, not their values?"]
