"""Which runs a batch schedule still lacks beside those of the fixed batch size to use. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from tune_jobs.config import PBT, SweepConfig
from tune_jobs.measure.clock import feasible
from tune_jobs.planning.batch_schedules import Given, Schedule, left_out, schedule_of
from tune_jobs.planning.confirm_plan import LONGEST_UNSEEN
from tune_jobs.planning.looks import last_look
from tune_jobs.planning.population import best_of_population
from tune_jobs.reading.sweep_runs import runs_to_judge
from tune_jobs.records import BatchSizeProfile, ConfirmRun, NoiseScale, TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.training.segments import as_text, segments_of


def given_by(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    used: int | None,
    profiles: Sequence[BatchSizeProfile] = (),
    noise: Sequence[NoiseScale] = (),
    most: int | None = None,
) -> Given | None:
    """What the rows give for the batch size to use, with a training split of `most` examples; None
    where most of its runs missed the target, or there are none."""
    fixed = fixed_runs(trials, used)
    needed = median([t.examples_to_target or math.inf for t in fixed]) if fixed else math.inf
    if used is None or not math.isfinite(needed):
        return None
    fitting = feasible(profiles)
    refused = {p.batch_size: p.reason or p.outcome for p in profiles}
    return Given(
        used,
        fixed[0].learning_rate,
        needed,
        config.optimizer,
        fitting,
        {size: reason for size, reason in refused.items() if size not in fitting},
        noise,
        most,
    )


def given_now(config: SweepConfig, store: SweepStore) -> Given | None:
    """What the rows give for a batch schedule beside the batch size to use; None before there is
    one."""
    look, examples = last_look(store.read_looks()), store.read_environment().get("train_examples")
    return given_by(
        config,
        store.read_trials(),
        look.used if look else None,
        store.read_profiles(),
        store.read_noise_scale(),
        examples if isinstance(examples, int) else None,
    )


def fixed_runs(trials: Sequence[TrialResult], used: int | None) -> list[TrialResult]:
    """The confirm runs of the batch size to use, one of each seed, by seed."""
    of = [t for t in runs_to_judge(trials) if t.batch_size == used and t.stage == "confirm"]
    return sorted(of, key=lambda t: t.seed)


def schedule_known(
    config: SweepConfig, given: Given | None, trials: Sequence[TrialResult]
) -> Schedule:
    """The schedule that was asked for; the one that was run already, where there is one beside the
    same batch size and rate: further runs of the fixed one would else change it."""
    name = config.search
    if given is None:
        return left_out(name, "no batch size is known to reach the target")
    fixed = (given.batch_size, given.learning_rate)
    before = [t for t in runs_made(trials) if (t.batch_size, t.learning_rate) == fixed]
    found = best_of_population(config, trials) if name == PBT else schedule_of(name, given)
    if not before:
        return found
    told = found.told if found.segments else None
    return Schedule(name, segments_of(before[-1].schedule or ""), told)


def runs_made(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The runs of batch schedules that there are."""
    return [t for t in trials if t.stage == "schedule" and t.schedule]


def runs_missing(
    config: SweepConfig, schedule: Schedule, trials: Sequence[TrialResult], given: Given
) -> list[ConfirmRun]:
    """The runs of a schedule that are missing: the seeds of the batch size to use, each ended in
    vain once it has seen LONGEST_UNSEEN times what that takes."""
    text = as_text(schedule.segments)
    made = {t.seed for t in runs_made(trials) if t.schedule == text and t.outcome != "failed"}
    most = min(config.budget_examples, math.ceil(LONGEST_UNSEEN * given.examples_to_target))
    return [
        ConfirmRun(
            t.batch_size, t.base_learning_rate, t.learning_rate, t.seed, most,
            alone=bool(t.alone), schedule=text,
        )
        for t in fixed_runs(trials, given.batch_size)
        if schedule.segments and t.seed not in made
    ]  # fmt: skip
