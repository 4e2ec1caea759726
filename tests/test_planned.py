"""The searcher that asks a plan: what runs is not given again, what failed is tried three times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from tune_jobs.tuning.planned import PLANS, Planned

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
    assert [searcher.suggest(str(k)) for k in range(4)] == RUNS
    assert searcher.suggest("waits") is None
    for k in range(4):
        made.append(RUNS[k])
        searcher.on_trial_complete(str(k), {})
        assert searcher.suggest("more") == (None if k < 3 else Searcher.FINISHED)


def test_a_plan_that_grows_is_asked_again_after_each_run(made: list[dict[str, Any]]) -> None:
    made += RUNS[1:]
    searcher = Planned("it")
    assert searcher.suggest("a") == RUNS[0]
    assert searcher.suggest("waits") is None
    made[:] = [RUNS[0], RUNS[1]]
    searcher.on_trial_complete("a", {})
    assert searcher.suggest("b") == RUNS[2]


def test_what_the_machine_failed_is_tried_three_times(made: list[dict[str, Any]]) -> None:
    made += RUNS[1:]
    searcher = Planned("it")
    for k in range(3):
        assert searcher.suggest(str(k)) == RUNS[0]
        searcher.on_trial_complete(str(k), error=True)
    assert searcher.suggest("given up") == Searcher.FINISHED


def test_a_restored_searcher_knows_what_is_under_way(
    made: list[dict[str, Any]], tmp_path: Path
) -> None:
    one, two = Planned("it"), Planned("")
    assert one.suggest("a") == RUNS[0]
    one.save(str(tmp_path / "state"))
    two.restore(str(tmp_path / "state"))
    assert two.suggest("b") == RUNS[1]
    made.append(RUNS[0])
    two.on_trial_complete("a", {})
    assert two.suggest("c") == RUNS[2]
