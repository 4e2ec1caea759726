"""Several optimizers side by side: a sweep of each, one answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.judged import runs_of, verdict_of
from tune_jobs import preparing
from tune_jobs.command_line import parse
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.optimizers import Comparison, compare
from tune_jobs.judging.policy import Policy
from tune_jobs.reporting.optimizers import print_comparison

ADAM = runs_of({16: 3.0, 32: 2.0, 64: 4.0}, noise=0.03)
SGD = [
    replace(run, time_to_target_seconds=run.time_to_target_seconds * (1 + 0.02 * (run.seed or 0)))
    for run in runs_of({16: 2.6, 32: 5.0, 64: 6.0}, noise=0.03)
    if run.time_to_target_seconds
]


def comparison(**runs: Any) -> Comparison:
    verdicts = {name: verdict_of(of) for name, of in runs.items()}
    return compare(verdicts, runs, Policy("time"))


def test_the_best_pair_is_named_and_by_how_much_the_others_are_behind() -> None:
    found = comparison(sgd=SGD, adam=ADAM)
    assert [row.optimizer for row in found.rows] == ["adam", "sgd"]
    assert found.answer.startswith("Use adam with batch size 32, learning rate 0.001; sgd with 16")
    times = found.rows[1].times
    assert times is not None and times.low is not None and times.high is not None
    assert times.low < 1.3 * 1.04 < times.high
    assert "not told apart" not in found.answer
    assert found.moves == "The optimizer moves the choice of batch size: 32 with adam, 16 with sgd."


def test_equal_optimizers_are_not_told_apart_and_move_nothing() -> None:
    found = comparison(adam=ADAM, rmsprop=runs_of({16: 3.0, 32: 2.0, 64: 4.0}, noise=0.031))
    assert "not told apart" in found.answer
    assert "does not move the choice of batch size" in found.moves


def test_one_that_never_reached_is_told_and_does_not_win() -> None:
    never = runs_of({16: 3.0, 32: 2.0}, ends=0.5)
    found = comparison(sgd=never, adam=ADAM)
    assert "sgd did not reach the target" in found.answer
    assert found.moves == "Whether the optimizer moves the choice of batch size is not known."
    assert comparison(sgd=never, adam=never).answer == "No optimizer reached the target."


def test_the_comparison_is_printed_a_row_for_each() -> None:
    console = Console(width=110, record=True)
    print_comparison(comparison(sgd=SGD, adam=ADAM), "time_to_target_seconds", console)
    told = console.export_text()
    assert told.split("\n")[1].startswith("Use adam with batch size 32")
    assert any(line.split()[:2] == ["sgd", "16"] for line in told.split("\n"))


def test_each_optimizer_is_a_sweep_of_its_own_with_its_own_rates(tmp_path: Any) -> None:
    asked = [
        "--optimizer",
        "adam,sgd",
        "--name",
        "a",
        "--runs-dir",
        str(tmp_path),
        "--minutes",
        "9",
    ]
    found = preparing.configurations(parse(asked))
    assert [(c.name, c.optimizer, c.minutes) for c in found] == [
        ("a-adam", "adam", 4.5),
        ("a-sgd", "sgd", 4.5),
    ]
    assert len({c.trials for c in found}) == 1
    assert preparing.configurations(parse(["--runs-dir", str(tmp_path)])) == [
        SweepConfig(runs_dir=str(tmp_path))
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [("adam,adam", "stands twice"), ("adam,sdg", "Did you mean 'sgd'"), ("adam,", "known:")],
)
def test_an_optimizer_that_cannot_be_swept_is_refused(asked: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preparing.configurations(parse(["--optimizer", asked]))
