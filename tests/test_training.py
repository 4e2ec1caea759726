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
from tune_jobs.training.loop import FARTHEST, Report
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


@pytest.mark.parametrize("batch_size", [8, 32, 100])
def test_the_crossing_is_read_between_two_evaluations_to_the_next_update(
    digits: Dataset, batch_size: int
) -> None:
    reports = to_end(
        make(digits, batch_size=batch_size, micro_batch_size=batch_size, target=0.5, rungs=())
    )
    at = next(n for n, r in enumerate(reports) if r.examples_to_target is not None)
    (before, now), last = reports[at - 1 : at + 1], reports[-1]
    points = [(float(r.examples_seen), r.val_metric or math.nan) for r in (before, now)]
    read = schedule.crossing(points, 0.5)
    assert before.examples_seen < (read or math.nan) <= now.examples_seen
    assert now.examples_to_target == batch_size * math.ceil((read or math.nan) / batch_size)
    assert now.updates_to_target == now.examples_to_target / batch_size
    seconds = now.train_seconds_to_target
    assert seconds is not None and before.train_seconds < seconds <= now.train_seconds
    part = (now.updates_to_target - before.updates) / (now.updates - before.updates)
    each = (seconds - before.train_seconds) / (now.train_seconds - before.train_seconds)
    assert each == pytest.approx(part)
    for name in ("examples_to_target", "updates_to_target", "train_seconds_to_target"):
        assert getattr(last, name) == getattr(now, name)


def test_before_the_end_a_sample_of_the_test_split_is_looked_at(digits: Dataset) -> None:
    """The first of it that all of it begins with, so that runs are compared on the same."""
    whole = [r.test_metric for r in to_end(make(digits)) if r.test_metric is not None]
    part = [
        r.test_metric for r in to_end(make(digits, test_sample=50)) if r.test_metric is not None
    ]
    assert len(part) == len(whole) > 1 and part[-1] == whole[-1]
    assert all(value * 50 == pytest.approx(round(value * 50)) for value in part[:-1])


def test_a_target_reached_at_the_first_evaluation_is_reached_there(digits: Dataset) -> None:
    first = to_end(make(digits, target=0.01))[0]
    assert first.examples_to_target == first.examples_seen
    assert first.train_seconds_to_target == first.train_seconds
    assert schedule.resolution(first.examples_seen, 3200, 32) == 1.0


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


@given(st.integers(10_000, 1_000_000), st.integers(1, 512))
def test_a_crossing_is_known_to_a_fifth_of_what_lies_between_evaluations(
    budget: int, batch_size: int
) -> None:
    stops = schedule.evaluation_updates(budget, Course.fixed(batch_size), ())
    assert schedule.resolution(stops[0] * batch_size, budget, batch_size) == 1.0
    for low, high in pairwise(stops):
        told = schedule.resolution(high * batch_size, budget, batch_size)
        apart = (high - low) * batch_size / schedule.READ
        assert apart <= 1.1 * told * high * batch_size + batch_size


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


def test_far_from_the_target_a_run_is_evaluated_at_its_rungs_and_once_in_two_octaves(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as much is missing: twice the examples are needed at the least."""
    far = to_end(make(digits, target=0.98, learning_rate=3e-4))
    monkeypatch.setattr("tune_jobs.training.loop.TrainingRun._soonest", lambda self, value: 0)
    every = to_end(make(digits, target=0.98, learning_rate=3e-4))
    assert far[-1].val_metric == every[-1].val_metric
    assert far[-1].examples_to_target is None is every[-1].examples_to_target
    assert {r.examples_seen for r in far} < {r.examples_seen for r in every}
    assert [r.rung for r in far if r.rung is not None] == [0]
    for one, after in pairwise(far):
        missing = (1 - (one.val_metric or 0.0)) / 0.02
        skipped = [r for r in every if one.examples_seen < r.examples_seen < after.examples_seen]
        assert all(r.examples_seen <= one.examples_seen * min(FARTHEST, missing) for r in skipped)


def test_pages_are_kept_where_the_allocator_is_glibc() -> None:
    assert allocator.keep_pages()
