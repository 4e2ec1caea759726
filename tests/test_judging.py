"""The judge on runs with a planted truth: statuses, ties, goals, limits, warnings, sentences."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.records import TargetRun
from tune_jobs.reporting.answer import as_json, learning_rate_range
from tune_jobs.verdicts import BINDING_LIMITS, STANDINGS, STATUSES, BatchSizeVerdict, Verdict

RATE = 100.0  # examples per second, unless a test says otherwise


def runs_of(
    seconds: Mapping[int, float],
    seeds: int = 5,
    noise: float = 0.01,
    ends: float | None = None,
    **fields: Any,
) -> list[TargetRun]:
    """Log-normal times around `seconds`; a run that takes more than `ends` never reaches."""
    chance = random.Random(1)
    found = []
    for size, typical in seconds.items():
        for seed in range(seeds):
            took = typical * math.exp(chance.gauss(0, noise))
            found.append(run_of(size, seed, took, ends, **fields))
    return found


def run_of(
    size: int, seed: int | None, took: float, ends: float | None = None, **fields: Any
) -> TargetRun:
    reached, whole = ends is None or took <= ends, ends or 2 * took
    values = {
        "batch_size": size, "seed": seed, "examples_per_second": RATE,
        "time_to_target_seconds": took if reached else None,
        "examples_to_target": took * RATE if reached else None,
        "updates_to_target": took * RATE / size if reached else None,
        "train_seconds": whole, "examples_seen": round(whole * RATE),
        "updates": round(whole * RATE / size), "peak_memory_mib": 400.0 + size,
    }  # fmt: skip
    return rows.target_run(**(values | fields))


def verdict_of(runs: Sequence[TargetRun], goal: str = "time", **more: Any) -> Verdict:
    policy = more.pop("policy", {})
    (verdict,) = judge_runs(runs, Policy(goal, **policy), **more)
    return verdict


def row_of(verdict: Verdict, size: int) -> BatchSizeVerdict:
    return next(row for row in verdict.per_batch_size if row.batch_size == size)


# Statuses


def test_a_batch_size_told_from_all_others_is_decided() -> None:
    verdict = verdict_of(runs_of({32: 20.0, 64: 10.0, 128: 15.0}))
    assert (verdict.status, verdict.recommended_batch_size) == ("decided", 64)
    assert verdict.tied_batch_sizes == (64,)
    assert verdict.risk is not None and verdict.risk < 0.05
    assert (verdict.more_seeds, verdict.open_pair, verdict.advice) == (None, None, None)
    assert verdict.reason.startswith("64 reaches 0.9 in 10.0")
    assert "128, takes 1.5" in verdict.reason
    assert [row.standing for row in verdict.per_batch_size] == ["slower", "tied", "slower"]


def test_of_batch_sizes_within_the_tolerance_the_least_memory_is_recommended() -> None:
    runs = runs_of({32: 10.2, 64: 10.0, 128: 20.0})
    verdict = verdict_of(runs)
    assert (verdict.status, verdict.recommended_batch_size) == ("tied", 32)
    assert verdict.tied_batch_sizes == (32, 64)
    assert "least memory (432 MiB) of 32 and 64" in verdict.reason
    heavy = [replace(r, peak_memory_mib=900.0) if r.batch_size == 32 else r for r in runs]
    assert verdict_of(heavy).recommended_batch_size == 64


def test_a_difference_over_the_tolerance_is_not_given_up_for_memory() -> None:
    verdict = verdict_of(runs_of({32: 11.5, 64: 10.0}, noise=0.002))
    assert verdict.recommended_batch_size == 64
    assert verdict_of(runs_of({32: 11.5, 64: 10.0}, noise=0.002), policy={"tolerance": 0.2}
                      ).recommended_batch_size == 32  # fmt: skip


def test_what_noise_hides_is_undecided_and_names_the_seeds_that_would_settle_it() -> None:
    verdict = verdict_of(runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15))
    assert (verdict.status, verdict.recommended_batch_size) == ("undecided", None)
    assert verdict.open_pair == (64, 128)
    assert verdict.more_seeds is not None and 1 <= verdict.more_seeds <= 400
    assert f"about {verdict.more_seeds} more seed" in verdict.reason
    assert "would settle 64 against 128" in verdict.reason
    assert f"--seeds {3 + verdict.more_seeds}" in (verdict.advice or "")
    assert verdict.tied_batch_sizes == (64, 128)


def test_more_seeds_of_the_same_truth_settle_it() -> None:
    few = verdict_of(runs_of({64: 10.0, 128: 13.0}, seeds=3, noise=0.15))
    many = verdict_of(runs_of({64: 10.0, 128: 13.0}, seeds=40, noise=0.15))
    assert (few.status, many.status) == ("undecided", "decided")


@pytest.mark.parametrize("seeds", [0, None])
def test_a_single_run_of_each_batch_size_never_gives_a_verdict(seeds: int | None) -> None:
    runs = [run_of(size, seeds, took) for size, took in ((32, 1000.0), (64, 1.0), (128, 900.0))]
    verdict = verdict_of(runs)
    assert (verdict.status, verdict.recommended_batch_size) == ("undecided", None)
    assert verdict.leading_batch_size == 64
    assert "one run of each batch size" in verdict.reason
    assert "at least 3 seeds" in (verdict.advice or "")
    assert any("single run" in told for told in verdict.warnings)
    assert all(row.low is None and row.high is None for row in verdict.per_batch_size)


def test_a_batch_size_with_one_run_is_not_recommended_however_fast() -> None:
    runs = [*runs_of({32: 20.0, 128: 30.0}), run_of(64, 0, 1.0)]
    verdict = verdict_of(runs)
    assert (verdict.status, verdict.recommended_batch_size) == ("undecided", None)
    assert verdict.leading_batch_size == 64
    assert "64" in verdict.reason
    assert "single run" in verdict.warnings[0]


def test_a_single_batch_size_is_no_comparison_but_has_an_interval() -> None:
    verdict = verdict_of(runs_of({64: 10.0}))
    row = row_of(verdict, 64)
    assert row.low is not None and row.high is not None
    assert verdict.status == "decided"
    assert "no other batch size" in verdict.reason


def test_runs_without_a_seed_are_compared_unpaired() -> None:
    runs = [replace(run, seed=None) for run in runs_of({32: 20.0, 64: 10.0})]
    assert verdict_of(runs).recommended_batch_size == 64


def test_pairing_by_seed_tells_apart_what_the_spread_over_seeds_hides() -> None:
    def runs(paired: bool) -> list[TargetRun]:
        luck = [0.6, 0.8, 1.0, 1.3, 1.7]
        shift = 0 if paired else 100
        return [
            run_of(size, seed + shift * (size == 64), took * luck[seed] * (1 + 0.003 * (seed % 2)))
            for size, took in ((32, 10.0), (64, 12.0))
            for seed in range(5)
        ]

    assert verdict_of(runs(True)).recommended_batch_size == 32
    assert verdict_of(runs(False)).status == "undecided"


# Runs that never reached the target


def test_no_reach_in_most_runs_is_unreached() -> None:
    verdict = verdict_of(runs_of({32: 20.0, 64: 10.0}, ends=5.0))
    assert (verdict.status, verdict.recommended_batch_size) == ("unreached", None)
    assert verdict.critical_batch_size is None and verdict.critical_batch_size_reason
    assert "more than half" in verdict.reason
    assert "--target" in (verdict.advice or "")
    assert [row.standing for row in verdict.per_batch_size] == ["unreached"] * 2
    for row in verdict.per_batch_size:
        assert (row.seeds, row.reached, row.median, row.mean) == (5, 0, None, None)


def test_a_run_that_never_reached_counts_as_slower_than_all() -> None:
    runs = runs_of({32: 20.0, 64: 10.0})
    missed = [replace(r, time_to_target_seconds=None, examples_to_target=None,
                      updates_to_target=None, train_seconds=30.0)
              if (r.batch_size, r.seed) == (64, 0) else r for r in runs]  # fmt: skip
    plain, censored = row_of(verdict_of(runs), 64), row_of(verdict_of(missed), 64)
    assert (censored.seeds, censored.reached, censored.mean) == (5, 4, None)
    assert censored.mean_at_least is not None and censored.mean_at_least > 13
    assert censored.median is not None and plain.median is not None
    assert censored.median >= plain.median
    assert any("1 of 10 runs never reached" in told for told in verdict_of(missed).warnings)


def test_a_batch_size_ended_too_early_leaves_the_question_open() -> None:
    runs = [*runs_of({32: 20.0}), *runs_of({512: 50.0}, ends=8.0)]
    verdict = verdict_of(runs)
    assert verdict.status == "undecided"
    assert "ended too early" in verdict.reason
    assert "--budget-examples" in (verdict.advice or "")


def test_a_batch_size_that_ran_longer_than_the_best_without_reaching_is_out() -> None:
    runs = [*runs_of({16: 40.0, 32: 20.0}), *runs_of({512: 500.0}, ends=100.0)]
    verdict = verdict_of(runs)
    assert (verdict.status, verdict.recommended_batch_size) == ("decided", 32)
    assert row_of(verdict, 512).standing == "unreached"
    assert verdict.binding_limit == "statistics"
    assert "reached the target in 0 of 5 runs" in (verdict.limit_reason or "")


def test_a_table_that_says_never_and_no_more_is_believed() -> None:
    silent: dict[str, Any] = {"train_seconds": None, "examples_seen": None, "updates": None}
    runs = [*runs_of({32: 20.0, 64: 10.0}), *runs_of({512: 500.0}, ends=100.0, **silent)]
    verdict = verdict_of(runs)
    assert verdict.recommended_batch_size == 64
    assert any("how long those of 512 went on is not told" in told for told in verdict.warnings)


def test_a_median_on_a_censored_run_has_a_lower_end_alone() -> None:
    runs = [*runs_of({32: 20.0}), *runs_of({64: 30.0}, seeds=2), *[
        run_of(64, seed, 90.0, ends=60.0) for seed in (2, 3, 4)
    ]]  # fmt: skip
    row = row_of(verdict_of(runs), 64)
    assert row.median is None and row.high is None
    assert row.low is not None and row.low > 10


# What decides and what does not


def test_test_accuracy_never_enters_a_choice() -> None:
    """64 is the best on the test split and the worst on the validation split."""
    best = {32: (0.97, 0.90), 64: (0.91, 0.999), 128: (0.93, 0.95)}
    times = {32: 20.0, 64: 10.0, 128: 15.0}
    runs = [
        replace(r, val_accuracy=best[r.batch_size][0] + 0.0003 * (r.seed or 0),
                test_accuracy=best[r.batch_size][1])
        for r in runs_of(times)
    ]  # fmt: skip
    without = [replace(r, test_accuracy=None) for r in runs]
    assert verdict_of(runs, "accuracy").recommended_batch_size == 32
    for goal in ("time", "examples", "accuracy", "memory"):
        one, other = asdict(verdict_of(runs, goal)), asdict(verdict_of(without, goal))
        for decided in ("status", "recommended_batch_size", "tied_batch_sizes", "risk", "reason",
                        "binding_limit", "by_goal", "sensitivity", "pareto"):  # fmt: skip
            assert one[decided] == other[decided], decided


def test_each_goal_has_its_own_answer() -> None:
    speeds = {16: 50.0, 64: 400.0, 256: 500.0}
    needs = {16: 1000.0, 64: 2000.0, 256: 6000.0}
    joules = {16: 500.0, 64: 600.0, 256: 300.0}
    runs = [
        replace(
            run_of(size, seed, needs[size] / speeds[size] * (1 + 0.004 * (seed % 3))),
            examples_to_target=needs[size] * (1 + 0.004 * (seed % 3)), train_seconds=None,
            updates_to_target=needs[size] / size, examples_seen=None, updates=None,
            energy_joules=joules[size] + seed, val_accuracy=0.9 + size / 5000 + 0.0002 * seed,
        )
        for size in speeds for seed in range(5)
    ]  # fmt: skip
    expected = {
        "time": 64,
        "examples": 16,
        "energy": 256,
        "cost": 64,
        "accuracy": 256,
        "memory": 16,
    }
    for goal, size in expected.items():
        verdict = verdict_of(runs, goal, policy={"price_per_device_hour": 3.0})
        assert verdict.recommended_batch_size == size, goal
        assert {a.goal: a.recommended_batch_size for a in verdict.by_goal} == expected
    unpriced = {a.goal: a for a in verdict_of(runs).by_goal}
    assert unpriced["cost"].recommended_batch_size is None
    assert "price" in unpriced["cost"].reason
    assert verdict_of(runs).pareto.axes == (
        "time_to_target_seconds", "peak_memory_mib", "val_accuracy",
    )  # fmt: skip
    assert verdict_of(runs).pareto.batch_sizes == (16, 64, 256)


def test_cost_is_time_at_a_price() -> None:
    verdict = verdict_of(runs_of({64: 36.0}, noise=0.0), "cost",
                         policy={"price_per_device_hour": 10.0})  # fmt: skip
    assert row_of(verdict, 64).median == pytest.approx(0.1)
    assert verdict.quantity == "cost_to_target"


def test_the_answer_is_given_at_every_target() -> None:
    easy = runs_of({32: 5.0, 64: 3.0, 128: 2.0}, target=0.9)
    hard = runs_of({32: 10.0, 64: 30.0, 128: 90.0}, target=0.95)
    none = runs_of({32: 99.0, 64: 99.0, 128: 99.0}, target=0.99, ends=95.0)
    verdicts = judge_runs([*hard, *easy, *none], Policy())
    assert [v.target for v in verdicts] == [0.9, 0.95, 0.99]
    for verdict in verdicts:
        told = [(a.target, a.status, a.recommended_batch_size) for a in verdict.sensitivity]
        assert told == [(0.9, "decided", 128), (0.95, "decided", 32), (0.99, "unreached", None)]


def test_workloads_are_judged_apart() -> None:
    one = runs_of({32: 5.0, 64: 3.0}, workload="one")
    two = runs_of({32: 5.0, 64: 30.0}, workload="two")
    answers = {v.workload: v.recommended_batch_size for v in judge_runs([*two, *one], Policy())}
    assert answers == {"two": 32, "one": 64}
    assert judge_runs([], Policy()) == []


def test_seconds_of_different_device_types_are_never_mixed() -> None:
    slow = runs_of({32: 10.0, 64: 20.0, 128: 30.0}, device="cpu")
    fast = [replace(r, seed=r.seed + 10) for r in runs_of({128: 0.1}, device="A100") if r.seed]
    verdict = verdict_of([*slow, *fast])
    assert verdict.recommended_batch_size == 32
    assert row_of(verdict, 128).median == pytest.approx(30.0, rel=0.05)
    assert "several device types (A100, cpu)" in verdict.warnings[0]
    assert "4 left out" in verdict.warnings[0]


def test_other_device_types_are_told_by_their_own_profiles() -> None:
    runs = [replace(r, examples_to_target=1000.0, examples_seen=2000)
            for r in runs_of({32: 10.0, 64: 20.0}, device="A100")]  # fmt: skip
    profiles = [
        rows.profile(batch_size=size, micro_batch_size=size, device=device, examples_per_second=s)
        for device, speeds in (("A100", (100.0, 50.0)), ("T4", (20.0, 25.0)))
        for size, s in zip((32, 64), speeds, strict=True)
    ]
    verdict = verdict_of(runs, profiles=profiles)
    assert verdict.recommended_batch_size == 32
    told = next(w for w in verdict.warnings if "T4" in w)
    assert (
        told == "Seconds are those of A100. By its own profile, T4 would be fastest at 64: 40.0 s."
    )


# The limit that binds


def hyperbola(critical: float, first: float, each: float, sizes: Sequence[int]) -> list[TargetRun]:
    found = []
    for run in runs_of({size: 1.0 for size in sizes}, noise=0.004):
        size, luck = run.batch_size, run.time_to_target_seconds or 1.0
        examples = 300 * (size + critical) * luck
        rate = size / (first + each * size)
        found.append(replace(
            run, examples_to_target=examples, updates_to_target=examples / size,
            time_to_target_seconds=examples / rate, examples_per_second=rate,
            train_seconds=2 * examples / rate, examples_seen=round(2 * examples), updates=None,
        ))  # fmt: skip
    return found


def test_beyond_the_critical_batch_size_statistics_binds() -> None:
    verdict = verdict_of(hyperbola(30.0, 0.05, 0.0001, (16, 64, 256, 1024)))
    assert verdict.binding_limit == "statistics"
    assert "1024 fits and is" in (verdict.limit_reason or "")
    assert "(beyond the critical batch size)" in (verdict.limit_reason or "")
    assert verdict.critical_batch_size is not None
    assert verdict.critical_batch_size.value == pytest.approx(30.0, rel=0.2)


def test_on_the_plateau_throughput_binds() -> None:
    verdict = verdict_of(hyperbola(3000.0, 0.0002, 0.001, (8, 32, 128, 512)))
    assert verdict.binding_limit == "throughput"
    assert "512 fits and is no faster per example than" in (verdict.limit_reason or "")
    assert "(plateau)" in (verdict.limit_reason or "")


def test_the_largest_that_fits_is_bound_by_memory_and_the_largest_tried_by_the_range() -> None:
    runs = runs_of({32: 20.0, 64: 10.0})
    assert verdict_of(runs).binding_limit == "range"
    profiles = [
        rows.profile(batch_size=32, micro_batch_size=32),
        rows.profile(batch_size=64, micro_batch_size=64),
        rows.profile(batch_size=128, micro_batch_size=128, outcome="out_of_memory", chosen=False,
                     step_seconds=None, examples_per_second=None, peak_memory_mib=None),
    ]  # fmt: skip
    verdict = verdict_of(runs, profiles=profiles)
    assert (verdict.binding_limit, verdict.infeasible_batch_sizes) == ("memory", (128,))
    assert verdict.limit_reason == "64 is the largest that fits: 128 does not."
    assert [row.fits for row in verdict.per_batch_size] == [True, True]


def test_the_smallest_tried_may_not_be_the_best_there_is() -> None:
    verdict = verdict_of(runs_of({32: 10.0, 64: 20.0, 128: 40.0}))
    assert verdict.binding_limit == "range"
    assert "32 is the smallest batch size tried" in (verdict.limit_reason or "")
    assert verdict_of(runs_of({32: 10.0, 64: 20.0}), "examples").binding_limit == "statistics"


# Warnings


def test_few_seeds_and_interpolated_targets_are_told() -> None:
    warnings = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=2, interpolated=True)).warnings
    assert any("Only 2 seeds of 32 and 64" in told for told in warnings)
    assert any("Read from the learning curves" in told for told in warnings)
    assert verdict_of(runs_of({32: 20.0, 64: 10.0})).warnings == ()


def test_a_clock_that_contradicts_the_profile_is_told() -> None:
    runs = [
        replace(r, measured_time_to_target_seconds=(r.time_to_target_seconds or 0)
                * (1.3 if r.batch_size == 64 else 1.02))
        for r in runs_of({32: 20.0, 64: 10.0})
    ]  # fmt: skip
    verdict = verdict_of(runs)
    assert row_of(verdict, 64).measured_to_predicted == pytest.approx(1.3)
    (told,) = [t for t in verdict.warnings if "clock" in t]
    assert "1.30 times at 64" in told and "at 32" not in told


def test_a_best_learning_rate_on_the_edge_of_the_range_is_told() -> None:
    runs = [
        replace(r, learning_rate=0.03 if r.batch_size == 64 else 0.003)
        for r in runs_of({32: 20.0, 64: 10.0})
    ]
    search = [
        rows.result(batch_size=size, base_learning_rate=rate, learning_rate=rate)
        for size in (32, 64) for rate in (0.0004, 0.003, 0.03)
    ]  # fmt: skip
    policy = {"base_learning_rate_range": (0.0003, 0.03)}
    (told,) = [t for t in verdict_of(runs, search=search, policy=policy).warnings if "edge" in t]
    assert "of 64 (0.03)" in told
    beyond = [*search, rows.result(batch_size=64, base_learning_rate=0.09, learning_rate=0.09)]
    assert not [t for t in verdict_of(runs, search=beyond, policy=policy).warnings if "edge" in t]


def test_the_range_searched_is_told_by_the_rate_that_every_batch_size_tried() -> None:
    search = [
        rows.result(batch_size=size, base_learning_rate=rate)
        for size in (32, 64, 128)
        for rate in (0.003, 0.0095, 0.00095, 0.001 * size)
    ]
    assert learning_rate_range(SweepConfig(), search) == pytest.approx((0.0003, 0.03))
    assert learning_rate_range(SweepConfig(), []) is None
    assert learning_rate_range(SweepConfig(base_learning_rate=0.1), []) == pytest.approx((0.01, 1))


def test_several_learning_rates_for_one_batch_size_are_told() -> None:
    runs = [
        replace(r, learning_rate=0.001 * (1 + (r.seed or 0))) for r in runs_of({32: 9.0, 64: 5.0})
    ]
    assert any("several learning rates" in told for told in verdict_of(runs).warnings)


# Policy and JSON


def test_equal_numbers_are_not_known_better_than_they_were_looked_for() -> None:
    """Every run of a batch size crossed at the same evaluation: no spread, and no certainty."""
    same = runs_of({32: 12.0, 64: 10.0}, noise=0.0)
    sure, coarse = (verdict_of([replace(r, resolution=part) for r in same]) for part in (0.05, 0.5))
    leading = next(r for r in sure.per_batch_size if r.batch_size == 64)
    assert sure.status == "decided"
    assert leading.high / leading.low > 1.04  # type: ignore[operator]
    assert coarse.status == "undecided"
    assert any("within 50% only: raise the target" in told for told in coarse.warnings)
    assert not any("only: raise" in told for told in sure.warnings)


def test_a_learning_rate_chosen_among_few_is_told() -> None:
    few = [rows.result(trial_id=f"{size}-{k}", batch_size=size, stage="search")
           for size, count in ((32, 3), (64, 4)) for k in range(count)]  # fmt: skip
    runs = runs_of({32: 20.0, 64: 10.0})
    (told,) = [t for t in verdict_of(runs, search=few).warnings if "--trials" in t]
    assert "the best of 3 to 4 tried" in told
    assert not [t for t in verdict_of(runs, search=3 * few).warnings if "--trials" in t]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"goal": "speed"}, "'speed'"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"confidence": 0.2}, "confidence 0.2"),
        ({"goal": "cost"}, "--price-per-device-hour"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Policy(**settings)


def test_a_time_of_zero_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match="batch size 64, seed 0: must be greater than 0"):
        verdict_of([*runs_of({32: 10.0}), run_of(64, 0, 0.0)])


def hostile() -> list[list[TargetRun]]:
    return [
        runs_of({32: 10.0}, seeds=1),
        runs_of({32: 10.0, 64: 10.0}, noise=0.0),
        runs_of({32: 10.0, 64: 12.0}, ends=1.0),
        runs_of({32: 1e-6, 64: 1e9}, seeds=2),
        [*runs_of({32: 10.0}, seeds=7), run_of(64, 99, 5.0, ends=1.0)],
        [replace(r, time_to_target_seconds=None, train_seconds=None, examples_per_second=None)
         for r in runs_of({32: 10.0, 64: 20.0})],
        [replace(r, seed=r.batch_size + (r.seed or 0)) for r in runs_of({32: 5.0, 9: 1.0})],
        runs_of({2**k: 5.0 + k for k in range(12)}, seeds=2, noise=0.5, ends=8.0),
        [replace(r, val_accuracy=1.0) for r in runs_of({32: 10.0, 64: 20.0})],
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(len(hostile())))
@pytest.mark.parametrize("goal", ["time", "examples", "memory", "accuracy"])
def test_whatever_the_runs_the_verdict_is_whole_and_valid_json(case: int, goal: str) -> None:
    verdict = verdict_of(hostile()[case], goal)
    read = json.loads(as_json([verdict]), parse_constant=lambda c: pytest.fail(c))[0]
    assert verdict.status in STATUSES
    assert verdict.binding_limit in (None, *BINDING_LIMITS)
    assert (verdict.recommended_batch_size is not None) == (verdict.status in ("decided", "tied"))
    assert verdict.reason.endswith(".") and verdict.reason.count(". ") == 0
    assert read["schema_version"] == verdict.schema_version
    for row in verdict.per_batch_size:
        assert row.standing in STANDINGS
        ends = [e for e in (row.low, row.median, row.high) if e is not None]
        assert ends == sorted(ends)
        assert all(math.isfinite(end) for end in ends)
