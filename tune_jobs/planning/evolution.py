"""`--search evolution`: batch size and learning rate together, generation by generation.

CMA-ES (Hansen 2016) over the logs of both, for one goal; NSGA-II (Deb et al. 2002) for a pair, such
as `--goal time,memory`. A generation is asked for once the one before has ended, in an order that
is always the same, so that the rows tell where a driver that was killed left off: no sampler's
state is kept. Batch sizes are the nearest of those that fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.formatting import learning_rate
from tune_jobs.judging.posterior import Floats
from tune_jobs.measure.clock import chosen
from tune_jobs.planning.known import Known, Proposal
from tune_jobs.planning.learning_rates import ends
from tune_jobs.planning.search_plan import learning_rate_range
from tune_jobs.reading.choosing import goodness
from tune_jobs.records import TrialResult

POPULATION = 6  # 4 + 3 ln 2, Hansen's default in two dimensions
SIGMA = 0.3  # deviation of the first generation, of the whole range
SHORT = math.log(2)  # a run that missed its target counts as so much over its end, and more
FAILED = 3.0  # and one that diverged or did not fit as so much
SAME = 1e-6  # logs of rates so near are of one rate

Point = tuple[int, float]  # batch size and base learning rate
Generations = Callable[[Callable[[Point], Sequence[float]]], Iterator[list[Point]]]


def propose(config: SweepConfig, sizes: Sequence[int], known: Known) -> Proposal | None:
    """The next of the generation that is under way; None while its last are, or all are made."""
    if len(known.trials) + len(known.pending) >= config.trials:
        return None
    rows = {(t.batch_size, round(math.log(t.base_learning_rate) / SAME)): t for t in known.trials}
    under_way = {(size, round(math.log(base) / SAME)) for size, base in known.pending}

    def worth(point: Point) -> Sequence[float]:
        return [worth_of(g, rows[_key(point)], config, known) for g in goals_of(config)]

    for generation in generations_of(config, sorted(sizes))(worth):
        for size, base in generation:
            key = _key((size, base))
            if key not in rows and key not in under_way:
                most = ends(config, sizes, known)[size]
                return Proposal(size, base, most, "its generation", races=False)
        if any(_key(point) not in rows for point in generation):
            return None
    return None


def after(config: SweepConfig, known: Known, used: int | None) -> list[str]:
    """Of a pair of goals: the trials than which none was better in both."""
    goals, ran = goals_of(config), [t for t in known.trials if t.examples_to_target is not None]
    if len(goals) < 2 or not ran:
        return []
    worths = {t.trial_id: [worth_of(g, t, config, known) for g in goals] for t in ran}
    front = [t for t in ran if not any(_better(w, worths[t.trial_id]) for w in worths.values())]
    told = {t.batch_size: learning_rate(t.learning_rate) for t in front}
    named = ", ".join(f"{size} at {rate}" for size, rate in sorted(told.items()))
    return [f"Pareto set of {goals[0]} and {goals[1]}, batch size at learning rate: {named}."]


def _better(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _key(point: Point) -> tuple[int, int]:
    return point[0], round(math.log(point[1]) / SAME)


def goals_of(config: SweepConfig) -> list[str]:
    """One goal, or the pair that was asked for."""
    return [config.compared_by, *([config.second_goal] if config.second_goal else [])]


def generations_of(config: SweepConfig, sizes: Sequence[int]) -> Generations:
    """The sampler's generations, each told what the one before was worth before the next."""
    return _nsga(config, sizes) if config.second_goal else _cma(config, sizes)


def _point(config: SweepConfig, sizes: Sequence[int], at: Floats) -> Point:
    """A place in the unit square as a batch size that fits and a base learning rate."""
    low, high = math.log(sizes[0]), math.log(sizes[-1])
    size = min(sizes, key=lambda s: abs(math.log(s) - (low + float(at[0]) * (high - low))))
    within = learning_rate_range(config)
    base = within.low * (within.high / within.low) ** float(at[1])
    return size, float(f"{base:.6g}")


def _cma(config: SweepConfig, sizes: Sequence[int]) -> Generations:
    def generations(worth: Callable[[Point], Sequence[float]]) -> Iterator[list[Point]]:
        from cmaes import CMA

        sampler = CMA(
            mean=np.array([0.5, 0.5]), sigma=SIGMA, bounds=np.array([[0.0, 1.0], [0.0, 1.0]]),
            seed=config.seed, population_size=POPULATION,
        )  # fmt: skip
        while True:
            places = [sampler.ask() for _ in range(POPULATION)]
            points = [_point(config, sizes, place) for place in places]
            yield points
            sampler.tell([(a, worth(p)[0]) for a, p in zip(places, points, strict=True)])

    return generations


def _nsga(config: SweepConfig, sizes: Sequence[int]) -> Generations:
    def generations(worth: Callable[[Point], Sequence[float]]) -> Iterator[list[Point]]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            directions=["minimize", "minimize"],
            sampler=optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=config.seed),
        )
        space = {axis: optuna.distributions.FloatDistribution(0, 1) for axis in ("size", "rate")}
        while True:
            asked = [study.ask(space) for _ in range(POPULATION)]
            places = [np.array([a.params["size"], a.params["rate"]]) for a in asked]
            points = [_point(config, sizes, place) for place in places]
            yield points
            for trial, point in zip(asked, points, strict=True):
                study.tell(trial, list(worth(point)))

    return generations


def worth_of(goal: str, trial: TrialResult, config: SweepConfig, known: Known) -> float:
    """What a trial comes to under a goal, less being better: mostly a log."""
    if goal == "accuracy":
        return -goodness(trial) if trial.outcome == "finished" else FAILED
    whole = math.log(config.budget_examples)
    needed = math.log(trial.examples_to_target or max(1, trial.examples_seen))
    if trial.outcome in ("diverged", "out_of_memory", "failed"):
        needed = whole + FAILED
    elif trial.examples_to_target is None:
        missed = abs(config.target - (trial.val_metric or 0.0)) / max(abs(config.target), 1e-9)
        needed += SHORT + min(missed, 1.0)
    if goal == "memory":
        late = 0.0 if trial.examples_to_target is not None else needed
        return math.log(_memory_mib(trial, known)) + late
    each = known.cost.get(trial.batch_size, 1.0) if goal in ("time", "cost") else 1.0
    return needed + math.log(each)


def _memory_mib(trial: TrialResult, known: Known) -> float:
    """As profiled, which neighbours do not move; else the trial's own peak."""
    profiled = {p.batch_size: p.peak_memory_mib for p in chosen(known.profiles)}
    return profiled.get(trial.batch_size) or trial.peak_memory_mib or 1.0
