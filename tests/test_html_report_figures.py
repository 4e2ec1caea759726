"""The figures of a report: their colours, axes and labels, and the two of the measure stage."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.simulated_report import simulated
from tune_jobs.reporting.figures.axes import log_ticks, short
from tune_jobs.reporting.figures.drawing import (
    ACCENT,
    DARK,
    INK,
    LIMIT,
    MUTED,
    PAPER,
    RECOMMENDED,
    batch_colour,
    contrast,
    dark_colour,
    slug,
    variable,
)
from tune_jobs.reporting.figures.marks import spread
from tune_jobs.reporting.page.html import measure_figures


def test_a_batch_size_has_one_colour_in_every_sweep_and_it_can_be_seen() -> None:
    colours = [batch_colour(2**k) for k in range(1, 15)]
    assert len(set(colours)) == len(colours)
    for colour in colours:
        assert contrast(colour, PAPER) >= 3
        assert contrast(dark_colour(colour), dark_colour(PAPER)) >= 4.5


def test_every_ink_of_the_style_can_be_read_by_day_and_by_night() -> None:
    for ink in (INK, MUTED, RECOMMENDED, LIMIT, ACCENT):
        assert contrast(ink, PAPER) >= 4.5 and contrast(DARK[ink], DARK[PAPER]) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    placed = spread([3.0, 1.0, 1.1, 1.2], 1.0)
    ordered = sorted(placed)
    assert all(b - a >= 0.999 for a, b in pairwise(ordered))
    assert placed[1] < placed[2] < placed[3] < placed[0]


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.2), (3, 8), (10, 40), (1, 1e6), (2e-5, 0.3)])
def test_log_ticks_are_few_and_within_the_axis(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 6 and all(low <= t <= high for t in ticks)


def test_numbers_of_ticks_and_names_of_files_are_short() -> None:
    assert [short(v) for v in (0, 250, 1500, 2e4, 3e6, 0.05, 2e-5)] == [
        "0", "250", "1.5k", "20k", "3M", "0.05", "2e-5"]  # fmt: skip
    assert slug("SimpleCNN on MNIST!") == "simplecnn-on-mnist" and slug("***") == "workload"
    assert variable("#12743c") == "--fig-12743c"


def test_each_device_type_has_its_own_figures_of_cost(tmp_path: Path) -> None:
    profiles = [
        replace(p, device=name) for name in ("NVIDIA H200", "cpu") for p in simulated().profiles
    ]
    names = [picture.name for picture in measure_figures(tmp_path, profiles)]
    assert names == ["step-seconds-nvidia-h200", "memory-nvidia-h200", "step-seconds-cpu",
                     "memory-cpu"]  # fmt: skip
