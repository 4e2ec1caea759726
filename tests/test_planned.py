"""The searcher that asks a plan: what runs is not given again, what failed is tried three times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from tune_jobs.tuning.planned import PLANS, Planned


def given(searcher: Planned, trial_id: str) -> Any:
    """What is suggested, without when that was."""
    found = searcher.suggest(trial_id)
    return {k: v for k, v in found.items() if k != "asked_at"} if isinstance(found, dict) else found


RUNS = [
    {"batch_size": size, "learning_rate": 0.1, "seed": seed, "whole": False}
    for seed in (1, 2)
    for size in (16, 64)
]


@pytest.fixture
def made() -> Iterator[list[dict[str, Any]]]:
    """Runs that are over; the plan has the others."""
    over: list[dict[str, Any]] = []
    PLANS["it"] = lambda under_way: [run for run in RUNS if run not in over]
    yield over
    del PLANS["it"]


def test_runs_are_given_once_each_it_waits_for_them_and_ends(made: list[dict[str, Any]]) -> None:
    searcher = Planned("it")
    assert [given(searcher, str(k)) for k in range(4)] == RUNS
    assert searcher.suggest("waits") is None
    for k in range(4):
        made.append(RUNS[k])
        searcher.on_trial_complete(str(k), {})
        assert searcher.suggest("more") == (None if k < 3 else Searcher.FINISHED)


def test_a_plan_that_grows_is_asked_again_after_each_run(made: list[dict[str, Any]]) -> None:
    made += RUNS[1:]
    searcher = Planned("it")
    assert given(searcher, "a") == RUNS[0]
    assert searcher.suggest("waits") is None
    made[:] = [RUNS[0], RUNS[1]]
    searcher.on_trial_complete("a", {})
    assert given(searcher, "b") == RUNS[2]


def test_what_the_machine_failed_is_tried_three_times(made: list[dict[str, Any]]) -> None:
    made += RUNS[1:]
    searcher = Planned("it")
    for k in range(3):
        assert given(searcher, str(k)) == RUNS[0]
        searcher.on_trial_complete(str(k), error=True)
    assert searcher.suggest("given up") == Searcher.FINISHED


def test_a_restored_searcher_knows_what_is_under_way(
    made: list[dict[str, Any]], tmp_path: Path
) -> None:
    one, two = Planned("it"), Planned("")
    assert given(one, "a") == RUNS[0]
    one.save(str(tmp_path / "state"))
    two.restore(str(tmp_path / "state"))
    assert given(two, "b") == RUNS[1]
    made.append(RUNS[0])
    two.on_trial_complete("a", {})
    assert given(two, "c") == RUNS[2]


def test_where_it_holds_a_run_that_is_to_be_alone_has_no_neighbour(
    made: list[dict[str, Any]],
) -> None:
    runs = [{**RUNS[0], "alone": False}, {**RUNS[1], "alone": True}, {**RUNS[2], "alone": False}]
    PLANS["it"] = lambda _: [run for run in runs if run not in made]
    searcher = Planned("it", holds=True)
    assert given(searcher, "0") == runs[0]
    for k in (1, 2):
        assert searcher.suggest("waits") is None
        made.append(runs[k - 1])
        searcher.on_trial_complete(str(k - 1), {})
        assert given(searcher, str(k)) == runs[k]
