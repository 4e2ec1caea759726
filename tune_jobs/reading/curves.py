"""A run's points as one row: how it stood at its end, and when it first reached a target.

A target is reached at the first evaluation that shows it; it is known to the step between two
evaluations, which is the row's resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import median

from tune_jobs.errors import UserError
from tune_jobs.reading.columns import Metric, Named
from tune_jobs.reading.rows import Row
from tune_jobs.reading.rows_as import Groups

Points = Sequence[Row]
TO_TARGET_OF = {
    "train_seconds": "time_to_target_seconds",
    "epochs": "epochs_to_target",
    "updates": "updates_to_target",
    "examples_seen": "examples_to_target",
    "tokens": "tokens_to_target",
}


def trend(groups: Groups, metric: Metric) -> str | None:
    """`max` where the metric mostly rises from the beginning of a curve to its end, else `min`."""
    rises = falls = 0
    for run in groups.runs:
        of = [row.get(metric.role) for row in run if row.get(metric.role) is not None]
        rises += bool(of) and of[-1] > of[0]
        falls += bool(of) and of[-1] < of[0]
    return None if rises == falls else "max" if rises > falls else "min"


def collapsed(groups: Groups, named: Named, target: float | None) -> tuple[list[Row], list[str]]:
    """One row for each run, and what is told of how its time was counted."""
    assert named.metric is not None and groups.index is not None
    role, mode = named.metric.role, named.metric.mode or "max"
    runs, notes = _from_one(groups)
    spent, told = _seconds(runs, groups.index, named)
    rows = []
    for run in runs:
        seconds = spent(run)
        points = [row.having(train_seconds=s) for row, s in zip(run, seconds, strict=True)]
        last = _at_end(points, role)
        rows.append(last if target is None else _at_target(last, points, role, mode, target))
    if target is not None:
        told += _of_first(runs, role, mode, target, len(rows))
    return rows, [*notes, *told]


def _from_one(groups: Groups) -> tuple[list[Points], list[str]]:
    """Epochs counted from 0 (as Keras does) as epochs that have been trained."""
    runs: list[Points] = list(groups.runs)
    if groups.index != "epochs" or min(run[0].get("epochs") for run in runs) != 0:
        return runs, []
    shifted = [[row.having(epochs=row.get("epochs") + 1) for row in run] for run in runs]
    return list(shifted), ["epochs are counted from 0: the first row is after one epoch"]


Seconds = Callable[[Points], list[float | None]]


def _seconds(runs: Sequence[Points], index: str, named: Named) -> tuple[Seconds, list[str]]:
    """How the seconds since the beginning are found at each point, the same for all runs."""

    def known(name: str) -> bool:
        return all(row.get(name) is not None for run in runs for row in run)

    if known("train_seconds"):
        theirs = named.by_ours["train_seconds"].theirs
        if _cumulative(runs):
            return _whole, [f"{theirs!r} rises through each run: seconds since its beginning"]
        return _summed, [f"{theirs!r} does not rise: seconds of each point, summed up"]
    if known("epoch_seconds") and index == "epochs":
        return _by_epoch, []
    if known("wall_time"):
        theirs = named.by_ours["wall_time"].theirs
        told = f"{theirs!r} is a date: seconds since the beginning of each run, one step before it"
        return (lambda run: _since_start(run, index)), [told]
    return (lambda run: [None] * len(run)), []


def _cumulative(runs: Sequence[Points]) -> bool:
    long = [[row.get("train_seconds") for row in run] for run in runs if len(run) > 2]
    rising = all(b > a for of in long for a, b in pairwise(of))
    return bool(long) and rising and all(of[-1] >= max(1.5, len(of) / 3) * of[0] for of in long)


def _whole(run: Points) -> list[float | None]:
    return [float(row.get("train_seconds")) for row in run]


def _summed(run: Points) -> list[float | None]:
    return list(accumulate(float(row.get("train_seconds")) for row in run))


def _by_epoch(run: Points) -> list[float | None]:
    at = [0.0, *(float(row.get("epochs")) for row in run)]
    took = (
        row.get("epoch_seconds") * (b - a) for row, (a, b) in zip(run, pairwise(at), strict=True)
    )
    return list(accumulate(took))


def _since_start(run: Points, index: str) -> list[float | None]:
    """The run began before its first point by as long as its first index takes."""
    times = [float(row.get("wall_time")) for row in run]
    at = [float(row.get(index)) for row in run]
    steps = pairwise(zip(times, at, strict=True))
    paces = [(t1 - t0) / (n1 - n0) for (t0, n0), (t1, n1) in steps if n1 > n0]
    pace = median(paces) if paces else 0.0
    start = times[0] - (pace * at[0] if index not in ("wall_time", "train_seconds") else 0.0)
    return [max(t - start, 0.0) for t in times]


def _at_end(points: Points, role: str) -> Row:
    """The last point; settings that change from point to point are none of the run."""
    first, last = points[0], points[-1]
    settings = {
        name: value
        for name, value in last.settings.items()
        if all(point.settings.get(name) == value for point in points)
    }
    never = last.never if last.get(role) is None else None
    rates = [rate for point in points if (rate := point.get("learning_rate")) is not None]
    peak = last.having(learning_rate=max(rates, default=None))
    return Row(first.place, peak.values, settings, last.machine, never)


def _at_target(last: Row, points: Points, role: str, mode: str, target: float) -> Row:
    at = next(
        (k for k, point in enumerate(points) if _reaches(point.get(role), mode, target)), None
    )
    if at is None:
        return last.having(target=target)
    reached, before = points[at], points[at - 1] if at else None
    values = {ours: reached.get(name) or None for name, ours in TO_TARGET_OF.items()}
    parts = []
    for name in TO_TARGET_OF:
        if now := reached.get(name):
            then = (before.get(name) if before is not None else 0) or 0
            parts.append(min(1.0, (now - then) / now))
    found = last.having(target=target, **values)
    return replace(found, resolution=max(parts, default=None))


def _reaches(value: float | None, mode: str, target: float) -> bool:
    return value is not None and (value >= target if mode == "max" else value <= target)


def _of_first(runs: Sequence[Points], role: str, mode: str, target: float, of: int) -> list[str]:
    """A target before every curve's beginning says nothing; of one beyond all, the best is told."""
    reached = [[_reaches(row.get(role), mode, target) for row in run] for run in runs]
    told = []
    if of and all(run[0] for run in reached):
        told.append(f"every run is past {target:g} at its first evaluation; name a harder target")
    if not any(any(run) for run in reached):
        values = [(v, run) for run in runs for row in run if (v := row.get(role)) is not None]
        if values:
            key = max if mode == "max" else min
            value, run = key(values, key=lambda pair: pair[0])
            told.append(f"no run reached {target:g}: the best is {value:.6g}, at batch size "
                        f"{run[0].get('batch_size')}; name an easier target")  # fmt: skip
    return told


def require_mode(metric: Metric, found: str | None, source: str) -> str:
    """The metric's direction. Raises UserError where neither name, curve nor `--mode` tells."""
    mode = metric.mode or found
    if mode is None:
        raise UserError(
            f"{source}: the name {metric.name!r} does not tell whether larger is better; say it "
            "with --mode max (as of an accuracy) or --mode min (as of a loss)"
        )
    return mode
