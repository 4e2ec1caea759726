"""What it takes to know better: how many runs, what they cost, from when that pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.judged import run_of, runs_of, timed, verdict_of
from tune_jobs.judging.contest import Contest, hold
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.rate_luck import Shortfall
from tune_jobs.judging.samples import EXAMPLES, TIME
from tune_jobs.judging.sentences import change_of
from tune_jobs.judging.settling import (
    BLOCKS,
    LONGEST,
    RATES,
    ended_early,
    seeds_needed,
    settling_of,
    slower_as_run,
)
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Settling

NEAR = {64: 10.0, 128: 11.0, 256: 40.0}


def contest(runs: Sequence[TargetRun], shared: Mapping[int, float] | None = None) -> Contest:
    return hold(runs, TIME, {}, Policy(), shared or {})


def settling(runs: Sequence[TargetRun], policy: Policy | None = None) -> Settling:
    found = settling_of(contest(runs), policy or Policy())
    assert found is not None
    return found


def test_where_the_answer_stands_there_is_nothing_to_settle() -> None:
    assert settling_of(contest(runs_of({32: 20.0, 64: 10.0})), Policy()) is None


def test_where_nothing_was_reached_or_nothing_is_beside_it_neither() -> None:
    assert settling_of(contest(runs_of({32: 20.0, 64: 10.0}, ends=5.0)), Policy()) is None
    assert settling_of(contest(runs_of({64: 10.0}, seeds=5)), Policy()) is None
    assert settling_of(contest(runs_of({64: 10.0}, seeds=1)), Policy()) is None


def test_it_is_of_the_one_to_use_and_those_that_are_open_in_whole_blocks() -> None:
    found = settling(runs_of(NEAR, seeds=3, noise=0.15))
    assert found.batch_sizes == (64, 128)
    assert found.seeds in BLOCKS and found.seeds > 3


def test_less_noise_needs_fewer_runs() -> None:
    needs = [settling(runs_of(NEAR, seeds=3, noise=noise)).seeds for noise in (0.1, 0.15)]
    assert needs[0] is not None and needs[1] is not None and needs[0] <= needs[1]


def test_single_runs_are_first_to_be_repeated() -> None:
    found = settling([run_of(size, 0, 10.0 + size) for size in (32, 64)])
    assert (found.batch_sizes, found.seeds, found.trainings) == ((32, 64), 3, None)


def test_runs_that_mostly_fell_short_are_asked_for_more_than_there_are() -> None:
    """Unproven with repeats: never a number of seeds that was made already."""
    runs = [run_of(size, seed, 9.0 + 5 * seed, 12.0) for size in (32, 64) for seed in range(3)]
    found = settling(runs)
    assert found.seeds is None or found.seeds > 3


def test_the_price_is_the_further_runs_each_ended_where_it_has_lost() -> None:
    found = settling(timed({32: (10.0, 10.5, 9.5), 64: (11.0, 10.0, 10.5)}))
    assert found.seeds is not None
    assert found.device_seconds == pytest.approx((found.seeds - 3) * (10.0 + 10.5))
    single = settling([run_of(32, 0, 10.0), run_of(64, 0, 90.0)])
    assert single.device_seconds == pytest.approx(2 * (10.0 + LONGEST * 10.0))


def test_it_pays_from_the_trainings_that_the_expected_regret_is_saved_in() -> None:
    of = contest(runs_of(NEAR, seeds=3, noise=0.15))
    found = settling_of(of, Policy())
    assert found is not None and found.device_seconds and found.trainings
    assert of.decision.used is not None
    saved = float(of.decision.expected[of.decision.used]) * 9.81
    assert found.trainings == pytest.approx(found.device_seconds / saved, rel=0.06)
    worth = [
        settling_of(of, Policy(trainings_to_come=n)) for n in (found.trainings, found.trainings - 1)
    ]
    assert [w.worth_it for w in worth if w] == [True, False]


def test_without_seconds_there_is_no_price() -> None:
    runs = [
        replace(r, time_to_target_seconds=None, train_seconds=None, examples_per_second=None)
        for r in runs_of(NEAR, seeds=3, noise=0.15)
    ]
    found = settling_of(hold(runs, EXAMPLES, {}, Policy("examples"), {}), Policy("examples"))
    assert found is not None and found.seeds is not None
    assert (found.device_seconds, found.trainings, found.worth_it) == (None, None, None)


def test_what_all_runs_share_no_number_of_runs_settles() -> None:
    of = contest(runs_of({64: 10.0, 128: 10.5}, noise=0.02), {64: 0.01, 128: 0.01})
    found = settling_of(of, Policy())
    assert found is not None and found.seeds is None and found.device_seconds is None
    assert not found.tightens


def test_runs_that_scatter_more_than_what_they_share_make_the_bound_tighter() -> None:
    assert settling(runs_of(NEAR, seeds=3, noise=0.15)).tightens


def test_runs_that_were_ended_too_early_are_not_asked_for_again() -> None:
    of = contest([*runs_of({32: 20.0}), *runs_of({512: 50.0}, ends=8.0)])
    found = settling_of(of, Policy())
    assert [ended_early(of, i) for i in (0, 1)] == [False, True]
    assert found is not None and found.seeds is None


def test_runs_that_were_cut_later_than_the_best_took_were_not_ended_too_early() -> None:
    of = contest([*runs_of({32: 20.0}), *runs_of({512: 50.0}, ends=25.0)])
    assert not ended_early(of, 1)


# 256 runs nine times as fast, so that a better rate may yet save it what Shallue's bound lets be.
SEEDS: dict[str, Any] = {"seeds": 3, "noise": 0.03}
VAIN: dict[str, Any] = {"ends": 15.0, "examples_per_second": 900.0, "examples_seen": 13_500}
FAST = [*runs_of({32: 10.0, 64: 10.4}, **SEEDS), *runs_of({256: 20.0}, **SEEDS, **VAIN)]
LUCK = {s: Shortfall(0.0, 1e-4) for s in (32, 64)} | {256: Shortfall(0.3, 0.5, borrowed=True)}


def open_by_its_rate(policy: Policy) -> tuple[Contest, Settling]:
    of = hold(FAST, TIME, {}, policy, {}, LUCK)
    found = settling_of(of, policy, LUCK)
    assert 256 in of.sizes(of.decision.open) and found is not None
    return of, found


def test_what_was_slower_at_the_rate_it_ran_at_needs_a_better_rate_and_no_further_runs() -> None:
    of, found = open_by_its_rate(Policy())
    assert 256 in of.sizes(slower_as_run(of, Policy()))
    assert 256 not in found.batch_sizes
    assert found.seeds is None and 256 in found.rates


def test_what_no_further_run_is_made_of_is_not_taken_for_settled_by_the_others() -> None:
    """Were 256 left out, the others would be told apart by a number of runs."""
    of, _ = open_by_its_rate(Policy())
    everyone = [0, 1, 2]
    assert seeds_needed(of, everyone, [0, 1], Policy()) is None
    assert seeds_needed(of, [0, 1], [0, 1], Policy()) is not None


def test_the_numbers_are_the_same_each_time() -> None:
    runs = runs_of(NEAR, seeds=3, noise=0.15)
    assert settling(runs) == settling(runs)
    verdict = verdict_of(runs)
    assert verdict.settling == settling(runs)
    assert np.isfinite(verdict.settling.device_seconds or 0.0)  # type: ignore[union-attr]


def test_rates_are_to_be_searched_further_only_where_knowing_them_would_tell_much() -> None:
    """First of the one to use, whose rate the bound is widest by; not of 256, which has lost. Where
    few noisy runs are what is open, seeds go first."""

    def rates(of: Sequence[TargetRun], tried: Mapping[float, float]) -> tuple[int, ...]:
        searched = [
            run_of(size, 0, took * times, 20.0, learning_rate=rate)
            for size, times in ((32, 1.0), (64, 1.0), (256, 2.5))
            for rate, took in tried.items()
        ]
        found = verdict_of(of, searched=searched).settling
        assert found is not None
        return found.rates

    near = {32: 10.7, 64: 10.0, 256: 25.0}
    assert rates(runs_of(near, noise=0.03), {1e-4: 40.0, 1e-3: 10.0, 1e-2: 40.0}) == (64,)
    assert rates(runs_of(near, seeds=2, noise=0.9), {3e-4: 13.0, 1e-3: 10.0, 3e-3: 14.0}) == ()


def test_where_the_batch_size_stands_its_learning_rate_may_still_keep_the_bound_wide() -> None:
    """128 has lost; what a better rate of 64 may save is searched for, and the answer says so."""
    runs = runs_of({64: 10.0, 128: 40.0}, seeds=5, noise=0.02)

    def found(saves: Shortfall) -> tuple[Contest, Settling | None]:
        short = {64: saves, 128: Shortfall(0.0, 1e-4)}
        of = hold(runs, TIME, {}, Policy(), {}, short)
        return of, settling_of(of, Policy(), short)

    of, wide = found(Shortfall(0.1, 0.01))
    assert of.decision.status == "decided" and not of.decision.open
    assert wide is not None and (wide.batch_sizes, wide.seeds, wide.rates) == ((), None, (64,))
    change = change_of(of, [], wide, Policy())
    assert change == "The bound is wide by what a better learning rate of 64 may save."
    assert found(Shortfall(0.01, 1e-4))[1] is None
    assert found(Shortfall(0.1, 0.01, tried=RATES - 1))[1] is not None
    assert found(Shortfall(0.1, 0.01, tried=RATES))[1] is None, "further rates tell no more"
