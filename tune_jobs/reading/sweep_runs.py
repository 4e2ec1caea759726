"""A sweep's trials as runs that can be judged: at its own target, and at others near it.

The confirm runs of a batch size are its runs. A batch size without any (the search alone has
ended, or confirming was interrupted) is shown by the best trial of its search: one run, which
can decide nothing.

The sweep's target is taken as each run found it. Other targets are read from the learning curves,
between evaluations, linearly in the logarithm of the examples seen; they show how the answer moves
with the target and carry `interpolated=True`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.reading.choosing import best_trial
from tune_jobs.records import Measurement, TargetRun, TrialResult
from tune_jobs.training.schedule import crossing, resolution
from tune_jobs.workload import reaches

Curve = tuple[tuple[float, float], ...]
NEARLY = 0.98  # of the budget counts as all of it
EQUAL_UPDATES = 1.1  # updates count as equal within this factor


def runs_of_sweep(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    measurements: Sequence[Measurement],
    also: float | None = None,
) -> list[TargetRun]:
    """One row for each run and target, by batch size, seed and target; `also` is a further target.

    Runs that failed (`outcome` is `failed`: the machine's fault or the program's) say nothing of
    their batch size and are left out; those that diverged, ran out of memory or were stopped never
    reached what they had not reached by then.
    """
    workload = config.workload_name
    chosen = runs_to_judge(trials)
    by_trial = _by_trial(measurements)
    curves = {t.trial_id: curve(t, by_trial.get(t.trial_id, ())) for t in chosen}
    at_the_end = config.training.ends_with_the_budget
    targets = [] if at_the_end else other_targets(chosen, curves, config.target, config.mode)
    if also is not None and not math.isclose(also, config.target):
        targets = sorted({*targets, also})
    updates = updates_of_largest(chosen)
    rows = []
    for trial in chosen:
        equal = test_at_updates(by_trial.get(trial.trial_id, ()), updates)
        own = _own_target(trial, workload, equal, config.unit)
        if config.own_loop:  # between two reports nothing is known
            own = replace(own, resolution=_between_reports(own, by_trial.get(trial.trial_id, ())))
        rows.append(_never(own) if at_the_end else own)
        rows += [_at_target(own, target, curves[trial.trial_id], trial) for target in targets]
    return sorted(rows, key=lambda row: (row.batch_size, row.seed or 0, row.target or 0))


def runs_to_judge(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The confirm runs of each batch size at the rate that it was confirmed at last, the longest of
    each seed, else its best search trial.

    One that was made again for longer keeps what it took to the target before.
    """
    usable = [t for t in trials if t.outcome != "failed"]
    chosen: list[TrialResult] = []
    for size in sorted({t.batch_size for t in usable}):
        of = [t for t in usable if t.batch_size == size]
        confirmed: dict[int, TrialResult] = {}
        for t in sorted(confirmed_at_last(of), key=lambda t: t.examples_seen):
            confirmed[t.seed] = _as_before(t, confirmed.get(t.seed))
        best = best_trial([t for t in of if t.stage == "search"])
        chosen += confirmed.values() or ([best] if best else [])
    return chosen


def confirmed_at_last(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The confirm runs, of each batch size those at the learning rate of the one that ended last:
    where a search that went on found a better rate, what ran at another is not judged."""
    of = [t for t in trials if t.stage == "confirm" and t.outcome != "failed"]
    last = {t.batch_size: t.learning_rate for t in of}
    return [t for t in of if t.learning_rate == last[t.batch_size]]


def _as_before(trial: TrialResult, shorter: TrialResult | None) -> TrialResult:
    """It is the same run: the target was crossed where it was, and what is judged stays."""
    if shorter is None or shorter.examples_to_target is None:
        return trial
    clock = trial if trial.alone else shorter
    return replace(
        trial,
        alone=clock.alone,
        measured_time_to_target_seconds=clock.measured_time_to_target_seconds,
        examples_to_target=shorter.examples_to_target,
        updates_to_target=shorter.updates_to_target,
        time_to_target_seconds=shorter.time_to_target_seconds,
    )


def scheduled_runs(
    config: SweepConfig, trials: Sequence[TrialResult], schedule: str
) -> list[TargetRun]:
    """The runs of a batch schedule at the sweep's target, one of each seed. No other function here
    gives any: they say nothing of a fixed batch size."""
    of = (t for t in trials if t.stage == "schedule" and t.schedule == schedule)
    usable = [t for t in of if t.outcome != "failed"]
    of_seed = {t.seed: t for t in sorted(usable, key=lambda t: t.examples_seen)}
    return [_own_target(t, config.workload_name, None, config.unit) for t in of_seed.values()]


def tried_runs(config: SweepConfig, trials: Sequence[TrialResult]) -> list[TargetRun]:
    """What tells of learning rates, at the sweep's target: the search's trials, from which rates
    were chosen, and all confirm runs, each as it went on longest."""
    of = [t for t in trials if t.stage in ("search", "confirm") and t.outcome != "failed"]
    longest: dict[object, TrialResult] = {}
    for t in sorted(of, key=lambda t: t.examples_seen):
        again = (t.batch_size, t.seed, t.learning_rate)
        longest[again if t.stage == "confirm" else t.trial_id] = t
    return [_own_target(t, config.workload_name, None, config.unit) for t in longest.values()]


def _by_trial(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for row in sorted(measurements, key=lambda row: row.examples_seen):
        found.setdefault(row.trial_id, []).append(row)
    return found


def curve(trial: TrialResult, measurements: Iterable[Measurement]) -> Curve:
    """The trial's (examples seen, validation metric), its own crossing of its target included."""
    points = {m.examples_seen: m.val_metric for m in measurements if m.val_metric is not None}
    if trial.examples_to_target is not None:
        points.setdefault(trial.examples_to_target, trial.target)
    return tuple(sorted(points.items()))


def other_targets(
    trials: Sequence[TrialResult], curves: Mapping[str, Curve], own: float, mode: str = "max"
) -> list[float]:
    """Up to six targets that the curves cover, evenly spaced in the logarithm of the error: what a
    fraction lacks of 1, of which more is better, or else of a positive metric itself; evenly as
    they are where some are not positive.

    They begin where no run had arrived at its first evaluation, so that every crossing lies between
    two, and end at the best that the median run of some batch size reached. Rounded to two digits
    of the error or of the step; none within a tenth of the own target's error.
    """
    usable = [t for t in trials if curves[t.trial_id]]
    if not usable:
        return []
    best_of = max if mode == "max" else min
    first = best_of(curves[t.trial_id][0][1] for t in usable)
    best: dict[int, list[float]] = {}
    for t in usable:
        best.setdefault(t.batch_size, []).append(best_of(v for _, v in curves[t.trial_id]))
    last = best_of(median(of) for of in best.values())
    if first == last or not reaches(last, first, mode):
        return []
    if mode == "max" and 0 <= first < last <= 1:
        errors = _of_errors(1 - first, 1 - last, 1 - own)
        return sorted(round(1 - e, 6) for e in errors)
    return _between(first, last, own)


def _of_errors(first: float, last: float, own: float) -> set[float]:
    """From the first to the last, or to a hundredth of the first."""
    least = max(last, first / 100)
    errors = [float(f"{first * (least / first) ** (k / 5):.2g}") for k in range(6)]
    return {e for e in errors if last <= e <= first and abs(e - own) > 0.1 * own}


def _between(first: float, last: float, own: float) -> list[float]:
    """From the first to the last, by equal factors where both are positive (100 at the most)."""
    if min(first, last) > 0:
        furthest = min(max(last, first / 100), 100 * first)
        values, near = np.geomspace(first, furthest, 6), 0.1 * own
    else:
        values, near = np.linspace(first, last, 6), 0.1 * abs(last - first)
    decimals = 1 - math.floor(math.log10(min(abs(np.diff(values)))))
    low, high = sorted((first, last))
    rounded = {round(float(v), decimals) for v in values}
    return sorted(v for v in rounded if low <= v <= high and abs(v - own) > near)


def updates_of_largest(trials: Sequence[TrialResult]) -> int | None:
    """The updates that the largest batch size makes in its whole budget."""
    largest = max(trials, key=lambda t: t.batch_size, default=None)
    if largest is None:
        return None
    return max(1, math.ceil(largest.budget_examples / largest.batch_size))


def test_at_updates(measurements: Sequence[Measurement], updates: int | None) -> float | None:
    """The test metric at the measurement nearest to so many updates; None if none is near."""
    tested = [m for m in measurements if m.test_metric is not None]
    if updates is None or not tested:
        return None
    nearest = min(tested, key=lambda m: abs(m.updates - updates))
    equal = updates / EQUAL_UPDATES <= nearest.updates <= updates * EQUAL_UPDATES
    return nearest.test_metric if equal else None


def as_if_whole(trial: TrialResult) -> TrialResult:
    """A run that diverged without reaching counts as one that used its whole budget in vain.

    It would never have reached, however long it had gone on; where it broke off says nothing of how
    fast its batch size is.
    """
    seen, budget, joules = trial.examples_seen, trial.budget_examples, trial.energy_joules
    if trial.outcome != "diverged" or trial.examples_to_target is not None or not 0 < seen < budget:
        return trial
    return replace(
        trial,
        examples_seen=budget,
        updates=math.ceil(budget / trial.batch_size),
        train_seconds=trial.train_seconds * budget / seen,
        energy_joules=None if joules is None else joules * budget / seen,
    )


def _own_target(
    trial: TrialResult, workload: str, at_equal_updates: float | None, unit: str
) -> TargetRun:
    """The trial at the sweep's target, exactly as it found it."""
    enough = NEARLY * trial.budget_examples  # a loop of the user's own may leave a last batch out
    whole = trial.outcome == "finished" and trial.examples_seen >= enough
    alone = trial.alone or (trial.alone is None and trial.stage == "confirm")
    on_own_cores = trial.stage == "confirm" and trial.cpus >= 1 and not trial.gpus
    trial = as_if_whole(trial)
    return TargetRun(
        workload=workload,
        batch_size=trial.batch_size,
        seed=trial.seed,
        target=trial.target,
        time_to_target_seconds=trial.time_to_target_seconds,
        examples_to_target=trial.examples_to_target,
        updates_to_target=trial.updates_to_target,
        interpolated=False,
        examples_seen=trial.examples_seen,
        updates=trial.updates,
        train_seconds=trial.train_seconds,
        measured_time_to_target_seconds=(
            trial.measured_time_to_target_seconds if alone or on_own_cores else None
        ),
        learning_rate=trial.learning_rate,
        examples_per_second=trial.examples_per_second,
        peak_memory_mib=trial.peak_memory_mib,
        energy_joules=trial.energy_joules,
        val_accuracy=trial.val_accuracy if whole else None,
        train_accuracy=trial.train_accuracy if whole else None,
        test_accuracy=trial.test_accuracy if whole else None,
        test_accuracy_at_equal_updates=at_equal_updates if trial.metric == "accuracy" else None,
        device=trial.device,
        resolution=known_within(trial.examples_to_target, trial),
        metric=trial.metric,
        mode=trial.mode,
        unit=unit,
        alone=alone,
        **({} if trial.metric == "accuracy" else _other_metric(trial, whole, at_equal_updates)),
    )


def _between_reports(run: TargetRun, measurements: Sequence[Measurement]) -> float | None:
    """Within what part of itself a crossing is known that was seen at a report."""
    at = run.examples_to_target
    if at is None:
        return None
    before = [m.examples_seen for m in measurements if m.examples_seen < at]
    return (at - max(before, default=0)) / at


def _never(run: TargetRun) -> TargetRun:
    """A run whose rate ended with its budget reached the target there, or never: going on would be
    another recipe, so where it ended is no bound of what it takes."""
    if run.examples_to_target is not None:
        return run
    return replace(run, examples_seen=None, updates=None, train_seconds=None)


def _other_metric(
    trial: TrialResult, whole: bool, at_equal_updates: float | None
) -> dict[str, Any]:
    """Of a metric that is no accuracy: at the end of a whole run, and at equal updates."""
    ended = {name: getattr(trial, name) for name in ("val_metric", "test_metric", "train_metric")}
    known = ended if whole else dict.fromkeys(ended)
    return known | {"test_metric_at_equal_updates": at_equal_updates}


def known_within(examples: float | None, trial: TrialResult) -> float | None:
    """The part of themselves that the trial's examples to a target are known to."""
    if examples is None:
        return None
    return resolution(examples, trial.budget_examples, trial.batch_size)


def _at_target(own: TargetRun, target: float, points: Curve, trial: TrialResult) -> TargetRun:
    """The same run at another target; its seconds are proportional to its examples."""
    examples = crossing(points, target, trial.mode)
    seconds = None
    if examples is not None and own.train_seconds is not None and own.examples_seen:
        seconds = own.train_seconds * examples / own.examples_seen
    return replace(
        own,
        target=target,
        time_to_target_seconds=seconds,
        examples_to_target=examples,
        updates_to_target=None if examples is None else examples / own.batch_size,
        interpolated=True,
        measured_time_to_target_seconds=None,
        resolution=known_within(examples, trial),
    )
