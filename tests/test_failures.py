"""A user's code that raises, exits or hangs in one trial loses that trial only, and is told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from tests.tracked import result
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.reporting.answer import answer_of_sweep, left_out_of
from tune_jobs.store import SweepStore
from tune_jobs.tuning.failures import given_up, reason_of
from tune_jobs.tuning.guard import Exited, NoReport, allowed_seconds, guarded


def test_what_hangs_is_ended_where_it_stands() -> None:
    began = time.monotonic()
    with pytest.raises(NoReport, match="no report within 0 s") as raised, guarded(0.1):
        time.sleep(60)
    assert time.monotonic() - began < 10
    assert any("time.sleep(60)" in str(entry.statement) for entry in raised.traceback)


def test_what_exits_is_an_error_like_others() -> None:
    with pytest.raises(Exited, match=r"sys.exit\(3\)"), guarded(60):
        sys.exit(3)


def test_a_block_in_time_leaves_no_alarm_behind() -> None:
    with guarded(0.05):
        pass
    time.sleep(0.2)
    assert allowed_seconds(10.0) == 110.0


def test_a_record_keeps_the_error_and_the_traceback_of_the_code_that_raised() -> None:
    error = RayTaskError("step", "in loss\n  raise ValueError", ValueError("a bad row"))
    for handed_over in (error, error.as_instanceof_cause()):
        first, *trace = reason_of(handed_over).splitlines()
        assert first == "ValueError: a bad row" and "in loss" in trace
    assert reason_of(None) == "no reason given"


def test_a_batch_size_whose_every_trial_fails_is_left_alone_and_told_with_its_reason() -> None:
    bad = {"batch_size": 16, "outcome": "failed", "reason": "ValueError: a bad row\ntrace"}
    rows = [
        result("a", 1, **bad, learning_rate=1e-3, stage="search"),
        result("b", 1, batch_size=32, outcome="failed", stage="search"),
        result("c", 1, batch_size=32, outcome="finished", stage="search"),
    ]
    assert given_up(rows) == set()
    rows.append(result("d", 1, **bad, learning_rate=2e-3, stage="search"))
    assert given_up(rows) == {16}
    assert left_out_of(rows) == [
        "16: all 2 trials failed, at learning rates 0.001, 0.002: ValueError: a bad row.",
        "Batch sizes without confirm runs, shown by their best trial: 32.",
    ]


def test_a_sweep_whose_every_trial_diverged_says_so_with_the_rates(tmp_path: Path) -> None:
    store, bad = SweepStore(tmp_path), {"outcome": "diverged", "stage": "search"}
    store.write_trials([
        result("a", 1, **bad, batch_size=24, learning_rate=4e-3),
        result("b", 1, **bad, batch_size=24, learning_rate=5e-2),
        result("c", 1, **bad, batch_size=96, learning_rate=2e-2),
    ])  # fmt: skip
    with pytest.raises(UserError) as told:
        answer_of_sweep(SweepConfig(batch_sizes=(24, 96)), store)
    said = str(told.value)
    assert "24: all 2 trials diverged, at learning rates 0.004, 0.05." in said
    assert "96: the only trial diverged, at learning rates 0.02." in said
    assert "--resume" not in said and "no trial that has ended" not in said


def test_a_batch_size_whose_every_trial_diverged_is_told_beside_the_others() -> None:
    rows = [
        result("a", 1, batch_size=24, outcome="diverged", learning_rate=4e-3, stage="search"),
        result("b", 1, batch_size=96, outcome="finished", stage="confirm"),
    ]
    assert left_out_of(rows) == ["24: the only trial diverged, at learning rates 0.004."]
