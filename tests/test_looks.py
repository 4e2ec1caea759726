"""Looks: how many chances of error were spent, and on what further seeds go."""

from __future__ import annotations

from dataclasses import replace

from tests import rows
from tests.judged import run_of, runs_of, verdict_of
from tune_jobs.config import SweepConfig
from tune_jobs.planning.looks import (
    confirm_runs,
    goes_on,
    is_due,
    last_look,
    look_of,
    open_looks,
    rates_are_due,
    trials_wanted,
    was_searched_since,
    with_look,
)
from tune_jobs.records import Look, TrialResult
from tune_jobs.verdicts import Settling


def trials(confirmed: int) -> list[TrialResult]:
    found = [rows.result(stage="confirm", seed=seed) for seed in range(confirmed)]
    return [*found, rows.result(stage="search")]


def test_a_look_is_at_the_confirm_runs_alone() -> None:
    assert confirm_runs(trials(6)) == 6
    assert confirm_runs([]) == 0


def test_looks_at_fewer_runs_that_left_something_open_count() -> None:
    looks = [Look(6, 3, (32, 64)), Look(10, 5, (32, 64)), Look(16, 8, (32,))]
    assert open_looks(looks, trials(16)) == 2
    assert open_looks(looks, trials(6)) == 0
    assert open_looks([], trials(6)) == 0


def test_a_look_at_the_same_runs_again_spends_nothing() -> None:
    assert open_looks([Look(6, 3, (32, 64))], trials(6)) == 0


def test_a_look_that_ended_with_an_answer_spends_nothing_of_the_next() -> None:
    assert open_looks([Look(6, 3, ())], trials(10)) == 0


def test_a_look_takes_the_place_of_one_at_as_many_runs_and_order_is_kept() -> None:
    looks = [Look(6, 3, (32, 64)), Look(16, 8, ())]
    assert with_look(looks, Look(10, 5, (32,))) == [looks[0], Look(10, 5, (32,)), looks[1]]
    assert with_look(looks, Look(6, 3, ())) == [Look(6, 3, ()), looks[1]]
    assert with_look([], looks[0]) == looks[:1]


def test_a_run_made_again_for_longer_counts_once_and_one_that_failed_not_at_all() -> None:
    again = [rows.result(stage="confirm", seed=1, examples_seen=seen) for seen in (640, 1280)]
    failed = rows.result(stage="confirm", seed=2, outcome="failed")
    assert confirm_runs([*again, failed]) == 1


def test_a_look_is_due_once_there_are_runs_that_none_was_at() -> None:
    assert not is_due([], trials(0))
    assert is_due([], trials(6))
    assert not is_due([Look(6, 2, ())], trials(6))
    assert is_due([Look(6, 2, ())], trials(8))
    assert last_look([Look(6, 2, ()), Look(10, 3, ()), Look(8, 2, ())]) == Look(10, 3, ())


def test_seeds_go_on_while_something_is_open_and_worth_it_or_more_were_asked_for_since() -> None:
    config = replace(SweepConfig(), seeds=8)
    left = Look(12, 2, (16, 32), 16, None, 8)
    assert goes_on(left, config)
    assert goes_on(replace(left, worth=True), config)
    assert not goes_on(replace(left, worth=False), config)
    assert goes_on(replace(left, worth=False), replace(config, seeds=13))
    assert not goes_on(replace(left, alive=()), config)
    assert not goes_on(replace(left, seeds=8), config)


def test_what_a_verdict_leaves_open_stays_alive() -> None:
    config = replace(SweepConfig(), seeds=3)
    left = verdict_of(runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15))
    assert left.use is not None and left.settling is not None
    worth = left.settling.worth_it
    assert look_of(left, config, trials(9), 3) == Look(
        9, 3, (64, 128), left.use.batch_size, worth, 3, searched=1
    )
    unsure = replace(left, settling=replace(left.settling, seeds=None, rates=(128,)))
    assert look_of(unsure, config, trials(9), 3).rates == (128,)
    assert look_of(unsure, replace(config, search="tpe"), trials(9), 3).rates == ()
    hopeless = replace(left, settling=replace(left.settling, seeds=None, worth_it=None))
    assert look_of(hopeless, config, trials(9), 3).worth is None  # the bound is worth some seeds
    assert look_of(hopeless, config, trials(9), 5).worth is None  # and more while it is wide
    near = replace(hopeless, use=replace(left.use, regret_bound=0.14))
    assert look_of(near, config, trials(9), 5).worth is False
    shared = replace(hopeless, settling=replace(hopeless.settling, tightens=False))
    assert look_of(shared, config, trials(9), 5).worth is False  # seeds make it no tighter
    alone = replace(left, settling=replace(left.settling, batch_sizes=(64,), seeds=None))
    assert look_of(alone, config, trials(9), 2).worth is False  # others are open by their rates


def test_single_runs_leave_all_alive() -> None:
    verdict = verdict_of([run_of(size, 0, 10.0 + size) for size in (32, 64, 128)])
    assert look_of(verdict, SweepConfig(), trials(3), 1).alive == (32, 64, 128)


def test_nothing_stays_alive_where_the_answer_stands_or_nothing_was_reached() -> None:
    decided = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=3))
    unreached = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=3, ends=5.0))
    for verdict in (decided, unreached):
        assert look_of(verdict, SweepConfig(), trials(6), 3).alive == ()


def test_the_search_goes_on_for_the_rate_of_a_batch_size_that_stands() -> None:
    decided = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=3))
    open_rate = replace(decided, settling=Settling((), None, None, None, None, (64,)))
    config = replace(SweepConfig(), trials=1)
    look = look_of(open_rate, config, trials(6), 3)
    assert (look.alive, look.used, look.rates) == ((), 64, (64,)) and not goes_on(look, config)
    assert rates_are_due([look], trials(6), config)
    assert not look_of(open_rate, replace(config, search="tpe"), trials(6), 3).rates


def test_the_search_goes_on_where_rates_and_no_seeds_are_what_is_open() -> None:
    config = replace(SweepConfig(), trials=18)
    look = Look(12, 2, (16, 32, 64), 32, None, 8, rates=(16, 64), searched=18)
    assert trials_wanted(look, config) == 22
    assert trials_wanted(replace(look, searched=34), config) == 36  # as many again, and no more
    assert trials_wanted(replace(look, rates=()), config) == trials_wanted(None, config) == 0
    rows_now = [replace(row, stage="search") for row in trials(17)]
    assert rates_are_due([look], rows_now, config)
    assert not was_searched_since([look], rows_now)
    further = [replace(row, stage="search") for row in trials(21)]
    assert not rates_are_due([look], further, config)
    assert was_searched_since([look], further)
