"""The figures of a verdict, each drawn from recorded rows and the verdict made of them.

A figure whose rows are not there is not drawn. Every caption says in numbers what its figure
shows. Figures of the search and of the learning curves stand in `training_figures.py`, those of
what an update costs in `cost_figures.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_jobs.formatting import (
    UNITS_OF_TIME,
    count,
    quantity,
    target_name,
)
from tune_jobs.judging.sentences import per_cent
from tune_jobs.measure.cost_model import DeviceLimits
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.figures.cost_figures import cost_drawing
from tune_jobs.reporting.figures.drawing import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    RECOMMENDED,
    TIED,
    Drawing,
    amount_axis,
    batch_axis,
    batch_colour,
    label_ends,
    log_axis,
    panel,
    slug,
)
from tune_jobs.reporting.figures.training_figures import (
    accuracy_axis,
    axis_of,
    learning_curves,
    noise_along_run,
    valleys,
)
from tune_jobs.reporting.terminal import QUANTITIES
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    CriticalBatchSize,
    Estimate,
    NoiseScaleSummary,
    Verdict,
)

TIME = "time_to_target_seconds"
NAMES = {
    TIME: "time to target",
    "examples_to_target": "examples to target",
    "updates_to_target": "updates to target",
    "energy_joules": "energy to target, J",
    "peak_memory_mib": "peak memory, MiB",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
}
LINEAR_UP_TO = 5.0  # a larger ratio of the extremes asks for a log axis

BEST = ("used", "tied", "open")  # standings of what may be the best


@dataclass(frozen=True)
class Evidence:
    """One verdict, and the rows that its figures are drawn from.

    Attributes:
        runs: of the verdict's workload, at every target.
        limits: one for each device type in `profiles`.
    """

    verdict: Verdict
    runs: tuple[TargetRun, ...]
    profiles: tuple[BatchSizeProfile, ...] = ()
    limits: tuple[DeviceLimits, ...] = ()
    trials: tuple[TrialResult, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    noise: tuple[NoiseScale, ...] = ()

    @property
    def own_runs(self) -> list[TargetRun]:
        """The runs at the verdict's own target."""
        return [r for r in self.runs if r.target == self.verdict.target]

    @property
    def sizes(self) -> list[int]:
        return [row.batch_size for row in self.verdict.per_batch_size]


def drawings(evidence: Evidence) -> Iterator[Drawing]:
    """Every figure that can be drawn, in the order in which they are read."""
    verdict = evidence.verdict
    chosen = {row.batch_size: row.learning_rate for row in verdict.per_batch_size}
    fit = verdict.critical_batch_size
    critical = (fit.low, fit.value, fit.high or math.inf) if fit and fit.low is not None else None
    makers: tuple[Callable[[], Drawing | None], ...] = (
        lambda: to_target(evidence, principal_quantity(verdict)),
        lambda: updates_and_examples(evidence),
        *(partial(cost_of_device, evidence, known) for known in evidence.limits),
        lambda: valleys(evidence.trials, chosen, verdict.target),
        lambda: rates(evidence),
        lambda: learning_curves(evidence.trials, evidence.measurements, verdict.target),
        lambda: noise_along_run(evidence.noise, critical),
        lambda: accuracy(evidence),
        lambda: sensitivity(evidence),
        lambda: trade_offs(evidence),
    )
    for make in makers:
        drawing = make()
        if drawing is not None:
            yield drawing


def cost_of_device(evidence: Evidence, known: DeviceLimits) -> Drawing | None:
    """Throughput and memory of one device type."""
    own = [p for p in evidence.profiles if p.device == known.device]
    suffix = f"-{slug(known.device)}" if len(evidence.limits) > 1 else ""
    return cost_drawing(own, known, suffix)


def principal_quantity(verdict: Verdict) -> str:
    """What the first figure shows: seconds to target where they are known, else what was judged."""
    timed = any(row.time_to_target_seconds.value for row in verdict.per_batch_size)
    return TIME if timed else verdict.quantity


def estimate(row: BatchSizeVerdict, name: str, verdict: Verdict) -> Estimate:
    """A batch size's median and interval of a quantity; unknown where the verdict has none."""
    found = getattr(row, name, None)
    if isinstance(found, Estimate):
        return found
    if name == verdict.quantity:
        return Estimate(row.median, row.low, row.high)
    return Estimate(found if isinstance(found, float) else None, None, None)


def unit_of(name: str, largest: float) -> tuple[str, float]:
    """The axis title of a quantity and what its values are divided by."""
    if not name.endswith("_seconds"):
        return NAMES.get(name, name.replace("_", " ")), 1.0
    unit, factor, _ = next(u for u in UNITS_OF_TIME if u[2] is None or largest < u[2])
    return f"{NAMES.get(name, 'time')}, {unit}", factor


def said(name: str, value: Estimate) -> str:
    """A quantity in words: `41 s [38, 45]`."""
    _, show = QUANTITIES.get(name, ("", quantity))
    return show(value.value, value.low, value.high)


# --- the answer: time to target against batch size ------------------------------------------


def to_target(evidence: Evidence, name: str) -> Drawing | None:
    """A quantity against batch size: runs, median, interval, the tied set, who never reached."""
    verdict, runs = evidence.verdict, evidence.own_runs
    values = [v for r in runs if (v := getattr(r, name, None)) is not None]
    medians = {row.batch_size: estimate(row, name, verdict) for row in verdict.per_batch_size}
    shown = [*values, *(e.value for e in medians.values() if e.value is not None)]
    if not shown:
        return None
    title, factor = unit_of(name, max(shown))
    figure, axes = panel(title, "batch size")
    batch_axis(axes, evidence.sizes)
    positive = min(shown) > 0
    if positive and max(shown) > LINEAR_UP_TO * min(shown):
        log_axis(axes, "y", min(shown) / factor / 1.1, max(shown) / factor * 1.25)
    elif name.endswith("accuracy"):
        accuracy_axis(axes, "y", min(shown), max(shown))
    else:
        amount_axis(axes, max(shown) / factor * 1.05)
    place = axis_of if name.endswith("accuracy") else lambda value: value / factor
    half = half_width(evidence.sizes)
    _shade_the_best(axes, verdict)
    if name == TIME:
        _predicted_time(axes, verdict, factor)
    for row in verdict.per_batch_size:
        own = [r for r in runs if r.batch_size == row.batch_size]
        _seeds(axes, row.batch_size, [getattr(r, name, None) for r in own], place, half)
        _median(axes, row.batch_size, medians[row.batch_size], place, half)
        _censored(axes, row)
    _name_the_used(axes, verdict)
    heading = NAMES.get(name, name.replace("_", " ")).split(",")[0].capitalize()
    return Drawing(
        slug(name.removesuffix("_seconds")),
        f"{heading} against batch size",
        to_target_caption(verdict, name),
        (figure,),
    )


def _shade_the_best(axes: Axes, verdict: Verdict) -> None:
    """Shade the batch sizes that may be the best; above each its regret, expected and at most."""
    sizes = [math.log2(row.batch_size) for row in verdict.per_batch_size]
    low, high = axes.get_xlim()
    between = [(a + b) / 2 for a, b in pairwise(sizes)]
    edges = [low, *between, high]
    for i, row in enumerate(verdict.per_batch_size):
        if row.standing in BEST:
            axes.axvspan(edges[i], edges[i + 1], color=TIED, lw=0, zorder=0)
        if row.expected_regret is None or row.regret_bound is None:
            continue
        part = (sizes[i] - low) / (high - low)
        text = f"+{per_cent(row.expected_regret)}\n≤ {per_cent(row.regret_bound)}"
        axes.annotate(text, (part, 1), (0, 2), xycoords="axes fraction", ha="center", va="bottom",
                      textcoords="offset points", fontsize=6.5, color=MUTED)  # fmt: skip


def half_width(sizes: Sequence[int]) -> float:
    """Half of a batch size's place on the axis, in powers of two."""
    gaps = [math.log2(b / a) for a, b in pairwise(sizes)]
    return min([0.22, *(0.42 * gap for gap in gaps)])


def _seeds(
    axes: Axes,
    size: int,
    values: Sequence[float | None],
    place: Callable[[float], float],
    half: float,
) -> None:
    """One point for each run, set apart sideways in order of the runs."""
    known = [v for v in values if v is not None]
    step = min(0.1, 1.8 * half / max(len(known), 1))
    offsets = [(k - (len(known) - 1) / 2) * step for k in range(len(known))]
    axes.plot(
        [math.log2(size) + o for o in offsets], [place(v) for v in known], "o", ms=4.2,
        color=batch_colour(size), mec=PAPER, mew=0.6, zorder=5,
    )  # fmt: skip


def _median(
    axes: Axes, size: int, value: Estimate, place: Callable[[float], float], half: float
) -> None:
    """The median as a bar, its interval as a line that leaves the axes where it has no end."""
    if value.value is None:
        return
    x, colour = math.log2(size), batch_colour(size)
    axes.plot([x - half, x + half], [place(value.value)] * 2, color=colour, lw=2.0, zorder=4)
    if value.low is not None:
        top = axes.get_ylim()[1]
        high = top if value.high is None else min(place(value.high), top)
        axes.plot([x, x], [place(value.low), high], color=colour, lw=1.4, zorder=4)


def _censored(axes: Axes, row: BatchSizeVerdict) -> None:
    """Runs that never reached the target: an open triangle at the top, with how many of them."""
    missed = row.seeds - row.reached
    if missed <= 0:
        return
    x = math.log2(row.batch_size)
    axes.plot(
        x, 0.965, "^", ms=7, mfc=PAPER, mec=batch_colour(row.batch_size), mew=1.4,
        transform=axes.get_xaxis_transform(), clip_on=False, zorder=5,
    )  # fmt: skip
    text = "never" if not row.reached else f"{missed} of {row.seeds}\nnever"
    axes.annotate(text, (x, 0.965), (0, -7), xycoords=axes.get_xaxis_transform(), ha="center",
                  va="top", textcoords="offset points", fontsize=7.5, color=MUTED)  # fmt: skip


def _name_the_used(axes: Axes, verdict: Verdict) -> None:
    if verdict.use is None:
        return
    size = verdict.use.batch_size
    x, (low, high) = math.log2(size), axes.get_xlim()
    part = (x - low) / (high - low)
    side = "left" if part < 0.17 else "right" if part > 0.83 else "center"
    at = {"left": 0.01, "right": 0.99}.get(side, part)
    axes.annotate("use this", (at, 0), (0, 6), xycoords="axes fraction", ha=side, zorder=6,
                  textcoords="offset points", color=RECOMMENDED, fontsize=8.5,
                  weight="bold")  # fmt: skip
    axes.plot(x, 0, "^", ms=7, color=RECOMMENDED, transform=axes.get_xaxis_transform(),
              clip_on=False, zorder=6)  # fmt: skip


def _predicted_time(axes: Axes, verdict: Verdict, factor: float) -> None:
    """(a + b B) S_min (1 + B_crit / B) where both fits exist, and where it is least."""
    form, critical = verdict.closed_form, verdict.critical_batch_size
    if form is None or critical is None:
        return
    places = np.linspace(*axes.get_xlim(), 80)
    sizes = 2**places
    step = form.fixed_seconds + form.seconds_per_example * sizes
    curve = step * critical.s_min_updates * (1 + critical.value / sizes) / factor
    low, high = axes.get_ylim()
    inside = (curve >= low) & (curve <= high)
    if inside.sum() < 2:
        return
    axes.plot(places[inside], curve[inside], color=MUTED, lw=1.1, ls=(0, (4, 2)), zorder=2)
    _name_beside(axes, places[inside], curve[inside], "predicted from the two fits")


def _name_beside(axes: Axes, x: np.ndarray, y: np.ndarray, text: str) -> None:
    """Name a convex curve on its free side, at about three quarters of the axes' height."""
    drawn = axes.transLimits.transform(axes.transScale.transform(np.column_stack([x, y])))
    rising = y[-1] > y[0]
    half = np.flatnonzero(np.gradient(y) > 0 if rising else np.gradient(y) < 0)
    k = half[np.argmin(np.abs(drawn[half, 1] - 0.75))]
    axes.annotate(text, (x[k], y[k]), (-7 if rising else 7, 0), textcoords="offset points",
                  va="center", ha="right" if rising else "left", color=MUTED,
                  fontsize=7.5)  # fmt: skip


def to_target_caption(verdict: Verdict, name: str) -> str:
    """Best first: the batch sizes in order, those that never reached, and the shaded set."""
    known = [(estimate(row, name, verdict), row) for row in verdict.per_batch_size]
    ranked = sorted(
        ((e.value, e, row) for e, row in known if e.value is not None),
        key=lambda found: found[0],
        reverse=name.endswith("accuracy"),
    )
    text = "; ".join(f"{said(name, e)} at {row.batch_size}" for _, e, row in ranked[:3])
    missed = [row for row in verdict.per_batch_size if row.reached < row.seeds]
    if missed:
        never = ", ".join(f"{r.seeds - r.reached} of {r.seeds} at {r.batch_size}" for r in missed)
        text += f". Runs that never reached the target (triangles): {never}"
    best = [str(r.batch_size) for r in verdict.per_batch_size if r.standing in BEST]
    if len(best) > 1:
        text += f". Shaded: {', '.join(best)} may be the best; above, by what part each is worse"
    if all(e.low is None for _, e, _ in ranked):
        return f"One run each, best first: {text}."
    interval = f"{verdict.confidence:.0%} interval"
    return f"Median and {interval}, best first: {text}. Points are single runs."


# --- statistics: updates and examples to target ----------------------------------------------


def updates_and_examples(evidence: Evidence) -> Drawing | None:
    """Updates, and examples, to target on log axes, with the fit and the perfect-scaling line."""
    names = ("updates_to_target", "examples_to_target")
    panels = [_scaling_panel(evidence, name) for name in names]
    drawn = tuple(p for p in panels if p is not None)
    if not drawn:
        return None
    return Drawing(
        "updates-and-examples",
        "Updates and examples to target: the critical batch size",
        scaling_caption(evidence.verdict),
        drawn,
    )


def _scaling_panel(evidence: Evidence, name: str) -> Figure | None:
    verdict, critical = evidence.verdict, evidence.verdict.critical_batch_size
    medians = [(row.batch_size, estimate(row, name, verdict)) for row in verdict.per_batch_size]
    known = [(size, e) for size, e in medians if e.value is not None]
    if len(known) < 2:
        return None
    values = [v for r in evidence.own_runs if (v := getattr(r, name)) is not None]
    shown = [*values, *(e.value for _, e in known if e.value is not None)]
    figure, axes = panel(NAMES[name], "batch size")
    batch_axis(axes, evidence.sizes)
    log_axis(axes, "y", min(shown) / 2.6, max(shown) * 1.15)
    places = np.linspace(*axes.get_xlim(), 80)
    half = half_width(evidence.sizes)
    if critical is not None:
        _hyperbola(axes, critical, places, name)
    else:
        first_size, first = known[0]
        _perfect(axes, places, name, (first.value or math.nan) * _power(name, first_size))
    for row in verdict.per_batch_size:
        own = [getattr(r, name) for r in evidence.own_runs if r.batch_size == row.batch_size]
        _seeds(axes, row.batch_size, own, float, half)
        _median(axes, row.batch_size, estimate(row, name, verdict), float, half)
        _censored(axes, row)
    _batch_sizes_beside(axes, critical, verdict.noise_scale)
    return figure


def _power(name: str, sizes: float) -> float:
    """Examples per update where updates are drawn, else 1."""
    return sizes if name == "updates_to_target" else 1.0


def _hyperbola(axes: Axes, fit: CriticalBatchSize, places: np.ndarray, name: str) -> None:
    """S_min (1 + B_crit / B) updates, or that times B examples, with its two asymptotes."""
    sizes = 2**places
    updates = fit.s_min_updates * (1 + fit.value / sizes)
    curve = updates * (1 if name == "updates_to_target" else sizes)
    axes.plot(places, curve, color=INK, lw=1.1, ls=(0, (4, 2)), zorder=2)
    _perfect(axes, places, name, fit.s_min_updates * fit.value)
    if name == "updates_to_target":
        axes.axhline(fit.s_min_updates, color=MUTED, lw=0.9, ls=(0, (1, 2)), zorder=1)
        axes.annotate(f"least: {count(fit.s_min_updates)} updates", (0.01, fit.s_min_updates),
                      (0, -3), xycoords=axes.get_yaxis_transform(), color=MUTED, fontsize=7.5,
                      textcoords="offset points", va="top")  # fmt: skip


def _perfect(axes: Axes, places: np.ndarray, name: str, examples: float) -> None:
    """The line on which a larger batch costs no further example."""
    line = np.full_like(places, examples)
    if name == "updates_to_target":
        line = examples / 2**places
    axes.plot(places, line, color=MUTED, lw=0.9, ls=(0, (1, 2)), zorder=1)
    low, high = axes.get_ylim()
    inside = np.flatnonzero((line > low) & (line < high))
    if len(inside) < 3:
        return
    level = name != "updates_to_target"
    k = inside[-1] if level else inside[int(0.45 * (len(inside) - 1))]
    axes.annotate("perfect scaling", (places[k], line[k]), (-2, -3 if level else -4),
                  textcoords="offset points", ha="right", va="top", color=MUTED,
                  fontsize=7.5)  # fmt: skip


def _batch_sizes_beside(
    axes: Axes, critical: CriticalBatchSize | None, noise: Sequence[NoiseScaleSummary]
) -> None:
    """Along the foot: the critical batch size and the noise scales, each with its interval."""
    beside = (
        [("critical batch", INK, critical.value, critical.low, critical.high or math.inf)]
        if critical and critical.low is not None
        else []
    )
    for n in noise:
        if n.value is not None and n.value > 0:
            kind = "" if n.kind == "raw" else f" ({n.kind})"
            beside.append((f"noise scale{kind}", ACCENT, n.value, n.low or n.value,
                           n.high or math.inf))  # fmt: skip
    if critical is not None:
        axes.axvline(_log2(critical.value), color=INK, lw=0.8, zorder=1)
    if critical is not None and critical.low is not None:
        axes.axvspan(_log2(critical.low), _log2(critical.high or math.inf), color=INK, alpha=0.06,
                     lw=0, zorder=0)  # fmt: skip
    for k, (name, colour, value, low, high) in enumerate(beside):
        _along_the_foot(axes, 0.05 + 0.07 * k, name, colour, (low, value, high))


def _log2(size: float) -> float:
    """log2 of a batch size that may be none or without end, kept where it can be drawn."""
    return math.log2(min(max(size, 2.0**-20), 2.0**60))


def _along_the_foot(
    axes: Axes, height: float, name: str, colour: str, interval: tuple[float, float, float]
) -> None:
    first, last = axes.get_xlim()
    low, value, high = map(_log2, interval)
    across = axes.get_xaxis_transform()
    axes.plot([max(low, first), min(high, last)], [height] * 2, color=colour, lw=2.2, alpha=0.5,
              transform=across, zorder=2)  # fmt: skip
    at = min(max(value, first), last)
    beyond = ">" if value > last else "<" if value < first else "D"
    axes.plot(at, height, beyond, ms=5, color=colour, transform=across, clip_on=False, zorder=3)
    left = at > (first + last) / 2
    axes.annotate(f"{name} {count(interval[1])}", (at, height), (-7 if left else 7, 1.5),
                  xycoords=across, textcoords="offset points", va="bottom", fontsize=7.5,
                  ha="right" if left else "left", color=colour)  # fmt: skip


def scaling_caption(verdict: Verdict) -> str:
    """The fit, its goodness, and the noise scale beside it; or why there is no fit."""
    fit = verdict.critical_batch_size
    if fit is None:
        reason = verdict.critical_batch_size_reason or "there is no fit"
        return f"No critical batch size: {reason} Dotted: perfect scaling from the smallest batch."
    text = (
        f"Critical batch size {count(fit.value, fit.low, fit.high)} (band), from the fit "
        f"{count(fit.s_min_updates)} (1 + {count(fit.value)} / B) updates (dashed) over "
        f"{fit.runs} runs at {fit.batch_sizes} batch sizes: R² {fit.r_squared:.3f}, residuals "
        f"about {fit.residual:.0%}. Dotted: perfect scaling, and the fewest updates possible."
    )
    for n in verdict.noise_scale:
        if n.value is not None:
            kind = "" if n.kind == "raw" else f", {n.kind}"
            text += f" Noise scale{kind}: {count(n.value, n.low, n.high)}."
    return text


# --- learning-rate rule -----------------------------------------------------------------------


def rates(evidence: Evidence) -> Drawing | None:
    """The learning rate of each batch size against batch size, beside the two usual rules."""
    rule = evidence.verdict.learning_rate_rule
    known = [(r.batch_size, r.learning_rate) for r in evidence.verdict.per_batch_size
             if r.learning_rate]  # fmt: skip
    if rule is None or rule.exponent.value is None or len(known) < 2:
        return None
    figure, axes = panel("learning rate", "batch size", right=0.95)
    batch_axis(axes, [size for size, _ in known])
    log_axis(axes, "y", min(r for _, r in known) / 1.3, max(r for _, r in known) * 1.3)
    middle = np.mean([[math.log2(s), math.log(r)] for s, r in known], axis=0)
    places = np.linspace(*axes.get_xlim(), 2)
    ends = []
    for exponent, name, colour, style in (
        (rule.exponent.value, f"B^{rule.exponent.value:.2f}", INK, (0, (4, 2))),
        (1.0, "linear", MUTED, (0, (1, 2))),
        (0.5, "square root", MUTED, (0, (1, 2))),
    ):
        line = np.exp(middle[1] + exponent * math.log(2) * (places - middle[0]))
        axes.plot(places, line, color=colour, lw=1.1, ls=style, zorder=1)
        ends.append((places[-1], float(np.clip(line[-1], *axes.get_ylim())), name, colour))
    label_ends(axes, ends, at_edge=True)
    for size, rate in known:
        axes.plot(math.log2(size), rate, "o", ms=6.5, color=batch_colour(size))
    caption = rule.sentence
    return Drawing("learning-rate-rule", "Learning rate against batch size", caption, (figure,))


# --- generalization ---------------------------------------------------------------------------


def accuracy(evidence: Evidence) -> Drawing | None:
    """Test accuracy at the common budget and at equal updates, and the train-to-test gap."""
    found = evidence.verdict.generalization
    if found is None:
        return None
    at_budget = {row.batch_size: row.test_accuracy for row in found.rows}
    at_updates = {row.batch_size: row.test_accuracy_at_equal_updates for row in found.rows}
    gaps = {row.batch_size: row.train_to_test_gap for row in found.rows}
    panels = [
        _estimates_panel("test accuracy", (("common budget", at_budget),
                                           ("equal updates", at_updates))),
        _estimates_panel("train accuracy - test accuracy", (("common budget", gaps),)),
    ]  # fmt: skip
    drawn = tuple(p for p in panels if p is not None)
    if not drawn:
        return None
    ends = [(e.value, size) for size, e in at_budget.items() if e.value is not None]
    caption = found.sentence
    if len(ends) > 1:
        (least, low), (most, high) = min(ends), max(ends)
        caption += (
            f" At the common budget from {quantity(least, digits=4)} at {low} to "
            f"{quantity(most, digits=4)} at {high}."
        )
    if any(e.value is not None for e in at_updates.values()):
        caption += " Open: at equal updates."
    return Drawing("accuracy", "Accuracy against batch size", caption, drawn)


def _estimates_panel(
    title: str, series: Sequence[tuple[str, dict[int, Estimate]]]
) -> Figure | None:
    """Estimates against batch size; the first series filled, the second open, named at the end."""
    drawn = [(name, {s: e for s, e in found.items() if e.value is not None})
             for name, found in series]  # fmt: skip
    drawn = [(name, found) for name, found in drawn if found]
    if not drawn or len(drawn[0][1]) < 2:
        return None
    figure, axes = panel(title, "batch size", right=1.1 if len(drawn) > 1 else 0.2)
    batch_axis(axes, sorted({size for _, found in drawn for size in found}))
    ends = []
    for k, (name, found) in enumerate(drawn):
        offset = 0.12 * (k - (len(drawn) - 1) / 2)
        xs = [math.log2(size) + offset for size in found]
        ys = [e.value or 0.0 for e in found.values()]
        axes.plot(xs, ys, color=MUTED, lw=0.8, ls="-" if k == 0 else (0, (4, 2)), zorder=1)
        for x, (size, e) in zip(xs, found.items(), strict=True):
            colour = batch_colour(size)
            if e.low is not None and e.high is not None:
                axes.plot([x, x], [e.low, e.high], color=colour, lw=1.4)
            axes.plot(
                [x],
                [e.value or 0.0],
                "o",
                ms=6,
                mec=colour,
                mfc=colour if k == 0 else PAPER,
                mew=1.4,
            )
        ends.append((xs[-1], ys[-1], name, MUTED))
    if len(drawn) > 1:
        label_ends(axes, ends, at_edge=True)
    return figure


# --- how the answer moves ---------------------------------------------------------------------


def sensitivity(evidence: Evidence) -> Drawing | None:
    """Time (or the judged quantity) of each batch size against the target; the answers ringed."""
    verdict = evidence.verdict
    name = principal_quantity(verdict)
    targets = sorted({r.target for r in evidence.runs if r.target is not None})
    lines = {size: _medians_by_target(evidence.runs, size, name) for size in evidence.sizes}
    values = [v for line in lines.values() for v in line.values()]
    if len(targets) < 2 or not values or not any(len(line) > 1 for line in lines.values()):
        return None
    title, factor = unit_of(name, max(values))
    figure, axes = panel(title, "target", right=0.5)
    _target_axis(axes, targets)
    log_axis(axes, "y", min(values) / factor, max(values) / factor)
    place = _target_place(targets)
    for size, line in lines.items():
        axes.plot([place(t) for t in line], [v / factor for v in line.values()], "o-", ms=3.2,
                  color=batch_colour(size), lw=1.3)  # fmt: skip
    last = [(line, size) for size, line in lines.items() if line]
    label_ends(axes, [(place(max(line)), line[max(line)] / factor, str(size), batch_colour(size))
                      for line, size in last])  # fmt: skip
    for answer in verdict.sensitivity:
        used = () if answer.use is None else (answer.use,)
        _ring_answers(axes, answer.target, (*answer.tied_batch_sizes, *used), answer.use, lines,
                      place, factor)  # fmt: skip
    return Drawing(
        "sensitivity", "How the answer moves with the target", sensitivity_caption(verdict),
        (figure,),
    )  # fmt: skip


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


def _as_accuracy(targets: Sequence[float]) -> bool:
    return all(0 <= t < 1 for t in targets)


def _target_place(targets: Sequence[float]) -> Callable[[float], float]:
    return axis_of if _as_accuracy(targets) else float


def _target_axis(axes: Axes, targets: Sequence[float]) -> None:
    """Accuracies with equal steps for equal factors of the error; anything else as it is."""
    place = _target_place(targets)
    places = [place(t) for t in targets]
    pad = 0.06 * (places[-1] - places[0])
    axes.set_xlim(places[0] - pad, places[-1] + pad)
    if len(targets) <= 8:
        axes.set_xticks(places, [target_name(t) for t in targets])
    elif _as_accuracy(targets):
        accuracy_axis(axes, "x", targets[0], targets[-1])


def _ring_answers(
    axes: Axes, target: float | None, tied: Sequence[int], recommended: int | None,
    lines: dict[int, dict[float, float]], place: Callable[[float], float], factor: float,
) -> None:  # fmt: skip
    """At one target: a pale ring round each tied batch size, a green one round the one to use."""
    for size in tied:
        value = lines.get(size, {}).get(target) if target is not None else None
        if target is None or value is None:
            continue
        chosen = size == recommended
        axes.plot(place(target), value / factor, "o", ms=10 if chosen else 8, mfc="none",
                  mec=RECOMMENDED if chosen else MUTED, mew=1.8 if chosen else 0.8,
                  zorder=4)  # fmt: skip


def sensitivity_caption(verdict: Verdict) -> str:
    """The batch size to use at each target, and who else is tied with it."""
    parts = []
    for answer in verdict.sensitivity:
        size = answer.use
        text = f"{target_name(answer.target)}: {size if size is not None else answer.status}"
        others = [b for b in answer.tied_batch_sizes if b != size]
        if size is not None and others:
            text += f" (tied: {', '.join(map(str, others))})"
        parts.append(text)
    rings = "Green rings: the one to use; thin rings: equal to it."
    return f"To use at each target: {'; '.join(parts)}. {rings}"


# --- trade-offs -------------------------------------------------------------------------------


def trade_offs(evidence: Evidence) -> Drawing | None:
    """Time against memory, and against validation accuracy; the Pareto set filled."""
    verdict = evidence.verdict
    name = principal_quantity(verdict)
    panels = [
        _trade_off_panel(verdict, name, "peak memory, MiB",
                         {r.batch_size: r.peak_memory_mib for r in verdict.per_batch_size}),
        _trade_off_panel(verdict, name, "validation accuracy at the end",
                         {r.batch_size: r.val_accuracy.value for r in verdict.per_batch_size}),
    ]  # fmt: skip
    drawn = tuple(p for p in panels if p is not None)
    if not drawn or not verdict.pareto.batch_sizes:
        return None
    axes = ", ".join(NAMES.get(axis, axis.replace("_", " ")) for axis in verdict.pareto.axes)
    members = ", ".join(map(str, verdict.pareto.batch_sizes))
    caption = (
        f"Filled: batch sizes {members}, which no other one beats on every one of {axes}. Open: "
        "beaten on all of them by another."
    )
    return Drawing("trade-offs", "Time, memory and accuracy", caption, drawn)


def _trade_off_panel(
    verdict: Verdict, name: str, title: str, others: dict[int, float | None]
) -> Figure | None:
    points = [
        (e.value, other, row.batch_size)
        for row in verdict.per_batch_size
        if (e := estimate(row, name, verdict)).value is not None
        and (other := others[row.batch_size]) is not None
    ]
    if len(points) < 3:
        return None
    x_title, factor = unit_of(name, max(x or 0.0 for x, _, _ in points))
    figure, axes = panel(title, x_title)
    xs, ys = [(x or 0.0) / factor for x, _, _ in points], [y for _, y, _ in points]
    log_axis(axes, "x", min(xs), max(xs) * 1.1)
    room = 0.15 * ((max(ys) - min(ys)) or abs(ys[0]) or 1.0)
    axes.set_ylim(min(ys) - room, max(ys) + room)
    for x, (_, y, size) in zip(xs, points, strict=True):
        colour = batch_colour(size)
        kept = size in verdict.pareto.batch_sizes
        axes.plot([x], [y], "o", ms=8, mec=colour, mfc=colour if kept else PAPER, mew=1.6)
        axes.annotate(str(size), (x, y), (7, 0), textcoords="offset points", va="center",
                      color=colour, weight="bold" if kept else "normal")  # fmt: skip
    return figure
