"""What is shown while a sweep runs."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.rows import measurement, profile, result
from tune_jobs.config import SweepConfig
from tune_jobs.records import Begun, ConfirmRun
from tune_jobs.reporting import progress as progresses
from tune_jobs.reporting.progress import Progress
from tune_jobs.reporting.standing import (
    Rows,
    hopes_of,
    purpose,
    seconds_left,
    standings,
    table_lines,
    work_wanted,
)

SIZES = (16, 32, 64)
CONFIG = replace(SweepConfig(), batch_sizes=SIZES)
SEARCH = Begun("c", "b32-lr0.001-s0", "search", 32, 0, "may win")


def heard(console: Console) -> Progress:
    progress = Progress(console)
    earlier = Rows([result(trial_id="a", batch_size=16, examples_to_target=900)], [], [])
    with progress.watching(CONFIG, "search", earlier, 4):
        progress(Begun("b", "b16-lr0.002-s0", "search", 16, 0))
        progress(SEARCH)
        progress(measurement(trial_id="c", batch_size=32))
        progress(result(trial_id="b", batch_size=16, examples_to_target=400, learning_rate=0.002))
        progress.live.refresh() if console.is_terminal else None
    return progress


def test_a_log_gets_one_plain_line_for_each_trial_that_ends() -> None:
    file = io.StringIO()
    heard(Console(file=file, width=140))
    (line,) = file.getvalue().splitlines()
    assert "search   2/4 n " in line and "to target    400" in line and "\x1b" not in line
    assert "s left" in line and re.match(r"\[ +0 s\]", line)


def test_a_terminal_gets_counts_a_row_for_each_batch_size_and_what_runs_now_and_what_for() -> None:
    file = io.StringIO()
    heard(Console(file=file, width=140, force_terminal=True))
    shown = file.getvalue()
    assert "search: 1 running, 0 stopped, 2 done of 4" in shown
    assert re.search(r"16  leading +0.002 +400 .* 2 ", shown)
    assert re.search(r"32  racing .* 0\+1 ", shown) and re.search(r"64  waiting ", shown)
    assert "now: b32-lr0.001-s0 (may win)" in shown


def test_rows_are_told_in_columns_and_a_batch_size_that_does_not_fit_says_so() -> None:
    lost = profile(batch_size=64, chosen=False, outcome="out_of_memory")
    rows = Rows([result(batch_size=16, learning_rate=0.002)], [], [profile(batch_size=16), lost])
    head, *lines = table_lines(standings(CONFIG, rows))
    assert [line.split()[:2] for line in lines] == [
        ["16", "leading"], ["32", "waiting"], ["64", "dropped"]
    ]  # fmt: skip
    assert lines[2].endswith("does not fit: out_of_memory")
    assert lines[0].index("0.002") + len("0.002") == head.index("best rate") + len("best rate")


def test_a_batch_size_that_cannot_win_is_dropped_while_searching() -> None:
    found = hopes_of({16: (1.0, 0.05), 32: (1.1, 0.05), 64: (3.0, 0.1)}, 0.95)
    assert found[16].expected < found[32].expected < found[64].expected
    assert all(hope.expected <= hope.bound for hope in found.values())
    assert hopes_of({16: (1.0, 0.05)}, 0.95) == {}  # beside nothing
    needs = {16: 100, 32: 110, 64: 9000}
    rows = Rows(
        [
            result(
                trial_id=f"{size}{rate}", batch_size=size, base_learning_rate=1e-3 * rate,
                examples_to_target=n, examples_seen=n,
            )
            for size, n in needs.items() for rate in (1, 2, 4)
        ],
        [], [profile(batch_size=size, step_seconds=0.001 * size) for size in SIZES],
    )  # fmt: skip
    at = {one.batch_size: one for one in standings(CONFIG, rows)}
    assert at[16].state == "leading" and at[32].state == "racing" and at[64].state == "dropped"
    assert re.fullmatch(r"takes \d+ times as long as 16, at best", at[64].why)


@pytest.mark.parametrize(
    ("begun", "told"),
    [
        (SEARCH, "may win"),
        (replace(SEARCH, why=None), "its batch size's share"),
        (replace(SEARCH, stage="confirm", seed=2), "seed 2"),
        (
            replace(SEARCH, stage="confirm", seed=1, whole=True, alone=True),
            "seed 1, to the whole budget, alone on its device",
        ),
    ],
)
def test_a_run_says_what_it_is_made_for(begun: Begun, told: str) -> None:
    assert purpose(begun) == told


# The time left


def test_a_run_to_the_budget_counts_whole_one_that_is_alone_for_every_slot() -> None:
    rows = [result(batch_size=16, examples_seen=1000, train_seconds=10.0, examples_to_target=500)]
    run = ConfirmRun(16, 1e-3, 1e-3, 1, 2000)
    wanted = [run, replace(run, whole=True), replace(run, whole=True, alone=True)]
    assert work_wanted(wanted, rows, slots=2) == [5.0, 20.0, 40.0]
    assert work_wanted([replace(run, most_examples=300)], rows, slots=2) == [3.0]


def test_nothing_is_said_before_a_pace_is_known() -> None:
    assert seconds_left(10.0, 0.0, 5.0) is None
    assert seconds_left(10.0, 20.0, 40.0) == 20.0


def test_the_time_left_of_a_confirm_stage_follows_its_plan_as_that_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block is planned after the other: what was counted when the stage began is not the end."""
    now = [0.0]
    monkeypatch.setattr(progresses.time, "monotonic", lambda: now[0])
    run = ConfirmRun(16, 1e-3, 1e-3, 1, 900)
    blocks = [[run], [replace(run, seed=2), replace(run, seed=3)]]
    progress = Progress(Console(file=io.StringIO()))
    searched = result(batch_size=16, examples_to_target=None, train_seconds=9.0)
    with progress.watching(CONFIG, "confirm", Rows([searched], [], [])):
        progress.turn_to("confirm", wanted=blocks[0])
        now[0] = 7.0  # to start up is no part of the pace
        progress(Begun("a", "n", "confirm", 16, 1))
        now[0] = 25.0
        confirmed: dict[str, Any] = {"stage": "confirm", "batch_size": 16, "train_seconds": 9.0}
        progress(result(trial_id="a", seed=1, examples_to_target=None, **confirmed))
        assert progress.left() == "about 0 s to the next look"
        progress.turn_to("confirm", wanted=blocks[1])
        assert progress.left() == "about 36 s to the next look"
        assert "0 running, 0 stopped, 1 done of 3" in progress.lines()[0]
