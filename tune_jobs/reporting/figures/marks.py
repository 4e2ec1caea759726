"""The marks that figures share: points, intervals, bands, fitted curves, names beside them.

A mark is drawn after the limits of its axes are set; x is log2 of a batch size where the axis is
one of batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tune_jobs.reporting.figures.drawing import INK, MUTED, PAPER

DASHED, DOTTED = (0, (4, 2)), (0, (1, 2))
# Side of a note -> direction of its offset, and how the text is set.
SIDES = {
    "left": ((-1, 0), {"ha": "right", "va": "center"}),
    "right": ((1, 0), {"ha": "left", "va": "center"}),
    "above": ((0, 1), {"ha": "center", "va": "baseline"}),
    "below": ((0, -1), {"ha": "center", "va": "top"}),
}


def note(
    axes: Axes, text: str, at: tuple[float, float], side: str, colour: str = MUTED, *,
    gap: float = 7, **more: Any,
) -> None:  # fmt: skip
    """A few small words `gap` points beside a place; `more` as matplotlib's `annotate` takes it."""
    (across, up), setting = SIDES[side]
    axes.annotate(text, at, (across * gap, up * gap), textcoords="offset points", color=colour,
                  **({"fontsize": 7.5} | setting | more))  # fmt: skip


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """Single runs: small points that can be told apart where they touch."""
    axes.plot(x, y, "o", ms=4.5, color=colour, mec=PAPER, mew=0.7, zorder=5)


def point(axes: Axes, x: float, y: float, colour: str, *, filled: bool = True) -> None:
    """One value of a batch size, filled or open."""
    axes.plot(x, y, "o", ms=6.5, mec=colour, mfc=colour if filled else PAPER, mew=1.5, zorder=4)


def ring(axes: Axes, x: float, y: float, colour: str = INK, *, bold: bool = True) -> None:
    """A ring round a point that is singled out, thinner for a second choice."""
    axes.plot(x, y, "o", ms=9.5 if bold else 8, mfc="none", mec=colour, mew=1.5 if bold else 0.8,
              zorder=5)  # fmt: skip


def interval(axes: Axes, x: float, low: float | None, high: float | None, colour: str) -> None:
    """An interval of y; without an upper end it leaves the axes."""
    if low is not None:
        top = axes.get_ylim()[1]
        axes.plot([x, x], [low, top if high is None else min(high, top)], color=colour, lw=1.4,
                  zorder=3)  # fmt: skip


def band(axes: Axes, which: str, low: float, middle: float, high: float) -> None:
    """A value of an axis as a line through the axes, its interval as a pale band."""
    first, last = axes.get_xlim() if which == "x" else axes.get_ylim()
    span = axes.axvspan if which == "x" else axes.axhspan
    span(max(low, first), min(high, last), color=INK, alpha=0.06, lw=0, zorder=0)
    (axes.axvline if which == "x" else axes.axhline)(middle, color=INK, lw=0.9, zorder=1)


def level(axes: Axes, y: float, text: str, colour: str = MUTED, *, side: str = "above") -> None:
    """A limit of y: a line through the axes, named at its left end; dotted where it is computed."""
    style: Any = DOTTED if colour == MUTED else "-"
    axes.axhline(y, color=colour, lw=1.1, ls=style, zorder=1)
    note(axes, text, (0.01, y), side, colour, gap=3, xycoords=axes.get_yaxis_transform(),
         ha="left")  # fmt: skip


def curve(
    axes: Axes, of_size: Callable[[np.ndarray], np.ndarray], colour: str = INK,
    style: Any = DASHED,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A function of the batch size over the whole batch axis; returns what lies inside the axes."""
    places = np.linspace(*axes.get_xlim(), 80)
    values = of_size(2**places)
    axes.plot(places, values, color=colour, lw=1.1, ls=style, zorder=1.5)
    low, high = axes.get_ylim()
    inside = (values >= low) & (values <= high)
    return places[inside], values[inside]


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved apart so that neighbours lie at least `gap` from each other, in order."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for _ in range(200):
        moved = False
        for i in range(len(placed) - 1):
            short_by = gap - (placed[i + 1] - placed[i])
            if short_by > 1e-9 * gap:
                placed[i] -= short_by / 2
                placed[i + 1] += short_by / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(values)
    for i, value in zip(order, placed, strict=True):
        result[i] = value
    return result


def label_ends(
    axes: Axes, ends: Iterable[tuple[float, float, str, str]], *, at_edge: bool = False
) -> None:
    """Name lines at their right ends: (x, y, text, colour) in data units, moved apart in y.

    `at_edge` puts the names in a column at the right edge of the axes.
    """
    gap_points = 10.5
    ends = list(ends)
    if not ends:
        return
    to_pixels = axes.transData.transform
    heights = [float(to_pixels((x, y))[1]) for x, y, _, _ in ends]
    pixels = gap_points * axes.figure.dpi / 72
    for (x, y, text, colour), place, height in zip(
        ends, spread(heights, pixels), heights, strict=True
    ):
        offset = (place - height) / pixels * gap_points
        at, coordinates = ((1.0, y), axes.get_yaxis_transform()) if at_edge else ((x, y), "data")
        axes.annotate(
            text, at, (6, offset), xycoords=coordinates, textcoords="offset points",
            color=colour, va="center", fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
