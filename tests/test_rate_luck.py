"""What the choice of a learning rate among few leaves open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.judged import run_of, runs_of, verdict_of
from tune_jobs.judging.rate_luck import shortfalls, tried_rates
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Verdict

BEST, LEAST, LONGEST = 1e-3, 10.0, 30.0


def searched(
    rates: Sequence[float], curvature: float = 0.3, short: Sequence[float] = (), size: int = 32
) -> list[TargetRun]:
    """Trials about BEST: log seconds a parabola in the log of the rate; some are `short` of it."""
    found = []
    for rate in rates:
        took = LEAST * math.exp(curvature * math.log(rate / BEST) ** 2)
        end = LONGEST if rate in short else None
        found.append(run_of(size, 0, 2 * LONGEST if end else took, end, learning_rate=rate))
    return found


def deviation(runs: Sequence[TargetRun], chosen: float = BEST, size: int = 32) -> float:
    mean, variance, *_ = shortfalls(runs, {size: chosen})[size]
    return math.hypot(mean, math.sqrt(variance))


def about(factor: float) -> tuple[float, float, float]:
    """BEST between two neighbours that far from it."""
    return BEST / factor, BEST, BEST * factor


def test_it_grows_with_the_distance_of_neighbours_that_fell_short() -> None:
    found = [
        deviation(searched(rates, short=(rates[0], rates[2])))
        for rates in map(about, (2.0, 4.0, 6.0, 10.0))
    ]
    assert found == sorted(found) and found[-1] > 10 * found[0]


def test_it_grows_with_the_steepness_about_a_rate_that_is_off_the_best() -> None:
    found = [
        deviation(searched((3.6e-4, 7.1e-4, 1.4e-3), curvature), 7.1e-4)
        for curvature in (0.05, 0.1, 0.3, 0.9)
    ]
    assert found == sorted(found) and found[-1] > 1.3 * found[0]


def test_with_many_rates_it_is_small() -> None:
    found = [deviation(searched(tuple(np.geomspace(1e-4, 1e-2, n)))) for n in (3, 5, 9, 17)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.05


def test_two_rates_alone_leave_much_open() -> None:
    assert deviation(searched((1e-3, 2e-3))) > 0.03


def test_several_batch_sizes_inform_one_another() -> None:
    alone = deviation(searched((1e-3, 1e-2)))
    beside = [run for size in (16, 64) for run in searched((3e-4, 1e-3, 3e-3), size=size)]
    assert deviation([*searched((1e-3, 1e-2)), *beside]) < alone


@pytest.mark.parametrize("curvature", [0.0, 0.02, 0.3, 3.0])
@pytest.mark.parametrize("rates", [about(1.01), about(2.0), about(100.0), (1e-3, 1e-3, 2e-3)])
def test_it_is_never_none_at_all_and_always_a_number(
    rates: Sequence[float], curvature: float
) -> None:
    for short in ((), rates[2:]):
        found = deviation(searched(rates, curvature, short))
        assert 0 < found < 1.5


def test_what_cannot_be_told_is_left_out() -> None:
    assert shortfalls([], {32: BEST}) == {}
    assert shortfalls(searched((1e-3,)), {32: BEST}) == {}
    assert shortfalls(searched((1e-3, 1e-3)), {32: BEST}) == {}
    assert shortfalls(searched((1e-3, 2e-3)), {32: None}) == {}
    none_reached = searched((1e-3, 2e-3), short=(1e-3, 2e-3))
    assert tried_rates(none_reached) == {} and shortfalls(none_reached, {32: BEST}) == {}


def test_a_batch_size_without_a_trial_that_reached_is_told_of_by_the_others_and_widely() -> None:
    rates = tuple(np.geomspace(1e-4, 1e-2, 9))
    beside = [run for size in (16, 32) for run in searched(rates, size=size)]
    far = searched((1e-4,), short=(1e-4,), size=64)
    found = shortfalls([*beside, *far], {16: BEST, 32: BEST, 64: BEST})
    assert found[64].borrowed and not found[16].borrowed
    assert found[64].variance > 2 * found[16].variance
    off = shortfalls([*beside, *far], {64: BEST / 10})[64]
    assert off.mean > 2 * found[64].mean  # at a rate where the others are far from their best


def test_trials_count_by_examples_before_seconds_and_those_of_unknown_end_not_at_all() -> None:
    unknown = run_of(32, 0, 9.0, 1.0, learning_rate=4e-3, train_seconds=None, examples_seen=None)
    found = tried_rates([*searched((1e-3, 2e-3), short=(2e-3,)), unknown])[32]
    assert found.rate == pytest.approx(np.log([1e-3, 2e-3]))
    assert found.needed == pytest.approx(np.log([1000, 3000]))
    assert found.short.tolist() == [False, True]


def judged_with(far: int, rate: float, per_second: float, **known: Any) -> Verdict:
    """64 needs 1,000 examples, at 100 a second; `far`, so many a second, was cut off at 15 seconds
    at the one rate that it was tried at."""
    rates = tuple(np.geomspace(1e-4, 1e-2, 7))
    beside = [run for size in (32, 64) for run in searched(rates, curvature=0.3, size=size)]
    ends = {"examples_seen": round(15 * per_second), "learning_rate": rate}
    cut = runs_of({far: 60.0}, 3, ends=15.0, **(ends | known))
    trial = run_of(far, 0, 60.0, 15.0, learning_rate=rate, examples_seen=round(15 * per_second))
    runs = [*runs_of({32: 11.0, 64: 10.0}, 3, learning_rate=BEST), *cut]
    return verdict_of(runs, searched=[*beside, trial])


def bound_of(verdict: Verdict) -> float:
    assert verdict.use is not None and verdict.use.batch_size == 64
    assert verdict.use.regret_bound is not None
    return verdict.use.regret_bound


def test_a_better_rate_takes_no_batch_size_below_the_examples_of_a_smaller_one() -> None:
    """256 was far off its best rate; but 64 needs 1,000 examples, and 256 makes 105 a second."""
    assert bound_of(judged_with(256, BEST / 10, 105.0)) < 0.1
    assert bound_of(judged_with(256, BEST / 10, 300.0)) > 0.5, "at 300 a second it may win"
    assert bound_of(judged_with(256, BEST / 10, 105.0, examples_seen=None)) > 0.3, "not known"


def test_a_better_rate_takes_no_batch_size_below_the_updates_of_a_larger_one() -> None:
    """16 needs as many updates as 32 at least, 34 of them, and makes as many a second."""
    assert bound_of(judged_with(16, BEST / 10, 50.0)) < 0.1
    assert bound_of(judged_with(16, BEST / 10, 100.0)) > 0.3
