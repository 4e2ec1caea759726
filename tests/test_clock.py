"""What a batch size takes beside another: the profile's seconds, and the clock's of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests import rows
from tests.judged import runs_of, used, verdict_of
from tune_jobs.judging.speed import CONTENTION, clock_of
from tune_jobs.records import BatchSizeProfile, TargetRun


def profiles(deviation: float, sizes: Sequence[int] = (16, 64)) -> list[BatchSizeProfile]:
    """Profiled in three rounds, of which the interval says as much as the deviation."""
    half = math.exp(1.96 * deviation)
    return [
        rows.profile(
            batch_size=size, micro_batch_size=size, chosen=True, outcome="finished", rounds=3,
            step_seconds=0.05, step_seconds_low=0.05 / half, step_seconds_high=0.05 * half,
            step_deviation=deviation,
        )
        for size in sizes
    ]  # fmt: skip


def alone(ratio: Mapping[int, float]) -> list[TargetRun]:
    """Runs that took so many times as long by the clock as was profiled."""
    return [
        replace(run, measured_time_to_target_seconds=run.time_to_target_seconds * ratio[size])
        for size in ratio
        for run in runs_of({size: 10.0}, seeds=1)
        if run.time_to_target_seconds is not None
    ]


def test_what_runs_alone_say_moves_batch_sizes_apart_and_makes_them_better_known() -> None:
    found = clock_of(profiles(0.1), alone({16: 1.1, 64: 0.95}))
    assert 0 < found.off[16] < math.log(1.1) and math.log(0.95) < found.off[64] < 0
    assert found.variance[16] < 0.1**2


def test_what_all_runs_alone_have_in_common_favours_none() -> None:
    found = clock_of(profiles(0.1), alone({16: 1.4, 64: 1.4}))
    assert found.off == pytest.approx({16: 0.0, 64: 0.0})


def test_where_they_contradict_the_profile_it_is_less_known() -> None:
    found = clock_of(profiles(0.01), alone({16: 1.5, 64: 0.7}))
    assert found.variance[16] > 10 * 0.01**2
    beside = clock_of(profiles(0.01, (16, 64, 256)), alone({16: 1.5, 64: 0.7}))
    assert beside.variance[256] > beside.variance[16]  # by the profile alone, which is to blame
    assert math.sqrt(beside.variance[256]) < math.log(1.5 / 0.7), "no wider than they lie apart"


def beside(ratio: Mapping[int, Sequence[float]]) -> list[TargetRun]:
    """As `alone`, of runs that had others beside them."""
    return [
        replace(run, alone=False)
        for size, of in ratio.items()
        for one in of
        for run in alone({size: one})
    ]


def test_of_three_runs_those_that_a_neighbour_slowed_down_or_did_not_count_little() -> None:
    timed = [*alone({16: 1.0, 64: 1.4}), *alone({16: 1.01, 64: 1.02}), *alone({16: 0.99, 64: 1.0})]
    found = clock_of(profiles(0.02), timed)
    assert abs(found.off[64] - found.off[16]) < 0.01


def test_runs_with_others_beside_them_are_heard_as_well() -> None:
    """By how they scatter; and however many there are, what neighbours cost may differ."""
    slower = {16: (1.2, 1.25, 1.15), 64: (1.0, 1.05, 0.95)}
    few = clock_of(profiles(0.1), beside(slower))
    many = clock_of(profiles(0.1), beside({size: of * 30 for size, of in slower.items()}))
    assert many.off[16] - many.off[64] > few.off[16] - few.off[64] > 0.05
    assert CONTENTION**2 / 2 < many.variance[16] < few.variance[16] < 0.1**2
    apart = clock_of(profiles(0.1), alone({16: 1.2, 64: 1.0}))
    assert few.variance[16] < apart.variance[16]


def test_a_profile_by_itself_stands() -> None:
    assert clock_of(profiles(0.1), runs_of({16: 1.0, 64: 1.0})).off == {}
    one = clock_of(profiles(0.1), alone({16: 1.2}))  # beside none it tells nothing of the others
    assert one.off == {} and one.variance == pytest.approx({16: 0.01, 64: 0.01})
    assert clock_of([], alone({16: 1.2, 64: 1.0})) == ({}, {})
    exact = clock_of(profiles(0.0), alone({16: 1.2, 64: 1.2}))
    assert exact.off == pytest.approx({16: 0, 64: 0}) and exact.variance == {16: 0, 64: 0}


def test_what_was_timed_in_one_round_is_not_taken_for_exact() -> None:
    once = [
        replace(p, rounds=1, step_deviation=None, step_seconds_low=None, step_seconds_high=None)
        for p in profiles(0.02)
    ]
    assert clock_of(once, []).variance == pytest.approx({16: 0.01, 64: 0.01})
    assert clock_of(once, alone({16: 1.2, 64: 1.0})).off[16] > 0.03


def test_the_verdict_goes_by_both() -> None:
    runs = runs_of({16: 10.0, 64: 10.4}, noise=0.005)
    assert used(verdict_of(runs, profiles=profiles(0.05))) == 16
    timed = [*runs[1:5], *runs[6:], *alone({16: 1.3, 64: 1.0})]
    told = verdict_of(timed, profiles=profiles(0.05))
    assert used(told) == 64
    assert any("which is counted: 1.30 times at 16" in line for line in told.warnings)
    examples = verdict_of(timed, "examples", profiles=profiles(0.05))
    assert used(examples) == 16


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_in_simulated_sweeps_it_is_off_by_as_much_as_it_says(drift: float) -> None:
    """Profiles off by a tenth, two and eight runs that scatter by a tenth, those of a seed by as
    much together as the machine has drifted: 95 % within 1.96."""
    chance, sizes = np.random.default_rng(0), (16, 32, 64, 128)
    known = {}
    for number in (2, 8):
        far: list[float] = []
        for _ in range(60):
            truth = {size: float(chance.normal(0, 0.1)) for size in sizes}
            bent = {size: truth[size] + float(chance.normal(0, CONTENTION)) for size in sizes}
            pace = chance.normal(0, drift, number) if number > 2 else np.zeros(number)
            took = {size: of + pace + chance.normal(0, 0.1, number) for size, of in bent.items()}
            runs = [
                replace(run, seed=seed)
                for size, of in took.items()
                for seed, one in enumerate(of)
                for run in beside({size: [math.exp(one)]})
            ]
            found = clock_of(profiles(0.1, sizes), runs)
            known[number] = math.sqrt(found.variance[16])
            for one, other in pairwise(sizes):
                off = found.off[one] - found.off[other] - truth[one] + truth[other]
                far.append(off / math.sqrt(found.variance[one] + found.variance[other]))
        assert 0.75 < float(np.std(far)) < 1.25
        assert float(np.mean(np.abs(far) > 1.96)) < 0.1
    assert known[8] < 0.05, "what the machine did to all alike is not told of each"


def test_what_was_run_later_is_not_known_by_the_paces_of_then() -> None:
    """Two batch sizes while the machine slowed down, a third with two of those seeds at the end."""
    often = {size: [math.exp(0.05 * seed) for seed in range(8)] for size in (16, 64)}
    late = {256: [math.exp(0.4)] * 2}
    runs = [
        replace(run, seed=seed)
        for size, of in (often | late).items()
        for seed, one in enumerate(of)
        for run in beside({size: [one]})
    ]
    found = clock_of(profiles(0.1, (16, 64, 256)), runs)
    assert found.off[16] == pytest.approx(found.off[64])
    assert found.variance[16] < 0.02 < 4 * found.variance[256]
