"""Which trial of a search was the best. Test accuracy is never looked at here."""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.records import TrialResult


def rank(trial: TrialResult) -> tuple[bool, float, float]:
    """How good a trial is among those of its batch size, the larger the better.

    Target reached, then fewer examples to it, then validation accuracy after more examples.
    """
    to_target = trial.examples_to_target
    reached = to_target is not None
    unused = -float(to_target) if to_target is not None else float(trial.examples_seen)
    return reached, unused, trial.val_accuracy if trial.val_accuracy is not None else -1.0


def best_trial(trials: Sequence[TrialResult], goal: str = "time") -> TrialResult | None:
    """The trial whose learning rate its batch size should use, or None when all failed.

    For the goal `accuracy`: the longest run, then the highest validation accuracy.
    """
    usable = [t for t in trials if t.outcome in ("finished", "stopped")]
    return max(usable, key=accuracy_rank if goal == "accuracy" else rank, default=None)


def accuracy_rank(trial: TrialResult) -> tuple[int, float]:
    """How good a trial is where the final accuracy counts, the larger the better."""
    return trial.examples_seen, trial.val_accuracy if trial.val_accuracy is not None else -1.0
