"""`--search pbt`: a population on Ray's PopulationBasedTraining, in step by examples seen.

Members report `rung_examples` at the marks where they are compared, and nowhere else. At each mark
all wait; then those of the lower quarter take over weights, optimizer state, examples seen and the
schedule so far of one of the upper quarter, and go on with a segment of their own. Ray hands the
configuration and the other one's checkpoint to the same process by `reset_config` and
`load_checkpoint`; a restored optimizer brings the other one's rate, which the loop sets anew from
the schedule before each update.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from tune_jobs.config import SweepConfig
from tune_jobs.planning.batch_schedules import Given
from tune_jobs.planning.population import compared_at, explored
from tune_jobs.tuning import stages
from tune_jobs.tuning.racing import TIME_ATTR
from tune_jobs.tuning.stages import Stage

Asked = dict[str, Any]
POPULATION = "pbt"
CHECKPOINTS = 4  # kept of a member: another one may be about to load the last but one
QUARTER = 0.25

# Its hints are of a missing time_attr, which here means "not at a mark", and of what it takes over.
logging.getLogger("ray.tune.schedulers.pbt").setLevel(logging.ERROR)


class Population(PopulationBasedTraining):  # type: ignore[misc]
    """Ray's scheduler, synchronous: members are compared at equal examples, so that neither the
    clock nor their order decides who takes over whose weights."""

    def __init__(
        self,
        config: SweepConfig,
        members: Sequence[Mapping[str, Any]],
        sizes: Sequence[int],
        every: int,
    ) -> None:
        super().__init__(
            time_attr=TIME_ATTR,
            metric="score",
            mode="max",
            perturbation_interval=every,
            quantile_fraction=QUARTER,
            custom_explore_fn=dict,  # never asked: see _get_new_config
            log_config=False,
            require_attrs=False,
            synch=True,
        )
        self.config = config
        self.members = members
        self.sizes = sizes

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A fresh member gets what it begins with; a restored one has what it goes on with."""
        if "schedule" not in trial.config:
            trial.set_config(dict(self.members[trial.config["member"]]))
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        # Whom a member takes over is Ray's draw from Python's own generator.
        random.seed(f"{self.config.seed} {self._next_perturbation_sync}")
        return str(super().on_trial_result(tune_controller, trial, result))

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[Asked, Asked]:
        """The other one's schedule, and a segment of one's own from the examples it has seen."""
        seen = self._trial_state[trial_to_clone].last_result["examples_seen"]
        member = trial.config["member"]
        chance = np.random.default_rng([self.config.seed, member, seen])
        taken = explored(self.config, trial_to_clone.config, seen, self.sizes, chance)
        return {**taken, "member": member}, {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Ray would wait for ever for a member that has ended: then the others go on."""
        chosen = super().choose_trial_to_run(tune_controller)
        live = tune_controller.get_live_trials()
        if chosen is None and live and all(t.status == Trial.PAUSED for t in live):
            self._next_perturbation_sync += self._perturbation_interval
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen


def evolve(
    stage: Stage,
    given: Given,
    members: Sequence[Mapping[str, Any]],
    say: Callable[[str], None],
    *,
    resume: bool,
) -> None:
    """Train the population; the rows of its members are in the store when this returns."""
    marks = compared_at(given, members[0]["most_examples"])
    shared = replace(stage.shared(), rungs=marks, stops_at_target=True)
    places = stages.at_once(shared.requests.beside.values(), stage.cluster)
    if len(members) > places:
        say(
            f"a population of {len(members)} of which {places} run at once: members take turns "
            "from mark to mark, which is slower; set a smaller population in the TOML for less"
        )
    tuner = stages.restored(stage, POPULATION, shared) if resume else None
    if tuner is None:
        scheduler = Population(stage.config, members, given.fitting, marks[0])
        tuner = stages.fresh(
            stage, POPULATION, shared, None, scheduler, 1, keep=CHECKPOINTS,
            space={"member": tune.grid_search(list(range(len(members))))},
        )  # fmt: skip
    stages.fit(tuner, len(members))
