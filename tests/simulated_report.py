"""A simulated sweep with a verdict, and the page of its report as it is read: for several tests."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests import rows
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.page.html import write_report
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    ClosedForm,
    CriticalBatchSize,
    Estimate,
    Generalization,
    GeneralizationRow,
    GoalAnswer,
    LearningRateRule,
    NoiseScaleSummary,
    Pareto,
    RuleCost,
    TargetAnswer,
    Use,
    Verdict,
)


@dataclass(frozen=True)
class Sweep:
    """A simulated sweep: what a store would hold."""

    profiles: list[BatchSizeProfile]
    trials: list[TrialResult]
    measurements: list[Measurement]
    runs: list[TargetRun]
    noise: list[NoiseScale]


FIRST, PER_EXAMPLE, S_MIN, B_CRIT, BUDGET = 0.006, 0.0011, 44.0, 70.0, 24_576
TARGETS = (0.9, 0.93, 0.95, 0.965, 0.975)
SIZES = (16, 32, 64, 128, 256, 512)


def accuracy_after(examples: float, needed: float) -> float:
    """A learning curve that passes 0.95 at `needed` examples and ends near 0.988."""
    return 0.988 - 0.888 * (1 + 9.7 * examples / needed) ** -1.332


def examples_until(target: float, needed: float) -> float:
    return (((0.888 / (0.988 - target)) ** (1 / 1.332)) - 1) * needed / 9.7


def simulated(sizes: Sequence[int] = SIZES, seeds: int = 3, spread: float = 0.06) -> Sweep:
    """Log-normal updates to target around S_min (1 + B_crit / B); seconds are a + b B an update."""
    draw = random.Random(4)
    sweep = Sweep([], [], [], [], [])
    for size in sizes:
        step = FIRST + PER_EXAMPLE * size * (1 + 0.02 * draw.gauss(0, 1))
        sweep.profiles.append(profile_of(size, step))
        best_rate = 0.002 * (size / 64) ** 0.6
        for k in range(5):
            rate = best_rate * 10 ** draw.uniform(-0.9, 0.9)
            needed = needed_examples(size, draw.gauss(0, spread))
            needed *= math.exp(0.9 * math.log(rate / best_rate) ** 2)
            add_trial(sweep, "search", size, k, rate, step, needed)
        for seed in range(seeds):
            needed = needed_examples(size, draw.gauss(0, spread))
            add_trial(sweep, "confirm", size, seed, best_rate, step, needed)
    for k, examples in enumerate((256, 4096, 16_384)):
        scale = 60.0 * 2**k
        sweep.noise.append(
            rows.noise_scale(
                examples_seen=examples, noise_scale=scale, low=0.7 * scale, high=1.4 * scale
            )
        )
    return sweep


def needed_examples(size: int, noise: float) -> float:
    return S_MIN * (1 + B_CRIT / size) * size * math.exp(noise)


def profile_of(size: int, step: float) -> BatchSizeProfile:
    fits = size < 1024
    return rows.profile(
        batch_size=size, micro_batch_size=size, step_seconds=step if fits else None,
        step_seconds_low=step * 0.98 if fits else None, timed_updates=40,
        step_seconds_high=step * 1.02 if fits else None,
        examples_per_second=size / step if fits else None,
        peak_memory_mib=520 + 0.9 * size if fits else None, memory_limit_mib=1300.0,
        outcome="finished" if fits else "out_of_memory",
        training_memory_mib=500 + 0.9 * size if fits else None,
        reason=None if fits else "needs about 1441 MiB, the limit is 1300 MiB",
    )  # fmt: skip


def add_trial(
    sweep: Sweep, stage: str, size: int, seed: int, rate: float, step: float, needed: float
) -> None:
    trial_id = f"{stage}-{size}-{seed}"
    reached = needed <= BUDGET
    per_example = step / size
    ends = BUDGET if stage == "confirm" or reached else BUDGET // 3
    for k in range(1, 25):
        at = round(BUDGET * (k / 24) ** 1.6)
        if at <= ends:
            sweep.measurements.append(curve_point(trial_id, stage, size, at, step, needed, k))
    end = accuracy_after(ends, needed)
    sweep.trials.append(
        rows.result(
            trial_id=trial_id, name=trial_id, stage=stage, batch_size=size, seed=seed,
            micro_batch_size=size, learning_rate=rate, target=0.95, budget_examples=BUDGET,
            base_learning_rate=rate * (256 / size) ** 0.5, examples_seen=ends,
            updates=ends // size, examples_to_target=round(needed) if reached else None,
            updates_to_target=round(needed / size) if reached else None,
            time_to_target_seconds=needed * per_example if reached else None,
            train_seconds=ends * per_example, measured_train_seconds=ends * per_example * 1.02,
            outcome="finished" if ends == BUDGET else "stopped", val_accuracy=end,
            test_accuracy=end - 0.002, train_accuracy=min(end + 0.004, 1.0),
            peak_memory_mib=520 + 0.9 * size, examples_per_second=1 / per_example,
        )
    )  # fmt: skip
    if stage == "confirm":
        sweep.runs.extend(target_runs(sweep.trials[-1], needed))


def curve_point(
    trial_id: str, stage: str, size: int, at: int, step: float, needed: float, k: int
) -> Measurement:
    seconds = at * step / size
    wiggle = 0.004 * math.sin(2.3 * k + size) * (BUDGET - at) / BUDGET
    return rows.measurement(
        trial_id=trial_id, stage=stage, batch_size=size, examples_seen=at, updates=at // size,
        val_accuracy=accuracy_after(at, needed) + wiggle, train_seconds=seconds,
        wall_time_seconds=seconds * 1.3,
    )  # fmt: skip


def target_runs(trial: TrialResult, needed: float) -> list[TargetRun]:
    """The confirm run judged at each target."""
    per_example = trial.train_seconds / trial.examples_seen
    found = []
    for target in TARGETS:
        at = examples_until(target, needed)
        reached = at <= BUDGET
        found.append(
            rows.target_run(
                workload="mnist", batch_size=trial.batch_size, seed=trial.seed, target=target,
                time_to_target_seconds=at * per_example if reached else None,
                examples_to_target=at if reached else None, interpolated=target != 0.95,
                updates_to_target=at / trial.batch_size if reached else None,
                examples_seen=BUDGET, updates=BUDGET // trial.batch_size,
                train_seconds=trial.train_seconds, learning_rate=trial.learning_rate,
                measured_time_to_target_seconds=at * per_example * 1.03 if reached else None,
                val_accuracy=trial.val_accuracy,
                examples_per_second=trial.examples_per_second,
                peak_memory_mib=trial.peak_memory_mib, train_accuracy=trial.train_accuracy,
                test_accuracy=trial.test_accuracy,
                test_accuracy_at_equal_updates=accuracy_after(48 * trial.batch_size, needed),
            )
        )  # fmt: skip
    return found


def in_metric(sweep: Sweep, metric: str, mode: str, of: Callable[[float], float]) -> Sweep:
    """The same sweep, had it measured another metric, which is `of` the accuracy."""

    def turned(accuracy: float | None) -> float | None:
        return None if accuracy is None else round(of(accuracy), 6)

    def renamed(row: Any) -> Any:
        splits = ("val", "test", "train")
        own = {f"{s}_metric": turned(getattr(row, f"{s}_accuracy")) for s in splits}
        own |= dict.fromkeys([f"{s}_accuracy" for s in splits])
        if not isinstance(row, Measurement):
            own |= {"metric": metric, "mode": mode, "target": turned(row.target)}
        if isinstance(row, TargetRun):
            at_updates = turned(row.test_accuracy_at_equal_updates)
            own |= {"test_metric_at_equal_updates": at_updates, "unit": "k$ [2020]"}
            own |= {"test_accuracy_at_equal_updates": None}
        return replace(row, **own)

    return replace(
        sweep,
        trials=[renamed(t) for t in sweep.trials],
        measurements=[renamed(m) for m in sweep.measurements],
        runs=[renamed(r) for r in sweep.runs],
    )


NONE = Estimate(None, None, None)


def summary(values: Sequence[float | None]) -> Estimate:
    """Median and range; a run that never reached counts as slower than all."""
    middle = statistics.median([math.inf if v is None else v for v in values])
    known = [v for v in values if v is not None]
    if not math.isfinite(middle):
        return Estimate(None, min(known, default=None), None)
    high = max(known) * 1.02 if len(known) == len(values) else None
    return (
        Estimate(middle, min(known) * 0.98, high)
        if len(values) > 1
        else Estimate(middle, None, None)
    )


def verdict_of(sweep: Sweep, target: float = 0.95, **changes: Any) -> Verdict:
    """A verdict as the judge would make one, near enough to draw it."""
    sizes = sorted({r.batch_size for r in sweep.runs})
    per_size = tuple(
        size_verdict([r for r in sweep.runs if r.batch_size == s and r.target == target])
        for s in sizes
    )
    known = [(r.median, r.batch_size) for r in per_size if r.median is not None]
    best = min(known, default=(None, None))
    tied = tuple(b for m, b in known if best[0] is not None and m <= 1.08 * best[0])
    per_size = tuple(
        replace(
            r,
            standing="used"
            if r.batch_size == min(tied, default=None)
            else "tied"
            if r.batch_size in tied
            else "slower"
            if r.median is not None
            else "unreached",
        )
        for r in per_size
    )
    reached = best[1] is not None
    answers = tuple(
        TargetAnswer(t, "tied", s, 0.04, (2 * s,), ())
        for t, s in zip(TARGETS, (64, 64, 32, 32, 16), strict=True)
    )
    fields = dict(
        workload=sweep.runs[0].workload, goal="time", quantity="time_to_target_seconds",
        target=target, status=("tied" if len(tied) > 1 else "decided") if reached else "unreached",
        metric="accuracy",
        answer=f"Use batch size {min(tied)}: expected within 2 % of the best, at 95 % within 9 %."
        if tied else "No batch size to use yet: no run reached the target.",
        change=None, use=Use(min(tied), 0.001, 0.02, 0.09, 3) if tied else None,
        why_not=None if tied else "None of 18 runs reached 0.95.", risk=0.02, risk_allowed=0.03,
        tied_batch_sizes=tied[1:], open_batch_sizes=(), settling=None,
        reason=f"{min(tied)} takes the least memory of the batch sizes that cannot be told from "
        "the fastest" if tied else "no batch size reached 0.95 in more than half of its runs",
        advice=None if reached else "raise --budget-examples or lower --target",
        binding_limit="statistics" if reached else None,
        limit_reason="512 is no faster per example than 128 (plateau) and needs 1.9 times the "
        "examples (beyond the critical batch size)" if reached else None,
        critical_batch_size=CriticalBatchSize(72.0, 58.0, 91.0, 43.0, 0.994, 0.04, 0.4,
                                              len(sizes), len(sizes) * 3) if reached else None,
        critical_batch_size_reason=None if reached else "fewer than three batch sizes reached it.",
        closed_form=ClosedForm(math.sqrt(FIRST / PER_EXAMPLE * 72), 17.0, 23.0, FIRST, PER_EXAMPLE,
                               True, "The closed form says 20, near the winner.")
        if reached else None,
        noise_scale=(NoiseScaleSummary("raw", 160.0, 110.0, 260.0, 40.0, 300.0, 4, None),)
        if sweep.noise else (),
        per_batch_size=per_size, infeasible_batch_sizes=(), generalization=generalization(per_size),
        sensitivity=answers,
        by_goal=(GoalAnswer("time", "time_to_target_seconds", "tied", 32, 0.09, (64,), (), "it"),
                 GoalAnswer("energy", "energy_joules", "unproven", None, None, (), (),
                            "no energy was measured")),
        pareto=Pareto(("time_to_target_seconds", "peak_memory_mib", "val_accuracy"), tied),
        learning_rate_rule=LearningRateRule(
            Estimate(0.6, 0.45, 0.74), len(sizes), False, True,
            (RuleCost("linear", 1.0, 64, 512, 0.016, 0.018, 1.9, None),
             RuleCost("square root", 0.5, 64, 512, 0.0056, None, None, "none tried near it")),
            "The best learning rate grows as B^0.60 [0.45, 0.74]: square root is plausible, "
            "linear is not."),
        rate_deviation={}, left_out=(), confidence=0.95, tolerance=0.05,
        warnings=("Only 3 seeds: intervals are wide.",),
    )  # fmt: skip
    return Verdict(**(fields | changes))  # type: ignore[arg-type]


def size_verdict(runs: Sequence[TargetRun]) -> BatchSizeVerdict:
    time = summary([r.time_to_target_seconds for r in runs])
    first = runs[0]
    return BatchSizeVerdict(
        batch_size=first.batch_size, standing="slower", expected_regret=0.1, regret_bound=0.3,
        ratio_to_best=NONE,
        seeds=len(runs), reached=sum(r.time_to_target_seconds is not None for r in runs),
        median=time.value, low=time.low, high=time.high, time_to_target_seconds=time,
        val_metric=NONE, train_seconds=first.train_seconds,
        examples_to_target=summary([r.examples_to_target for r in runs]),
        updates_to_target=summary([r.updates_to_target for r in runs]),
        measured_time_to_target_seconds=time.value and time.value * 1.03,
        measured_to_predicted=1.03 if time.value else None, learning_rate=first.learning_rate,
        examples_per_second=first.examples_per_second, peak_memory_mib=first.peak_memory_mib,
        energy_joules=NONE, val_accuracy=Estimate(0.97 - 2e-5 * first.batch_size, 0.95, 0.98),
        test_accuracy=Estimate(0.97, 0.96, 0.98), micro_batch_size=first.batch_size, fits=True,
    )  # fmt: skip


def generalization(per_size: Sequence[BatchSizeVerdict]) -> Generalization:
    found = []
    for k, row in enumerate(per_size):
        end, equal = 0.984 - 0.0015 * k, 0.90 + 0.016 * k
        found.append(GeneralizationRow(
            row.batch_size, Estimate(end, end - 0.002, end + 0.002),
            Estimate(0.006 - 0.0004 * k, 0.004 - 0.0004 * k, 0.008 - 0.0004 * k),
            Estimate(equal, equal - 0.004, equal + 0.004)))  # fmt: skip
    return Generalization(
        tuple(found),
        0.2,
        0.6,
        0.001,
        True,
        "At the common budget test accuracy cannot be told apart (p = 0.2).",
    )


class Page(HTMLParser):
    """A page that was read: its elements, and whether every one was closed in its turn."""

    EMPTY = frozenset({"meta", "br", "hr", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes what was not open"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self) -> list[str]:
        return [str(figure["data-figure"]) for figure in self.all("figure")]


FIGURES = [
    "time-to-target", "updates-and-examples", "throughput-and-memory", "learning-rate-valleys",
    "learning-rate-rule", "learning-curves", "noise-scale", "accuracy", "sensitivity",
    "trade-offs",
]  # fmt: skip
FACTS = {"seeds": 3, "versions": {"torch": "2.15.0"}, "sizes": (16, 32), "commit": None}


def report(folder: Path, sweep: Sweep, verdict: Verdict | None = None, **more: Any) -> Page:
    """The page of a whole sweep."""
    made = [verdict or verdict_of(sweep)]
    path = write_report(
        folder, made, sweep.runs, sweep.profiles, sweep.noise, sweep.trials, sweep.measurements,
        title="first", facts=FACTS, **more,
    )  # fmt: skip
    return Page(path.read_text())
