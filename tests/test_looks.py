"""Looks: how many chances of error were spent, and on what further seeds go."""

from __future__ import annotations

from dataclasses import replace

from tests import rows
from tests.judged import run_of, runs_of, verdict_of
from tune_jobs.config import SweepConfig
from tune_jobs.planning.looks import confirm_runs, look_before, look_of, open_looks, with_look
from tune_jobs.records import Look, TrialResult


def trials(confirmed: int) -> list[TrialResult]:
    found = [rows.result(stage="confirm") for _ in range(confirmed)]
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


def test_further_seeds_go_where_the_last_look_at_fewer_left_something_open() -> None:
    looks = [Look(6, 3, (32, 64)), Look(10, 5, (64,)), Look(16, 8, ())]
    assert look_before(looks, 3) is None
    assert look_before(looks, 5) == looks[0]
    assert look_before(looks, 8) == looks[1]
    assert look_before(looks, 20) == looks[1]
    assert look_before([], 5) is None


def test_what_a_verdict_leaves_open_stays_alive() -> None:
    config = replace(SweepConfig(), seeds=3)
    left = verdict_of(runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15))
    assert look_of(left, config, trials(9)) == Look(9, 3, (64, 128))


def test_single_runs_leave_all_alive() -> None:
    verdict = verdict_of([run_of(size, 0, 10.0 + size) for size in (32, 64, 128)])
    assert look_of(verdict, SweepConfig(), trials(3)).alive == (32, 64, 128)


def test_nothing_stays_alive_where_the_answer_stands_or_nothing_was_reached() -> None:
    decided = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=3))
    unreached = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=3, ends=5.0))
    for verdict in (decided, unreached):
        assert look_of(verdict, SweepConfig(), trials(6)).alive == ()
