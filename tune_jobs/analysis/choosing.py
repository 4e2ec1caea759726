"""From recorded trials to the closing table and the fastest batch size. Pure functions.

Test accuracy is carried into the table and never looked at here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.records import BatchSizeRow, SearchSummary, TrialResult


def rank(trial: TrialResult) -> tuple[bool, float, float]:
    """How good a trial is among those of its batch size, the larger the better.

    Target reached, then fewer examples to it, then validation accuracy after more examples.
    """
    to_target = trial.examples_to_target
    reached = to_target is not None
    unused = -float(to_target) if to_target is not None else float(trial.examples_seen)
    return reached, unused, trial.val_accuracy if trial.val_accuracy is not None else -1.0


def best_trial(trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial whose learning rate its batch size should use, or None when all failed."""
    usable = [t for t in trials if t.outcome in ("finished", "stopped")]
    return max(usable, key=rank, default=None)


def rows(trials: Sequence[TrialResult], batch_sizes: Sequence[int]) -> tuple[BatchSizeRow, ...]:
    """One row for each batch size asked for, ascending, also where nothing came of it."""
    return tuple(_row(size, [t for t in trials if t.batch_size == size]) for size in batch_sizes)


def _row(batch_size: int, trials: Sequence[TrialResult]) -> BatchSizeRow:
    best = best_trial(trials)
    outcomes = [t.outcome for t in trials]
    return BatchSizeRow(
        batch_size=batch_size,
        base_learning_rate=best.base_learning_rate if best else None,
        learning_rate=best.learning_rate if best else None,
        examples_to_target=best.examples_to_target if best else None,
        time_to_target_seconds=best.time_to_target_seconds if best else None,
        examples_per_second=best.examples_per_second if best else None,
        peak_memory_mib=best.peak_memory_mib if best else None,
        val_accuracy=best.val_accuracy if best else None,
        test_accuracy=best.test_accuracy if best else None,
        trials=len(trials),
        stopped=outcomes.count("stopped"),
        failed=len([o for o in outcomes if o not in ("finished", "stopped")]),
    )


def judge(
    sweep: str, goal: str, target: float, trials: Sequence[TrialResult], sizes: Sequence[int]
) -> SearchSummary:
    """The table, and the batch size whose best trial reached the target in the least train time."""
    table = rows([t for t in trials if t.stage == "search"], sorted(sizes))
    timed = [(r.time_to_target_seconds, r) for r in table if r.time_to_target_seconds is not None]
    if not timed:
        reason = (
            f"No batch size reached {target:.4g} validation accuracy: raise --budget-examples or "
            "lower --target."
        )
        return SearchSummary(sweep, goal, target, "unreached", None, reason, table)
    seconds, fastest = min(timed, key=lambda pair: pair[0])
    reason = (
        f"Batch size {fastest.batch_size} was the fastest to reach {target:.4g} validation accuracy"
        f": {seconds:.1f} s of training, {fastest.examples_to_target} examples, at learning rate "
        f"{fastest.learning_rate:.2g}; one seed each, so close times are not told apart."
    )
    return SearchSummary(sweep, goal, target, "single_seed", fastest.batch_size, reason, table)
