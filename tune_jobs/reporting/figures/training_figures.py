"""Figures of trials: the learning-rate valley of each batch size, and the learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tune_jobs.formatting import count, learning_rate, seconds, target_name
from tune_jobs.reading.sweep_runs import crossing, runs_to_judge
from tune_jobs.records import Measurement, NoiseScale, TrialResult
from tune_jobs.reporting.figures.drawing import (
    ACCENT,
    INK,
    LIMIT,
    MUTED,
    PAPER,
    RECOMMENDED,
    SMALL_INCHES,
    Drawing,
    batch_colour,
    label_ends,
    log_axis,
    panel,
)

NICE_ERRORS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.007, 0.005,
               0.003, 0.002, 0.001, 0.0005)  # fmt: skip
MOST_POINTS = 60
DRAWN_KINDS = {"raw": ACCENT, "preconditioned": LIMIT}  # of the noise scale, and their colours


def valleys(
    trials: Sequence[TrialResult], chosen: Mapping[int, float | None], target: float | None
) -> Drawing | None:
    """Small multiples, one panel a batch size: learning rate against examples to target.

    Where no trial reached the target, against the last validation accuracy instead.

    Args:
        chosen: the learning rate that each batch size was judged with.
    """
    found = [t for t in trials if t.stage == "search" and t.learning_rate > 0]
    reached = any(t.examples_to_target for t in found)
    if len({t.learning_rate for t in found}) < 2:
        return None
    if not reached and not any(t.val_accuracy is not None for t in found):
        return None
    draw = _valley if reached else _accuracy_valley
    panels = []
    for size in sorted({t.batch_size for t in found}):
        own = [t for t in found if t.batch_size == size]
        figure, axes = panel(f"batch size {size}", "learning rate", inches=SMALL_INCHES)
        rates = [t.learning_rate for t in found]
        log_axis(axes, "x", min(rates) / 1.1, max(rates) * 1.1)
        if (rate := chosen.get(size)) is not None:
            axes.axvline(rate, color=batch_colour(size), lw=5, alpha=0.18, zorder=0)
        draw(axes, own, found)
        panels.append(figure)
    caption = _valley_caption(found, target) + _rates_caption(chosen)
    return Drawing(
        "learning-rate-valleys",
        "The learning-rate valley of each batch size",
        caption,
        tuple(panels),
        columns=3,
    )


def _valley(axes: Axes, trials: Sequence[TrialResult], every: Sequence[TrialResult]) -> None:
    """Examples to target; trials that did not reach it stand at the top."""
    needs = [t.examples_to_target for t in every if t.examples_to_target]
    log_axis(axes, "y", min(needs) / 1.5, max(needs) * 1.6)
    top = axes.get_ylim()[1]
    reached = {t: float(t.examples_to_target) for t in trials if t.examples_to_target}
    missed = [t for t in trials if not t.examples_to_target]
    for t in missed:
        diverged = t.outcome not in ("finished", "stopped")
        axes.plot(t.learning_rate, top / 1.14, "x" if diverged else "^", ms=5, mew=1.2,
                  mfc=PAPER, mec=LIMIT if diverged else MUTED, clip_on=False)  # fmt: skip
    _name_missed(axes, missed, top / 1.14)
    if reached:
        best = min(reached, key=reached.__getitem__)
        _mark(axes, reached, best, below=True)
    else:
        axes.text(0.5, 0.5, "never reached", transform=axes.transAxes, ha="center", color=MUTED)


def _accuracy_valley(
    axes: Axes, trials: Sequence[TrialResult], every: Sequence[TrialResult]
) -> None:
    """The last validation accuracy, where no trial of any batch size reached the target."""
    known = [t.val_accuracy for t in every if t.val_accuracy is not None]
    accuracy_axis(axes, "y", min(known), max(known))
    ends = {t: axis_of(t.val_accuracy) for t in trials if t.val_accuracy is not None}
    if ends:
        _mark(axes, ends, max(ends, key=ends.__getitem__), below=False)


def _mark(
    axes: Axes, places: Mapping[TrialResult, float], best: TrialResult, *, below: bool
) -> None:
    """A point for each trial, a ring round the best with its learning rate."""
    colour = batch_colour(best.batch_size)
    for t, y in places.items():
        axes.plot(t.learning_rate, y, "o", ms=5, color=colour, mec=PAPER)
    at = best.learning_rate, places[best]
    axes.plot(*at, "o", ms=9.5, mfc="none", mec=INK, mew=1.2)
    axes.annotate(learning_rate(best.learning_rate), at, (0, -8 if below else 8), fontsize=8,
                  ha="center", textcoords="offset points",
                  va="top" if below else "bottom")  # fmt: skip


def _name_missed(axes: Axes, missed: Sequence[TrialResult], height: float) -> None:
    """The validation accuracy under each triangle, the best first, where there is room for it."""
    named: list[float] = []
    for t in sorted(missed, key=lambda t: -(t.val_accuracy or 0.0)):
        x = math.log10(t.learning_rate)
        apart = all(abs(x - other) > 0.25 for other in named)
        if t.val_accuracy is None or t.outcome not in ("finished", "stopped") or not apart:
            continue
        named.append(x)
        axes.annotate(f"{t.val_accuracy:.2f}", (t.learning_rate, height), (0, -6), va="top",
                      textcoords="offset points", ha="center", color=MUTED, fontsize=7)  # fmt: skip


def _valley_caption(trials: Sequence[TrialResult], target: float | None) -> str:
    missed = sum(not t.examples_to_target for t in trials)
    if missed == len(trials):
        return (
            f"Last validation accuracy against learning rate: none of {missed} search trials "
            f"reached {target_name(target)}. Rings: the best of each batch size."
        )
    text = (
        f"Examples to {target_name(target)} against learning rate, {len(trials)} search trials. "
        "Rings: the best of each batch size."
    )
    if missed:
        text += (
            f" At the top: {missed} trials that did not reach it, with their last validation "
            "accuracy (crosses: diverged or failed)."
        )
    return text


def _rates_caption(chosen: Mapping[int, float | None]) -> str:
    known = [f"{learning_rate(r)} at {size}" for size, r in sorted(chosen.items()) if r is not None]
    return f" Shaded: the rate confirmed ({', '.join(known)})." if known else ""


@dataclass(frozen=True)
class Curve:
    """Validation accuracy of one batch size over its runs: median, least and most at each x."""

    batch_size: int
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def learning_curves(
    trials: Sequence[TrialResult], measurements: Sequence[Measurement], target: float | None
) -> Drawing | None:
    """Validation accuracy over examples, and over train seconds, median and range of the seeds."""
    judged = runs_to_judge(trials)
    by_examples = curves(judged, measurements, "examples_seen")
    by_seconds = curves(judged, measurements, "train_seconds")
    if not by_examples or not by_seconds:
        return None
    panels = (
        _curves_panel(by_examples, target, "examples seen"),
        _curves_panel(by_seconds, target, "train seconds (without contention)"),
    )
    caption = _curves_caption(by_examples, by_seconds, target)
    return Drawing("learning-curves", "Learning curves", caption, panels)


def curves(
    trials: Sequence[TrialResult], measurements: Sequence[Measurement], x_name: str
) -> list[Curve]:
    """One curve a batch size, by batch size; runs of fewer than two evaluations are left out."""
    size_of = {t.trial_id: t.batch_size for t in trials}
    points: dict[str, list[tuple[float, float]]] = {}
    for m in measurements:
        x = float(getattr(m, x_name))
        if m.trial_id in size_of and m.val_accuracy is not None and x > 0:
            points.setdefault(m.trial_id, []).append((x, m.val_accuracy))
    runs: dict[int, list[np.ndarray]] = {}
    for trial_id, found in points.items():
        if len(found) > 1:
            runs.setdefault(size_of[trial_id], []).append(np.array(sorted(found)))
    return [_curve(size, runs[size]) for size in sorted(runs)]


def _curve(batch_size: int, runs: Sequence[np.ndarray]) -> Curve:
    """Runs read at common points, linearly in log x, over the range that all of them cover."""
    low = max(run[0, 0] for run in runs)
    high = min(run[-1, 0] for run in runs)
    places = np.unique(np.concatenate([run[:, 0] for run in runs]))
    places = places[(places >= low) & (places <= high)]
    if len(places) > MOST_POINTS:
        places = np.geomspace(low, high, MOST_POINTS)
    read = np.stack([np.interp(np.log(places), np.log(r[:, 0]), r[:, 1]) for r in runs])
    return Curve(batch_size, places, np.median(read, 0), read.min(0), read.max(0))


def _curves_panel(found: Sequence[Curve], target: float | None, x_label: str) -> Figure:
    figure, axes = panel("validation accuracy", x_label, right=0.45)
    log_axis(axes, "x", min(c.x[0] for c in found), max(c.x[-1] for c in found) / 1.2)
    errors = np.concatenate([1 - np.concatenate([c.low, c.high]) for c in found])
    accuracy_axis(axes, "y", float(1 - errors.max()), float(1 - max(errors.min(), 1e-4)))
    if target is not None:
        axes.axhline(axis_of(target), color=RECOMMENDED, lw=1.1)
        axes.annotate(f"target {target_name(target)}", (0.01, axis_of(target)), (0, 3),
                      xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                      color=RECOMMENDED, fontsize=8)  # fmt: skip
    for c in found:
        colour = batch_colour(c.batch_size)
        axes.fill_between(c.x, _axis(c.low), _axis(c.high), color=colour, alpha=0.13, lw=0)
        axes.plot(c.x, _axis(c.middle), color=colour)
    ends = [(c.x[-1], float(_axis(c.middle)[-1])) for c in found]
    label_ends(axes, [(*at, str(c.batch_size), batch_colour(c.batch_size))
                      for at, c in zip(ends, found, strict=True)], at_edge=True)  # fmt: skip
    return figure


def axis_of(accuracy: float) -> float:
    """Where an accuracy stands on an accuracy axis: equal steps are equal factors of the error."""
    return -math.log10(max(1 - accuracy, 1e-4))


def _axis(accuracies: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log10(np.maximum(1 - accuracies, 1e-4)))


def accuracy_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """An axis for `axis_of`, named in accuracies, logarithmic in the error."""
    first, last = axis_of(low) - 0.04, axis_of(high) + 0.06
    (axes.set_ylim if which == "y" else axes.set_xlim)(first, last)
    axis = axes.yaxis if which == "y" else axes.xaxis
    ticks = [1 - e for e in NICE_ERRORS if first <= -math.log10(e) <= last]
    every = math.ceil(len(ticks) / 7) if ticks else 1
    named = {axis_of(t): f"{t:.4g}" for t in ticks[::-1][::every]}
    axis.set_major_locator(FixedLocator(list(named)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: named.get(x, "")))
    axis.set_minor_locator(NullLocator())


def _first(found: Sequence[Curve], target: float) -> tuple[int, float] | None:
    """The batch size whose median curve is first to the target, and where; None if none is."""
    at = {c.batch_size: crossing(tuple(zip(c.x, c.middle, strict=True)), target) for c in found}
    reached = {size: x for size, x in at.items() if x is not None}
    first = min(reached, key=reached.__getitem__, default=None)
    return None if first is None else (first, reached[first])


def _curves_caption(
    by_examples: Sequence[Curve], by_seconds: Sequence[Curve], target: float | None
) -> str:
    text = (
        f"Validation accuracy of {len(by_examples)} batch sizes: the median over seeds, the band "
        "from the least to the most of them."
    )
    if target is None:
        return text
    examples, train_seconds = _first(by_examples, target), _first(by_seconds, target)
    if examples is None or train_seconds is None:
        return f"{text} No median curve reaches {target_name(target)}."
    return (
        f"{text} First to {target_name(target)} in examples: batch size {examples[0]}, at about "
        f"{count(examples[1])}; in seconds: batch size {train_seconds[0]}, at about "
        f"{seconds(train_seconds[1])}."
    )


def noise_along_run(
    noise: Sequence[NoiseScale], critical: tuple[float, float, float] | None
) -> Drawing | None:
    """The noise scale along a run, of each kind, beside the critical batch size's interval.

    Args:
        critical: low end, value and high end of the critical batch size, in examples.
    """
    useful = [n for n in noise if n.useful and n.noise_scale and n.noise_scale > 0]
    if len({n.examples_seen for n in useful}) < 2:
        return None
    figure, axes = panel("noise scale, examples", "examples seen", right=1.05)
    scales = [n.noise_scale or math.nan for n in useful]
    beside = [critical[1]] if critical else []
    log_axis(axes, "x", min(n.examples_seen for n in useful), max(n.examples_seen for n in useful))
    log_axis(axes, "y", min(scales + beside) / 1.5, max(scales + beside) * 1.5)
    ends: list[tuple[float, float, str, str]] = []
    for kind, colour in DRAWN_KINDS.items():
        own = sorted((n for n in useful if n.kind == kind), key=lambda n: n.examples_seen)
        if own:
            _noise_line(axes, own, colour)
            ends.append((own[-1].examples_seen, own[-1].noise_scale or math.nan, kind, colour))
    if critical is not None:
        least, most = axes.get_ylim()
        axes.axhspan(max(critical[0], least), min(critical[2], most), color=INK, alpha=0.06, lw=0,
                     zorder=0)  # fmt: skip
        axes.axhline(critical[1], color=INK, lw=0.9, zorder=1)
        ends.append((1.0, critical[1], "critical batch", INK))
    label_ends(axes, ends, at_edge=True)
    caption = _noise_caption(useful, critical)
    return Drawing("noise-scale", "Gradient noise scale along a run", caption, (figure,))


def _noise_line(axes: Axes, own: Sequence[NoiseScale], colour: str) -> None:
    xs, ys = [n.examples_seen for n in own], [n.noise_scale or math.nan for n in own]
    axes.plot(xs, ys, "o-", color=colour, ms=4.5, lw=1.2)
    top = axes.get_ylim()[1]
    for n in own:
        if n.low is not None:
            high = top if n.high is None else n.high
            axes.plot([n.examples_seen] * 2, [n.low, high], color=colour, lw=1.1, alpha=0.7)


def _noise_caption(
    useful: Sequence[NoiseScale], critical: tuple[float, float, float] | None
) -> str:
    told = []
    for kind in DRAWN_KINDS:
        own = sorted((n for n in useful if n.kind == kind), key=lambda n: n.examples_seen)
        if own:
            over = [n for n in useful if n.kind == f"{kind}_average"]
            told.append(f"{kind.capitalize()}: {_from_to(own[0], own[-1])}{_on_average(over)}.")
    if critical is not None:
        low, value, high = critical
        told.append(f"The critical batch size, from runs, is {count(value, low, high)} (band).")
    return f"{' '.join(told)} Lines are 95 % intervals."


def _from_to(first: NoiseScale, last: NoiseScale) -> str:
    return (
        f"{count(first.noise_scale, first.low, first.high)} after "
        f"{count(first.examples_seen)} examples, {count(last.noise_scale, last.low, last.high)} "
        f"after {count(last.examples_seen)}"
    )


def _on_average(rows: Sequence[NoiseScale]) -> str:
    return "".join(f"; {count(n.noise_scale, n.low, n.high)} over the run" for n in rows[-1:])
