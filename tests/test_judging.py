"""The judge on runs with a planted truth: statuses, ties, goals, targets, the limit that binds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests import rows
from tests.judged import row_of, run_of, runs_of, standings, timed, used, verdict_of
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.records import TargetRun

# Statuses


def test_a_batch_size_told_from_all_others_is_decided() -> None:
    verdict = verdict_of(runs_of({32: 20.0, 64: 10.0, 128: 15.0}))
    assert (verdict.status, used(verdict)) == ("decided", 64)
    assert (verdict.tied_batch_sizes, verdict.open_batch_sizes) == ((), ())
    assert verdict.risk is not None and verdict.risk <= verdict.risk_allowed < 0.05
    assert (verdict.settling, verdict.advice, verdict.change) == (None, None, None)
    assert verdict.reason.startswith("64 reaches 0.9 in 10.0")
    assert "128, takes 1.5" in verdict.reason
    assert standings(verdict) == ["slower", "used", "slower"]


def test_what_is_to_be_used_comes_with_its_rate_its_regret_and_its_runs() -> None:
    verdict = verdict_of(runs_of({64: 10.0, 128: 11.0}, seeds=3, noise=0.1))
    use = verdict.use
    assert use is not None and use.expected_regret is not None and use.regret_bound is not None
    assert (use.learning_rate, use.runs) == (0.001, 3)
    assert 0 <= use.expected_regret <= use.regret_bound
    row = row_of(verdict, use.batch_size)
    assert (row.expected_regret, row.regret_bound) == (use.expected_regret, use.regret_bound)


def test_of_batch_sizes_within_the_tolerance_the_least_memory_is_used() -> None:
    runs = runs_of({32: 10.2, 64: 10.0, 128: 20.0})
    verdict = verdict_of(runs)
    assert (verdict.status, used(verdict)) == ("tied", 32)
    assert verdict.tied_batch_sizes == (64,)
    assert standings(verdict) == ["used", "tied", "slower"]
    assert "takes 432 MiB, of 32 and 64, which are equal within 5 %" in verdict.reason
    assert verdict.change == "64 is equal to it within 5 %."
    heavy = [replace(r, peak_memory_mib=900.0) if r.batch_size == 32 else r for r in runs]
    assert used(verdict_of(heavy)) == 64


def test_of_equals_none_is_used_that_another_goal_would_pass_over() -> None:
    runs = runs_of({32: 10.2, 64: 10.0, 128: 20.0})
    hungry = [replace(r, energy_joules=900.0 if r.batch_size == 32 else 300.0) for r in runs]
    verdict = verdict_of(hungry)
    assert (verdict.status, used(verdict), verdict.tied_batch_sizes) == ("tied", 64, (32,))


def test_a_difference_over_the_tolerance_is_not_given_up_for_memory() -> None:
    runs = runs_of({32: 11.5, 64: 10.0}, noise=0.002)
    assert used(verdict_of(runs)) == 64
    assert used(verdict_of(runs, policy={"tolerance": 0.2})) == 32


def test_what_noise_hides_is_undecided_and_still_says_what_to_use_and_what_that_can_cost() -> None:
    verdict = verdict_of(runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15))
    assert (verdict.status, used(verdict)) == ("undecided", 128)
    assert verdict.open_batch_sizes == (64,)
    assert verdict.use is not None and verdict.use.regret_bound is not None
    assert 0.05 < verdict.use.regret_bound < 0.4
    assert verdict.risk is not None and verdict.risk > verdict.risk_allowed
    assert verdict.settling is not None and verdict.settling.batch_sizes == (64, 128)
    assert verdict.settling.seeds is not None and verdict.settling.seeds > 3
    assert standings(verdict) == ["open", "used", "slower"]


def test_more_seeds_of_the_same_truth_settle_it() -> None:
    few = verdict_of(runs_of({64: 10.0, 128: 13.0}, seeds=3, noise=0.15))
    many = verdict_of(runs_of({64: 10.0, 128: 13.0}, seeds=40, noise=0.15))
    assert (few.status, many.status) == ("undecided", "decided")


def test_a_later_look_may_take_less_risk_than_the_first() -> None:
    runs = runs_of({32: 10.0, 64: 10.9}, seeds=4, noise=0.03)
    first, later = verdict_of(runs), verdict_of(runs, policy={"looks": 1})
    assert first.risk == later.risk is not None
    assert later.risk_allowed < first.risk_allowed


def test_what_leaves_the_answer_open_is_open() -> None:
    """The risk of a later look may come from a rival that is told to be slower at 95 %."""
    seconds = {
        16: (9.5273, 8.3341, 10.3059, 9.9422),
        32: (13.4835, 10.0224, 12.9673, 13.0606),
        64: (10.862, 12.2959, 10.6009, 17.0297),
    }
    verdict = verdict_of(timed(seconds), policy={"looks": 1})
    assert (verdict.status, used(verdict)) == ("undecided", 16)
    assert verdict.open_batch_sizes
    assert verdict.settling is not None and len(verdict.settling.batch_sizes) > 1


@pytest.mark.parametrize("seed", [0, None])
def test_a_single_run_of_each_batch_size_is_unproven_and_names_the_best(seed: int | None) -> None:
    runs = [run_of(size, seed, took) for size, took in ((32, 1000.0), (64, 1.0), (128, 900.0))]
    verdict = verdict_of(runs)
    assert (verdict.status, used(verdict), verdict.risk) == ("unproven", 64, None)
    assert (verdict.tied_batch_sizes, verdict.open_batch_sizes) == ((), (32, 128))
    assert verdict.use is not None
    assert (verdict.use.expected_regret, verdict.use.regret_bound) == (None, None)
    assert verdict.settling is not None and verdict.settling.seeds == 3
    assert any("single run" in told for told in verdict.warnings)
    assert all(row.low is None and row.high is None for row in verdict.per_batch_size)


def test_equal_single_runs_are_unproven_and_never_tied() -> None:
    verdict = verdict_of([run_of(size, 0, 10.0) for size in (32, 64)])
    assert (verdict.status, verdict.tied_batch_sizes) == ("unproven", ())


def test_a_batch_size_with_one_run_is_not_used_however_fast() -> None:
    verdict = verdict_of([*runs_of({32: 20.0, 128: 30.0}), run_of(64, 0, 1.0)])
    assert (verdict.status, used(verdict)) == ("undecided", 32)
    assert verdict.open_batch_sizes == (64,)
    assert "single run of 64" in verdict.warnings[0]


def test_a_batch_size_with_one_run_far_behind_does_not_keep_the_answer_open() -> None:
    verdict = verdict_of([*runs_of({32: 20.0, 128: 30.0}), run_of(64, 0, 100.0)])
    assert (verdict.status, used(verdict)) == ("decided", 32)
    assert row_of(verdict, 64).standing == "slower"


def test_a_single_batch_size_is_no_comparison_but_has_an_interval() -> None:
    verdict = verdict_of(runs_of({64: 10.0}))
    row = row_of(verdict, 64)
    assert row.low is not None and row.high is not None
    assert (verdict.status, used(verdict)) == ("unproven", 64)
    assert (verdict.settling, verdict.change, verdict.advice) == (None, None, None)
    assert "no other batch size" in verdict.answer and "no other batch size" in verdict.reason


def test_runs_without_a_seed_are_compared_unpaired() -> None:
    runs = [replace(run, seed=None) for run in runs_of({32: 20.0, 64: 10.0})]
    assert used(verdict_of(runs)) == 64


def test_pairing_by_seed_tells_apart_what_the_spread_over_seeds_hides() -> None:
    def runs(paired: bool) -> list[TargetRun]:
        luck = [0.6, 0.8, 1.0, 1.3, 1.7]
        shift = 0 if paired else 100
        return [
            run_of(size, seed + shift * (size == 64), took * luck[seed] * (1 + 0.003 * (seed % 2)))
            for size, took in ((32, 10.0), (64, 12.0))
            for seed in range(5)
        ]

    paired, alone = verdict_of(runs(True)), verdict_of(runs(False))
    assert (paired.status, used(paired)) == ("decided", 32)
    assert (alone.status, used(alone)) == ("undecided", 32)


# Runs that never reached the target


def test_no_reach_in_any_run_is_unreached_and_says_why() -> None:
    near = [replace(r, val_accuracy=0.8) for r in runs_of({32: 20.0, 64: 10.0}, ends=5.0)]
    verdict = verdict_of(near)
    assert (verdict.status, verdict.use) == ("unreached", None)
    assert verdict.critical_batch_size is None and verdict.critical_batch_size_reason
    assert verdict.why_not == "None of 10 runs reached 0.9; 64 came closest, with 0.800."
    assert "no run reached" in verdict.answer
    assert "--target" in (verdict.advice or "")
    assert standings(verdict) == ["unreached"] * 2
    for row in verdict.per_batch_size:
        assert (row.seeds, row.reached, row.median, row.regret_bound) == (5, 0, None, None)


def test_one_run_that_reached_is_enough_to_name_its_batch_size() -> None:
    runs = [*runs_of({32: 20.0, 64: 10.0}, seeds=3, ends=5.0), run_of(64, 9, 4.0)]
    verdict = verdict_of(runs)
    assert (verdict.status, used(verdict), verdict.why_not) == ("unproven", 64, None)
    assert "it reached 0.9 in 1 of 4 runs" in verdict.answer


def test_a_run_that_never_reached_counts_as_slower_than_all() -> None:
    runs = runs_of({32: 20.0, 64: 10.0})
    missed = [replace(r, time_to_target_seconds=None, examples_to_target=None,
                      updates_to_target=None, train_seconds=30.0)
              if (r.batch_size, r.seed) == (64, 0) else r for r in runs]  # fmt: skip
    plain, censored = row_of(verdict_of(runs), 64), row_of(verdict_of(missed), 64)
    assert (censored.seeds, censored.reached) == (5, 4)
    assert censored.median is not None and plain.median is not None
    assert censored.median >= plain.median
    assert censored.high is not None and plain.high is not None
    assert censored.high > 1.2 * plain.high
    assert any("1 of 10 runs never reached" in told for told in verdict_of(missed).warnings)


def test_a_batch_size_ended_too_early_leaves_the_question_open_and_more_seeds_would_not_do() -> (
    None
):
    runs = [*runs_of({32: 20.0}), *runs_of({512: 50.0}, ends=8.0)]
    verdict = verdict_of(runs, policy={"resume": "./scripts/sweep --resume --name x"})
    assert (verdict.status, used(verdict), verdict.open_batch_sizes) == ("undecided", 32, (512,))
    assert "runs of 512 were ended too early" in (verdict.change or "")
    assert "--budget-examples" in (verdict.advice or "")
    assert verdict.settling is not None and verdict.settling.seeds is None


def test_a_batch_size_that_ran_longer_than_the_best_without_reaching_is_out() -> None:
    runs = [*runs_of({16: 40.0, 32: 20.0}), *runs_of({512: 500.0}, ends=100.0)]
    verdict = verdict_of(runs)
    assert (verdict.status, used(verdict)) == ("decided", 32)
    assert row_of(verdict, 512).standing == "unreached"
    assert verdict.binding_limit == "statistics"
    assert "reached the target in 0 of 5 runs" in (verdict.limit_reason or "")


def test_a_table_that_says_never_and_no_more_is_believed() -> None:
    silent: dict[str, Any] = {"train_seconds": None, "examples_seen": None, "updates": None}
    runs = [*runs_of({32: 20.0, 64: 10.0}), *runs_of({512: 500.0}, ends=100.0, **silent)]
    verdict = verdict_of(runs)
    assert (verdict.status, used(verdict)) == ("decided", 64)
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
    assert used(verdict_of(runs, "accuracy")) == 32
    for goal in ("time", "accuracy"):  # `by_goal` holds the others
        one, other = asdict(verdict_of(runs, goal)), asdict(verdict_of(without, goal))
        for decided in ("status", "use", "tied_batch_sizes", "risk", "answer", "change", "reason",
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
    for goal in ("time", "energy"):
        verdict = verdict_of(runs, goal, policy={"price_per_device_hour": 3.0})
        assert used(verdict) == expected[goal]
        assert {a.goal: a.use for a in verdict.by_goal} == expected
    plain = verdict_of(runs)
    unpriced = {a.goal: a for a in plain.by_goal}
    assert unpriced["cost"].use is None
    assert "price" in unpriced["cost"].reason
    assert plain.pareto.axes == ("time_to_target_seconds", "peak_memory_mib", "val_accuracy")
    assert plain.pareto.batch_sizes == (16, 64, 256)


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
        told = [(a.target, a.status, a.use) for a in verdict.sensitivity]
        assert told == [(0.9, "decided", 128), (0.95, "decided", 32), (0.99, "unreached", None)]


def test_workloads_are_judged_apart() -> None:
    one = runs_of({32: 5.0, 64: 3.0}, workload="one")
    two = runs_of({32: 5.0, 64: 30.0}, workload="two")
    answers = {v.workload: used(v) for v in judge_runs([*two, *one], Policy())}
    assert answers == {"two": 32, "one": 64}
    assert judge_runs([], Policy()) == []


def test_seconds_of_different_device_types_are_never_mixed() -> None:
    slow = runs_of({32: 10.0, 64: 20.0, 128: 30.0}, device="cpu")
    fast = [replace(r, seed=r.seed + 10) for r in runs_of({128: 0.1}, device="A100") if r.seed]
    verdict = verdict_of([*slow, *fast])
    assert used(verdict) == 32
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
    assert used(verdict) == 32
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
