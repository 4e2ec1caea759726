"""The records of trials: a trial that had ended keeps its row, whatever is run again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.store import SweepStore
from tune_jobs.tuning.keeper import LISTENERS, RecordKeeper
from tune_jobs.tuning.requests import Requests, TrialRequest

REPORT: dict[str, Any] = {
    "examples_seen": 320, "updates": 10, "outcome": "finished", "done": True, "rung": 0,
    "train_loss": 0.1, "val_loss": 0.1, "val_metric": 0.5, "test_metric": 0.5,
    "examples_to_target": None, "train_seconds": 99.0, "wall_time_seconds": 99.0,
    "train_metric": None,
}  # fmt: skip
ASKED = {"batch_size": 32, "base_learning_rate": 1e-3, "learning_rate": 1e-3, "seed": 0}


def a_trial(name: str = "t") -> Any:
    """One that has ended, as Ray knows it."""
    return SimpleNamespace(
        trial_id=name, config=ASKED, last_result=REPORT, status=Trial.TERMINATED,
        run_metadata=SimpleNamespace(),
    )  # fmt: skip


@contextmanager
def a_keeper(store: SweepStore) -> Iterator[tuple[RecordKeeper, list[Any]]]:
    """The keeper of a sweep's trials, and what it tells."""
    heard: list[Any] = []
    LISTENERS["again"] = [heard.append]
    asked = Requests({32: TrialRequest(1.0, 0.0, None)}, {})
    keeper = RecordKeeper(SweepConfig(name="again"), store, [], asked, "search")
    keeper.setup()
    yield keeper, heard
    del LISTENERS["again"]


def ended_again(store: SweepStore) -> list[Any]:
    """A trial `t` that runs once more, as after a kill before Tune noted its end; what is heard."""
    trial = a_trial()
    with a_keeper(store) as (keeper, heard):
        keeper.on_trial_result(1, [trial], trial, REPORT)
        keeper.on_trial_complete(1, [trial], trial)
        keeper.on_experiment_end([trial])
    return heard


def test_a_row_that_stands_is_kept_when_its_trial_is_run_again(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    row, point = rows.result(), rows.measurement()
    store.write_trials([row])
    store.write_measurements([point])
    assert ended_again(store) == [row]
    assert (store.read_trials(), store.read_measurements()) == ([row], [point])


def test_a_trial_that_had_failed_is_recorded_as_it_ended_at_last(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    store.write_trials([rows.result(outcome="failed", reason="the machine")])
    ended_again(store)
    (row,) = store.read_trials()
    assert (row.outcome, row.wall_time_seconds) == ("finished", 99.0)


def test_of_a_trial_that_ended_no_running_means_are_kept(tmp_path: Path) -> None:
    trial = Trial("again", config=ASKED, stub=True)
    with a_keeper(SweepStore(tmp_path)) as (keeper, _):
        trial.update_last_result(REPORT | {"training_iteration": 1})
        keeper.on_trial_result(1, [], trial, trial.last_result)
        assert trial.metric_analysis
        keeper.on_trial_complete(1, [], trial)
    assert not trial.metric_analysis and not trial.metric_n_steps
    assert trial.last_result["val_metric"] == 0.5


def test_a_row_that_was_lost_is_written_again_from_what_ray_kept(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    with a_keeper(store) as (keeper, _):
        keeper.on_trial_result(1, [], a_trial(), REPORT)
        keeper.on_trial_complete(1, [], a_trial())
    row, point = store.read_trials(), store.read_measurements()
    shutil.rmtree(tmp_path / "trials.parts")
    shutil.rmtree(tmp_path / "measurements.parts")
    for _ in range(2):
        with a_keeper(store) as (keeper, heard):
            runs: Any = SimpleNamespace(trial_id="u", status=Trial.RUNNING, last_result={})
            keeper.on_step_begin(1, [a_trial(), runs])
        assert (store.read_trials(), store.read_measurements()) == (row, point)
    assert heard == []  # the second time there was nothing to write


def test_train_seconds_of_a_schedule_are_those_of_each_batch_size_in_turn(tmp_path: Path) -> None:
    profiles = [rows.profile(batch_size=32, step_seconds=0.05),
                rows.profile(batch_size=64, step_seconds=0.08)]  # fmt: skip
    text = "0:32@0.001 100:64@0.001"  # four updates of 32 see 100, then updates of 64
    report = REPORT | {"updates": 10, "updates_to_target": 6, "device_name": "cpu"}
    trial = a_trial()
    trial.config, trial.last_result = ASKED | {"schedule": text}, report
    store = SweepStore(tmp_path)
    asked = Requests({32: TrialRequest(1.0, 0.0, 512), 64: TrialRequest(1.0, 0.0, 1024)}, {})
    keeper = RecordKeeper(SweepConfig(name="again"), store, profiles, asked, "schedule")
    keeper.setup()
    keeper.on_trial_result(1, [trial], trial, report)
    keeper.on_trial_complete(1, [trial], trial)
    keeper.on_experiment_end([trial])
    (row,), (point,) = store.read_trials(), store.read_measurements()
    assert (row.stage, row.schedule, row.batch_size) == ("schedule", text, 32)
    assert row.train_seconds == point.train_seconds == pytest.approx(4 * 0.05 + 6 * 0.08)
    assert row.time_to_target_seconds == pytest.approx(4 * 0.05 + 2 * 0.08)
    assert asked.of(trial.config).memory_mib == 1024  # what its largest batch needs
