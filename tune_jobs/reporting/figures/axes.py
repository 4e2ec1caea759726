"""The axes of the figures: batch sizes, amounts, accuracies, each with few and short names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tune_jobs.formatting import ACCURACY

NICE_ERRORS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.007, 0.005,
               0.003, 0.002, 0.001, 0.0005)  # fmt: skip
LEAST_ERROR = 1e-4  # an accuracy above 0.9999 is drawn there


def batch_axis(axes: Axes, sizes: Sequence[int], *, pad: float = 0.45) -> None:
    """A log2 axis that names the actual sizes, leaving out names that would touch."""
    places = [math.log2(s) for s in sizes]
    low, high = min(places) - pad, max(places) + pad
    axes.set_xlim(low, high)
    names = {place: str(size) for place, size in zip(places, sizes, strict=True)}
    _set(axes, "x", low, high, with_room(axes, names))
    axes.xaxis.set_minor_locator(FixedLocator(places))


def with_room(axes: Axes, names: Mapping[float, str]) -> dict[float, str]:
    """The names of an x axis, its range and scale set, that do not touch; by place, ascending."""
    log = axes.get_xscale() == "log"
    low, high = (math.log(x) if log else x for x in axes.get_xlim())
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
    kept: dict[float, str] = {}
    last = -math.inf
    for place, name in names.items():
        at = math.log(place) if log else place
        if (at - last) / (high - low) * width >= 0.07 * (len(name) + 1):
            kept[place], last = name, at
    return kept


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A log axis from below `low` to above `high` with round ticks: 3 to 7 of them."""
    low, high = low / 1.25, high * 1.25
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    names = {tick: short(tick) for tick in log_ticks(low, high)}
    _set(axes, which, low, high, names)
    if which == "x":
        _set(axes, which, low, high, with_room(axes, names))


def accuracy_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """An axis for `axis_of`, named in accuracies, logarithmic in the error."""
    first, last = axis_of(low) - 0.04, axis_of(high) + 0.06
    ticks = [1 - e for e in NICE_ERRORS if first <= -math.log10(e) <= last]
    every = math.ceil(len(ticks) / 7) if ticks else 1
    _set(axes, which, first, last, {axis_of(t): f"{t:.4g}" for t in ticks[::-1][::every]})


def axis_of(accuracy: float) -> float:
    """Where an accuracy stands on an accuracy axis: equal steps are equal factors of the error."""
    return -math.log10(max(1 - accuracy, LEAST_ERROR))


@dataclass(frozen=True)
class MetricScale:
    """How values of a metric are drawn: `place` says where one stands, `axis` draws the axis."""

    place: Callable[[float], float]
    axis: Callable[[Axes, str, float, float], None]


def metric_scale(metric: str, values: Sequence[float]) -> MetricScale:
    """By the error for an accuracy, by the logarithm where all are positive, else as they are."""
    if metric == ACCURACY and all(0 <= v <= 1 for v in values):
        return MetricScale(axis_of, accuracy_axis)
    if min(values) <= 0:
        return MetricScale(float, linear_axis)
    wide = max(values) > 1.5 * min(values)
    return MetricScale(float, log_axis if wide else _narrow_log_axis)


def _narrow_log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A log axis that is too short for ticks at round powers."""
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    linear_axis(axes, which, low, high)


def linear_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """An axis from below `low` to above `high` with ticks at equal steps, each named apart."""
    alike = high - low <= 1e-6 * abs(high)
    room = 0.12 * ((abs(low) or 1.0) if alike else high - low)
    low, high = low - room, high + room
    ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
    names = [short(t) for t in ticks]
    if len(set(names)) < len(names):
        names = [f"{t:.8g}" for t in ticks]
    _set(axes, which, low, high, dict(zip(ticks, names, strict=True)))


def amount_axis(axes: Axes, top: float) -> None:
    """A y axis from zero to above `top`, its numbers short."""
    axes.set_ylim(0, top * 1.12)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def plain_axis(axes: Axes, values: Sequence[float]) -> None:
    """A y axis round the values, with some room above and below."""
    room = 0.12 * ((max(values) - min(values)) or abs(values[0]) or 1.0)
    axes.set_ylim(min(values) - room, max(values) + room)


def _set(axes: Axes, which: str, low: float, high: float, names: Mapping[float, str]) -> None:
    """The range of an axis, and the places that it names."""
    (axes.set_ylim if which == "y" else axes.set_xlim)(low, high)
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(FixedLocator(list(names)))
    axis.set_major_formatter(FuncFormatter(lambda place, _: names.get(place, "")))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within a range of a log axis: the densest series of at most `most`."""
    found: list[float] = []
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if found and len(ticks) > most:
            break
        found = ticks
    every = math.ceil(len(found) / most) if found else 1
    return found[::every]


def short(value: float) -> str:
    """A number for a tick: 250, 1.5k, 20k, 3M, 0.05, 2e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}" if size >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")
