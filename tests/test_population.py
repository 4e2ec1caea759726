"""Population based training: its members, what one explores, and the schedule that is replayed.

Invariants:
  1. the same seed gives the same proposals, all within the batch sizes that fit;
  2. a member that takes over another's weights takes its optimizer's state, its examples seen and
     its schedule along;
  3. a member that has ended keeps no other one waiting;
  4. the budget in trials is kept: members are trials.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from tests import rows
from tests.trained import make
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.data.dataset import open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.errors import UserError
from tune_jobs.planning.batch_schedules import Given
from tune_jobs.planning.population import best_of_population, compared_at, explored, members_of
from tune_jobs.planning.schedule_runs import schedule_known
from tune_jobs.reporting.plan import plan_lines
from tune_jobs.training import checkpoint
from tune_jobs.training.segments import Course, Segment, segments_of
from tune_jobs.tuning.population import Population

CONFIG = SweepConfig(search="pbt", batch_sizes=(16, 32, 64), trials=12, target=0.9)
KNOWN = Given(32, 0.0016, 2000.0, "adam", (16, 32, 64))
BASES = {16: 4e-3, 32: 4.5e-3, 64: 5e-3}


def test_members_begin_at_the_best_rates_of_the_batch_sizes_in_turn() -> None:
    members = members_of(CONFIG, KNOWN, BASES)
    assert members == members_of(CONFIG, KNOWN, BASES)  # 1
    assert [m["batch_size"] for m in members] == [32, 16, 64, 32, 16, 64]
    assert [m["base_learning_rate"] for m in members[:3]] == [4.5e-3, 4e-3, 5e-3]
    assert len({(m["batch_size"], m["learning_rate"]) for m in members}) == len(members)
    assert {m["most_examples"] for m in members} == {4000}
    for member in members:
        (segment,) = segments_of(member["schedule"])
        assert (segment.batch_size, segment.learning_rate) == (
            member["batch_size"], member["learning_rate"],
        )  # fmt: skip


def test_members_are_compared_five_times_on_the_way_to_the_target() -> None:
    assert compared_at(KNOWN, 4000) == tuple(range(400, 4000, 400))


def test_an_explorer_goes_on_with_the_schedule_that_it_took_over() -> None:
    taken = members_of(CONFIG, KNOWN, BASES)[0]
    for seed in range(50):
        found = explored(CONFIG, taken, 416, KNOWN.fitting, np.random.default_rng(seed))
        again = explored(CONFIG, taken, 416, KNOWN.fitting, np.random.default_rng(seed))
        assert found == again  # 1
        first, second = segments_of(found["schedule"])
        assert (first,) == segments_of(taken["schedule"]) and second.from_examples == 416
        assert second.batch_size in KNOWN.fitting and second.batch_size == found["batch_size"]
        assert 0.8 <= found["base_learning_rate"] / taken["base_learning_rate"] <= 1.25


def test_weights_that_are_taken_over_bring_optimizer_state_and_examples_seen_along(
    tmp_path: Path, data_dir: Path
) -> None:
    digits = open_dataset(prepare("digits", data_dir))
    donor = make(digits, segments=(Segment(0, 32, 3e-3, 32),), rungs=(1000,))
    while donor.advance().rung is None:
        pass
    seen = donor.course.examples(donor.progress.updates)
    checkpoint.save(donor.state(), tmp_path)
    taken = (Segment(0, 32, 3e-3, 32), Segment(seen, 64, 1e-3, 64))
    other = make(digits, batch_size=64, learning_rate=1e-3, segments=taken, rungs=(1000, 2000))
    other.load_state(checkpoint.load(tmp_path))
    assert other.course.examples(other.progress.updates) == seen  # 2
    for name, value in donor.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)
    before, after = (run.optimizer.state_dict()["state"] for run in (donor, other))
    assert all(torch.equal(before[k]["exp_avg"], after[k]["exp_avg"]) for k in before)
    report = other.advance()
    assert report.examples_seen == Course(taken).examples(report.updates) > seen
    assert {group["lr"] for group in other.optimizer.param_groups} == {1e-3}  # not the donor's


def of_member(seconds: float | None, schedule: str, **changes: Any) -> Any:
    reached = None if seconds is None else 3000
    return rows.result(
        trial_id=schedule, stage="pbt", schedule=schedule, time_to_target_seconds=seconds,
        examples_to_target=reached, **changes,
    )  # fmt: skip


def test_the_best_members_schedule_is_replayed_up_to_where_it_reached_the_target() -> None:
    trials = [
        of_member(5.0, "0:32@0.001"),
        of_member(4.0, "0:32@0.001 1000:64@0.002 2000:64@0.001 3000:16@0.001"),
        of_member(None, "0:16@0.001 500:64@0.001"),
    ]
    found = schedule_known(CONFIG, KNOWN, trials)
    assert [s.from_examples for s in found.segments] == [0, 1000, 2000]
    again = [*trials, replace(trials[0], stage="schedule", batch_size=32, learning_rate=0.0016,
                              schedule="0:32@0.001 900:64@0.002")]  # fmt: skip
    assert [s.from_examples for s in schedule_known(CONFIG, KNOWN, again).segments] == [0, 900]


def test_a_population_without_a_schedule_says_why() -> None:
    found = best_of_population(CONFIG, [of_member(None, "0:16@0.001 500:64@0.001")])
    assert found.told == "pbt is left out: no member of the population reached the target"
    found = best_of_population(CONFIG, [of_member(5.0, "0:32@0.001")])
    assert not found.segments and "kept to one segment, batch size 32" in (found.told or "")


def test_members_are_trials_and_leave_every_batch_size_one() -> None:
    assert CONFIG.members == 6 and replace(CONFIG, trials=40).members == 8  # 4
    assert replace(CONFIG, population=3).members == 3
    assert replace(CONFIG, search="grow").members == 0
    with pytest.raises(UserError, match="population of 8 leaves 1 for 6 batch sizes"):
        resolve(None, {"search": "pbt", "trials": 9, "population": 8})
    with pytest.raises(UserError, match="population 1: a population has 2 members"):
        resolve(None, {"search": "pbt", "population": 1})


def test_a_dry_run_tells_of_the_population_and_of_the_trials_left() -> None:
    told = plan_lines(CONFIG)
    assert "a population of 6" in told[-2] and "slower" in told[-2]
    assert "the best member's batch schedule" in told[-1]


# --- the scheduler ----------------------------------------------------------------------------


def a_trial(status: str) -> Any:
    return SimpleNamespace(status=status, config={"member": 0})


def a_population(*trials: Any, last: int) -> tuple[Population, Any]:
    """Members that have all come to the mark `last` of the first two, as Ray's controller sees
    them."""
    found = Population(CONFIG, members_of(CONFIG, KNOWN, BASES), KNOWN.fitting, 400)
    for trial in trials:
        found._trial_state[id(trial)] = SimpleNamespace(last_train_time=last)
    states = {id(t): found._trial_state[id(t)] for t in trials}
    found._trial_state = _ById(states)  # type: ignore[assignment]
    controller = SimpleNamespace(
        get_trials=lambda: list(trials),
        get_live_trials=lambda: [t for t in trials if t.status != Trial.TERMINATED],
    )
    return found, controller


class _ById(dict[int, Any]):
    """Trials of these tests cannot be hashed."""

    def __getitem__(self, trial: Any) -> Any:
        return super().__getitem__(id(trial))


def test_a_member_that_has_ended_keeps_no_other_one_waiting() -> None:
    waiting, ended = a_trial(Trial.PAUSED), a_trial(Trial.TERMINATED)
    found, controller = a_population(waiting, ended, last=400)
    assert PopulationBasedTraining.choose_trial_to_run(found, controller) is None  # Ray's own
    assert found.choose_trial_to_run(controller) is waiting  # 3


def test_members_wait_for_one_that_still_runs() -> None:
    found, controller = a_population(a_trial(Trial.PAUSED), a_trial(Trial.RUNNING), last=400)
    assert found.choose_trial_to_run(controller) is None
    assert math.isclose(found._next_perturbation_sync, 400)
