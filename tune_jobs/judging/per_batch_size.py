"""What the runs say of each batch size, as a row of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

from tune_jobs.judging.comparing import Comparison
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.devices import judged_on
from tune_jobs.judging.intervals import estimate, mean, mean_at_least, typical
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import (
    ACCURACY,
    ENERGY,
    EXAMPLES,
    MEMORY,
    TIME,
    UPDATES,
    Quantity,
    known_limits,
    sample_of,
)
from tune_jobs.records import BatchSizeProfile, TargetRun
from tune_jobs.verdicts import BatchSizeVerdict, Estimate

NOTHING = Estimate(None, None, None)
Shown = Mapping[str, Mapping[int, Estimate]]
SHOWN = (TIME, EXAMPLES, UPDATES, ENERGY, ACCURACY)
# Shown beside the others; no choice is made from it.
TEST_ACCURACY = Quantity(
    "test_accuracy",
    lambda run: run.test_accuracy,
    lambda run: None,
    by_target=False,
    larger_is_better=True,
)


def shown_beside(
    runs: Sequence[TargetRun], every_target: Sequence[TargetRun], policy: Policy
) -> Shown:
    """Each quantity that is shown whatever the goal, by its name and by batch size."""
    return {q.name: estimates(q, runs, every_target, policy) for q in (*SHOWN, TEST_ACCURACY)}


def rows_of(
    contest: Contest, shown: Shown, profiles: Sequence[BatchSizeProfile], policy: Policy
) -> tuple[BatchSizeVerdict, ...]:
    """One row for each batch size, ascending."""
    return tuple(
        BatchSizeVerdict(
            batch_size=size,
            standing=standing(contest, index),
            within_tolerance=bool(contest.decision.within[index]),
            ratio_to_best=ratio_to_best(contest, index, policy.confidence),
            seeds=int(contest.seeds[index]),
            reached=int(contest.reached[index]),
            **_judged(contest, index, policy),
            **_shown(size, shown),
            **_costs([run for run in contest.runs if run.batch_size == size]),
            **_fit(size, profiles),
        )
        for index, size in enumerate(contest.batch_sizes)
    )


def _shown(size: int, estimated: Shown) -> dict[str, Any]:
    return {name: of.get(size, NOTHING) for name, of in estimated.items()}


def estimates(
    quantity: Quantity,
    runs: Sequence[TargetRun],
    every_target: Sequence[TargetRun],
    policy: Policy,
) -> dict[int, Estimate]:
    """By batch size; empty where no run has the quantity."""
    kept = judged_on(runs, quantity)
    if all(quantity.of(run) is None for run in kept):
        return {}
    limits = known_limits(judged_on(every_target, quantity), quantity)
    sample = sample_of(kept, quantity, limits)
    of = typical(sample, policy.confidence)
    return {size: estimate(quantity, of, i) for i, size in enumerate(sample.batch_sizes)}


def standing(contest: Contest, index: int) -> str:
    """One of records.STANDINGS."""
    if index in contest.decision.tied:
        return "tied"
    return "slower" if contest.field.candidates[index] else "unreached"


def ratio_to_best(contest: Contest, index: int, confidence: float) -> Estimate:
    """Over the best other batch size; ends are None where they cannot be told."""
    found = contest.comparison
    others = [i for i in np.flatnonzero(contest.field.candidates) if i != index]
    if not others:
        return NOTHING
    best = int(min(others, key=lambda i: found.middle[i]))
    if not math.isfinite(found.middle[index]) or not math.isfinite(found.middle[best]):
        return NOTHING
    return ratio(found, index, best, confidence)


def ratio(found: Comparison, index: int, other: int, confidence: float) -> Estimate:
    """The one's typical quantity over the other's (of an accuracy: the error rates)."""
    middle, error = float(found.difference[index, other]), float(found.error[index, other])
    freedom = float(found.freedom[index, other])
    if not math.isfinite(error) or not freedom > 0:
        return Estimate(math.exp(middle), None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(*(_exp(middle + part * half) for part in (0, -1, 1)))


def _exp(value: float) -> float | None:
    return math.exp(value) if abs(value) < 700 else None


def _judged(contest: Contest, index: int, policy: Policy) -> dict[str, Any]:
    """Median and mean of the verdict's own quantity."""
    of, quantity, sample = contest.typical, contest.quantity, contest.sample
    middle = estimate(quantity, of, index)
    average = mean(quantity, sample, of, index, policy.confidence)
    return {
        "median": middle.value,
        "low": middle.low,
        "high": middle.high,
        "mean": average.value,
        "mean_low": average.low,
        "mean_high": average.high,
        "mean_at_least": mean_at_least(sample, index),
    }


def _costs(runs: Sequence[TargetRun]) -> dict[str, Any]:
    """What a batch size's runs cost by the clock and in memory, and the rate they trained at."""
    timed = [
        (run.measured_time_to_target_seconds, run.time_to_target_seconds)
        for run in runs
        if run.measured_time_to_target_seconds and run.time_to_target_seconds
    ]
    return {
        "measured_time_to_target_seconds": _median([clock for clock, _ in timed]),
        "measured_to_predicted": _median([clock / predicted for clock, predicted in timed]),
        "learning_rate": _median([run.learning_rate for run in runs]),
        "examples_per_second": _median([run.examples_per_second for run in runs]),
        "peak_memory_mib": _median([MEMORY.of(run) for run in runs]),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _fit(size: int, profiles: Sequence[BatchSizeProfile]) -> dict[str, Any]:
    mine = [p for p in profiles if p.batch_size == size]
    finished = [p for p in mine if p.outcome == "finished"]
    chosen = next((p for p in finished if p.chosen), None)
    return {
        "micro_batch_size": chosen.micro_batch_size if chosen else None,
        "fits": bool(finished) if mine else None,
    }
