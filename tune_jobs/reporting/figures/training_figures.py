"""Figures of trials: the learning-rate valley of each batch size, and the learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import count, learning_rate, on_split, target_name, with_unit
from tune_jobs.reading.choosing import goodness
from tune_jobs.reading.sweep_runs import runs_to_judge
from tune_jobs.records import Measurement, NoiseScale, TrialResult
from tune_jobs.reporting.figures.axes import log_axis, metric_scale
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
    panel,
)
from tune_jobs.reporting.figures.marks import band, dots, interval, label_ends, level, note, ring
from tune_jobs.reporting.terminal import named_target
from tune_jobs.training.schedule import crossing
from tune_jobs.verdicts import Verdict

MOST_POINTS = 60
DRAWN_KINDS = {"raw": ACCENT, "preconditioned": LIMIT}  # of the noise scale, and their colours


def valleys(
    trials: Sequence[TrialResult], chosen: Mapping[int, float | None], verdict: Verdict
) -> Drawing | None:
    """Small multiples, one panel a batch size: learning rate against examples to target.

    Where no trial reached the target, against the last validation metric instead.

    Args:
        chosen: the learning rate that each batch size was judged with.
    """
    found = [t for t in trials if t.stage == "search" and t.learning_rate > 0]
    reached = any(t.examples_to_target for t in found)
    if len({t.learning_rate for t in found}) < 2:
        return None
    if not reached and not any(t.val_metric is not None for t in found):
        return None
    draw = _valley if reached else _metric_valley
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
    caption = _valley_caption(found, verdict) + _marks_of(found, chosen, reached=reached)
    heading = "The learning-rate valley of each batch size"
    return Drawing("learning-rate-valleys", heading, caption, tuple(panels), columns=3)


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


def _metric_valley(axes: Axes, trials: Sequence[TrialResult], every: Sequence[TrialResult]) -> None:
    """The last validation metric, where no trial of any batch size reached the target."""
    known = [t.val_metric for t in every if t.val_metric is not None]
    scale = metric_scale(every[0].metric, known)
    scale.axis(axes, "y", min(known), max(known))
    ends = {t: scale.place(t.val_metric) for t in trials if t.val_metric is not None}
    if ends:
        least = every[0].mode == "min"
        best = (min if least else max)(ends, key=ends.__getitem__)
        _mark(axes, ends, best, below=least)


def _mark(
    axes: Axes, places: Mapping[TrialResult, float], best: TrialResult, *, below: bool
) -> None:
    """A dot for each trial, a ring round the best with its learning rate."""
    colour = batch_colour(best.batch_size)
    dots(axes, [t.learning_rate for t in places], list(places.values()), colour)
    at = best.learning_rate, places[best]
    ring(axes, *at)
    note(axes, learning_rate(best.learning_rate), at, "below" if below else "above", INK)


def _name_missed(axes: Axes, missed: Sequence[TrialResult], height: float) -> None:
    """The validation metric under each triangle, the best first, where there is room for it."""
    named: list[float] = []
    for t in sorted(missed, key=goodness, reverse=True):
        x = math.log10(t.learning_rate)
        apart = all(abs(x - other) > 0.25 for other in named)
        if t.val_metric is None or t.outcome not in ("finished", "stopped") or not apart:
            continue
        named.append(x)
        note(axes, f"{t.val_metric:.2g}", (t.learning_rate, height), "below", gap=6, fontsize=7)


def _valley_caption(trials: Sequence[TrialResult], verdict: Verdict) -> str:
    """How many of the search trials reached the target."""
    reached, target = sum(bool(t.examples_to_target) for t in trials), named_target(verdict)
    if not reached:
        last = with_unit(on_split("validation", verdict.metric), verdict.unit)
        return f"Last {last}: none of {len(trials)} search trials reached {target}."
    of_all = f"{reached} of {len(trials)} search trials"
    return f"Examples to {target}: {of_all} reached it."


def _marks_of(
    trials: Sequence[TrialResult], chosen: Mapping[int, float | None], *, reached: bool
) -> str:
    marks = ["Rings: the best of each batch size"]
    if any(rate is not None for rate in chosen.values()):
        marks.append("shaded: the rate confirmed")
    if reached and not all(t.examples_to_target for t in trials):
        marks.append("at the top: not reached, with the last metric (crosses: diverged, failed)")
    return f" {'; '.join(marks)}."


@dataclass(frozen=True)
class Curve:
    """Validation metric of one batch size over its runs: median, least and most at each x."""

    batch_size: int
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def learning_curves(
    trials: Sequence[TrialResult], measurements: Sequence[Measurement], verdict: Verdict
) -> Drawing | None:
    """Validation metric over examples, and over train seconds, median and range of the seeds."""
    judged = runs_to_judge(trials)
    by_examples = curves(judged, measurements, "examples_seen")
    by_seconds = curves(judged, measurements, "train_seconds")
    if not by_examples or not by_seconds:
        return None
    panels = (
        _curves_panel(by_examples, verdict, "examples seen"),
        _curves_panel(by_seconds, verdict, "train seconds (without contention)"),
    )
    caption = _curves_caption(by_examples, by_seconds, verdict)
    return Drawing("learning-curves", "Learning curves", caption, panels)


def curves(
    trials: Sequence[TrialResult], measurements: Sequence[Measurement], x_name: str
) -> list[Curve]:
    """One curve a batch size, by batch size; runs of fewer than two evaluations are left out."""
    size_of = {t.trial_id: t.batch_size for t in trials}
    points: dict[str, list[tuple[float, float]]] = {}
    for m in measurements:
        x = float(getattr(m, x_name))
        if m.trial_id in size_of and m.val_metric is not None and x > 0:
            points.setdefault(m.trial_id, []).append((x, m.val_metric))
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


def _curves_panel(found: Sequence[Curve], verdict: Verdict, x_label: str) -> Figure:
    metric, target = verdict.metric, verdict.target
    title = with_unit(on_split("validation", metric), verdict.unit)
    figure, axes = panel(title, x_label, right=0.45)
    least, most = min(c.low.min() for c in found), max(c.high.max() for c in found)
    scale = metric_scale(metric, [least, most])
    log_axis(axes, "x", min(c.x[0] for c in found), max(c.x[-1] for c in found) / 1.2)
    scale.axis(axes, "y", least, most)
    if target is not None:
        level(axes, scale.place(target), f"target {target_name(target)}", RECOMMENDED)
    ends = []
    for c in found:
        colour = batch_colour(c.batch_size)
        low, middle, high = ([scale.place(a) for a in line] for line in (c.low, c.middle, c.high))
        axes.fill_between(c.x, low, high, color=colour, alpha=0.13, lw=0)
        axes.plot(c.x, middle, color=colour)
        ends.append((c.x[-1], middle[-1], str(c.batch_size), colour))
    label_ends(axes, ends, at_edge=True)
    return figure


def _first(found: Sequence[Curve], target: float, mode: str) -> int | None:
    """The batch size whose median curve is first to the target; None if none reaches it."""
    lines = {c.batch_size: tuple(zip(c.x, c.middle, strict=True)) for c in found}
    at = {size: crossing(line, target, mode) for size, line in lines.items()}
    reached = {size: x for size, x in at.items() if x is not None}
    return min(reached, key=reached.__getitem__, default=None)


def _curves_caption(
    by_examples: Sequence[Curve], by_seconds: Sequence[Curve], verdict: Verdict
) -> str:
    marks = "Lines: medians over seeds; bands: from the least to the most of them."
    target, mode = verdict.target, verdict.mode
    if target is None:
        return f"Validation {verdict.metric} of {len(by_examples)} batch sizes. {marks}"
    in_examples, in_seconds = (_first(of, target, mode) for of in (by_examples, by_seconds))
    if in_examples is None or in_seconds is None:
        return f"No median curve reaches {named_target(verdict)}. {marks}"
    both = f"{in_examples} in examples, {in_seconds} in seconds"
    if in_examples == in_seconds:
        both = f"{in_examples}, in examples and in seconds"
    return f"First to {named_target(verdict)}: batch size {both}. {marks}"


def noise_along_run(
    noise: Sequence[NoiseScale], critical: tuple[float, float, float] | None
) -> Drawing | None:
    """The noise scale along a run, of each kind, beside the critical batch size's interval.

    Args:
        critical: low end, value and high end of the critical batch size, in examples.
    """
    useful = sorted((n for n in noise if n.useful and n.noise_scale and n.noise_scale > 0),
                    key=lambda n: n.examples_seen)  # fmt: skip
    if not useful or useful[0].examples_seen == useful[-1].examples_seen:
        return None
    figure, axes = panel("noise scale, examples", "examples seen", right=1.05)
    scales = [n.noise_scale or math.nan for n in useful]
    beside = [critical[1]] if critical else []
    log_axis(axes, "x", useful[0].examples_seen, useful[-1].examples_seen)
    log_axis(axes, "y", min(scales + beside) / 1.5, max(scales + beside) * 1.5)
    ends: list[tuple[float, float, str, str]] = []
    for kind, colour in DRAWN_KINDS.items():
        own = {n: n.noise_scale or math.nan for n in useful if n.kind == kind}
        if own:
            axes.plot([n.examples_seen for n in own], list(own.values()), "o-", color=colour,
                      ms=4.5, lw=1.2)  # fmt: skip
            ends.append((1.0, list(own.values())[-1], kind, colour))
        for n in own:
            interval(axes, n.examples_seen, n.low, n.high, colour)
    if critical is not None:
        band(axes, "y", *critical)
        ends.append((1.0, critical[1], "critical batch", INK))
    label_ends(axes, ends, at_edge=True)
    caption = _noise_caption(useful) + ("; band: the critical batch size." if critical else ".")
    return Drawing("noise-scale", "Gradient noise scale along a run", caption, (figure,))


def _noise_caption(useful: Sequence[NoiseScale]) -> str:
    """How the noise scale of each kind moves, and its average over the run."""
    told = []
    for kind in DRAWN_KINDS:
        own = [_alone(n) for n in useful if n.kind == kind]
        if own:
            average = [_alone(n) for n in useful if n.kind == f"{kind}_average"][-1:]
            over = "".join(f" ({value} over the run)" for value in average)
            told.append(f"{kind} from {own[0]} to {own[-1]}{over}")
    return f"{'; '.join(told).capitalize()}. Upright lines: 95 % intervals"


def _alone(row: NoiseScale) -> str:
    """The value with the digits that its interval supports."""
    return count(row.noise_scale, row.low, row.high).split(" [")[0]
