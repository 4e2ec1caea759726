"""Faults that the judge once had, or must never have. Each test says which it holds.

1. A rival that reached once, slower than all of the best's runs, and was cut twice later still,
   kept the answer open; the longer it went on in vain, the more so.
2. A rival's cut run that goes on for longer makes the answer less sure.
3. A variance that all runs of a batch size share narrows the interval of one with cut runs.
4. Batch sizes that are equal are told apart at three seeds, more often than one time in twenty.
5. A clear answer at three seeds is not given.
6. The seeds said to settle it do not.
7. Looking several times gives several chances to be wrong.
8. Rounding to the evaluations' grid counts although the noise averages it out, or does not count
   although nothing does.
9. A critical batch size of a curve that its own runs reject has an interval.
10. A learning rate chosen among few is taken for the best there is.
11. A rival's cut runs were believed to have gone on beyond their ends, where none was capped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.bench.calibration import Scenario, problem, run, simulate, summary
from tests import rows
from tests.judged import run_of, runs_of, timed, used, verdict_of
from tune_jobs.judging import regret as regrets
from tune_jobs.judging.contest import Contest, hold
from tune_jobs.judging.critical_batch import closed_form, fit_critical_batch
from tune_jobs.judging.deciding import TOLD
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import Draws
from tune_jobs.judging.regret import LATEST
from tune_jobs.judging.samples import TIME
from tune_jobs.judging.settling import settling_of
from tune_jobs.measure.cost_model import fit_line
from tune_jobs.records import TargetRun

Seconds = Mapping[int, Sequence[float]]


def held(
    seconds: Seconds,
    cut: Seconds | None = None,
    looks: int = 0,
    shared: Mapping[int, float] | None = None,
) -> Contest:
    return hold(timed(seconds, cut), TIME, {}, Policy(looks=looks), shared or {})


def risk(seconds: Seconds, cut: Seconds) -> float:
    found = held(seconds, cut).decision
    assert found.risk is not None and found.used == 0
    return found.risk


# Runs that were cut


@pytest.mark.parametrize("spread", [(1.4, 1.8, 2.3), (1.75, 1.8, 1.86), (1.8, 1.8, 1.8)])
@pytest.mark.parametrize("end", [7.5, 60.0, 1e6])
def test_1_a_rival_that_did_worse_in_every_run_does_not_keep_the_answer_open(
    spread: tuple[float, ...], end: float
) -> None:
    found = held({16: spread, 512: (5.8,)}, {512: (end, end)}).decision
    assert (found.status, found.used, found.open) == ("decided", 0, ())


@pytest.mark.parametrize("end", [1.6, 9.4, 1e6])
def test_2_it_is_answered_wherever_the_slower_one_was_cut(end: float) -> None:
    found = held({16: (1.0, 1.05, 0.97), 32: (1.6, 1.55)}, {32: (end,)}).decision
    assert (found.status, found.used) == ("decided", 0)


MINE = st.lists(st.floats(0.93, 1.07), min_size=3, max_size=4)
RIVAL = st.lists(st.floats(1.15, 1.7), min_size=2, max_size=3)


@settings(max_examples=8, derandomize=True)
@given(MINE, RIVAL, st.floats(1.0, 1.6), st.floats(1.1, 1e4))
def test_2_a_rival_that_goes_on_for_longer_makes_no_answer_much_less_sure(
    mine: list[float], rival: list[float], end: float, longer: float
) -> None:
    seconds = {16: mine, 32: rival}
    assert risk(seconds, {32: (end * longer,)}) <= risk(seconds, {32: (end,)}) + 0.1


@settings(max_examples=4, derandomize=True)
@given(MINE, RIVAL, st.floats(1.0, 1e6))
def test_2_beyond_what_can_matter_it_makes_no_difference_at_all(
    mine: list[float], rival: list[float], longer: float
) -> None:
    seconds, late = {16: mine, 32: rival}, LATEST * max(mine) * 1.001
    assert risk(seconds, {32: (late * longer,)}) == risk(seconds, {32: (late,)})


def test_3_what_runs_share_widens_the_interval_also_where_some_were_cut() -> None:
    seconds: Seconds = {16: (1.0, 1.05, 0.97), 32: (1.6, 1.55, 1.65)}

    def ends(shared: Mapping[int, float]) -> tuple[float, float]:
        of = held(seconds, {32: (1.7,)}, shared=shared).typical
        return float(of.low[1]), float(of.high[1])

    plain, more, most = ends({}), ends({32: 0.01}), ends({32: 0.05})
    assert most[0] < more[0] < plain[0] and plain[1] < more[1] < most[1]


def test_11_a_rivals_cut_runs_count_as_reached_where_they_ended() -> None:
    """Ends below the cap: each may have been about to reach the target."""
    ends = (1.27, 0.503)
    cut = held({16: (1.05, 1.0, 0.99)}, {32: ends})
    reached = held({16: (1.05, 1.0, 0.99), 32: ends})
    assert cut.regret is not None and reached.regret is not None
    middle = [np.median(of.regret.second[0, :, 1]) for of in (cut, reached) if of.regret]
    assert middle[0] == pytest.approx(middle[1], abs=0.05)
    assert cut.decision.status == "undecided"


# How often it is right


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_4_equals_at_three_seeds_are_seldom_told_apart(shared: float) -> None:
    scenario, every = Scenario((3,), 0.05, 2, shared=shared, near=0.0), np.ones(150, dtype=bool)
    of = simulate(scenario, 150, np.random.default_rng(0))
    found = regrets.judged(problem(scenario, of, 3, every))
    over = found.second - np.take_along_axis(found.second, found.chosen[:, None, None], axis=2)
    told = ((over > 0).mean(axis=1) >= 1 - TOLD * (1 - Policy().confidence)).any(axis=1)
    assert told.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)


def test_4_told_apart_is_what_the_standing_says() -> None:
    """Found to be slower in 98 draws of 100, and not yet in 95."""
    found = [held({16: (1.0, 1.05, 0.95), 32: (m, 1.05 * m, 0.96 * m)}) for m in (1.06, 1.2)]
    for of in found:
        assert of.regret is not None
        over = (of.regret.second[0, :, 1] > of.regret.second[0, :, 0]).mean()
        assert bool(of.decision.slower[1]) == bool(over >= 0.985)
    assert [bool(of.decision.slower[1]) for of in found] == [False, True]


def test_5_a_clear_answer_at_three_seeds_is_given_more_often_than_not() -> None:
    assert run(Scenario((3,), 0.05), 60, seed=0).answered.mean() >= 0.5


def test_6_the_seeds_said_to_settle_it_do_in_most_sweeps() -> None:
    chance = np.random.default_rng(0)
    truth = np.array([0.0, math.log(1.15)])[:, None]
    settled: list[bool] = []
    while len(settled) < 15:
        common, alone = chance.standard_normal((1, 50)), chance.standard_normal((2, 50))
        runs = np.exp(truth + 0.08 * (math.sqrt(0.3) * common + math.sqrt(0.7) * alone))
        first = held({size: runs[i, :3] for i, size in enumerate((16, 32))})
        asked = settling_of(first, Policy())
        if asked is None or asked.seeds is None:
            continue
        seeds = {s: asked.seeds if s in asked.batch_sizes else 3 for s in first.batch_sizes}
        then = held({s: runs[i, :n] for i, (s, n) in enumerate(seeds.items())}, looks=1)
        settled.append(then.decision.status != "undecided")
    assert np.mean(settled) >= 0.7


def test_7_several_looks_together_are_wrong_in_five_percent_at_the_most() -> None:
    scenario = Scenario((3, 5, 8, 13, 20), near=0.06, batch_sizes=3)
    of = run(scenario, 60, seed=0)
    assert summary(scenario, of)["wrong_of_sweeps"][0] <= 0.05  # type: ignore[index]
    assert of.answered.mean() >= 0.8


# Rounding


def width(step: float, deviation: float) -> float:
    """Of the 95 % interval of five runs' typical value, rounded to `step`."""
    chance = np.random.default_rng(0)
    draws = Draws(
        chance.normal(0, deviation / math.sqrt(5), (1, 20000, 1)),
        np.full((1, 20000, 1), deviation**2),
    )
    nothing, grid = np.zeros((1, 1)), np.full((1, 1), step)
    found = regrets.with_shared(draws, nothing, grid, np.random.default_rng(1))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(high - low)


@pytest.mark.parametrize("steps", [0.4, 0.6, 1.0, 3.0])
def test_8_noise_of_some_steps_averages_the_rounding_out(steps: float) -> None:
    assert width(0.1, steps * 0.1) <= 1.15 * width(0.0, steps * 0.1)


def test_8_runs_without_spread_are_known_no_better_than_the_step() -> None:
    assert width(0.1, 1e-3) >= 0.1
    same = runs_of({32: 12.0, 64: 10.0}, noise=0.0)
    sure, coarse = (verdict_of([replace(r, resolution=part) for r in same]) for part in (0.05, 0.5))
    row = next(r for r in sure.per_batch_size if r.batch_size == 64)
    assert row.low is not None and row.high is not None and row.high / row.low >= 1.05
    assert (sure.status, coarse.status) == ("decided", "undecided")
    assert any("within 50% only: raise the target" in told for told in coarse.warnings)
    assert not any("only: raise" in told for told in sure.warnings)


# The critical batch size


def test_9_a_curve_that_its_runs_reject_has_no_interval_and_no_closed_form() -> None:
    off = {16: 1.0, 32: 0.6, 64: 1.5, 128: 0.6, 256: 1.4}
    runs = [
        rows.target_run(
            batch_size=size, seed=seed, updates=None, examples_seen=None,
            updates_to_target=100 * (1 + 80 / size) * part * (1 + 0.01 * seed),
            examples_to_target=size * 100 * (1 + 80 / size) * part * (1 + 0.01 * seed),
        )
        for size, part in off.items() for seed in range(3)
    ]  # fmt: skip
    found, _ = fit_critical_batch(runs, 0.95)
    assert found is not None and found.lack_of_fit_p is not None and found.lack_of_fit_p < 0.05
    assert (found.low, found.high) == (None, None)
    line = fit_line(list(off), [0.02 + 0.001 * size for size in off])
    assert closed_form(line, found, 32, (), list(off)) is None


# The learning rate


def coarse_search(*sizes: int) -> list[TargetRun]:
    """A rate every decade, of which one alone reached: the best may lie anywhere between."""
    rates = {1e-4: 40.0, 1e-3: 10.0, 1e-2: 40.0}
    return [
        run_of(size, 0, took, 20.0, learning_rate=rate)
        for size in sizes
        for rate, took in rates.items()
    ]


def near_runs() -> list[TargetRun]:
    """The smaller batch size is the slower: at a better rate it may need fewer examples yet."""
    return runs_of({32: 10.7, 64: 10.0}, noise=0.03)


def test_10_a_rate_chosen_among_few_widens_the_bound_and_is_told() -> None:
    runs = near_runs()
    without, with_it = verdict_of(runs), verdict_of(runs, searched=coarse_search(32, 64))
    assert without.use is not None and with_it.use is not None
    assert without.use.regret_bound is not None and with_it.use.regret_bound is not None
    assert with_it.use.regret_bound > without.use.regret_bound + 0.1
    assert (used(with_it), with_it.status) == (used(without), "undecided")
    assert set(with_it.rate_deviation) == {"32", "64"} and without.rate_deviation == {}
    assert any("which is counted" in told for told in with_it.warnings)
    assert any("is not known, and in no number here" in told for told in without.warnings)


def test_10_the_luck_of_a_rate_is_in_no_interval_of_the_runs_at_that_rate() -> None:
    runs = near_runs()
    without, with_it = verdict_of(runs), verdict_of(runs, searched=coarse_search(32, 64))
    for one, other in zip(without.per_batch_size, with_it.per_batch_size, strict=True):
        assert (one.low, one.high) == (other.low, other.high)


def test_10_more_seeds_are_not_said_to_settle_what_the_rates_leave_open() -> None:
    runs = near_runs()
    verdict = verdict_of(runs, searched=coarse_search(32, 64))
    assert verdict.settling is not None and verdict.settling.seeds is None
    (size,) = verdict.settling.rates
    assert f"More runs alone would not settle it: the best learning rate of {size} must be" in (
        verdict.change or ""
    )
    swept = verdict_of(runs, searched=coarse_search(32, 64), policy={"resume": "--resume"})
    assert swept.advice == "Begin a sweep with more learning rates (--trials)."


def test_10_near_equals_at_known_rates_are_not_advised_more_rates() -> None:
    """What the profiled seconds leave open no rate tells."""
    timed_badly = [
        rows.profile(batch_size=size, micro_batch_size=size, step_deviation=0.1, device="cpu")
        for size in (32, 64)
    ]
    runs = [replace(run, device="cpu") for run in near_runs()]
    verdict = verdict_of(runs, profiles=timed_badly, policy={"resume": "--resume"})
    assert verdict.settling is not None and verdict.settling.rates == ()
    assert "learning rates and profiled seconds are known to about" in (verdict.change or "")
    assert verdict.advice is None


def test_10_a_batch_size_of_which_no_tried_rate_reached_is_told_and_counted_widely() -> None:
    runs = near_runs()
    tried = [*coarse_search(64), run_of(32, 0, 40.0, 20.0, learning_rate=0.0001)]
    far, near = verdict_of(runs, searched=tried), verdict_of(runs, searched=coarse_search(32, 64))
    assert any("tried at 32 reached" in w for w in far.warnings)
    assert not any("tried at" in w and "reached" in w for w in near.warnings)
    assert far.use is not None and near.use is not None
    assert (far.use.regret_bound or 0) > (near.use.regret_bound or 1)
