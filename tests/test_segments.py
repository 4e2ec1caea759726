"""Batch schedules in the loop: examples counted exactly, and the plain run to the last digit.

Invariants:
  1. a run of one segment is the plain run;
  2. a run of several is the runs of each, one after the other from the last one's state;
  3. a schedule reads back from its text as it was written;
  4. examples seen, evaluations and crossing are those of the updates that were made.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trained import make
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.recipe import recipe_of
from tune_jobs.training import checkpoint
from tune_jobs.training.loop import Report, TrainingRun
from tune_jobs.training.segments import Course, Segment, as_text, segments_of

TWO = (Segment(0, 32, 3e-3, 32), Segment(1000, 64, 2e-3, 16))


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Dataset:
    return open_dataset(prepare("digits", data_dir))


def to_end(run: TrainingRun) -> list[Report]:
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    return reports


def numbers(report: Report) -> tuple[Any, ...]:
    return (
        report.examples_seen, report.updates, report.train_loss, report.val_loss,
        report.test_metric, report.examples_to_target, report.rung,
    )  # fmt: skip


def equal_weights(one: TrainingRun, other: TrainingRun) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Segment, ...]:
    starts = sorted(draw(st.sets(st.integers(1, 5000), max_size=4)))
    size, rate = st.integers(1, 512), st.floats(1e-6, 1.0)
    return tuple(Segment(at, draw(size), draw(rate)) for at in (0, *starts))


@given(schedules())
def test_a_schedule_reads_back_from_its_text_as_it_was_written(of: tuple[Segment, ...]) -> None:
    assert segments_of(as_text(of)) == of  # 3


@given(schedules(), st.integers(0, 400), st.integers(1, 20_000))
def test_examples_are_counted_exactly_across_segments(
    of: tuple[Segment, ...], updates: int, examples: int
) -> None:
    course, seen = Course(of), 0
    for made in range(updates):
        now = course.at(made)
        assert now.from_examples <= seen
        assert now is of[-1] or of[of.index(now) + 1].from_examples > seen
        seen += now.batch_size
    assert course.examples(updates) == seen  # 4
    by_size = course.by_batch_size(updates)
    assert sum(by_size.values()) == updates and sum(s * n for s, n in by_size.items()) == seen
    fewest = course.updates_for(examples)
    assert course.examples(fewest) >= examples > (course.examples(fewest - 1) if fewest > 1 else 0)


def test_a_schedule_of_one_segment_equals_the_plain_run_to_the_last_digit(digits: Dataset) -> None:
    plain = make(digits)
    one = make(digits, segments=(Segment(0, 32, 3e-3, 32),))
    assert [numbers(r) for r in to_end(plain)] == [numbers(r) for r in to_end(one)]  # 1
    assert equal_weights(plain, one)


def test_two_segments_equal_two_runs_chained_by_their_checkpoint(
    digits: Dataset, tmp_path: Path
) -> None:
    whole = make(digits, segments=TWO, rungs=())
    to_end(whole)
    first = make(digits, rungs=())
    while first.progress.updates < 32:  # the first whole updates of 32 that see 1000: 1024
        first.update(first.next_batch())
        first.progress.updates += 1
    state = first.state()
    state["progress"]["updates"] = 1024 // 64
    state["optimizer"]["param_groups"][0]["lr"] = 2e-3
    checkpoint.save(state, tmp_path)
    second = make(digits, batch_size=64, micro_batch_size=16, learning_rate=2e-3, rungs=())
    second.load_state(checkpoint.load(tmp_path))
    reports = to_end(second)
    assert reports[-1].examples_seen == whole.course.examples(whole.progress.updates) == 3200
    assert equal_weights(whole, second)  # 2


def test_a_scheduled_run_resumed_within_a_segment_gives_the_uninterrupted_numbers(
    digits: Dataset, tmp_path: Path
) -> None:
    whole = to_end(make(digits, segments=TWO))
    for made in range(1, len(whole)):
        first = make(digits, segments=TWO)
        for _ in range(made):
            first.advance()
        checkpoint.save(first.state(), tmp_path)
        second = make(digits, segments=TWO)
        second.load_state(checkpoint.load(tmp_path))
        assert [numbers(r) for r in to_end(second)] == [numbers(r) for r in whole[made:]]


def test_evaluations_and_crossing_of_a_scheduled_run_stand_at_its_own_updates(
    digits: Dataset,
) -> None:
    run = make(digits, segments=TWO)
    reports = to_end(run)
    assert all(run.course.examples(r.updates) == r.examples_seen for r in reports)  # 4
    assert [r.examples_seen for r in reports if r.rung is not None] == [1088]
    last = reports[-1]
    assert last.updates_to_target is not None
    assert run.course.examples(last.updates_to_target) == last.examples_to_target
    assert all(a.examples_seen < b.examples_seen for a, b in pairwise(reports))


def test_micro_batches_of_a_segment_leave_its_gradient_as_it_is(digits: Dataset) -> None:
    parts, whole = (
        make(digits, segments=(Segment(0, 64, 3e-3, micro),))
        for micro in (5, None)
    )  # fmt: skip
    for run in (parts, whole):
        run.model.eval()  # dropout aside
        run.update(run.next_batch())
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_beta2_keeps_its_half_life_in_every_segment(digits: Dataset) -> None:
    run = make(digits, segments=TWO, recipe=recipe_of({"beta2": "half-life"}), rungs=())
    to_end(run)
    (group,) = run.optimizer.param_groups
    assert group["betas"] == (0.9, 0.999 ** (64 / 256)) and group["lr"] == 2e-3
