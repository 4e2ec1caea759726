"""Figures of what one update costs: seconds, throughput and memory against batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import count, quantity, seconds
from tune_jobs.measure.cost_model import DeviceLimits, LineFit
from tune_jobs.records import BatchSizeProfile
from tune_jobs.reporting.figures.drawing import (
    INK,
    LIMIT,
    MUTED,
    PAPER,
    Drawing,
    amount_axis,
    batch_axis,
    batch_colour,
    log_axis,
    panel,
)


def measure_drawings(
    profiles: Sequence[BatchSizeProfile], known: DeviceLimits, suffix: str = ""
) -> list[Drawing]:
    """Seconds per update, and memory, of one device type; those that can be drawn."""
    found = []
    if _timed(profiles):
        heading = f"Seconds per update on {known.device}"
        panels = (step_seconds_panel(profiles, known),)
        found.append(Drawing(f"step-seconds{suffix}", heading, step_caption(known), panels))
    if _weighed(profiles):
        heading = f"Peak memory on {known.device}"
        panels = (memory_panel(profiles, known),)
        found.append(Drawing(f"memory{suffix}", heading, memory_caption(profiles, known), panels))
    return found


def cost_drawing(
    profiles: Sequence[BatchSizeProfile], known: DeviceLimits, suffix: str = ""
) -> Drawing | None:
    """Throughput and memory beside each other, or None without a measured batch size."""
    if not _timed(profiles):
        return None
    panels, caption = [throughput_panel(profiles, known)], throughput_caption(profiles, known)
    if _weighed(profiles):
        panels.append(memory_panel(profiles, known))
        caption += " " + memory_caption(profiles, known)
    heading = f"Throughput and memory on {known.device}"
    return Drawing(f"throughput-and-memory{suffix}", heading, caption, tuple(panels))


def step_seconds_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure:
    """Seconds per update on log axes, the line a + b B, and where 90 % of the speed is reached."""
    figure, axes = panel("milliseconds per update", "batch size")
    rows = _timed(profiles)
    values = [1e3 * (p.step_seconds or math.nan) for p in rows]
    lows = [1e3 * (p.step_seconds_low or math.nan) for p in rows]
    highs = [1e3 * (p.step_seconds_high or math.nan) for p in rows]
    log_axis(axes, "y", min(values) / 1.2, max(values))
    _points(axes, rows, values, lows, highs)
    _fit(axes, known.step_seconds, lambda fit, sizes: 1e3 * (fit.intercept + fit.slope * sizes))
    _plateau(axes, known)
    return figure


def throughput_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure:
    """Examples per second, the fit B / (a + b B), its limit 1 / b and the plateau."""
    figure, axes = panel("examples per second", "batch size")
    rows = _timed(profiles)
    values = [p.batch_size / (p.step_seconds or math.nan) for p in rows]
    lows = [p.batch_size / (p.step_seconds_high or math.nan) for p in rows]
    highs = [p.batch_size / (p.step_seconds_low or math.nan) for p in rows]
    fit = known.step_seconds
    top = max([*values, *(h for h in highs if math.isfinite(h))])
    if fit is not None and fit.good and 1 / fit.slope < 2 * top:
        axes.axhline(1 / fit.slope, color=MUTED, lw=0.9, ls=(0, (1, 2)))
        axes.annotate(
            f"limit 1/b = {count(1 / fit.slope)}", (0.01, 1 / fit.slope), (0, 3),
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", color=MUTED,
            fontsize=8,
        )  # fmt: skip
        top = max(top, 1 / fit.slope)
    amount_axis(axes, top)
    _points(axes, rows, values, lows, highs)
    _fit(axes, fit, lambda fit, sizes: sizes / (fit.intercept + fit.slope * sizes))
    _plateau(axes, known)
    return figure


def memory_panel(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> Figure:
    """Peak memory with the fit m0 + m1 B, the device's limit, and what did not fit."""
    figure, axes = panel("peak memory, MiB", "batch size")
    rows = _weighed(profiles)
    refused = sorted({p.batch_size for p in profiles if p.outcome == "out_of_memory"})
    refused = [b for b in refused if b not in {p.batch_size for p in rows}]
    values = [p.peak_memory_mib or math.nan for p in rows]
    limit, top = known.memory_limit_mib, max(values)
    near = limit is not None and limit < 4 * top
    amount_axis(axes, max(top, limit) if near and limit else top * 1.1)
    batch_axis(axes, sorted({p.batch_size for p in rows} | set(refused)))
    if limit is not None:
        _limit(axes, limit, near)
    _points(axes, rows, values, named=False)
    _fit(axes, known.memory_mib, lambda fit, sizes: fit.intercept + fit.slope * sizes)
    height = min(limit or top, axes.get_ylim()[1] / 1.12)
    for size in refused:
        at = math.log2(size), height
        axes.plot(*at, marker="x", color=LIMIT, ms=7, mew=1.8)
        axes.annotate("did not fit", at, (6, -9), textcoords="offset points", ha="right",
                      va="top", color=LIMIT, fontsize=8)  # fmt: skip
    return figure


def _limit(axes: Axes, limit: float, near: bool) -> None:
    if near:
        axes.axhline(limit, color=LIMIT, lw=1.2)
        axes.annotate(f"limit {count(limit)} MiB", (0.01, limit), (0, 3), color=LIMIT, fontsize=8,
                      xycoords=axes.get_yaxis_transform(), textcoords="offset points")  # fmt: skip
    else:
        axes.text(0.01, 0.99, f"limit {count(limit)} MiB, far above", color=LIMIT, fontsize=8,
                  transform=axes.transAxes, va="top")  # fmt: skip


def _timed(profiles: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    """One measured row for each batch size: that which trials use, else the whole one."""
    rows = [p for p in profiles if p.outcome == "finished" and p.step_seconds]
    by_size = {p.batch_size: p for p in sorted(rows, key=lambda p: p.chosen)}
    return [by_size[size] for size in sorted(by_size)]


def _weighed(profiles: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    return [p for p in _timed(profiles) if p.peak_memory_mib]


def _points(
    axes: Axes,
    rows: Sequence[BatchSizeProfile],
    values: Sequence[float],
    lows: Sequence[float] = (),
    highs: Sequence[float] = (),
    *,
    named: bool = True,
) -> None:
    """A point for each batch size, open where it was accumulated from smaller passes."""
    if named:
        batch_axis(axes, [p.batch_size for p in rows])
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        x, colour = math.log2(row.batch_size), batch_colour(row.batch_size)
        if lows and math.isfinite(lows[i] + highs[i]):
            axes.plot([x, x], [lows[i], highs[i]], color=colour, lw=1.6)
        split = row.micro_batch_size < row.batch_size
        axes.plot(x, value, "o", ms=6.5, mfc=PAPER if split else colour, mec=colour, mew=1.5)
        if split:
            axes.annotate(f"in passes of {row.micro_batch_size}", (x, value), (0, 8), ha="center",
                          textcoords="offset points", color=MUTED, fontsize=7.5)  # fmt: skip


def _fit(
    axes: Axes, fit: LineFit | None, curve: Callable[[LineFit, np.ndarray], np.ndarray]
) -> None:
    """The fitted curve over the whole axis; dotted when the fit is bad."""
    if fit is None:
        return
    places = np.linspace(*axes.get_xlim(), 60)
    style = (0, (4, 2)) if fit.good else (0, (1, 2))
    axes.plot(places, curve(fit, 2**places), color=INK, lw=1.1, ls=style, zorder=1.5)


def _plateau(axes: Axes, known: DeviceLimits) -> None:
    """Mark the batch size that gives 90 % of the fitted limit, where it lies on the axis."""
    size = known.plateau_batch_size
    if not size:
        return
    place, (low, high) = math.log2(size), axes.get_xlim()
    if low < place < high:
        right = place > (low + high) / 2
        axes.axvline(place, color=MUTED, lw=0.9, ls=(0, (1, 2)))
        axes.annotate(
            f"90 % of the limit\nat {count(size)}", (place, 0.03), (-4 if right else 4, 0),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points", color=MUTED,
            fontsize=8, ha="right" if right else "left",
        )  # fmt: skip


def step_caption(known: DeviceLimits) -> str:
    """The line in numbers, its interval, and how far off it was."""
    fit = known.step_seconds
    if fit is None:
        return "Too few batch sizes ran whole for a line."
    fixed = seconds(fit.intercept, fit.intercept_low, fit.intercept_high)
    each = seconds(fit.slope, fit.slope_low, fit.slope_high)
    return (
        f"An update costs {fixed} and {each} for each example (dashed; 95 % intervals; measured "
        f"updates lie within {fit.largest_residual:.0%} of the line). {_speed(known)}"
    )


def _speed(known: DeviceLimits) -> str:
    if known.plateau_batch_size is None:
        return "The line fits badly, so no plateau is computed from it."
    if known.plateau_batch_size < 1:
        return "Every batch size is on the plateau: the cost lies in the examples."
    return f"90 % of the fitted limit is reached at batch size {count(known.plateau_batch_size)}."


def throughput_caption(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> str:
    """The fastest batch size, the slowest, and the plateau."""
    rates = {p.batch_size: p.batch_size / (p.step_seconds or math.nan) for p in _timed(profiles)}
    fastest, slowest = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    text = f"Most examples per second at batch size {fastest}: {count(rates[fastest])}"
    if slowest != fastest:
        text += f"; fewest at {slowest}: {count(rates[slowest])}"
    return f"{text}. {_speed(known)}"


def memory_caption(profiles: Sequence[BatchSizeProfile], known: DeviceLimits) -> str:
    """What the largest measured batch takes, the line, and the largest batch that fits."""
    last = _weighed(profiles)[-1]
    text = f"Batch size {last.batch_size} takes {count(last.peak_memory_mib)} MiB at its peak"
    if known.memory_limit_mib is not None:
        text += f", of {count(known.memory_limit_mib)} MiB"
    fit = known.memory_mib
    if fit is not None and fit.good:
        text += f"; training takes {count(fit.intercept)} + {quantity(fit.slope)} B MiB (dashed)"
    if known.predicted_largest is None:
        return text + "."
    state = "verified" if known.verified else "predicted"
    bound = "fits" if known.limited_by == "memory" else "the data allow"
    return f"{text}. The largest batch that {bound}: {count(known.predicted_largest)} ({state})."
