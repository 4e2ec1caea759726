"""What cannot be judged gets a sentence: throughput alone, one batch size, times to nowhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from tune_jobs.formatting import quantity, seconds
from tune_jobs.reading.columns import Named
from tune_jobs.reading.rows import Row
from tune_jobs.reading.table import TableOfRuns

RATES = {
    "tokens_per_second": "tokens/s",
    "examples_per_second": "examples/s",
    "updates_per_second": "examples/s",
    "update_seconds": "examples/s",
}


def judgeable(table: TableOfRuns) -> TableOfRuns:
    """The table without what holds a single batch size, of which is told.

    Where other workloads of the table can be judged, such runs are left out; where none can, the
    sentence stands in a verdict's place.
    """
    single = {
        workload: sizes.pop()
        for workload in dict.fromkeys(run.workload for run in table.runs)
        if len(sizes := {run.batch_size for run in table.runs if run.workload == workload}) == 1
    }
    if not single:
        return table
    kept = tuple(run for run in table.runs if run.workload not in single)
    of = len(table.runs)
    if kept:
        each = "; ".join(f"{workload} only {size}" for workload, size in single.items())
        told = f"{of - len(kept)} of {of} runs left out: no second batch size: {each}"
        return replace(table, runs=kept, left_out=(*table.left_out, told))
    if len(single) == 1:
        ((workload, size),) = single.items()
        told = (
            f"{workload}: all {of} runs are of batch size {size}. A single batch size cannot be "
            "compared with any other: add runs of another one."
        )
    else:
        each = "; ".join(f"{workload} has only {size}" for workload, size in single.items())
        told = (
            f"No batch sizes can be compared: {each}. What else differs between them (machines, "
            "models, optimizers) differs with the batch size, so that neither can be told from the "
            "other: add runs of several batch sizes on the same one."
        )
    return replace(table, runs=(), said=(*table.said, told))


def of_throughput(rows: Sequence[Row], named: Named, stem: str) -> str | None:
    """What examples or tokens a second alone can tell; None where they are not known."""
    name = next((n for n in RATES if n in named.by_ours), None)
    if name is None:
        return None
    rates: dict[int, list[float]] = {}
    for row in rows:
        if (value := row.get(name)) is not None:
            size = row.get("batch_size")
            scale = {"updates_per_second": size * value, "update_seconds": size / value}
            rates.setdefault(size, []).append(scale.get(name, value))
    if not rates:
        return None
    middle = {size: median(of) for size, of in rates.items()}
    ordered = sorted(middle, key=lambda size: -middle[size])
    told = (f"{stem}: throughput alone does not choose a batch size. {ordered[0]} is the fastest, "
            f"{quantity(middle[ordered[0]])} {RATES[name]}")  # fmt: skip
    if len(ordered) > 1:
        more = middle[ordered[0]] / middle[ordered[1]] - 1
        told += f", {more:.0%} over {ordered[1]}"
    unknown = {row.get("batch_size"): row.never for row in rows if row.never}
    told += "".join(f"; {size}: {word}" for size, word in unknown.items() if size not in rates)
    told += (". How many examples each batch size needs to reach a target is not in the table: add "
             "time_to_target_seconds or examples_to_target, or a metric at an equal number of "
             "epochs.")  # fmt: skip
    if named.equal_updates:
        told += (
            f" {', '.join(named.equal_updates)}: at equal updates a larger batch has seen more "
            "examples, so that is not judged."
        )
    return told


def of_times_alone(rows: Sequence[Row], named: Named, stem: str) -> str:
    """Times of whole trainings and nothing that they reached."""
    names = ("train_seconds", "epoch_seconds")
    name = next((n for n in names if any(row.get(n) is not None for row in rows)), None)
    if name is None:
        return (
            f"{stem}: no row tells how fast or how good its run was: fill in a metric, or "
            "time_to_target_seconds"
        )
    theirs = named.by_ours[name].theirs
    times: dict[int, list[float]] = {}
    for row in rows:
        if (value := row.get(name)) is not None:
            times.setdefault(row.get("batch_size"), []).append(value)
    shown = "; ".join(f"{size}: {seconds(median(of))}" for size, of in sorted(times.items()))
    return (
        f"{stem}: {theirs!r} is the time of "
        f"{'whole trainings' if name == 'train_seconds' else 'an epoch'} ({shown}), and nothing "
        "tells what they reached: that does not choose a batch size. Add a metric, or, if each "
        f"ended at the target, give --map {shlex.quote(f'time_to_target_seconds={theirs}')}."
    )


def of_final_metric(rows: Sequence[Row], named: Named, is_curve: bool) -> list[str]:
    """Notes where the final metric is judged: no target, unequal budgets, a test metric."""
    assert named.metric is not None
    theirs = named.by_ours[named.metric.role].theirs
    told = [f"no target is named: judged by {theirs!r} at the end of each run"]
    if is_curve:
        told[0] += "; --target VALUE judges what it took to reach one"
    if "train_seconds" in named.by_ours or any(row.get("train_seconds") for row in rows):
        times: dict[int, list[float]] = {}
        for row in rows:
            if (value := row.get("train_seconds")) is not None:
                times.setdefault(row.get("batch_size"), []).append(value)
        shown = "; ".join(f"{size}: {seconds(median(of))}" for size, of in sorted(times.items()))
        told.append(f"whole trainings took, shown and not judged: {shown}")
    for name in ("epochs", "examples_seen", "tokens"):
        budgets = [v for row in rows if (v := row.get(name))]
        if budgets and max(budgets) > 1.1 * min(budgets):
            told.append(f"the runs did not end at an equal budget ({name} {min(budgets):g} to "
                        f"{max(budgets):g}): the longer ones had the better chance")  # fmt: skip
            break
    if named.metric.split in ("test", "train"):
        told.append(f"{theirs!r} is of the {named.metric.split} examples: a batch size "
                    "chosen by it looks better than it is")  # fmt: skip
    return told
