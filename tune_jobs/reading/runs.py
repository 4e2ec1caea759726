"""Rows as runs that can be judged: what is missing derived, what contradicts refused.

Examples = updates x batch size, seconds = examples / examples per second, the run's own or else the
median of its batch size. In what comes out, each of the three quantities to the target is known for
every run of a workload that reached its target, or for none. Where only epochs are known, they
stand in the place of examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

from tune_jobs.errors import UserError
from tune_jobs.reading.columns import Metric
from tune_jobs.reading.names import SPENT, TO_TARGET
from tune_jobs.reading.rows import Row
from tune_jobs.records import TargetRun

SLACK = 1.001  # rounded numbers may contradict one another by so much
PLAIN = ("batch_size", "seed", "target", *TO_TARGET, *SPENT, "examples_per_second",
         "peak_memory_mib", "energy_joules", "learning_rate", "val_accuracy", "train_accuracy",
         "test_accuracy", "device")  # fmt: skip


def runs_of(
    rows: Sequence[Row], stem: str, metric: Metric | None
) -> tuple[list[TargetRun], list[str]]:
    """One run for each row. Raises UserError for what contradicts."""
    whole = any(row.get("train_examples") for row in rows)
    unit = _unit(rows)
    read = [_run(_spelled_out(row, unit), stem, metric, unit) for row in rows]
    _refuse_mixed_targets(rows, read)
    for row, run in zip(rows, read, strict=True):
        _refuse_contradiction(row, run)
    derived, notes = _known_for_all(rows, read, _derived(read))
    if unit == "tokens":
        notes.append("tokens stand in the place of examples")
    elif unit == "epochs" and not whole:
        notes.append("epochs stand in the place of examples: how many an epoch has is not told")
    return on_a_grid(derived), notes


# From rows


def _unit(rows: Sequence[Row]) -> str:
    """What counts what a target took: tokens or epochs where nothing counts examples."""

    def known(*names: str) -> bool:
        return any(row.get(name) is not None for row in rows for name in names)

    if known("examples_to_target", "updates_to_target"):
        return "examples"
    if known("tokens_to_target"):
        return "tokens"
    return "epochs" if known("epochs_to_target") and not known("train_examples") else "examples"


def _spelled_out(row: Row, unit: str) -> Row:
    """Examples and seconds from epochs or tokens, and throughput from the time of an update."""
    values: dict[str, Any] = {}
    size, epochs = row.get("batch_size"), row.get("epochs")
    to_target, tokens = row.get("epochs_to_target"), unit == "tokens"
    examples = 1 if unit == "epochs" else None if tokens else row.get("train_examples")
    for count, ours, seconds in (
        (to_target, "examples_to_target", "time_to_target_seconds"),
        (epochs, "examples_seen", "train_seconds"),
    ):
        if count and examples and row.get(ours) is None:
            values[ours] = count * examples
        if count and row.get("epoch_seconds") and row.get(seconds) is None:
            values[seconds] = count * row.get("epoch_seconds")
    if tokens:
        count, rate = row.get("tokens_to_target"), row.get("tokens_per_second")
        values |= {"examples_to_target": count, "examples_seen": row.get("tokens")}
        if count and rate and row.get("time_to_target_seconds") is None:
            values.setdefault("time_to_target_seconds", count / rate)
    if row.get("examples_per_second") is None:
        if row.get("update_seconds"):
            values["examples_per_second"] = size / row.get("update_seconds")
        elif row.get("updates_per_second"):
            values["examples_per_second"] = size * row.get("updates_per_second")
        elif row.get("epoch_seconds") and row.get("train_examples"):
            values["examples_per_second"] = row.get("train_examples") / row.get("epoch_seconds")
    return row.having(**values)


def _run(row: Row, stem: str, metric: Metric | None, unit: str) -> TargetRun:
    """The row's own values as a run; what it does not say is None."""
    values = {name: row.get(name) for name in PLAIN}
    for name in ("examples_seen", "updates"):
        values[name] = _whole(values[name])
    run = TargetRun(
        workload=row.get("workload") or stem,
        interpolated=False,
        measured_time_to_target_seconds=None,
        test_accuracy_at_equal_updates=None,
        resolution=_resolution(row),
        examples_unit=unit,
        **values,
    )
    if metric is None or metric.mode is None:
        return run
    value = row.get(metric.role)
    accuracy = run.val_accuracy
    if accuracy is None and metric.is_accuracy and value is not None and 0 <= value <= 1:
        accuracy = value
    return replace(
        run, metric=metric.name, mode=metric.mode, val_metric=value, val_accuracy=accuracy
    )


def _resolution(row: Row) -> float | None:
    """Whole epochs are known to one of them."""
    epochs = row.get("epochs_to_target")
    if row.resolution is None and epochs and epochs == int(epochs):
        return float(1 / epochs)
    return row.resolution


# What contradicts


def _refuse_mixed_targets(rows: Sequence[Row], runs: Sequence[TargetRun]) -> None:
    named = {run.workload for run in runs if run.target is not None}
    for row, run in zip(rows, runs, strict=True):
        if run.target is None and run.workload in named:
            raise UserError(
                f"{row.place}, column target: empty, while other rows of {run.workload} name "
                "theirs; fill it in"
            )


def _refuse_contradiction(row: Row, run: TargetRun) -> None:
    for to_target, spent in zip(TO_TARGET, SPENT, strict=True):
        reached_at, whole = getattr(run, to_target), getattr(run, spent)
        if reached_at is not None and whole is not None and reached_at > whole * SLACK:
            raise UserError(
                f"{row.place}: {to_target} {reached_at:.6g} is more than {spent} {whole:.6g}, "
                "which the whole run took; correct one"
            )
    examples, updates = run.examples_to_target, run.updates_to_target
    if examples is not None and updates is not None and run.examples_unit == "examples":
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
    if run.examples_unit != "examples":
        return run
    size = run.batch_size
    return replace(
        run,
        examples_to_target=_or(run.examples_to_target, run.updates_to_target, size),
        updates_to_target=_or(run.updates_to_target, run.examples_to_target, 1 / size),
        examples_seen=_whole(_or(run.examples_seen, run.updates, size)),
        updates=_whole(_or(run.updates, run.examples_seen, 1 / size)),
    )


def _with_throughput(run: TargetRun) -> TargetRun:
    if run.examples_per_second is not None or run.examples_unit != "examples":
        return run
    pairs = (
        (run.examples_to_target, run.time_to_target_seconds),
        (run.examples_seen, run.train_seconds),
    )
    rates = [n / seconds for n, seconds in pairs if n and seconds]
    return replace(run, examples_per_second=rates[0]) if rates else run


def _timed(run: TargetRun, typical: float | None) -> TargetRun:
    rate = run.examples_per_second or typical
    if not rate or run.examples_unit != "examples":
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
    rows: Sequence[Row], read: Sequence[TargetRun], derived: Sequence[TargetRun]
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


# What a crossing is known to


def on_a_grid(runs: Sequence[TargetRun]) -> list[TargetRun]:
    """Many runs at the same few values were looked at now and then: the step is the resolution.

    A workload's values are a grid where at least six runs share half as many values or fewer, all
    whole multiples of the least difference between them.
    """
    found = list(runs)
    for workload in dict.fromkeys(run.workload for run in runs):
        of = [n for n, run in enumerate(runs) if run.workload == workload and reached(run)]
        known = [name for name in TO_TARGET if all(getattr(runs[n], name) for n in of)]
        steps = {name: _step([getattr(runs[n], name) for n in of]) for name in known}
        name = next((name for name in known if steps[name] is not None), None)
        if name is None or any(runs[n].resolution is not None for n in of):
            continue
        for n in of:
            part = (steps[name] or 0.0) / getattr(runs[n], name)
            found[n] = replace(runs[n], resolution=min(1.0, part))
    return found


def _step(values: Sequence[float]) -> float | None:
    distinct = sorted(set(values))
    if len(values) < 6 or len(distinct) < 2 or 2 * len(distinct) > len(values):
        return None
    step = min(b - a for a, b in pairwise(distinct))
    even = all(abs(v / step - round(v / step)) < 0.02 for v in distinct)
    return step if even else None
