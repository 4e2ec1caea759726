"""What the runs say of each batch size, as a row of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from tune_jobs.judging.contest import Contest
from tune_jobs.judging.devices import judged_on
from tune_jobs.judging.intervals import estimate, typical
from tune_jobs.judging.outlook import part
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import (
    ACCURACY,
    ENERGY,
    EXAMPLES,
    MEMORY,
    TEST_ACCURACY,
    TIME,
    UPDATES,
    Quantity,
    known_limits,
    metric_of,
    sample_of,
    without_ratio,
)
from tune_jobs.judging.sentences import ratio_over
from tune_jobs.records import BatchSizeProfile, TargetRun
from tune_jobs.verdicts import BatchSizeVerdict, Estimate

NOTHING = Estimate(None, None, None)
Shown = Mapping[str, Mapping[int, Estimate]]
SHOWN = (TIME, EXAMPLES, UPDATES, ENERGY, ACCURACY)


def shown_beside(
    runs: Sequence[TargetRun], every_target: Sequence[TargetRun], policy: Policy
) -> Shown:
    """Each quantity that is shown whatever the goal, by its name and by batch size."""
    shown = {q.name: estimates(q, runs, every_target, policy) for q in (*SHOWN, TEST_ACCURACY)}
    for split in ("val", "test"):
        own = metric_of(runs, split)
        known = own.name not in shown and not without_ratio(own, runs)
        alone = {} if own.name in shown else medians_of(own, runs)
        shown[f"{split}_metric"] = estimates(own, runs, every_target, policy) if known else alone
    return shown


def medians_of(quantity: Quantity, runs: Sequence[TargetRun]) -> dict[int, Estimate]:
    """By batch size, of what has no ratios, whose interval the posterior cannot tell."""
    found: dict[int, list[float | None]] = {}
    for run in runs:
        found.setdefault(run.batch_size, []).append(quantity.of(run))
    return {size: Estimate(_median(values), None, None) for size, values in found.items()}


def rows_of(
    contest: Contest, shown: Shown, profiles: Sequence[BatchSizeProfile], policy: Policy
) -> tuple[BatchSizeVerdict, ...]:
    """One row for each batch size, ascending."""
    return tuple(
        BatchSizeVerdict(
            batch_size=size,
            standing=standing(contest, index),
            expected_regret=part(contest.decision.expected[index]),
            regret_bound=part(contest.decision.bound[index]),
            ratio_to_best=ratio_to_best(contest, index, policy.confidence),
            seeds=int(contest.seeds[index]),
            reached=int(contest.reached[index]),
            **_judged(contest, index),
            **_shown(size, {**shown, **_own(contest, shown)}),
            **_costs([run for run in contest.runs if run.batch_size == size]),
            **_fit(size, profiles),
        )
        for index, size in enumerate(contest.batch_sizes)
    )


def _shown(size: int, estimated: Shown) -> dict[str, Any]:
    return {name: of.get(size, NOTHING) for name, of in estimated.items()}


def _own(contest: Contest, shown: Shown) -> Shown:
    """The judged quantity as the contest has it, where it is among those shown."""
    name = contest.quantity.name
    if name not in shown:
        return {}
    of = enumerate(contest.batch_sizes)
    return {name: {size: estimate(contest.quantity, contest.typical, i) for i, size in of}}


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
    """One of verdicts.STANDINGS."""
    of = contest.decision
    if index == of.used:
        return "used"
    if index in of.tied:
        return "tied"
    if index in of.open:
        return "open"
    return "slower" if contest.field.may_be_used[index] else "unreached"


def ratio_to_best(contest: Contest, index: int, confidence: float) -> Estimate:
    """Over the best other batch size; ends are None where they cannot be told."""
    middle = contest.typical.median
    others = [i for i in np.flatnonzero(contest.field.may_be_used) if i != index]
    if not others:
        return NOTHING
    best = int(min(others, key=lambda i: middle[i]))
    if not math.isfinite(middle[index]) or not math.isfinite(middle[best]):
        return NOTHING
    return ratio_over(contest, index, best, confidence)


def _judged(contest: Contest, index: int) -> dict[str, Any]:
    """Median of the verdict's own quantity, and its interval."""
    middle = estimate(contest.quantity, contest.typical, index)
    return {"median": middle.value, "low": middle.low, "high": middle.high}


def _costs(runs: Sequence[TargetRun]) -> dict[str, Any]:
    """What a batch size's runs cost by the clock and in memory, and the rate they trained at."""
    timed = [
        (run.measured_time_to_target_seconds, run.time_to_target_seconds)
        for run in runs
        if run.measured_time_to_target_seconds
        and run.time_to_target_seconds
        and run.alone is not False
    ]
    return {
        "measured_time_to_target_seconds": _median([clock for clock, _ in timed]),
        "measured_to_predicted": _median([clock / predicted for clock, predicted in timed]),
        "learning_rate": _median([run.learning_rate for run in runs]),
        "examples_per_second": _median([run.examples_per_second for run in runs]),
        "peak_memory_mib": _median([MEMORY.of(run) for run in runs]),
        "train_seconds": _median([run.train_seconds for run in runs]),
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
