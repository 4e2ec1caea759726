"""Which confirm runs are made: blocks of common seeds, rivals cut short, two runs to the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.planning.confirm_plan import next_runs, run_anew
from tune_jobs.reading.sweep_runs import runs_to_judge
from tune_jobs.records import ConfirmRun, Look, TrialResult
from tune_jobs.reporting.answer import left_out_of

SIZES = (16, 32, 64, 128, 256)
BUDGET = 8000
CONFIG = replace(SweepConfig(), batch_sizes=SIZES, seeds=8, budget_examples=BUDGET)
# Examples to target, and examples a second: 64 is the fastest, at 4 s.
NEEDS = {16: 1000, 32: 1400, 64: 2000, 128: 4000, 256: 9000}
SPEED = {16: 100.0, 32: 250.0, 64: 500.0, 128: 800.0, 256: 1000.0}


def ran(stage: str, size: int, seed: int, seen: int, **changes: Any) -> TrialResult:
    needs = NEEDS[size] if NEEDS[size] <= seen else None
    fields: dict[str, Any] = {
        "stage": stage, "batch_size": size, "seed": seed, "learning_rate": 0.01 * size,
        "base_learning_rate": 0.01, "examples_seen": seen, "budget_examples": BUDGET,
        "examples_to_target": needs, "train_seconds": seen / SPEED[size],
        "measured_train_seconds": seen / SPEED[size],
        "time_to_target_seconds": needs / SPEED[size] if needs else None,
    }  # fmt: skip
    return rows.result(trial_id=f"{stage}-{size}-{seed}-{seen}", **fields | changes)


SEARCHED = [ran("search", size, 0, min(NEEDS[size], BUDGET)) for size in SIZES]


def made(runs: list[ConfirmRun], **changes: Any) -> list[TrialResult]:
    """The rows that those runs leave."""
    return [
        ran("confirm", run.batch_size, run.seed, run.most_examples if run.whole
            else min(run.most_examples, NEEDS[run.batch_size]), **{"alone": run.alone} | changes)
        for run in runs
    ]  # fmt: skip


def test_two_common_seeds_of_what_may_win_come_first_none_of_them_the_searchs() -> None:
    """What took half as long again as the fastest may not, where three others are nearer."""
    runs = next_runs(CONFIG, SEARCHED, [])
    first = [(b, s) for b in (32, 64, 128) for s in (1, 2)]
    assert sorted((r.batch_size, r.seed) for r in runs) == first
    assert all(r.learning_rate == 0.01 * r.batch_size for r in runs)
    assert CONFIG.seed not in {r.seed for r in runs}


STANDS = Look(10, 2, (), 64)


def test_of_the_leader_and_its_neighbours_one_run_is_alone_and_none_goes_on_before_the_answer() -> (
    None
):
    runs = next_runs(CONFIG, SEARCHED, [])
    assert not any(r.whole for r in runs)
    assert [(r.batch_size, r.seed) for r in runs if r.alone] == [(32, 1), (64, 1), (128, 1)]
    assert [r.alone for r in runs] == sorted(r.alone for r in runs)  # for themselves, at the end


def test_all_are_seen_twice_where_the_search_does_not_tell_what_may_win() -> None:
    none = [replace(t, examples_to_target=None, time_to_target_seconds=None) for t in SEARCHED]
    for config, searched in ((CONFIG, none), (replace(CONFIG, goal="accuracy"), SEARCHED)):
        runs = next_runs(config, searched, [])
        assert {r.batch_size for r in runs} == set(SIZES)


def test_once_the_answer_stands_the_leader_and_its_neighbours_go_on_to_the_budget() -> None:
    """And all others are run twice, for the critical batch size: to twice as long as it took."""
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    runs = next_runs(CONFIG, rows_now, [STANDS])
    assert [(r.batch_size, r.seed) for r in runs] == [(b, s) for s in (1, 2) for b in SIZES]
    assert all(r.late and not r.alone for r in runs)
    assert {r.batch_size for r in runs if r.whole} == {32, 64, 128}
    ends = {r.batch_size: r.most_examples for r in runs}
    assert ends == {16: 800, 32: BUDGET, 64: BUDGET, 128: BUDGET, 256: 8000}  # 8 s of 16
    assert next_runs(CONFIG, [*rows_now, *made(runs)], [STANDS]) == []


def test_what_is_alive_runs_anew_at_a_better_rate_and_is_judged_by_that_alone() -> None:
    """Its seeds so far, ended where it has lost; what is not alive stays where it ran."""
    first = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    look = Look(10, 2, (32, 64), 64, worth=False, asked=CONFIG.seeds)
    better = {32: 0.02, 128: 0.02}
    runs = next_runs(CONFIG, first, [look], better)
    assert [(r.batch_size, r.seed, r.base_learning_rate) for r in runs if not r.alone] == [
        (32, 2, 0.02)
    ]
    assert [(r.batch_size, r.seed) for r in runs if r.alone] == [(32, 1)]  # for its clock
    assert not any(r.whole for r in runs) and run_anew(runs, first) == {32}
    begun = [*first, *made(runs[:1], base_learning_rate=0.02, learning_rate=runs[0].learning_rate)]
    assert next_runs(CONFIG, begun, [look], better) == runs[1:]
    done = [*first, *made(runs, base_learning_rate=0.02, learning_rate=runs[0].learning_rate)]
    judged = [t.base_learning_rate for t in runs_to_judge(done) if t.batch_size == 32]
    assert judged == [0.02, 0.02]
    assert left_out_of(done)[-1:] == [
        "Left out: runs of 32 at 0.32 (2), before the search found a better rate."
    ]
    last = next_runs(CONFIG, done, [look], better)
    assert all(r.late for r in last) and not run_anew(last, done)
    assert {r.base_learning_rate for r in last if r.batch_size == 128} == {0.01}


def test_where_a_batch_schedule_follows_nothing_goes_on_past_the_target() -> None:
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    assert next_runs(replace(CONFIG, search="grow"), rows_now, [STANDS]) == []


def test_a_run_that_was_made_again_for_longer_keeps_what_it_took_to_the_target() -> None:
    first = ran("confirm", 64, 1, 2000, alone=True, measured_time_to_target_seconds=4.5)
    other = {"examples_to_target": 2064, "time_to_target_seconds": 4.2}
    again = ran("confirm", 64, 1, BUDGET, alone=False, measured_time_to_target_seconds=9.0, **other)
    (kept,) = runs_to_judge([again, first])
    assert (kept.examples_seen, kept.alone) == (BUDGET, True)
    assert kept.measured_time_to_target_seconds == 4.5
    assert (kept.examples_to_target, kept.time_to_target_seconds) == (2000, 4.0)
    short = ran("confirm", 64, 1, 1000)
    assert runs_to_judge([again, short]) == [again]  # which reached only then


def test_further_seeds_go_to_what_is_open_and_rivals_end_at_one_and_a_half_times_the_leader() -> (
    None
):
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    look = Look(10, 2, (32, 64, 128), 32, True, 8)
    runs = next_runs(CONFIG, rows_now, [replace(look, used=64, alive=(64, 128))])
    assert [(r.batch_size, r.seed) for r in runs] == [(64, 3), (128, 3)]
    assert not any(r.whole or r.alone or r.late for r in runs)
    later, look = [*rows_now, *made(runs)], Look(12, 3, (64, 128), 64, True, 8)
    assert [(r.batch_size, r.seed) for r in next_runs(CONFIG, later, [look])] == [
        (64, 4), (128, 4), (64, 5), (128, 5)
    ]  # fmt: skip


def test_what_the_search_told_apart_joins_the_open_ones_once_seeds_are_many() -> None:
    """256 by its one trial of the search, which the scatter of two seeds does not rule out."""
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    look = Look(10, 2, (64, 256), 64, True, 8)
    for seeds, joins in ((2, False), (3, False), (5, True)):
        runs = next_runs(CONFIG, rows_now, [replace(look, seeds=seeds)])
        assert ({r.batch_size for r in runs} == {64, 256}) is joins
    assert {r.seed for r in runs if r.batch_size == 256} == set(range(1, 9))
    assert {r.most_examples for r in runs if r.batch_size == 256} == {6000}  # 6 s of 64's 4 s


def test_no_seed_is_run_once_the_answer_stands_or_is_not_worth_more() -> None:
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    dear = Look(10, 2, (64, 256), 64, False, 8)
    done = [*rows_now, *made(next_runs(CONFIG, rows_now, [STANDS]))]
    assert next_runs(CONFIG, done, [STANDS]) == []
    assert next_runs(CONFIG, done, [dear]) == []
    assert next_runs(replace(CONFIG, seeds=13), done, [dear]) != []  # asked for since
    assert next_runs(replace(CONFIG, seeds=2), done, [replace(dear, worth=None)]) == []


def test_where_another_batch_size_came_to_lead_its_runs_and_its_neighbours_are_made_whole() -> None:
    rows_now = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    runs = next_runs(CONFIG, rows_now, [Look(10, 2, (), 32)])
    assert {(r.batch_size, r.seed) for r in runs if r.whole} == {
        (b, s) for s in (1, 2) for b in (16, 32, 64)
    }
    assert not any(r.alone for r in runs)  # nothing is decided by clocks any more


def test_a_loop_that_ends_short_of_the_budget_is_not_made_a_third_time() -> None:
    first = [*SEARCHED, *made(next_runs(CONFIG, SEARCHED, []))]
    whole = next_runs(CONFIG, first, [STANDS])
    short = [replace(row, examples_seen=BUDGET - 8) for row in made(whole)]
    assert whole and next_runs(CONFIG, [*first, *short], [STANDS]) == []


def test_only_what_is_missing_is_run_and_what_the_machine_failed_is_run_again() -> None:
    first = next_runs(CONFIG, SEARCHED, [])
    lost = [r for r in first if (r.batch_size, r.seed) == (256, 2)]
    done = made([r for r in first if r not in lost])
    failed = made(lost, outcome="failed")
    assert next_runs(CONFIG, [*SEARCHED, *done, *failed], []) == lost
    gone = made(lost, outcome="diverged")
    assert next_runs(CONFIG, [*SEARCHED, *done, *gone], []) == []


def test_no_more_seeds_are_made_than_were_asked_for() -> None:
    runs = next_runs(replace(CONFIG, seeds=1), SEARCHED, [])
    assert {r.seed for r in runs} == {1}


def test_for_accuracy_every_run_uses_its_whole_budget() -> None:
    runs = next_runs(replace(CONFIG, goal="accuracy"), SEARCHED, [])
    assert all(r.most_examples == BUDGET for r in runs) and {r.whole for r in runs} == {True}


def test_without_a_search_there_is_nothing_to_confirm() -> None:
    assert next_runs(CONFIG, [], []) == []
