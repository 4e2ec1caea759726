"""Runs to verdicts: of a sweep's store, or of anyone's runs.

One place for what `sweep.py` does at its end and `report.py` does again from the records alone.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tune_jobs.config import SCHEDULES, SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.formatting import learning_rate, target_name
from tune_jobs.judging.judging import Scheduled, is_at, judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.search_cost import search_cost
from tune_jobs.planning import search_plan
from tune_jobs.planning.known import Known, known_now
from tune_jobs.planning.looks import last_look, open_looks
from tune_jobs.planning.schedule_runs import given_now, schedule_known
from tune_jobs.planning.ways import way_of
from tune_jobs.reading.sweep_runs import (
    confirmed_at_last,
    runs_of_sweep,
    scheduled_runs,
    tried_runs,
)
from tune_jobs.reading.table_of_runs import TO_TARGET, TableOfRuns, reached
from tune_jobs.records import (
    BatchSizeProfile,
    Look,
    Measurement,
    NoiseScale,
    TargetRun,
    TrialResult,
)
from tune_jobs.space import from_text, in_words
from tune_jobs.store import SweepStore
from tune_jobs.training.segments import as_text
from tune_jobs.verdicts import Verdict

# The quantity that a goal is judged by, and what a table can give for it.
NEEDS = {
    "time": ("time_to_target_seconds", "time_to_target_seconds, or examples_per_second beside "
             "examples_to_target"),
    "cost": ("time_to_target_seconds", "time_to_target_seconds, or examples_per_second beside "
             "examples_to_target"),
    "examples": ("examples_to_target", "examples_to_target or updates_to_target"),
    "energy": ("energy_joules", "energy_joules"),
    "accuracy": ("val_accuracy", "val_accuracy"),
    "memory": ("peak_memory_mib", "peak_memory_mib"),
}  # fmt: skip
UNASKED = ("time", "examples")


@dataclass(frozen=True)
class Answer:
    """Verdicts, and the rows that they and their figures are made of."""

    verdicts: tuple[Verdict, ...]
    runs: tuple[TargetRun, ...]
    profiles: tuple[BatchSizeProfile, ...] = ()
    noise: tuple[NoiseScale, ...] = ()
    trials: tuple[TrialResult, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def goal_of(runs: Sequence[TargetRun], asked: str | None) -> str:
    """The goal asked for, or the first of time and examples that the runs can be judged by.

    Raises UserError when the runs lack the quantity of the goal that was asked for.
    """
    if asked is None:
        return next(g for g in UNASKED if _judgeable(runs, g))
    if not _judgeable(runs, asked):
        possible = [g for g in NEEDS if _judgeable(runs, g) and g != "cost"]
        raise UserError(
            f"--goal {asked} needs the column {NEEDS[asked][1]}; {runs[0].workload} has none. "
            f"Add it, or ask for --goal {' or '.join(possible)}"
        )
    return asked


def _judgeable(runs: Sequence[TargetRun], goal: str) -> bool:
    """Whether the goal's quantity is known, or no run reached the target so that none could be."""
    quantity = NEEDS[goal][0]
    if goal == "accuracy" and any(run.val_metric is not None for run in runs):
        return True
    if any(getattr(run, quantity) is not None for run in runs):
        return True
    return quantity in TO_TARGET and not any(reached(run) for run in runs)


def answer_of_sweep(config: SweepConfig, store: SweepStore, target: float | None = None) -> Answer:
    """The verdict of a sweep, finished or interrupted, at its own target or another.

    Raises UserError when no trial has ended yet, or none of them can be judged.
    """
    trials, measurements = store.read_trials(), store.read_measurements()
    profiles, noise = store.read_profiles(), store.read_noise_scale()
    at = config.target if target is None else target
    runs = runs_of_sweep(config, trials, measurements, at)
    if not runs and trials:
        raise UserError(
            f"{store.address}: no trial can be judged. {' '.join(left_out_of(trials))} Correct the "
            "model, or begin another sweep with other rates (base_learning_rate in the TOML)"
        )
    if not runs:
        raise UserError(
            f"{store.address} holds no trial that has ended; take it up with: {resume(config)}"
        )
    policy = policy_of(config, config.goal, trials)
    looks = store.read_looks()
    policy = replace(policy, looks=open_looks(looks, trials), resume=resume(config))
    verdicts = judge_runs(
        runs,
        policy,
        profiles,
        noise,
        [t for t in trials if t.stage == "search"],
        searched=tried_runs(config, trials),
        left_out=[
            *of_recipe(config),
            *of_space(trials),
            *of_splits(config, trials),
            *of_own_loop(config, trials),
            *left_out_of(trials),
        ],
        target=at,
        scheduled=scheduled_of(config, store, trials, looks),
    )
    known = known_now(config, trials, measurements, profiles, noise, store.read_range_test())
    return Answer(
        verdicts=tuple(with_search_cost(v, config, known) for v in verdicts),
        runs=tuple(runs),
        profiles=tuple(profiles),
        noise=tuple(noise),
        trials=tuple(trials),
        measurements=tuple(measurements),
    )


def with_search_cost(verdict: Verdict, config: SweepConfig, known: Known) -> Verdict:
    """The verdict, what its search cost, and what a search for a pair of goals is for."""
    told = way_of(config).after(config, known, verdict.use.batch_size if verdict.use else None)
    front = told.pop(0) if config.second_goal and told else None
    rows = verdict.per_batch_size
    cost = search_cost(config.search, config.compared_by, known.trials, rows, told)
    return replace(verdict, search_cost=cost, front=front)


def scheduled_of(
    config: SweepConfig, store: SweepStore, trials: Sequence[TrialResult], looks: Sequence[Look]
) -> Scheduled | None:
    """The batch schedule that was asked for, with its runs, once there is something to judge it
    against."""
    look = last_look(looks)
    if config.search not in SCHEDULES or look is None:
        return None
    found = schedule_known(config, given_now(config, store), trials)
    text = as_text(found.segments) or None
    runs = scheduled_runs(config, trials, text) if text else []
    return Scheduled(found.name, text, found.told, look.used, tuple(runs))


def resume(config: SweepConfig) -> str:
    """The command that takes the sweep up again."""
    words = ["./scripts/sweep", "--resume", "--name", config.name]
    if config.runs_dir != SweepConfig.runs_dir:
        words += ["--runs-dir", config.runs_dir]
    return shlex.join(words)


def of_recipe(config: SweepConfig) -> list[str]:
    """What the recipe makes of the answer."""
    recipe, told = config.training, []
    if recipe.ends_with_the_budget:
        told.append(
            f"The learning rate's schedule ({recipe.schedule}) ends with the budget of "
            f"{config.budget_examples:,} examples, so a run means something only there: the answer "
            "is the fastest batch size whose runs end at the target; curves may cross before."
        )
    if recipe.beta2 is not None:
        told.append("Adam's beta2 keeps its half-life in examples, at every batch size.")
    return told


def of_space(trials: Sequence[TrialResult]) -> list[str]:
    """What each batch size's confirm runs have of what was searched beside the rate."""
    found = {t.batch_size: from_text(t.space) for t in trials if t.stage == "confirm" and t.space}
    told = "; ".join(f"{size}: {in_words(values)}" for size, values in sorted(found.items()))
    return [f"Searched besides: {told}."] if told else []


def of_splits(config: SweepConfig, trials: Sequence[TrialResult]) -> list[str]:
    """That a workload has no test split, once a run would have told of it."""
    ended = [t for t in trials if t.outcome == "finished"]
    if config.workload and ended and all(t.test_metric is None for t in ended):
        return ["The workload has no test split: how well it generalizes is not told."]
    return []


def of_own_loop(config: SweepConfig, trials: Sequence[TrialResult]) -> list[str]:
    """What a training function of the user's own does not tell, and where it ended by itself."""
    if not config.own_loop:
        return []
    ran, told = [t for t in trials if t.outcome != "failed"], []
    early = [t for t in ran if t.outcome == "finished" and t.reason]
    if any(t.evaluation_seconds is None for t in ran):
        told.append(
            "The function does not tell its evaluation_seconds, so its train seconds hold them."
        )
    if early:
        told.append(
            f"{len(early)} of {len(ran)} runs returned by themselves before their budget; they "
            "count as finished where they ended."
        )
    return told


ENDS = {"failed": "failed", "diverged": "diverged", "out_of_memory": "ran out of memory"}


def left_out_of(trials: Sequence[TrialResult]) -> list[str]:
    """The trials that the verdict is not made of, and why."""
    confirmed = {t.batch_size for t in trials if t.stage == "confirm"}
    shown = ("finished", "stopped")
    ran = {t.batch_size for t in trials if t.outcome in shown} | (
        confirmed & {t.batch_size for t in trials if t.outcome != "failed"}
    )
    alone = sorted(ran - confirmed)
    failed = sum(t.outcome == "failed" for t in trials if t.stage == "confirm")
    told = [_never_ran(size, trials) for size in sorted({t.batch_size for t in trials} - ran)]
    if alone:
        sizes = ", ".join(map(str, alone))
        told.append(f"Batch sizes without confirm runs, shown by their best trial: {sizes}.")
    if failed:
        told.append(f"Left out: {failed} confirm runs that failed.")
    return told + _run_anew(trials)


def _run_anew(trials: Sequence[TrialResult]) -> list[str]:
    """The confirm runs at a rate that was worse than one found later."""
    of = [t for t in trials if t.stage == "confirm" and t.outcome != "failed"]
    ran = Counter((t.batch_size, t.learning_rate) for t in of)
    judged = {(t.batch_size, t.learning_rate) for t in confirmed_at_last(trials)}
    return [
        f"Left out: runs of {size} at {rate:.2g} ({runs}), before the search found a better rate."
        for (size, rate), runs in sorted(ran.items())
        if (size, rate) not in judged
    ]


def _never_ran(size: int, trials: Sequence[TrialResult]) -> str:
    """A batch size of which no trial got anywhere: the rates tried, and the last reason."""
    tried = [t for t in trials if t.batch_size == size]
    rates = ", ".join(sorted({learning_rate(t.learning_rate) for t in tried}))
    ends = " or ".join(ENDS[outcome] for outcome in sorted({t.outcome for t in tried}))
    reasons = [t.reason.splitlines()[0] for t in tried if t.reason]
    why = f": {reasons[-1]}" if reasons else ""
    count = f"all {len(tried)} trials" if len(tried) > 1 else "the only trial"
    return f"{size}: {count} {ends}, at learning rates {rates}{why}."


def answer_of_table(config: SweepConfig, table: TableOfRuns, goal: str | None = None) -> Answer:
    """The verdicts of a table's runs, and what it left out or could say alone."""
    asked = goal or table.goal
    found = answer_of_runs(
        config, table.runs, asked, table.target, table.notes, table.searched, table.left_out
    )
    beside = () if found.verdicts else table.left_out  # else each verdict tells it
    return replace(found, left_out=beside, said=table.said)


def answer_of_runs(
    config: SweepConfig,
    runs: Sequence[TargetRun],
    goal: str | None = None,
    target: float | None = None,
    notes: Sequence[str] = (),
    searched: Sequence[TargetRun] = (),
    left_out: Sequence[str] = (),
) -> Answer:
    """The verdicts of anyone's runs, one for each workload and target.

    Args:
        config: its tolerance, confidence and price count; `goal` stands in for its goal.
        goal: None to judge each workload by the first of time and examples that it can be.
        target: this one alone; other targets still show how the answer moves. Runs that name no
            target are taken to be at this one.
    """
    if target is not None and runs:
        runs = [replace(r, target=target) if r.target is None else r for r in runs]
        _require_target(runs, target)
    told, verdicts = list(notes), []
    for workload in dict.fromkeys(run.workload for run in runs):
        of = [run for run in runs if run.workload == workload]
        chosen = goal_of(of, goal)
        if goal is None and chosen != UNASKED[0]:
            told.append(f"{workload}: no seconds in the table, judged on {chosen}")
        verdicts += judge_runs(
            of, policy_of(config, chosen), searched=searched, left_out=left_out, target=target
        )
    return Answer(tuple(verdicts), tuple(runs), notes=tuple(told))


def policy_of(config: SweepConfig, goal: str, trials: Sequence[TrialResult] = ()) -> Policy:
    """How the configuration says that runs are to be judged."""
    return Policy(
        goal,
        config.tolerance,
        config.confidence,
        config.price_per_device_hour,
        learning_rate_range(config, trials),
        trainings_to_come=config.trainings_to_come,
    )


def learning_rate_range(
    config: SweepConfig, trials: Sequence[TrialResult]
) -> tuple[float, float] | None:
    """The base learning rates that were searched; None for a table, of which that is not known."""
    if not any(t.stage == "search" for t in trials):
        return None
    within = search_plan.learning_rate_range(config)
    return within.low, within.high


def _require_target(runs: Sequence[TargetRun], target: float) -> None:
    if not any(is_at(run.target, target) for run in runs):
        known = sorted({run.target for run in runs if run.target is not None})
        raise UserError(
            f"--target {target:g}: no run is judged at it; the table's targets are "
            f"{', '.join(target_name(t) for t in known)}"
        )


def as_json(verdicts: Iterable[Verdict]) -> str:
    """`verdict.json`: a list of verdicts."""
    return json.dumps([asdict(v) for v in verdicts], indent=2, allow_nan=False) + "\n"


def write_page(
    answer: Answer, folder: Path, config: SweepConfig, title: str, facts: Mapping[str, object]
) -> Path:
    """`report.html` and its figures in `folder`. The drawing is imported here: it takes seconds.

    `facts` may hold `train_examples`, the most that a batch could be.
    """
    from tune_jobs.reporting.page.html import write_report

    examples = facts.get("train_examples")
    return write_report(
        folder,
        answer.verdicts,
        answer.runs,
        answer.profiles,
        answer.noise,
        answer.trials,
        answer.measurements,
        title=title,
        facts=facts,
        margin=config.memory_margin,
        train_examples=examples if isinstance(examples, int) else None,
    )
