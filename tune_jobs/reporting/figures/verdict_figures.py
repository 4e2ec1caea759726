"""The figures of a verdict, in reading order; here those that compare its batch sizes.

A figure whose rows are not there is not drawn. Every caption says one finding, in numbers. The
runs themselves stand in `run_figures.py`, search and learning curves in `training_figures.py`,
what an update costs in `cost_figures.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import ACCURACY, on_split, target_name, with_unit
from tune_jobs.records import TargetRun
from tune_jobs.reporting.figures.axes import (
    batch_axis,
    linear_axis,
    log_axis,
    metric_scale,
    plain_axis,
    with_room,
)
from tune_jobs.reporting.figures.cost_figures import by_device, cost_drawing
from tune_jobs.reporting.figures.drawing import (
    INK,
    MUTED,
    RECOMMENDED,
    Drawing,
    batch_colour,
    gathered,
    panel,
)
from tune_jobs.reporting.figures.evidence import Evidence, plain_name, principal_quantity, unit_of
from tune_jobs.reporting.figures.marks import (
    DASHED,
    DOTTED,
    curve,
    interval,
    label_ends,
    note,
    point,
    ring,
)
from tune_jobs.reporting.figures.run_figures import to_target, updates_and_examples
from tune_jobs.reporting.figures.training_figures import learning_curves, noise_along_run, valleys
from tune_jobs.reporting.terminal import target_title
from tune_jobs.verdicts import Estimate, TargetAnswer, Verdict


def drawings(evidence: Evidence) -> Iterator[Drawing]:
    """Every figure that can be drawn, in the order in which they are read."""
    verdict = evidence.verdict
    chosen = {row.batch_size: row.learning_rate for row in verdict.per_batch_size}
    fit = verdict.critical_batch_size
    critical = (fit.low, fit.value, fit.high or math.inf) if fit and fit.low is not None else None
    makers: tuple[Callable[[], Drawing | None], ...] = (
        lambda: to_target(evidence, principal_quantity(verdict)),
        lambda: updates_and_examples(evidence),
        *(partial(cost_drawing, *own) for own in by_device(evidence.profiles, evidence.limits)),
        lambda: valleys(evidence.trials, chosen, verdict),
        lambda: rates(evidence),
        lambda: learning_curves(evidence.trials, evidence.measurements, verdict),
        lambda: noise_along_run(evidence.noise, critical),
        lambda: test_metric(evidence),
        lambda: sensitivity(evidence),
        lambda: trade_offs(evidence),
    )
    for make in makers:
        drawing = make()
        if drawing is not None:
            yield drawing


# --- learning-rate rule -----------------------------------------------------------------------


def rates(evidence: Evidence) -> Drawing | None:
    """The learning rate of each batch size against batch size, beside the two usual rules."""
    rule = evidence.verdict.learning_rate_rule
    known = {r.batch_size: r.learning_rate for r in evidence.verdict.per_batch_size
             if r.learning_rate}  # fmt: skip
    if rule is None or rule.exponent.value is None or len(known) < 2:
        return None
    figure, axes = panel("learning rate", "batch size", right=0.95)
    batch_axis(axes, list(known))
    log_axis(axes, "y", min(known.values()) / 1.3, max(known.values()) * 1.3)
    ends = []
    for exponent, name, colour, style in (
        (rule.exponent.value, f"B^{rule.exponent.value:.2f}", INK, DASHED),
        (1.0, "linear", MUTED, DOTTED),
        (0.5, "square root", MUTED, DOTTED),
    ):
        x, y = curve(axes, partial(_power_law, known, exponent), colour, style)
        ends.append((x[-1], y[-1], name, colour))
    label_ends(axes, ends, at_edge=True)
    for size, rate in known.items():
        point(axes, math.log2(size), rate, batch_colour(size))
    heading = "Learning rate against batch size"
    return Drawing("learning-rate-rule", heading, rule.sentence, (figure,))


def _power_law(known: dict[int, float], exponent: float, sizes: np.ndarray) -> np.ndarray:
    """c B^exponent through the middle of the known learning rates, in logarithms."""
    middle = np.mean([math.log(rate / size**exponent) for size, rate in known.items()])
    return np.asarray(np.exp(middle) * sizes**exponent)


# --- generalization ---------------------------------------------------------------------------


def test_metric(evidence: Evidence) -> Drawing | None:
    """The test metric at the common budget and at equal updates, and the train-to-test gap."""
    found = evidence.verdict.generalization
    if found is None:
        return None
    at_budget = {row.batch_size: row.test_accuracy for row in found.rows}
    at_updates = {row.batch_size: row.test_accuracy_at_equal_updates for row in found.rows}
    gaps = {row.batch_size: row.train_to_test_gap for row in found.rows}
    tests = {"common budget": at_budget, "equal updates": at_updates}
    unit = evidence.verdict.unit if found.metric == evidence.verdict.metric else ""
    name = on_split("test", found.metric)
    gap = with_unit("better on train than on test by", unit)
    panels = [
        _estimates_panel(with_unit(name, unit), tests, found.metric),
        _estimates_panel(gap, {"common budget": gaps}, found.metric, sign=True),
    ]
    both = any(e.value is not None for e in at_updates.values())
    caption = found.sentence + (" Open: at equal updates." if both else "")
    file = "accuracy" if found.metric == ACCURACY else "test-metric"
    heading = f"{name[0].upper()}{name[1:]} against batch size"
    return gathered(file, heading, caption, panels)


def _estimates_panel(
    title: str, series: dict[str, dict[int, Estimate]], metric: str, *, sign: bool = False
) -> Figure | None:
    """Estimates against batch size; the first series filled, the second open, named at the end.

    `sign`: they are differences of the metric, of either sign.
    """
    known = {name: {s: (e.value, e.low, e.high) for s, e in found.items() if e.value is not None}
             for name, found in series.items()}  # fmt: skip
    drawn = {name: found for name, found in known.items() if found}
    if not drawn or len(next(iter(drawn.values()))) < 2:
        return None
    figure, axes = panel(title, "batch size", right=1.1 if len(drawn) > 1 else 0.2)
    batch_axis(axes, sorted({size for found in drawn.values() for size in found}))
    shown = [v for found in drawn.values() for ends in found.values() for v in ends
             if v is not None]  # fmt: skip
    _metric_axis(axes, shown, metric, sign=sign)
    names = []
    for k, (name, found) in enumerate(drawn.items()):
        offset = 0.12 * (k - (len(drawn) - 1) / 2)
        xs, ys = [math.log2(s) + offset for s in found], [value for value, _, _ in found.values()]
        axes.plot(xs, ys, color=MUTED, lw=0.8, ls="-" if k == 0 else DASHED, zorder=1)
        for x, (size, (value, low, high)) in zip(xs, found.items(), strict=True):
            interval(axes, x, low, high, batch_colour(size))
            point(axes, x, value, batch_colour(size), filled=k == 0)
        names.append((xs[-1], ys[-1], name, MUTED))
    if len(drawn) > 1:
        label_ends(axes, names, at_edge=True)
    return figure


def _metric_axis(axes: Axes, values: Sequence[float], metric: str, *, sign: bool = False) -> None:
    """The y axis round the values: plain for accuracies, which lie close together here."""
    if metric == ACCURACY:
        plain_axis(axes, values)
    elif sign:
        linear_axis(axes, "y", min(values), max(values))
    else:
        metric_scale(metric, values).axis(axes, "y", min(values), max(values))


# --- how the answer moves ---------------------------------------------------------------------


def sensitivity(evidence: Evidence) -> Drawing | None:
    """Time (or the judged quantity) of each batch size against the target; the answers ringed."""
    name = principal_quantity(evidence.verdict)
    targets = sorted({r.target for r in evidence.runs if r.target is not None})
    lines = {size: _medians_by_target(evidence.runs, size, name) for size in evidence.sizes}
    values = [v for line in lines.values() for v in line.values()]
    if len(targets) < 2 or not any(len(line) > 1 for line in lines.values()):
        return None
    title, factor = unit_of(name, max(values), evidence.verdict)
    figure, axes = panel(title, target_title(evidence.verdict), right=0.5)
    place = _target_axis(axes, targets, evidence.verdict.metric)
    log_axis(axes, "y", min(values) / factor, max(values) / factor)
    drawn = {size: {t: (place(t), v / factor) for t, v in line.items()}
             for size, line in lines.items() if line}  # fmt: skip
    for size, line in drawn.items():
        axes.plot(*zip(*line.values(), strict=True), "o-", ms=3.2, color=batch_colour(size), lw=1.3)
    label_ends(axes, [(*line[max(line)], str(size), batch_colour(size))
                      for size, line in drawn.items()])  # fmt: skip
    for answer in evidence.verdict.sensitivity:
        _ring_answers(axes, answer, drawn)
    caption = sensitivity_caption(evidence.verdict)
    return Drawing("sensitivity", "How the answer moves with the target", caption, (figure,))


def _medians_by_target(runs: Sequence[TargetRun], size: int, name: str) -> dict[float, float]:
    """The median over runs at each target, ascending, where more than half of them reached it."""
    found: dict[float, float] = {}
    for target in sorted({r.target for r in runs if r.target is not None}):
        own = [r for r in runs if r.batch_size == size and r.target == target]
        values = [getattr(r, name, None) for r in own]
        middle = median([math.inf if v is None else v for v in values]) if values else math.inf
        if math.isfinite(middle):
            found[target] = middle
    return found


def _target_axis(axes: Axes, targets: Sequence[float], metric: str) -> Callable[[float], float]:
    """The axis of the metric, its targets named where they are few.

    Returns where a target stands on the axis.
    """
    scale = metric_scale(metric, targets)
    scale.axis(axes, "x", targets[0], targets[-1])
    if len(targets) <= 8:
        names = with_room(axes, {scale.place(t): target_name(t) for t in targets})
        axes.set_xticks(list(names), list(names.values()))
    return scale.place


def _ring_answers(
    axes: Axes, answer: TargetAnswer, drawn: dict[int, dict[float, tuple[float, float]]]
) -> None:
    """At one target: a pale ring round each tied batch size, a green one round the one to use."""
    used = () if answer.use is None else (answer.use,)
    for size in (*answer.tied_batch_sizes, *used):
        at = drawn.get(size, {}).get(answer.target) if answer.target is not None else None
        if at is not None:
            chosen = size == answer.use
            ring(axes, *at, RECOMMENDED if chosen else MUTED, bold=chosen)


def sensitivity_caption(verdict: Verdict) -> str:
    """The batch sizes to use from the lowest target to the highest."""
    known = [(a.target, a.use) for a in verdict.sensitivity
             if a.use is not None]  # fmt: skip
    told = f"No batch size reached any of {len(verdict.sensitivity)} targets"
    if known:
        (low, first), (high, last) = known[0], known[-1]
        told = f"To use: {first} at target {target_name(low)}, {last} at {target_name(high)}"
        if len({size for _, size in known}) == 1:
            told = f"To use: {first}, at {len(known)} of {len(verdict.sensitivity)} targets"
    return f"{told}. Green rings: the one to use; thin rings: equal to it."


# --- trade-offs -------------------------------------------------------------------------------


def trade_offs(evidence: Evidence) -> Drawing | None:
    """Time against memory, and against the validation metric; the Pareto set filled."""
    verdict, rows = evidence.verdict, evidence.verdict.per_batch_size
    if not verdict.pareto.batch_sizes:
        return None
    memory = {r.batch_size: r.peak_memory_mib for r in rows}
    metric = verdict.metric
    at_end = {r.batch_size: (r.val_accuracy if metric == ACCURACY else r.val_metric).value
              for r in rows}  # fmt: skip
    title = with_unit(f"{on_split('validation', metric)} at the end", verdict.unit)
    panels = [_trade_off_panel(evidence, "peak memory, MiB", memory),
              _trade_off_panel(evidence, title, at_end, metric)]  # fmt: skip
    members = ", ".join(map(str, verdict.pareto.batch_sizes))
    qualities = ", ".join(plain_name(axis, verdict) for axis in verdict.pareto.axes)
    caption = f"Filled: {members}, which no other batch size beats in all of {qualities}."
    return gathered("trade-offs", f"Time, memory and {metric}", caption, panels)


def _trade_off_panel(
    evidence: Evidence, title: str, others: dict[int, float | None], metric: str = ACCURACY
) -> Figure | None:
    """Time against another quantity, or against a metric, which has an axis of its own."""
    name = principal_quantity(evidence.verdict)
    points = {
        size: (e.value, other)
        for size, e in evidence.medians(name).items()
        if e.value is not None and (other := others[size]) is not None
    }
    if len(points) < 3:
        return None
    xs, ys = zip(*points.values(), strict=True)
    x_title, factor = unit_of(name, max(xs), evidence.verdict)
    figure, axes = panel(title, x_title)
    log_axis(axes, "x", min(xs) / factor, max(xs) / factor * 1.1)
    _metric_axis(axes, ys, metric)
    for size, (x, y) in points.items():
        kept = size in evidence.verdict.pareto.batch_sizes
        point(axes, x / factor, y, batch_colour(size), filled=kept)
        note(axes, str(size), (x / factor, y), "right", batch_colour(size), fontsize=9,
             weight="bold" if kept else "normal")  # fmt: skip
    return figure
