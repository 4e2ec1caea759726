"""Evaluating: whole, or no more than tells that the target is missed, the hardest first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trained import CPU, make, to_end
from tests.workloads import classes
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.examples import Split, examples_of
from tune_jobs.data.sources import prepare
from tune_jobs.training.evaluating import Aim, Evaluation, Evaluator, one_in
from tune_jobs.workload import Metric, reaches


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Dataset:
    return open_dataset(prepare("digits", data_dir))


class Graded:
    """A split of 100 examples of which so many are wrong as it is told, ten looked at a time."""

    def __init__(self) -> None:
        self.wrong, self.looked = torch.zeros(100, dtype=torch.bool), 0
        workload = replace(
            classes(), train=torch.arange(100), loss=lambda model, batch: self.wrong[batch].float()
        )
        self.split = Split(examples_of(workload.train, workload, "train", CPU), np.arange(100))
        self.evaluate = Evaluator(workload, torch.nn.Identity(), CPU, 0)
        self.evaluate.batch = 10

    def graded(self, mode: str) -> Self:
        """Told as a part that is right (max) or wrong (min)."""
        best = 1.0 if mode == "max" else 0.0

        def of(model: Any, batch: torch.Tensor) -> torch.Tensor:
            self.looked += len(batch)
            return (self.wrong[batch].float() - best).abs()

        metric = Metric("value", mode, of=of, best=best)
        self.evaluate.workload = replace(self.evaluate.workload, metric=metric)
        return self

    def __call__(self, wrong: Iterable[int], *asked: Any) -> Evaluation:
        self.wrong[:], self.looked = False, 0
        self.wrong[list(wrong)] = True
        return self.evaluate(self.split, *asked)


def test_what_was_wrong_the_last_time_is_looked_at_first() -> None:
    """Eleven wrong of 100 are too many for 0.9. Told is of the fifth that stands for all."""
    graded, every_fourth = Graded().graded("max"), range(0, 100, 4)
    aim = Aim.at(0.9, graded.split)
    assert graded(every_fourth, aim, 5) == Evaluation(0.25, 0.75, 20)
    assert graded.looked == 40  # five wrong in the first 20, three in each ten of the others
    assert graded(every_fourth, aim, 5).examples == 20
    assert graded.looked == 30  # four wrong in the first 20, nine that are known in the next ten
    assert not reaches(graded(every_fourth, aim).metric, 0.9, "max")
    assert graded.looked == 20


@given(st.sets(st.integers(0, 99)), st.integers(2, 10))
def test_the_part_that_is_shown_has_as_many_of_what_was_wrong_as_all(
    wrong: set[int], every: int
) -> None:
    graded = Graded().graded("max")
    aim = Aim.at(1.0, graded.split)
    graded(wrong)
    aim.note(np.arange(100), graded.wrong.float())
    order, shown = aim.order(every)
    assert sorted(order) == list(range(100))
    assert abs(len(wrong.intersection(order[:shown].tolist())) - len(wrong) / every) <= 1
    assert order[:shown].tolist() == sorted(order[:shown])  # ended among them it is no worse


def test_few_examples_stand_for_all_together() -> None:
    """Seen on digits: 48 of 287, by which a race ended what was best."""
    assert [one_in(n) for n in (1, 287, 300, 700, 2000, 60_000)] == [1, 1, 1, 2, 6, 6]


def test_a_part_that_would_reach_the_target_misses_it_as_all_do_by_what_is_known() -> None:
    graded = Graded().graded("max")
    aim = Aim.at(0.9, graded.split)
    unseen = [k for k in range(60, 90) if k % 5 != 2]
    assert graded(unseen[:20], aim, 5) == Evaluation(0.0, 0.88, 20)  # twelve wrong after 80
    aim = Aim.at(0.9, graded.split)
    assert graded(unseen[9:20], aim, 5) == Evaluation(0.0, 0.89, 20)


def test_a_metric_whose_best_value_is_not_known_is_seen_to_the_end() -> None:
    graded = Graded().graded("max")
    workload = graded.evaluate.workload
    assert isinstance(workload.metric, Metric)
    graded.evaluate.workload = replace(workload, metric=replace(workload.metric, best=None))
    assert graded(range(50), Aim.at(0.9, graded.split), 5) == Evaluation(0.5, 0.5, 100)


@given(
    st.lists(st.sets(st.integers(0, 99)), min_size=1, max_size=6),
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from(["max", "min"]),
)
def test_whatever_was_seen_before_the_target_is_missed_where_the_whole_misses_it(
    times: list[set[int]], every: int, most: int, mode: str
) -> None:
    graded = Graded().graded(mode)
    target = most / 100
    aim = Aim.at(target, graded.split)
    for wrong in times:
        whole = graded(wrong)
        told = graded(wrong, aim, every)
        assert reaches(told.metric, target, mode) == reaches(whole.metric, target, mode)
        shown = math.ceil(100 / every) if every else 1
        assert told == whole or told.examples <= shown + 9


def test_a_resumed_run_looks_at_the_same_examples_first(digits: Dataset) -> None:
    run, again = make(digits), make(digits)
    for _ in range(12):
        run.advance()
    again.load_state(run.state())
    np.testing.assert_array_equal(again.aim.loss, run.aim.loss)
    assert not np.isnan(run.aim.loss).any()
    older = {key: value for key, value in run.state().items() if key != "validation_loss"}
    make(digits).load_state(older)


def test_an_evaluation_ends_once_the_target_is_known_to_be_missed(digits: Dataset) -> None:
    run = make(digits)
    whole = run.evaluate(run.validation)
    assert whole.examples == 300 and whole.metric < 0.5  # not trained yet
    aim = Aim.at(0.9, run.validation)
    early = run.evaluate(run.validation, aim, every=4)
    assert early.examples == 50 and early.metric < 0.9  # 31 wrong are too many
    reached = run.evaluate(run.validation, Aim.at(whole.metric, run.validation), every=4)
    assert reached == whole._replace(loss=pytest.approx(whole.loss))


def test_ending_evaluations_early_changes_no_crossing_and_no_weight(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = to_end(make(digits))
    as_it_is = Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", lambda self, split, *_: as_it_is(self, split))
    whole = to_end(make(digits))
    assert early[-1].examples_to_target == whole[-1].examples_to_target is not None
    assert early[-1].val_metric == whole[-1].val_metric
    assert {r.val_examples for r in whole} == {300}
    assert min(r.val_examples or 0 for r in early) < 300
    at_rungs = [r for r in early if r.rung is not None]
    assert at_rungs and all(r.val_examples == 300 for r in at_rungs)


def test_an_evaluation_that_does_not_fit_is_made_in_smaller_batches(digits: Dataset) -> None:
    run, whole = make(digits), make(digits).evaluate(make(digits).validation)
    loss = run.workload.loss

    def large(most: int) -> Any:
        def loss_of(model: torch.nn.Module, batch: Any) -> Any:
            if len(batch[0]) > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return loss(model, batch)

        return replace(run.workload, loss=loss_of)

    run.evaluate.workload = large(11)
    assert run.evaluate(run.validation).metric == pytest.approx(whole.metric)
    assert run.evaluate.batch == 6
    run.evaluate.workload = large(0)
    with pytest.raises(MemoryError, match="while one example was evaluated: DefaultCPU"):
        run.evaluate(run.validation)
