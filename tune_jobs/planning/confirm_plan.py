"""What the confirm stage has still to run. Pure functions over recorded rows.

The search chose with one seed, and the luckiest trial won; the seeds here are others, the same for
every batch size. Batch sizes take turns within a seed, so that a noisy minute does not fall on one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.planning.looks import look_before
from tune_jobs.reading.choosing import best_trial
from tune_jobs.records import ConfirmRun, Look, TrialResult


def seeds_of(config: SweepConfig) -> tuple[int, ...]:
    """Seeds of the confirm runs, none of them the search's."""
    return tuple(config.seed + k for k in range(1, config.seeds + 1))


def missing_runs(
    config: SweepConfig, trials: Sequence[TrialResult], looks: Sequence[Look] = ()
) -> list[ConfirmRun]:
    """The runs still to be made, by seed, then by batch size.

    A run counts as made at the batch size's present best learning rate, whatever came of it, unless
    the machine failed it. Seeds beyond those of an earlier look are spent on the batch sizes that
    it left open.
    """
    before = look_before(looks, config.seeds)
    seeds = seeds_of(config)
    settled = seeds if before is None else seeds[: before.seeds]
    alive = set(config.batch_sizes) if before is None else set(before.alive)
    made = {
        (t.batch_size, t.seed, t.learning_rate)
        for t in trials
        if t.stage == "confirm" and t.outcome != "failed"
    }
    planned = [
        ConfirmRun(size, trial.base_learning_rate, trial.learning_rate, seed)
        for seed in seeds
        for size, trial in sorted(best_rates(config, trials).items())
        if seed in settled or size in alive
    ]
    return [r for r in planned if (r.batch_size, r.seed, r.learning_rate) not in made]


def best_rates(config: SweepConfig, trials: Sequence[TrialResult]) -> dict[int, TrialResult]:
    """The best search trial of each batch size; a batch size without a usable one is left out."""
    searched = [t for t in trials if t.stage == "search"]
    found = {
        size: best_trial([t for t in searched if t.batch_size == size], config.goal)
        for size in config.batch_sizes
    }
    return {size: trial for size, trial in found.items() if trial is not None}


def unbracketed(config: SweepConfig, trials: Sequence[TrialResult]) -> list[str]:
    """One line for each batch size whose best learning rate is still the last of those tried."""
    told = []
    for size, best in sorted(best_rates(config, trials).items()):
        of = [t for t in trials if t.stage == "search" and t.batch_size == size]
        if best.learning_rate in (max(rates := [t.learning_rate for t in of]), min(rates)):
            side = "highest" if best.learning_rate == max(rates) else "lowest"
            told.append(
                f"batch size {size}: its best learning rate, {best.learning_rate:.2g}, is the "
                f"{side} of {len(of)} tried; the optimum may lie beyond"
            )
    return told
