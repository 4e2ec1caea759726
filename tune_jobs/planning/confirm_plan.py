"""Which confirm runs are worth making next. Pure functions over recorded rows and looks.

The search chose with one seed, and the luckiest trial won; the seeds here are others, the same for
every batch size. They come in blocks: two for every batch size that may win, then more for those
that the last look left open. A rival ends once it cannot win any more. The answer comes first: once
it stands, all others are run with two seeds as well, for the critical batch size, and the one to
use, and those next to it, go on to the whole budget, for accuracy and curves; not where a batch
schedule follows, which ends at the target.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from statistics import median

from tune_jobs.config import SCHEDULES, SweepConfig
from tune_jobs.judging.settling import BLOCKS, LONGEST
from tune_jobs.planning.looks import confirm_runs, goes_on, last_look
from tune_jobs.reading.choosing import best_trial
from tune_jobs.reading.sweep_runs import confirmed_at_last
from tune_jobs.records import ConfirmRun, Look, TrialResult
from tune_jobs.training.scaling import scaled_learning_rate

FIRST_BLOCK = 2  # seeds of what may win, and later of all; what is alive goes on in BLOCKS
MAY_WIN = 1.5  # times the fastest, each by its best trial of the search
FEWEST = 3  # that may win
SURE = 5  # seeds: a look at fewer leaves open, for their scatter, also what the search told apart
WHOLE_SEEDS = 2  # that go on to the whole budget, of the batch size to use and its neighbours
LONGEST_UNSEEN = 2.0  # as LONGEST, of a leader of which one run of the search is known


def seeds_of(config: SweepConfig, count: int) -> tuple[int, ...]:
    """Seeds of so many confirm runs, none of them the search's."""
    return tuple(config.seed + k for k in range(1, count + 1))


def next_runs(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    looks: Sequence[Look],
    bases: Mapping[int, float] | None = None,
) -> list[ConfirmRun]:
    """The runs to make before the next look, or after the last one; none when all is done.

    `bases` are the base learning rates to confirm, where they are not those of each batch size's
    best trial; a batch size that is alive and has another than it ran at before is run anew. A run
    counts as made at its batch size's learning rate, whatever came of it, unless the machine
    failed it. The order is by seed, then by batch size, so that a noisy minute does not fall on
    one; runs that want a device for themselves come last.
    """
    rates = best_rates(config, trials)
    if not rates:
        return []
    look = last_look(looks)
    more = look is None or goes_on(look, config)
    count = next_block(config, look) if more else look.seeds if look else 0
    last = {t.batch_size: t for t in confirmed_at_last(trials)}
    alive = may_win(config, rates) if look is None else {*look.alive, look.used or 0}
    if look is not None and look.seeds < SURE:
        alive &= last.keys()
    at = {
        size: _rate(config, trial, bases)
        if size in alive or size not in last
        else (last[size].base_learning_rate, last[size].learning_rate)
        for size, trial in rates.items()
    }
    leader = _leader(config, rates, look)
    whole = _whole(config, rates, leader)
    ends = _ends(config, trials, rates, leader, alive if look is not None else ())
    whole_seeds = seeds_of(config, WHOLE_SEEDS)
    confirmed = [t for t in trials if t.stage == "confirm" and t.outcome != "failed"]
    ran_at = _ran_at(confirmed)
    anew = {
        (size, seed)
        for (size, seed), tried in ran_at.items()
        if size in alive & at.keys() and at[size][1] not in tried
    }
    open_ = more or bool(anew)
    goes_whole = not _by_target(config) or not (open_ or config.search in SCHEDULES)
    planned = [
        ConfirmRun(
            size,
            *at[size],
            seed,
            config.budget_examples if size in whole else ends[size],
            whole=goes_whole and size in whole and seed in whole_seeds,
            late=not open_,
            space=trial.space,
        )
        for seed in seeds_of(config, max(count, min(WHOLE_SEEDS, config.seeds)))
        for size, trial in sorted(rates.items())
        if (more and size in alive)
        or (size, seed) in anew
        or (seed in whole_seeds and (goes_whole or (more and size in whole)))
    ]
    made = _made(config, trials)
    missing = [run for run in planned if not _is_made(run, made)]
    if not open_:  # nothing is decided any more
        return missing
    timed = {
        t.batch_size
        for t in confirmed
        if t.alone and t.learning_rate == at.get(t.batch_size, (0.0, 0.0))[1]
    }
    return _some_alone(missing, whole - timed)


def _some_alone(runs: Sequence[ConfirmRun], sizes: Set[int]) -> list[ConfirmRun]:
    """The first run of each of those batch sizes is to be alone, after all others."""
    first = {run.batch_size: run for run in reversed(runs) if run.batch_size in sizes}
    told = [replace(run, alone=run is first.get(run.batch_size)) for run in runs]
    return sorted(told, key=lambda run: run.alone)


def run_anew(runs: Sequence[ConfirmRun], trials: Sequence[TrialResult]) -> set[int]:
    """The batch sizes of those runs that were made before, at another learning rate."""
    ran_at = _ran_at([t for t in trials if t.stage == "confirm" and t.outcome != "failed"])
    return {
        r.batch_size
        for r in runs
        if (tried := ran_at.get((r.batch_size, r.seed))) and r.learning_rate not in tried
    }


def _ran_at(confirmed: Sequence[TrialResult]) -> dict[tuple[int, int], set[float]]:
    """The learning rates of the runs of each batch size and seed."""
    found: dict[tuple[int, int], set[float]] = {}
    for t in confirmed:
        found.setdefault((t.batch_size, t.seed), set()).add(t.learning_rate)
    return found


def most_runs(config: SweepConfig) -> int:
    """No plan has more runs, those tried again and those made again for longer included."""
    return 3 * len(config.batch_sizes) * (config.seeds + WHOLE_SEEDS)


def _rate(
    config: SweepConfig, trial: TrialResult, bases: Mapping[int, float] | None
) -> tuple[float, float]:
    """Base learning rate and learning rate of a batch size's runs."""
    base = (bases or {}).get(trial.batch_size)
    if base is None:
        return trial.base_learning_rate, trial.learning_rate
    return base, scaled_learning_rate(config.optimizer, base, trial.batch_size)


def next_block(config: SweepConfig, look: Look | None) -> int:
    """Seeds of each batch size that is alive, once the next block is made."""
    before = 0 if look is None else look.seeds
    return min(config.seeds, next((n for n in (FIRST_BLOCK, *BLOCKS) if n > before), config.seeds))


def seeds_looked_at(
    config: SweepConfig, looks: Sequence[Look], trials: Sequence[TrialResult]
) -> int:
    """Seeds of each batch size alive, at a look now: those of the last one where no run was made
    since, which is then looked at once more for what the search has told."""
    before = last_look(looks)
    if before is not None and before.runs == confirm_runs(trials):
        return before.seeds
    return next_block(config, before)


def best_rates(config: SweepConfig, trials: Sequence[TrialResult]) -> dict[int, TrialResult]:
    """The best search trial of each batch size; a batch size without a usable one is left out."""
    searched = [t for t in trials if t.stage == "search"]
    found = {
        size: best_trial([t for t in searched if t.batch_size == size], config.compared_by)
        for size in config.batch_sizes
    }
    return {size: trial for size, trial in found.items() if trial is not None}


def may_win(config: SweepConfig, rates: Mapping[int, TrialResult]) -> set[int]:
    """The batch sizes that may be the best, by the best trial of each; all where none reached."""
    spent = {size: _spent(config, trial) or math.inf for size, trial in rates.items()}
    order = sorted(spent, key=lambda size: (spent[size], size))
    if not _by_target(config) or spent[order[0]] == math.inf:
        return set(rates)
    return {*order[:FEWEST], *(s for s in order if spent[s] <= MAY_WIN * spent[order[0]])}


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


def _leader(config: SweepConfig, rates: Mapping[int, TrialResult], look: Look | None) -> int:
    """The batch size to use, or the best that the search has seen of any."""
    if look is not None and look.used in rates:
        return int(look.used or 0)
    return min(rates, key=lambda size: (_spent(config, rates[size]) or math.inf, size))


def _whole(config: SweepConfig, rates: Mapping[int, TrialResult], leader: int) -> set[int]:
    """Batch sizes of which some runs use the whole budget: all where accuracy is the goal."""
    if not _by_target(config):
        return set(rates)
    sizes = sorted(rates)
    at = sizes.index(leader)
    return set(sizes[max(0, at - 1) : at + 2])


def _by_target(config: SweepConfig) -> bool:
    return config.compared_by in ("time", "cost", "examples")


def _ends(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    rates: Mapping[int, TrialResult],
    leader: int,
    rivals: Collection[int],
) -> dict[int, int]:
    """Examples at which a run of each batch size ends in vain, `rivals` of a leader that was seen
    sooner; the whole budget at the most."""
    confirmed = [t for t in confirmed_at_last(trials) if t.batch_size == leader]
    spent = [s for t in confirmed if (s := _spent(config, t)) is not None]
    needs = median(spent) if spent else _spent(config, rates[leader])
    if needs is None:
        return dict.fromkeys(rates, config.budget_examples)
    ends = {}
    for size, trial in rates.items():
        longest = needs * (LONGEST if spent and size in rivals else LONGEST_UNSEEN)
        examples = math.ceil(longest * _examples_per_unit(config, trial))
        ends[size] = min(config.budget_examples, examples)
    return ends


def _spent(config: SweepConfig, trial: TrialResult) -> float | None:
    """What a run took to the target, in the goal's own unit: seconds or examples."""
    if config.goal in ("time", "cost"):
        return trial.time_to_target_seconds
    return trial.examples_to_target


def _examples_per_unit(config: SweepConfig, trial: TrialResult) -> float:
    if config.goal in ("time", "cost") and trial.train_seconds > 0:
        return trial.examples_seen / trial.train_seconds
    return 1.0


Key = tuple[int, int, float]


def _made(config: SweepConfig, trials: Sequence[TrialResult]) -> dict[Key, bool]:
    """The runs that there are, and whether each went on for as long as it could."""
    made: dict[Key, bool] = {}
    for t in trials:
        if t.stage == "confirm" and t.outcome != "failed":
            key = (t.batch_size, t.seed, t.learning_rate)
            whole = t.examples_seen >= config.budget_examples or t.outcome != "finished"
            # One that was made again was made for longer: it came as far as it comes.
            made[key] = key in made or whole
    return made


def _is_made(run: ConfirmRun, made: Mapping[Key, bool]) -> bool:
    whole = made.get((run.batch_size, run.seed, run.learning_rate))
    return whole is not None and (whole or not run.whole)
