"""Runs to the target against batch size: what is judged, and how updates and examples scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import count
from tune_jobs.judging.sentences import per_cent
from tune_jobs.reporting.figures.axes import (
    accuracy_axis,
    amount_axis,
    axis_of,
    batch_axis,
    log_axis,
    metric_scale,
)
from tune_jobs.reporting.figures.drawing import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    RECOMMENDED,
    TIED,
    Drawing,
    batch_colour,
    gathered,
    panel,
    slug,
)
from tune_jobs.reporting.figures.evidence import (
    NAMES,
    SPLITS_OF,
    TIME,
    Evidence,
    is_least_best,
    plain_name,
    said,
    unit_of,
)
from tune_jobs.reporting.figures.marks import DOTTED, band, curve, dots, interval, level, note
from tune_jobs.verdicts import BatchSizeVerdict, CriticalBatchSize, NoiseScaleSummary, Verdict

BEST = ("used", "tied", "open")  # standings of what may be the best
LINEAR_UP_TO = 5.0  # a larger ratio of the extremes asks for a log axis


# --- the answer: time to target against batch size ------------------------------------------


def to_target(evidence: Evidence, name: str) -> Drawing | None:
    """A quantity against batch size: runs, median, interval, the tied set, who never reached."""
    shown = evidence.shown(name)
    if not shown:
        return None
    title, factor = unit_of(name, max(shown), evidence.verdict)
    figure, axes = panel(title, "batch size")
    batch_axis(axes, evidence.sizes)
    place = _quantity_axis(axes, name, shown, factor, evidence.verdict.metric)
    _shade_the_best(axes, evidence.verdict)
    if name == TIME:
        _predicted_time(axes, evidence.verdict, factor)
    _runs(axes, evidence, name, place)
    _name_the_used(axes, evidence.verdict)
    plain = plain_name(name, evidence.verdict)
    heading = f"{plain[0].upper()}{plain[1:]} against batch size"
    caption = to_target_caption(evidence, name)
    return Drawing(slug(name.removesuffix("_seconds")), heading, caption, (figure,))


def _quantity_axis(
    axes: Axes, name: str, shown: Sequence[float], factor: float, metric: str
) -> Callable[[float], float]:
    """The y axis of a quantity; returns where a value stands on it."""
    if name in SPLITS_OF:
        scale = metric_scale(metric, shown)
        scale.axis(axes, "y", min(shown), max(shown))
        return scale.place
    if min(shown) > 0 and max(shown) > LINEAR_UP_TO * min(shown):
        log_axis(axes, "y", min(shown) / factor / 1.1, max(shown) / factor * 1.25)
    elif name.endswith("accuracy"):
        accuracy_axis(axes, "y", min(shown), max(shown))
    else:
        amount_axis(axes, max(shown) / factor * 1.05)
    return axis_of if name.endswith("accuracy") else lambda value: value / factor


def _shade_the_best(axes: Axes, verdict: Verdict) -> None:
    """Shade the batch sizes that may be the best; at the foot of each its expected regret."""
    sizes = [math.log2(row.batch_size) for row in verdict.per_batch_size]
    low, high = axes.get_xlim()
    edges = [low, *((a + b) / 2 for a, b in pairwise(sizes)), high]
    for row, span in zip(verdict.per_batch_size, pairwise(edges), strict=True):
        if row.standing in BEST:
            axes.axvspan(*span, color=TIED, lw=0, zorder=0)
        if row.expected_regret is not None and row.standing != "used":
            note(axes, f"+{per_cent(row.expected_regret)}", (math.log2(row.batch_size), 0), "above",
                 xycoords=axes.get_xaxis_transform())  # fmt: skip


def _runs(axes: Axes, evidence: Evidence, name: str, place: Callable[[float], float]) -> None:
    """Of each batch size a dot for each run, the median as a bar, its interval, the runs missed."""
    gaps = [math.log2(b / a) for a, b in pairwise(evidence.sizes)]
    half = min([0.22, *(0.42 * gap for gap in gaps)])
    medians = evidence.medians(name)
    for row in evidence.verdict.per_batch_size:
        x, colour = math.log2(row.batch_size), batch_colour(row.batch_size)
        values = evidence.values(row.batch_size, name)
        step = min(0.1, 1.8 * half / max(len(values), 1))
        beside = [x + (k - (len(values) - 1) / 2) * step for k in range(len(values))]
        dots(axes, beside, [place(v) for v in values], colour)
        _censored(axes, row)
        middle = medians.get(row.batch_size)
        if middle is not None and middle.value is not None:
            axes.plot([x - half, x + half], [place(middle.value)] * 2, color=colour, lw=2.0,
                      zorder=4)  # fmt: skip
            low, high = (None if v is None else place(v) for v in (middle.low, middle.high))
            interval(axes, x, low, high, colour)


def _censored(axes: Axes, row: BatchSizeVerdict) -> None:
    """Runs that never reached the target: an open triangle at the top, with how many of them."""
    missed = row.seeds - row.reached
    if missed <= 0:
        return
    x, across = math.log2(row.batch_size), axes.get_xaxis_transform()
    axes.plot(x, 0.965, "^", ms=7, mfc=PAPER, mec=batch_colour(row.batch_size), mew=1.4,
              transform=across, clip_on=False, zorder=5)  # fmt: skip
    text = "never" if not row.reached else f"{missed} of {row.seeds}\nnever"
    note(axes, text, (x, 0.965), "below", xycoords=across)


def _name_the_used(axes: Axes, verdict: Verdict) -> None:
    if verdict.use is None:
        return
    size = verdict.use.batch_size
    x, (low, high) = math.log2(size), axes.get_xlim()
    part = (x - low) / (high - low)
    side = "left" if part < 0.17 else "right" if part > 0.83 else "center"
    at = {"left": 0.01, "right": 0.99}.get(side, part)
    note(axes, "use this", (at, 0), "above", RECOMMENDED, xycoords="axes fraction", ha=side,
         zorder=6, fontsize=8.5, weight="bold")  # fmt: skip
    axes.plot(x, 0, "^", ms=7, color=RECOMMENDED, transform=axes.get_xaxis_transform(),
              clip_on=False, zorder=6)  # fmt: skip


def _predicted_time(axes: Axes, verdict: Verdict, factor: float) -> None:
    """(a + b B) S_min (1 + B_crit / B) where both fits exist, named on its free side."""
    form, fit = verdict.closed_form, verdict.critical_batch_size
    if form is None or fit is None:
        return

    def predicted(sizes: np.ndarray) -> np.ndarray:
        step = form.fixed_seconds + form.seconds_per_example * sizes
        return step * fit.s_min_updates * (1 + fit.value / sizes) / factor

    x, y = curve(axes, predicted, MUTED)
    if len(x) < 2:
        return
    # The curve is convex: the name stands at about three quarters of the axes' height.
    drawn = axes.transLimits.transform(axes.transScale.transform(np.column_stack([x, y])))
    rising = y[-1] > y[0]
    half = np.flatnonzero(np.gradient(y) > 0 if rising else np.gradient(y) < 0)
    k = half[np.argmin(np.abs(drawn[half, 1] - 0.75))]
    note(axes, "predicted from the two fits", (x[k], y[k]), "left" if rising else "right")


def to_target_caption(evidence: Evidence, name: str) -> str:
    """The best batch size by its median, and what the marks mean."""
    verdict, medians = evidence.verdict, evidence.medians(name)
    best = (min if is_least_best(name, verdict) else max)(
        medians, key=lambda size: medians[size].value or 0.0, default=None
    )
    single = all(e.low is None for e in medians.values())
    runs = "One run each" if single else f"Bars: medians and {verdict.confidence:.0%} intervals"
    marks = [runs] if single else [runs, "dots: single runs"]
    if any(row.reached < row.seeds for row in verdict.per_batch_size):
        marks.append("triangles: runs that never reached the target")
    if sum(row.standing in BEST for row in verdict.per_batch_size) > 1:
        marks.append("shaded: what may be the best; at the foot: expected to be worse by")
    found = "No median is known"
    if best is not None:
        found = f"Best: {said(name, medians[best], verdict)} at batch size {best}"
    return f"{found}. {'; '.join(marks)}."


# --- statistics: updates and examples to target ----------------------------------------------


def updates_and_examples(evidence: Evidence) -> Drawing | None:
    """Updates, and examples, to target on log axes, with the fit and the perfect-scaling line."""
    return gathered(
        "updates-and-examples",
        "Updates and examples to target: the critical batch size",
        scaling_caption(evidence.verdict),
        [_scaling_panel(evidence, name) for name in ("updates_to_target", "examples_to_target")],
    )


def _scaling_panel(evidence: Evidence, name: str) -> Figure | None:
    verdict, fit = evidence.verdict, evidence.verdict.critical_batch_size
    medians, shown = evidence.medians(name), evidence.shown(name)
    if len(medians) < 2:
        return None
    figure, axes = panel(NAMES[name], "batch size")
    batch_axis(axes, evidence.sizes)
    log_axis(axes, "y", min(shown) / 2.6, max(shown) * 1.15)
    in_examples = name == "examples_to_target"
    if fit is not None:
        _hyperbola(axes, fit, in_examples=in_examples)
    else:
        size, first = next(iter(medians.items()))
        examples = (first.value or math.nan) * (1 if in_examples else size)
        _perfect(axes, examples, in_examples=in_examples)
    _runs(axes, evidence, name, float)
    _batch_sizes_beside(axes, fit, verdict.noise_scale)
    return figure


def _hyperbola(axes: Axes, fit: CriticalBatchSize, *, in_examples: bool) -> None:
    """S_min (1 + B_crit / B) updates, or that times B examples, with its two asymptotes."""
    least = fit.s_min_updates
    curve(axes, lambda sizes: least * (sizes + fit.value) / (1 if in_examples else sizes))
    _perfect(axes, least * fit.value, in_examples=in_examples)
    if not in_examples:
        level(axes, least, f"least: {count(least)} updates", side="below")


def _perfect(axes: Axes, examples: float, *, in_examples: bool) -> None:
    """The line on which a larger batch costs no further example."""

    def line(sizes: np.ndarray) -> np.ndarray:
        return np.full_like(sizes, examples) if in_examples else examples / sizes

    x, y = curve(axes, line, MUTED, DOTTED)
    if len(x) > 2:
        k = -1 if in_examples else int(0.45 * (len(x) - 1))
        note(axes, "perfect scaling", (x[k], y[k]), "below", gap=3, ha="right")


def _batch_sizes_beside(
    axes: Axes, fit: CriticalBatchSize | None, noise: Sequence[NoiseScaleSummary]
) -> None:
    """Along the foot: the critical batch size and the noise scales, each with its interval."""
    beside = []
    if fit is not None:
        known = fit.low is not None  # no interval about a curve that is rejected
        ends = _ends(fit.low or fit.value, fit.value, fit.high if known else fit.value)
        beside.append((f"critical batch {count(fit.value)}", INK, ends))
        band(axes, "x", *ends)
    for n in noise:
        if n.value is not None and n.value > 0:
            kind = "" if n.kind == "raw" else f" ({n.kind})"
            ends = _ends(n.low or n.value, n.value, n.high)
            beside.append((f"noise scale{kind} {count(n.value)}", ACCENT, ends))
    for k, (name, colour, ends) in enumerate(beside):
        _along_the_foot(axes, 0.05 + 0.07 * k, name, colour, ends)


def _ends(low: float, value: float, high: float | None) -> tuple[float, float, float]:
    """An interval of batch sizes in powers of two, kept where it can be drawn."""
    kept = [min(max(v, 2.0**-20), 2.0**60) for v in (low, value, high or math.inf)]
    return math.log2(kept[0]), math.log2(kept[1]), math.log2(kept[2])


def _along_the_foot(
    axes: Axes, height: float, name: str, colour: str, ends: tuple[float, float, float]
) -> None:
    low, value, high = ends
    first, last = axes.get_xlim()
    across = axes.get_xaxis_transform()
    axes.plot([max(low, first), min(high, last)], [height] * 2, color=colour, lw=2.2, alpha=0.5,
              transform=across, zorder=2)  # fmt: skip
    at = min(max(value, first), last)
    beyond = ">" if value > last else "<" if value < first else "D"
    axes.plot(at, height, beyond, ms=5, color=colour, transform=across, clip_on=False, zorder=3)
    side = "left" if at > (first + last) / 2 else "right"
    note(axes, name, (at, height), side, colour, xycoords=across, va="bottom")


def scaling_caption(verdict: Verdict) -> str:
    """The critical batch size, or why there is none, and what the lines mean."""
    fit = verdict.critical_batch_size
    if fit is None:
        reason = verdict.critical_batch_size_reason or "there is no fit."
        return f"No critical batch size: {reason} Dotted: perfect scaling from the smallest batch."
    return (
        f"Critical batch size {count(fit.value, fit.low, fit.high)} (band). Dashed: the fit; "
        "dotted: perfect scaling, and the fewest updates possible."
    )
