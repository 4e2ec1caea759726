"""The table of figures: ratios in pairs, aims of the figure or of the ratio."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.bench.figures import BENCHES, Figure, markdown
from scripts.bench.stock_tune import Made

ROOT = Path(__file__).resolve().parents[1]


def test_a_ratio_is_of_pairs_and_its_median_meets_the_aim() -> None:
    faster = Figure("an update", "ms", [10.0, 20.0, 40.0], [15.0, 28.0, 60.0], 1.4, "ratio")
    assert faster.ratios == [1.5, 1.4, 1.5] and faster.holds
    assert Figure("an update", "ms", [10.0], [13.0], 1.4, "ratio").holds is False


def test_an_aim_may_be_the_most_or_none_and_nothing_holds_where_nothing_was_measured() -> None:
    assert Figure("start", "s", [59.0, 61.0, 60.0], aim=60.0, at_most=True).holds
    assert Figure("start", "s", [61.0], aim=60.0, at_most=True).holds is False
    assert Figure("bound", "", [], aim=0.15, at_most=True).holds is None
    assert Figure("examples", "", [1.0]).holds is None


def test_a_baseline_without_its_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = Figure("an update", "ms", [1.0, 2.0], [1.0]).ratios


def test_the_table_has_a_line_for_each_figure_with_spread_n_and_aim() -> None:
    told = markdown([
        Figure("an update", "ms", [10.0, 20.0], [15.0, 28.0], 1.4, "ratio"),
        Figure("start", "s", [61.0], aim=60.0, at_most=True),
    ])  # fmt: skip
    assert told.splitlines()[2:] == [
        "| an update | 15 ms | 21.5 ms | 1.45 [1.4, 1.5] | 2 | at least 1.4 times | yes |",
        "| start | 61 s |  |  | 1 | at most 60 s | **no** |",
    ]


def test_busy_is_what_trials_trained_or_evaluated_of_the_time_of_all_slots() -> None:
    made = Made("ours", 3, slots=2, wall_seconds=100.0, examples=5000, train_seconds=120.0,
                evaluation_seconds=40.0)  # fmt: skip
    assert made.figures == {
        "busy_share": 0.8, "examples_per_slot_second": 25.0, "evaluation_share": 0.25
    }  # fmt: skip


def test_the_executable_says_what_it_measures() -> None:
    line = [ROOT / ".venv" / "bin" / "python", ROOT / "scripts" / "bench" / "figures.py", "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert all(name in told for name in BENCHES)
