"""Races: ASHA on examples seen, one race for each batch size, on top of Ray's scheduler.

A trial is compared with trials of its own batch size only. Trials report `rung_examples` exactly at
a rung's budget and leave it out elsewhere, so Ray's ASHA decides there and nowhere else. Ray does
not restore rungs; they are replayed from the store's measurements.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from tune_jobs.reading.choosing import score
from tune_jobs.store import SweepStore

TIME_ATTR = "rung_examples"
METRIC = "score"


class BatchSizeRaces(FIFOScheduler):  # type: ignore[misc]
    """One of Ray's asynchronous successive-halving schedulers for every batch size.

    Args:
        rungs: budgets in examples, ascending, each `reduction_factor` times the one before.
        reduction_factor: one trial in this many goes on at a rung.
        target, budget, mode: needed to replay the scores of recorded rungs.
        store: the sweep's folder, whose measurements are replayed when a race is opened.
        goal: for `accuracy` runs go on past the target, and reaching it counts for nothing.
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
    ) -> None:
        super().__init__()
        self.rungs = rungs
        self.reduction_factor = reduction_factor
        self.target = target
        self.budget = budget
        self.store = store
        self.goal = goal
        self.mode = mode
        self.races: dict[int, AsyncHyperBandScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if self._races(trial):
            self._race(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not self._races(trial):
            return str(self.CONTINUE)
        return str(self._race(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        race = self._race(trial) if self._races(trial) else None
        if race is not None and trial.trial_id in race._trial_info:
            race.on_trial_complete(tune_controller, trial, result)
        if race is not None and result.get("examples_to_target") is not None:
            _file_at_the_rungs_left(race, trial.trial_id, result[METRIC])

    def _races(self, trial: Trial) -> bool:
        return bool(self.rungs) and bool(trial.config["races"])

    def _race(self, trial: Trial) -> AsyncHyperBandScheduler:
        size = trial.config["batch_size"]
        if size not in self.races:
            self.races[size] = self._open(size)
        return self.races[size]

    def _open(self, batch_size: int) -> AsyncHyperBandScheduler:
        race = AsyncHyperBandScheduler(
            time_attr=TIME_ATTR,
            metric=METRIC,
            mode="max",
            max_t=self.budget,
            reduction_factor=self.reduction_factor,
            stop_last_trials=False,
        )
        # Ray derives rungs from a ratio of floats; ours are whole examples that trials report at.
        race._brackets[0]._rungs = [(budget, {}) for budget in reversed(self.rungs)]
        recorded = dict(race._brackets[0]._rungs)
        reached: dict[str, int] = {}
        for m in self.store.read_measurements():
            if m.batch_size != batch_size or m.stage != "search":
                continue
            if m.examples_to_target is not None and self.goal != "accuracy":
                reached.setdefault(m.trial_id, m.examples_to_target)
            if m.rung is not None:
                worth = score(m.val_metric, reached.get(m.trial_id), self.budget, self.mode)
                recorded[self.rungs[m.rung]][m.trial_id] = worth
        for trial_id, examples in reached.items():
            _file_at_the_rungs_left(race, trial_id, score(None, examples, self.budget))
        return race


def _file_at_the_rungs_left(race: AsyncHyperBandScheduler, trial_id: str, worth: float) -> None:
    """Enter a run that ended at its target at the rungs it never came to.

    Its score cannot change any more, and those still running have to be compared with it.
    """
    for _, recorded in race._brackets[0]._rungs:
        recorded.setdefault(trial_id, worth)
