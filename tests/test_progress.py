"""What is shown while a sweep runs."""

from __future__ import annotations

import io

from rich.console import Console

from tests.rows import measurement, result
from tune_jobs.reporting.progress import Progress


def heard(console: Console) -> Progress:
    with Progress("search", (16, 32), 4, console) as progress:
        progress.already([result(trial_id="a", batch_size=16, examples_to_target=900)])
        progress(measurement(trial_id="b", batch_size=16))
        progress(measurement(trial_id="c", batch_size=32))
        progress(result(trial_id="b", batch_size=16, examples_to_target=400, learning_rate=0.002))
        progress.live.refresh() if console.is_terminal else None
    return progress


def test_a_log_gets_one_plain_line_for_each_trial_that_ends() -> None:
    file = io.StringIO()
    heard(Console(file=file, width=140))
    (line,) = file.getvalue().splitlines()
    assert "search   2/4 n " in line and "to target    400" in line and "\x1b" not in line
    assert "s left" in line


def test_a_terminal_gets_a_panel_of_counts_and_the_best_of_each_batch_size() -> None:
    file = io.StringIO()
    progress = heard(Console(file=file, width=140, force_terminal=True))
    assert progress.best[16].learning_rate == 0.002
    shown = file.getvalue()
    assert "search: 1 running, 0 stopped, 2 done of 4" in shown
    assert "400" in shown and "0.002" in shown
