"""Which trial of a search was the best. The test metric is never looked at here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_jobs.records import TrialResult

WORST = 0.0  # a score: of a run that has diverged


def rank(trial: TrialResult) -> tuple[bool, float, float]:
    """How good a trial is among those of its batch size, the larger the better.

    Target reached, then fewer examples to it, then validation metric after more examples.
    """
    to_target = trial.examples_to_target
    reached = to_target is not None
    unused = -float(to_target) if to_target is not None else float(trial.examples_seen)
    return reached, unused, goodness(trial)


def best_trial(trials: Sequence[TrialResult], goal: str = "time") -> TrialResult | None:
    """The trial whose learning rate its batch size should use, or None when all failed.

    For the goal `accuracy`: the longest run, then the best validation metric.
    """
    usable = [t for t in trials if t.outcome in ("finished", "stopped")]
    return max(usable, key=accuracy_rank if goal == "accuracy" else rank, default=None)


def accuracy_rank(trial: TrialResult) -> tuple[int, float]:
    """How good a trial is where the final metric counts, the larger the better."""
    return trial.examples_seen, goodness(trial)


def goodness(trial: TrialResult) -> float:
    """The validation metric, turned so that larger is better."""
    if trial.val_metric is None:
        return -math.inf
    return trial.val_metric if trial.mode == "max" else -trial.val_metric


def score(
    val_metric: float | None, examples_to_target: int | None, budget: int, mode: str = "max"
) -> float:
    """What races and searches compare, by its order alone.

    1 + the unused part of the budget once the target is reached, else a number below 1 that grows
    as the validation metric gets better, and WORST for a run that has diverged.
    """
    if examples_to_target is not None:
        return 1.0 + max(0.0, 1.0 - examples_to_target / budget)
    if val_metric is None:
        return WORST
    return 0.5 + math.atan(val_metric if mode == "max" else -val_metric) / math.pi
