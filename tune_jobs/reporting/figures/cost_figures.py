"""Figures of what one update costs: seconds, throughput and memory against batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import count, quantity, seconds
from tune_jobs.measure.cost_model import DeviceLimits, LineFit
from tune_jobs.records import BatchSizeProfile
from tune_jobs.reporting.figures.axes import amount_axis, batch_axis, log_axis
from tune_jobs.reporting.figures.drawing import (
    LIMIT,
    MUTED,
    Drawing,
    batch_colour,
    gathered,
    panel,
    slug,
)
from tune_jobs.reporting.figures.marks import DASHED, DOTTED, curve, interval, level, note, point


def by_device(
    profiles: Sequence[BatchSizeProfile], known: Sequence[DeviceLimits]
) -> Iterator[tuple[list[BatchSizeProfile], DeviceLimits, str]]:
    """Of each device type its profiles, its limits, and what the names of its figures end in."""
    for one in known:
        suffix = f"-{slug(one.device)}" if len(known) > 1 else ""
        yield [p for p in profiles if p.device == one.device], one, suffix


def measure_drawings(
    profiles: Sequence[BatchSizeProfile], known: DeviceLimits, suffix: str = ""
) -> list[Drawing]:
    """Seconds per update, and memory, of one device type; those that can be drawn."""
    made = (
        gathered(f"step-seconds{suffix}", f"Seconds per update on {known.device}",
                 step_caption(known), [step_seconds_panel(profiles, known)]),
        gathered(f"memory{suffix}", f"Peak memory on {known.device}",
                 memory_caption(profiles, known), [memory_panel(profiles, known)]),
    )  # fmt: skip
    return [drawing for drawing in made if drawing is not None]


def cost_drawing(
    profiles: Sequence[BatchSizeProfile], known: DeviceLimits, suffix: str = ""
) -> Drawing | None:
    """Throughput and memory beside each other, or None without a measured batch size."""
    panels = [throughput_panel(profiles, known), memory_panel(profiles, known)]
    heading = f"Throughput and memory on {known.device}"
    caption = limits_caption(profiles, known)
    return gathered(f"throughput-and-memory{suffix}", heading, caption, panels)


def step_seconds_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure | None:
    """Milliseconds per update on log axes, with the line a + b B."""

    def axis(axes: Axes, values: Sequence[float]) -> None:
        log_axis(axes, "y", min(values) / 1.2, max(values))

    return _speed_panel("milliseconds per update", profiles, known, lambda s, _: 1e3 * s, axis)


def throughput_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure | None:
    """Examples per second, the fit B / (a + b B) and its limit 1 / b."""

    def axis(axes: Axes, values: Sequence[float]) -> None:
        fit, top = known.step_seconds, max(values)
        near = fit is not None and fit.good and 1 / fit.slope < 2 * top
        amount_axis(axes, max(top, 1 / fit.slope) if fit and near else top)
        if fit and near:
            level(axes, 1 / fit.slope, f"limit 1/b = {count(1 / fit.slope)}")

    return _speed_panel("examples per second", profiles, known, lambda s, size: size / s, axis)


def _speed_panel(
    title: str,
    profiles: Sequence[BatchSizeProfile],
    known: DeviceLimits,
    of: Callable[[Any, Any], Any],
    set_axis: Callable[[Axes, Sequence[float]], None],
) -> Figure | None:
    """A function `of` (seconds per update, batch size): measured, fitted, and the plateau."""
    rows = {p.batch_size: p for p in _timed(profiles)}
    if not rows:
        return None
    figure, axes = panel(title, "batch size")
    batch_axis(axes, list(rows))
    values = {size: of(p.step_seconds, size) for size, p in rows.items()}
    ends = {size: sorted(of(s, size) for s in (p.step_seconds_low, p.step_seconds_high))
            for size, p in rows.items() if p.step_seconds_low and p.step_seconds_high}  # fmt: skip
    set_axis(axes, [*values.values(), *(end for pair in ends.values() for end in pair)])
    for size, (low, high) in ends.items():
        interval(axes, math.log2(size), low, high, batch_colour(size))
    _points(axes, {p: values[size] for size, p in rows.items()})
    _fit(axes, known.step_seconds, of)
    _plateau(axes, known)
    return figure


def memory_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure | None:
    """Peak memory with the fit m0 + m1 B, the device's limit, and what did not fit."""
    values = {p: p.peak_memory_mib for p in _timed(profiles) if p.peak_memory_mib}
    if not values:
        return None
    figure, axes = panel("peak memory, MiB", "batch size")
    ran = {p.batch_size for p in values}
    refused = {p.batch_size for p in profiles if p.outcome == "out_of_memory"} - ran
    batch_axis(axes, sorted(ran | refused))
    limit, top = known.memory_limit_mib, max(values.values())
    near = limit is not None and limit < 4 * top
    amount_axis(axes, max(top, limit) if near and limit else top * 1.1)
    if limit is not None and near:
        level(axes, limit, f"limit {count(limit)} MiB", LIMIT)
    elif limit is not None:
        note(axes, f"limit {count(limit)} MiB, far above", (0.01, 0.99), "below", LIMIT, gap=0,
             xycoords="axes fraction", ha="left")  # fmt: skip
    _points(axes, values)
    _fit(axes, known.memory_mib, lambda line, _: line)
    height = min(limit or top, axes.get_ylim()[1] / 1.12)
    for size in refused:
        at = math.log2(size), height
        axes.plot(*at, marker="x", color=LIMIT, ms=7, mew=1.8)
        note(axes, "did not fit", at, "below", LIMIT, gap=9, ha="right")
    return figure


def _timed(profiles: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    """One measured row for each batch size: that which trials use, else the whole one."""
    rows = [p for p in profiles if p.outcome == "finished" and p.step_seconds]
    by_size = {p.batch_size: p for p in sorted(rows, key=lambda p: p.chosen)}
    return [by_size[size] for size in sorted(by_size)]


def _points(axes: Axes, values: Mapping[BatchSizeProfile, float]) -> None:
    """A point for each batch size, open where it was accumulated from smaller passes."""
    for row, value in values.items():
        x, split = math.log2(row.batch_size), row.micro_batch_size < row.batch_size
        point(axes, x, value, batch_colour(row.batch_size), filled=not split)
        if split:
            note(axes, f"in passes of {row.micro_batch_size}", (x, value), "above", gap=8)


def _fit(
    axes: Axes, fit: LineFit | None, of: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    """A function `of` (fitted line, batch sizes) over the whole axis; dotted for a bad fit."""
    if fit is not None:
        style = DASHED if fit.good else DOTTED
        curve(axes, lambda sizes: of(fit.intercept + fit.slope * sizes, sizes), style=style)


def _plateau(axes: Axes, known: DeviceLimits) -> None:
    """Mark the batch size that gives 90 % of the fitted limit, where it lies on the axis."""
    size = known.plateau_batch_size
    if not size:
        return
    place, (low, high) = math.log2(size), axes.get_xlim()
    if low < place < high:
        axes.axvline(place, color=MUTED, lw=0.9, ls=DOTTED)
        side = "left" if place > (low + high) / 2 else "right"
        note(axes, f"90 % of the limit\nat {count(size)}", (place, 0.03), side, gap=4,
             xycoords=axes.get_xaxis_transform(), va="baseline")  # fmt: skip


def step_caption(known: DeviceLimits) -> str:
    """The line in numbers, with its intervals."""
    fit = known.step_seconds
    if fit is None:
        return "Too few batch sizes ran whole for a line."
    fixed = seconds(fit.intercept, fit.intercept_low, fit.intercept_high)
    each = seconds(fit.slope, fit.slope_low, fit.slope_high)
    return f"An update costs {fixed} and {each} for each example (dashed; 95 % intervals)."


def memory_caption(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> str:
    """The line in numbers, or without a good one what the largest measured batch takes."""
    fit = known.memory_mib
    if fit is not None and fit.good:
        return f"Training takes {count(fit.intercept)} + {quantity(fit.slope)} B MiB (dashed)."
    last = [p for p in _timed(profiles) if p.peak_memory_mib][-1:]
    return "".join(f"Batch size {p.batch_size} takes {count(p.peak_memory_mib)} MiB." for p in last)


def limits_caption(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> str:
    """Where speed stops growing, and the largest batch size that fits."""
    plateau, largest = known.plateau_batch_size, known.predicted_largest
    ran = max((p.batch_size for p in _timed(profiles)), default=0)
    if plateau is None:
        speed = "no plateau is computed, the line fits badly"
    elif plateau < 1:
        speed = "every batch size is on the plateau"
    else:
        speed = f"90 % of the fitted limit is reached at batch size {count(plateau)}"
    if largest is None:
        fits = f"the largest that ran is {ran}"
    else:
        state = "verified" if known.verified else "predicted"
        bound = "fits" if known.limited_by == "memory" else "the data allow"
        fits = f"the largest that {bound} is {count(largest)} ({state})"
    return f"{speed[0].upper()}{speed[1:]}; {fits}. Dashed: fitted lines."
