"""Races: which trials are stopped, one race for each batch size, on top of Ray's schedulers.

A trial is compared with trials of its own batch size only. Trials report `rung_examples` exactly at
a rung's budget and leave it out elsewhere, so Ray's schedulers decide there and nowhere else. Ray
does not restore rungs; they are replayed from the store's measurements.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
)

from tune_jobs.config import SweepConfig
from tune_jobs.planning.search_plan import rungs_of
from tune_jobs.reading.choosing import score
from tune_jobs.store import SweepStore
from tune_jobs.tuning.kept import keep_processes, next_to_start

TIME_ATTR = "rung_examples"
METRIC = "score"
BRACKETS = 3  # of HyperBand
FEWEST_TO_COMPARE = 3  # other trials, before the median of theirs stops one


class Race(Protocol):
    """One of Ray's schedulers for the trials of one batch size, by their ids."""

    def result(self, trial: Trial, result: dict[str, Any]) -> str:
        """What becomes of a trial that reports at a rung."""

    def enter(self, trial_id: str, rung: int, worth: float) -> None:
        """What a trial was worth at a rung that it does not report at, or did before."""


class Asha:
    """Ray's asynchronous successive halving."""

    def __init__(self, rungs: tuple[int, ...], reduction_factor: int, budget: int) -> None:
        self.scheduler = AsyncHyperBandScheduler(
            time_attr=TIME_ATTR,
            metric=METRIC,
            mode="max",
            max_t=budget,
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
        # Ray derives rungs from a ratio of floats; ours are whole examples that trials report at.
        self.bracket = self.scheduler._brackets[0]
        self.bracket._rungs = [(rung, {}) for rung in reversed(rungs)]

    def result(self, trial: Trial, result: dict[str, Any]) -> str:
        if trial.trial_id not in self.scheduler._trial_info:
            self.scheduler.on_trial_add(None, trial)
        return str(self.scheduler.on_trial_result(None, trial, result))

    def enter(self, trial_id: str, rung: int, worth: float) -> None:
        dict(self.bracket._rungs).get(rung, {}).setdefault(trial_id, worth)


class _Id(str):
    """A trial's id where Ray keeps trials: what is replayed has no other."""

    @property
    def trial_id(self) -> str:
        return str(self)


class Median:
    """Ray's median stopping rule: a trial ends whose best is under the median of others' means."""

    def __init__(self, rungs: tuple[int, ...]) -> None:
        self.scheduler = MedianStoppingRule(
            time_attr=TIME_ATTR,
            metric=METRIC,
            mode="max",
            grace_period=rungs[0],
            min_samples_required=FEWEST_TO_COMPARE,
            min_time_slice=math.inf,  # it never pauses one for another
        )

    def result(self, trial: Trial, result: dict[str, Any]) -> str:
        return str(self.scheduler.on_trial_result(None, _Id(trial.trial_id), result))

    def enter(self, trial_id: str, rung: int, worth: float) -> None:
        known = self.scheduler._results[_Id(trial_id)]
        if all(row[TIME_ATTR] != rung for row in known):
            known.append({TIME_ATTR: rung, METRIC: worth})


def races_of(config: SweepConfig, store: SweepStore, places: int = 1) -> BatchSizeRaces:
    """What stops this sweep's search trials, by `--scheduler`; so many run at once."""
    rungs = () if config.scheduler == "none" else rungs_of(config)
    return BatchSizeRaces(
        rungs, config.reduction_factor, config.target, config.budget_examples, store,
        goal=config.compared_by, mode=config.mode, kind=config.scheduler, places=places,
    )  # fmt: skip


class BatchSizeRaces(FIFOScheduler):  # type: ignore[misc]
    """A race for every batch size, of HyperBand one for each of its brackets.

    Args:
        rungs: budgets in examples, ascending, each `reduction_factor` times the one before; where
            there are none, no trial is stopped.
        reduction_factor: one trial in this many goes on at a rung.
        target, budget, mode: needed to replay the scores of recorded rungs.
        store: the sweep's folder, whose measurements are replayed when a race is opened.
        goal: for `accuracy` runs go on past the target, and reaching it counts for nothing.
        kind: `asha`, `median`, or `hyperband`: ASHA whose brackets begin at a later rung each.
        places: trials at once, whose processes are kept while none is asked for.
    """

    def __init__(
        self,
        rungs: tuple[int, ...],
        reduction_factor: int,
        target: float,
        budget: int,
        store: SweepStore,
        goal: str = "time",
        mode: str = "max",
        kind: str = "asha",
        places: int = 1,
    ) -> None:
        super().__init__()
        self.rungs = rungs
        self.reduction_factor = reduction_factor
        self.target = target
        self.budget = budget
        self.store = store
        self.goal = goal
        self.mode = mode
        self.kind = kind
        self.places = places
        self.races: dict[tuple[int, int], Race] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        keep_processes(tune_controller, self.places)
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        return next_to_start(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not self._races(trial) or TIME_ATTR not in result:
            return str(self.CONTINUE)
        return self._race(trial).result(trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if not self._races(trial):
            return
        if TIME_ATTR in result:
            self._race(trial).enter(trial.trial_id, result[TIME_ATTR], result[METRIC])
        if result.get("examples_to_target") is not None:
            self._enter_at_all(self._race(trial), trial.trial_id, result[METRIC])

    def _races(self, trial: Trial) -> bool:
        return bool(self.rungs) and bool(trial.config["races"])

    def _race(self, trial: Trial) -> Race:
        key = trial.config["batch_size"], self._bracket(trial.config.get("learning_rate", 0.0))
        if key not in self.races:
            self.races[key] = self._open(*key)
        return self.races[key]

    def _bracket(self, learning_rate: float) -> int:
        """By the learning rate, so that a driver taken up again puts it in the same one."""
        if self.kind != "hyperband":
            return 0
        return zlib.crc32(repr(learning_rate).encode()) % min(BRACKETS, len(self.rungs))

    def _open(self, batch_size: int, bracket: int) -> Race:
        rungs = self.rungs[bracket:]
        race: Race = (
            Median(rungs)
            if self.kind == "median"
            else Asha(rungs, self.reduction_factor, self.budget)
        )
        elsewhere = {
            t.trial_id
            for t in (self.store.read_trials() if self.kind == "hyperband" else [])
            if self._bracket(t.learning_rate) != bracket
        }
        reached: dict[str, int] = {}
        for m in self.store.read_measurements():
            if (m.batch_size, m.stage) != (batch_size, "search") or m.trial_id in elsewhere:
                continue
            if m.examples_to_target is not None and self.goal != "accuracy":
                reached.setdefault(m.trial_id, m.examples_to_target)
            if m.rung is not None:
                worth = score(m.val_metric, reached.get(m.trial_id), self.budget, self.mode)
                race.enter(m.trial_id, self.rungs[m.rung], worth)
        for trial_id, examples in reached.items():
            self._enter_at_all(race, trial_id, score(None, examples, self.budget))
        return race

    def _enter_at_all(self, race: Race, trial_id: str, worth: float) -> None:
        """Enter a run that ended at its target at the rungs it never came to.

        Its score cannot change any more, and those still running have to be compared with it.
        """
        for rung in self.rungs:
            race.enter(trial_id, rung, worth)
