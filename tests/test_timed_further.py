"""What is measured once trials have begun: the noise scale, and further rounds of what may win."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tests.test_sweep import command, surroundings
from tune_jobs.config import SweepConfig
from tune_jobs.measure.fresh import FreshProcesses, Outcome
from tune_jobs.measure.probe import Subject, measure_rounds
from tune_jobs.measure.profiling import (
    DeviceProfiler,
    ProfilePlan,
    timed_again,
    to_profiles,
    to_time_again,
)
from tune_jobs.planning.timing import worth_timing
from tune_jobs.records import BatchSizeProfile, TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.tuning.aside import Aside

SIZES = (16, 32, 64, 128, 256)
CONFIG = replace(SweepConfig(), batch_sizes=SIZES, budget_examples=9000)


def searched(
    needs: Mapping[int, int | None], cost: Mapping[int, float] | None = None
) -> list[TrialResult]:
    cost = cost or {}
    return [
        rows.result(
            trial_id=str(size), stage="search", batch_size=size, examples_to_target=need,
            outcome="finished" if need else "stopped",
            time_to_target_seconds=need and need * cost.get(size, 0.001),
        )
        for size, need in needs.items()
    ]  # fmt: skip


def test_what_took_1_5_times_the_fastest_at_the_most_is_timed_and_three_at_the_least() -> None:
    needs: dict[int, int | None] = {16: 1000, 32: 1300, 64: 1400, 128: 1500, 256: 1600}
    assert worth_timing(CONFIG, searched(needs)) == {16, 32, 64, 128}
    needs = {16: 1000, 32: 3000, 64: 5000, 128: None, 256: None}
    assert worth_timing(CONFIG, searched(needs)) == {16, 32, 64}
    assert worth_timing(CONFIG, searched({16: 1000, 32: 4000})) == {16, 32}
    needs = {16: 1000, 32: 1300, 64: 1900, 128: 2000}
    assert worth_timing(CONFIG, searched(needs, {16: 0.01})) == {32, 64, 128}
    assert not worth_timing(replace(CONFIG, goal="examples"), searched(needs))


@pytest.fixture(scope="module")
def once(fresh: FreshProcesses, digits: Subject) -> list[BatchSizeProfile]:
    plan = ProfilePlan((16, 64, 256), "whole", 20.0, 0.1, first_alone=True)
    seen = DeviceProfiler(fresh, digits, plan, lambda line: None).run()
    return to_profiles(seen, digits, plan.batch_sizes, "here", 0.0)


@pytest.mark.slow
def test_a_first_round_is_followed_by_rounds_of_some_batch_sizes_side_by_side(
    fresh: FreshProcesses, digits: Subject, once: list[BatchSizeProfile]
) -> None:
    again = to_time_again(once)
    assert [row.batch_size for row in again] == [16, 64, 256]
    assert all(row.rounds == 1 and row.step_deviation is None for row in again)
    timed = timed_again(fresh, digits, again[:2], 20.0)
    assert [row.batch_size for row in timed] == [16, 64]
    for row, before in zip(timed, again, strict=False):
        assert row.rounds >= 3 and row.step_deviation is not None
        assert row.step_seconds and row.step_seconds_low and row.step_seconds_high
        assert row.step_seconds_low < row.step_seconds < row.step_seconds_high
        assert row.examples_per_second == row.batch_size / row.step_seconds
        assert row.peak_memory_mib == before.peak_memory_mib
    assert not to_time_again(timed)


class Broken:
    """A device on which the process ends."""

    def call(self, function: Any, argument: Any, timeout_seconds: float, copies: int = 1) -> Any:
        assert function is measure_rounds
        return [Outcome(None, "killed", "by the kernel")]


@pytest.mark.slow
def test_rows_stay_as_they_are_where_no_further_rounds_can_be_made(
    fresh: FreshProcesses, digits: Subject, once: list[BatchSizeProfile]
) -> None:
    again = to_time_again(once)
    assert timed_again(Broken(), digits, again, 20.0) == again
    assert timed_again(fresh, digits, again, 0.0) == again
    assert timed_again(fresh, digits, again, 0.2)[0].rounds == 2  # and no third one
    assert timed_again(fresh, digits, [], 20.0) == []


def test_what_goes_on_aside_is_waited_for_and_its_fault_raised() -> None:
    aside, done = Aside(), threading.Event()
    threading.Timer(0.2, done.set).start()
    waits = aside.begin(lambda: done.wait(30))
    aside.wait()
    assert waits.done() and done.is_set()
    aside.begin(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        aside.wait()
    begun: list[int] = []
    aside.later(lambda: begun.append(1))
    assert not begun
    aside.go("a trial has begun")
    aside.later(lambda: begun.append(2))
    aside.wait()
    assert sorted(begun) == [1, 2]
    aside.later(lambda: begun.append(3))  # ended before any trial began
    ended = threading.Event()
    aside.begin(lambda: ended.wait(30), ended.set)
    aside.close()
    assert ended.is_set() and 3 not in begun


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_killed_before_its_noise_scale_was_measured_measures_it_when_it_goes_on(
    tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "it.toml").write_text(
        'model = "mlp"\ndata = "digits"\nbatch_sizes = [16, 64, 256]\ntrials = 6\nseeds = 2\n'
        'profile_seconds = 60\ncpus_per_trial = "1"\n'
    )
    line, around = command(tmp_path, data_dir, "--config", "it.toml"), surroundings(tmp_path)
    store = SweepStore(tmp_path / "runs" / "it")
    driver = subprocess.Popen(
        line, cwd=tmp_path, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    while not store.profiles.exists():
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert {row.rounds for row in store.read_profiles()} == {1}
    assert not store.read_noise_scale() and not store.read_trials()
    done = subprocess.run(
        [*line, "--resume"], cwd=tmp_path, env=around, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Gradient noise scale" in done.stdout and "are timed further" in done.stdout
    assert store.read_noise_scale()
    profiles = {row.batch_size: row for row in store.read_profiles() if row.chosen}
    assert all(profiles[size].rounds >= 3 for size in (16, 64, 256))
    for row in store.read_trials():
        if row.stage == "confirm":  # by the seconds of the further rounds
            seconds = row.updates * (profiles[row.batch_size].step_seconds or 0.0)
            assert row.train_seconds == pytest.approx(seconds)
