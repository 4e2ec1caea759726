"""The training loop: exact gradients, budgets in examples, evaluation, resume, divergence."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trained import CPU, make, to_end
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.errors import StoreError, UserError
from tune_jobs.training import allocator, checkpoint, device, optimizers, scaling, schedule
from tune_jobs.training.loop import Report
from tune_jobs.training.segments import Course


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Dataset:
    return open_dataset(prepare("digits", data_dir))


def numbers(report: Report) -> tuple[Any, ...]:
    return (report.examples_seen, report.train_loss, report.val_metric, report.test_metric)


def test_a_run_sees_its_budget_and_reaches_an_easy_target(digits: Dataset) -> None:
    reports = to_end(make(digits))
    last = reports[-1]
    assert last.examples_seen == 3200 and last.updates == 100 and not last.diverged
    assert last.examples_to_target is not None and last.examples_to_target < 3200
    assert last.train_seconds_to_target is not None
    assert 0 < last.train_seconds_to_target < last.train_seconds < last.wall_time_seconds


def test_test_accuracy_stands_at_every_rung_and_at_the_end_only(digits: Dataset) -> None:
    reports = to_end(make(digits))
    with_test = [r for r in reports if r.test_metric is not None]
    assert [r.rung for r in with_test] == [0, None]
    assert with_test[0].examples_seen == 1088  # the fewest whole updates that see 1067
    assert with_test[-1].done


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(digits: Dataset) -> None:
    one, two, other = (to_end(make(digits, seed=s)) for s in (0, 0, 1))
    assert [numbers(r) for r in one] == [numbers(r) for r in two]
    assert [numbers(r) for r in one] != [numbers(r) for r in other]


def test_a_resumed_run_gives_the_numbers_of_the_uninterrupted_one(
    digits: Dataset, tmp_path: Path
) -> None:
    whole = to_end(make(digits))
    first = make(digits)
    for _ in range(5):
        first.advance()
    checkpoint.save(first.state(), tmp_path)
    second = make(digits, seed=0)
    second.load_state(checkpoint.load(tmp_path))
    assert [numbers(r) for r in to_end(second)] == [numbers(r) for r in whole[5:]]


def test_a_missing_or_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        checkpoint.load(tmp_path)
    (tmp_path / checkpoint.FILE).write_bytes(b"torn")
    with pytest.raises(StoreError, match="cannot be read"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("micro", [1, 5, 16, 31])
def test_accumulated_gradients_equal_the_gradient_of_the_whole_batch(
    digits: Dataset, micro: int
) -> None:
    whole, parts = make(digits), make(digits, micro_batch_size=micro)
    for run in (whole, parts):
        run.model.eval()  # dropout aside
        run.update(run.next_batch())
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_a_run_that_diverges_ends_and_says_so(digits: Dataset) -> None:
    last = to_end(make(digits, optimizer="sgd", learning_rate=1e30))[-1]
    assert last.diverged and last.done
    assert last.val_metric is None and last.examples_to_target is None


def test_the_crossing_is_found_among_the_kept_weights(digits: Dataset) -> None:
    run = make(digits, target=0.5, budget_examples=6400, rungs=())
    reports = to_end(run)
    crossing = next(r for r in reports if r.examples_to_target is not None)
    before = [r.examples_seen for r in reports if r.examples_seen < crossing.examples_seen]
    assert crossing.examples_to_target is not None
    assert max(before, default=0) < crossing.examples_to_target <= crossing.examples_seen


def test_peak_memory_forgets_a_predecessor() -> None:
    device.reset_peak_memory(CPU)
    ballast = torch.ones(64 * 1024 * 1024)
    high = device.peak_memory_mib(CPU)
    del ballast
    device.reset_peak_memory(CPU)
    low = device.peak_memory_mib(CPU)
    assert high is not None and low is not None
    assert high - low > 200


@given(
    st.integers(1_000, 1_000_000),
    st.integers(1, 4096),
    st.floats(0.05, 1.0),
    st.integers(2, 5),
)
def test_evaluations_hit_every_rung_and_the_end_and_only_ascend(
    budget: int, batch_size: int, fraction: float, factor: int
) -> None:
    rungs = schedule.rung_budgets(budget, fraction, factor)
    assert list(rungs) == sorted(rungs) and all(r < budget for r in rungs)
    updates = schedule.evaluation_updates(budget, Course.fixed(batch_size), rungs)
    assert list(updates) == sorted(set(updates)) and updates[0] >= 1
    assert updates[-1] == math.ceil(budget / batch_size)
    for rung in rungs:
        assert schedule.updates_for(rung, batch_size) in updates


@given(st.integers(10_000, 1_000_000), st.integers(1, 64))
def test_examples_to_target_are_resolved_to_5_percent(budget: int, batch_size: int) -> None:
    stops = schedule.evaluation_updates(budget, Course.fixed(batch_size), ())
    for low, high in pairwise(stops):
        points = [low, *schedule.snapshot_updates(low, high), high]
        for a, b in pairwise(points):
            assert b - a <= max(1, math.ceil(0.05 * a) + 1)


@given(st.integers(10_000, 1_000_000), st.integers(1, 512))
def test_the_resolution_of_a_crossing_holds(budget: int, batch_size: int) -> None:
    stops = (0, *schedule.evaluation_updates(budget, Course.fixed(batch_size), ()))
    for low, high in pairwise(stops):
        points = [low, *schedule.snapshot_updates(low, high), high]
        for a, b in pairwise(points):
            told = schedule.resolution(b * batch_size, budget, batch_size)
            assert (b - a) * batch_size <= 1.1 * told * b * batch_size + batch_size


@pytest.mark.parametrize("name", sorted(optimizers.REGISTRY))
def test_every_optimizer_lowers_the_loss_from_its_own_base_rate(digits: Dataset, name: str) -> None:
    base = scaling.scaling_of(name).base_learning_rate
    rate = scaling.scaled_learning_rate(name, base, 32)
    reports = to_end(make(digits, optimizer=name, learning_rate=rate, target=1.0))
    losses = [r.val_loss for r in reports if r.val_loss is not None]
    assert losses[-1] < losses[0] * 0.8


@given(st.integers(1, 100_000), st.floats(1e-6, 10))
def test_learning_rates_follow_the_optimizers_rule(batch_size: int, base: float) -> None:
    assert scaling.scaled_learning_rate("adam", base, 256) == pytest.approx(base)
    linear = scaling.scaled_learning_rate("sgd", base, batch_size)
    root = scaling.scaled_learning_rate("rmsprop", base, batch_size)
    assert linear == pytest.approx(base * batch_size / 256)
    assert root == pytest.approx(base * np.sqrt(batch_size / 256))


def test_an_unknown_optimizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="known: adam, adamw, rmsprop, sgd"):
        scaling.scaling_of("adamx")


def test_once_the_target_is_reached_only_landmarks_are_evaluated(digits: Dataset) -> None:
    easy, never = to_end(make(digits, target=0.3)), to_end(make(digits, target=1.0))
    assert len(easy) < len(never)
    assert easy[-1].examples_seen == never[-1].examples_seen
    assert [r.rung for r in easy if r.rung is not None] == [0]
    assert easy[-1].val_metric == never[-1].val_metric


def test_far_from_the_target_a_run_is_evaluated_at_its_rungs_and_once_an_octave(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that four times as much is missing takes twice the examples at the least."""
    far = to_end(make(digits, target=0.98, learning_rate=3e-4))
    monkeypatch.setattr("tune_jobs.training.loop.STEEPEST", math.inf)
    every = to_end(make(digits, target=0.98, learning_rate=3e-4))
    assert far[-1].val_metric == every[-1].val_metric
    assert far[-1].examples_to_target == every[-1].examples_to_target
    assert {r.examples_seen for r in far} < {r.examples_seen for r in every}
    assert [r.rung for r in far if r.rung is not None] == [0]
    for one, after in pairwise(far):
        missing = (1 - (one.val_metric or 0.0)) / 0.02
        skipped = [r for r in every if one.examples_seen < r.examples_seen < after.examples_seen]
        assert all(r.examples_seen <= one.examples_seen * min(2.0, missing**0.5) for r in skipped)


def test_pages_are_kept_where_the_allocator_is_glibc() -> None:
    assert allocator.keep_pages()
