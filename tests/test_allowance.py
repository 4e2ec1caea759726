"""The minutes that a sweep was given: no run is begun after a stage's part of them."""

from __future__ import annotations

import time

import pytest

from tune_jobs.config import resolve
from tune_jobs.errors import UserError
from tune_jobs.planning.allowance import FURTHER, MEASURE, SEARCH, Allowance


def after(seconds: float, minutes: float | None) -> Allowance:
    return Allowance(minutes, time.monotonic() - seconds)


def test_without_minutes_there_is_no_end() -> None:
    assert not after(1e9, None).is_over()
    assert after(1e9, None).left_to_measure(90.0) == 90.0


def test_each_stage_has_its_part() -> None:
    assert 0 < MEASURE < SEARCH < FURTHER < 1
    half = after(300, minutes=10)
    assert not half.is_over(SEARCH) and not half.is_over()
    assert after(361, minutes=10).is_over(SEARCH) and not after(361, minutes=10).is_over(FURTHER)
    assert after(601, minutes=10).is_over()


def test_fixed_batch_sizes_leave_their_part_to_a_schedule() -> None:
    assert after(421, minutes=10).for_fixed().is_over() and not after(421, minutes=10).is_over()
    assert not after(1e9, None).for_fixed().is_over()


def test_profiling_takes_no_more_than_its_part_leaves() -> None:
    assert after(0, minutes=10).left_to_measure(90.0) == 90.0
    assert after(0, minutes=2).left_to_measure(90.0) == pytest.approx(30.0, abs=1)
    assert after(500, minutes=2).left_to_measure(90.0) == 1.0


def test_minutes_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="--minutes"):
        resolve(None, {"minutes": 0.0})
