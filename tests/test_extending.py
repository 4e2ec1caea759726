"""Batch sizes beyond a leader at the edge: tried where they may win, else ruled out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests import rows
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.planning.extending import at_best, leading, next_size
from tune_jobs.planning.known import Known

SIZES = (16, 32, 64)
CONFIG = replace(SweepConfig(), batch_sizes=SIZES, budget_examples=100_000)


def known_of(
    needs: dict[int, int], fixed: float = 0.0, each: float = 0.001, noise: float | None = 60.0
) -> Known:
    """Three rates at each batch size, the middle one needing so many examples."""
    trials = [
        rows.result(
            trial_id=f"{size}-{k}", batch_size=size, base_learning_rate=1e-3 * 3**k,
            examples_to_target=round(need * math.exp(0.5 * k * k)),
        )
        for size, need in needs.items()
        for k in (-1, 0, 1)
    ]  # fmt: skip
    step = {size: fixed + each * size for size in SIZES}
    profiles = [
        rows.profile(batch_size=s, micro_batch_size=s, step_seconds=t, examples_per_second=s / t)
        for s, t in step.items()
    ]
    cost = {s: t / s for s, t in step.items()} | {8: fixed / 8 + each, 128: fixed / 128 + each}
    told = [] if noise is None else [
        rows.noise_scale(kind=kind, noise_scale=noise, low=noise, high=noise)
        for kind in ("raw", "raw_average")
    ]  # fmt: skip
    return Known(trials, {}, (), cost, profiles, told)


SMALL_LEADS = {16: 1000, 32: 1600, 64: 2600}
LARGE_LEADS = {16: 1000, 32: 1000, 64: 1000}


def test_a_smaller_one_is_tried_where_an_update_costs_little_beside_its_examples() -> None:
    known = known_of(SMALL_LEADS)
    assert leading(CONFIG, SIZES, known) == 16
    assert next_size(CONFIG, SIZES, known, 50_000) == 8


def test_it_is_ruled_out_where_small_updates_are_no_cheaper() -> None:
    assert next_size(CONFIG, SIZES, known_of(SMALL_LEADS, fixed=0.1), 50_000) is None


def test_a_larger_one_is_tried_where_speed_still_grows_and_ruled_out_on_the_plateau() -> None:
    grows, flat = (known_of(LARGE_LEADS, fixed=f) for f in (0.1, 1e-5))
    assert leading(CONFIG, SIZES, grows) == 64
    assert next_size(CONFIG, SIZES, grows, 50_000) == 128
    assert next_size(CONFIG, SIZES, grows, 100) is None, "more than there is to train on"
    assert at_best(64, 128, flat) > 0.99


def test_a_leader_between_worse_neighbours_needs_no_other() -> None:
    middle = known_of({16: 1600, 32: 1000, 64: 2600})
    assert next_size(CONFIG, SIZES, middle, 50_000) is None


def test_without_a_noise_scale_half_the_batch_may_take_half_the_examples() -> None:
    assert at_best(16, 8, known_of(SMALL_LEADS, noise=None)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("changes", [{"extends": False}, {"goal": "accuracy"}])
def test_it_is_not_done_where_not_asked_for(changes: dict[str, Any]) -> None:
    assert next_size(replace(CONFIG, **changes), SIZES, known_of(SMALL_LEADS), 50_000) is None


def test_given_batch_sizes_are_kept_to() -> None:
    assert resolve(None, {}).extends
    assert not resolve(None, {"batch_sizes": (16, 32)}).extends
    assert resolve(None, {"batch_sizes": (16, 32), "extends": True}).extends
