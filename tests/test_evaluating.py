"""Evaluating: whole, or no more than tells that the target is missed, the hardest first."""

from __future__ import annotations

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
from tune_jobs.training import evaluating
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

    def __call__(self, wrong: Iterable[int], aim: Aim | None = None) -> Evaluation:
        self.wrong[:], self.looked = False, 0
        self.wrong[list(wrong)] = True
        return self.evaluate(self.split, aim)


@pytest.fixture
def a_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for all."""
    monkeypatch.setattr(evaluating, "one_in", lambda examples: 5)


@pytest.mark.usefixtures("a_fifth")
def test_what_was_wrong_the_last_time_is_looked_at_first() -> None:
    """Eleven wrong of 100 are too many for 0.9."""
    graded, every_fourth = Graded().graded("max"), range(0, 100, 4)
    aim = Aim.at(0.9, graded.split)
    told = graded(every_fourth, aim)
    assert told.examples == graded.looked == 40  # five in the first 20, three in each ten of others
    assert told.metric == pytest.approx(0.75, abs=0.05)
    told = graded(every_fourth, aim)
    assert told.examples == graded.looked == 30  # four in the first 20, nine in the next ten
    assert told.metric == pytest.approx(0.75, abs=0.05) and told.loss == pytest.approx(
        1 - told.metric
    )


@pytest.mark.usefixtures("a_fifth")
def test_what_is_told_of_all_counts_the_hardest_as_they_are_and_the_others_by_their_part() -> None:
    """The wrong ones are the 30 that lost most; three of the others are new among them."""
    graded = Graded().graded("max")
    aim = Aim.at(0.85, graded.split)
    aim.loss[:] = np.arange(100)[::-1] / 100  # position 0 lost most
    for new, wrong in ((set(), 0.3), ({52, 57}, 0.3 + 2 * 5 / 100)):
        order = aim.order(5)
        assert order.positions[:20].tolist() == list(range(2, 100, 5))
        told = graded({*range(30), *new}, replace(aim, loss=aim.loss.copy()))
        # 20 shown, six of the first 30 among them: ten more that lost most are all wrong.
        assert told.examples == 30
        known = order.ranks[29] + 1
        left = (100 - known) * (0.3 * 20 - known // 5 + len(new)) / (20 - known // 5)
        assert 1 - told.metric == pytest.approx((known + left) / 100)
        assert 1 - told.metric == pytest.approx(wrong, abs=0.06)


@given(st.sets(st.integers(0, 99)), st.integers(2, 10))
def test_the_part_that_is_shown_has_as_many_of_what_was_wrong_as_all(
    wrong: set[int], every: int
) -> None:
    graded = Graded().graded("max")
    aim = Aim.at(1.0, graded.split)
    graded(wrong)
    aim.note(np.arange(100), graded.wrong.float())
    order = aim.order(every)
    first = order.positions[: order.shown].tolist()
    assert sorted(order.positions) == sorted(order.ranks) == list(range(100))
    assert abs(len(wrong.intersection(first)) - len(wrong) / every) <= 1
    assert first == sorted(first)  # ended among them it is no worse
    for seen in (1, order.shown, 60, 100):  # all are counted, unless none of those left was seen
        assert 100 - every < order.stands_for(seen).sum() <= 100 + 1e-9
    assert (order.stands_for(100) == 1).all()


def test_few_examples_stand_for_all_together() -> None:
    """Seen on digits: 48 of 287, by which a race ended what was best."""
    assert [one_in(n) for n in (1, 287, 300, 700, 2000, 60_000)] == [1, 1, 1, 2, 6, 6]


@pytest.mark.usefixtures("a_fifth")
def test_a_part_that_would_reach_the_target_misses_it_as_all_do_by_what_is_known() -> None:
    graded = Graded().graded("max")
    unseen = [k for k in range(60, 90) if k % 5 != 2]
    told = graded(unseen[9:20], Aim.at(0.9, graded.split))
    assert told == Evaluation(pytest.approx(0.11, abs=0.01), 0.89, 90)  # none of those shown


@pytest.mark.usefixtures("a_fifth")
def test_a_metric_whose_best_value_is_not_known_is_seen_to_the_end() -> None:
    graded = Graded().graded("max")
    workload = graded.evaluate.workload
    assert isinstance(workload.metric, Metric)
    graded.evaluate.workload = replace(workload, metric=replace(workload.metric, best=None))
    assert graded(range(50), Aim.at(0.9, graded.split)) == Evaluation(0.5, 0.5, 100)


@given(
    st.lists(st.sets(st.integers(0, 99)), min_size=1, max_size=6),
    st.integers(1, 100),
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluating, "one_in", lambda examples: every)
            told = graded(wrong, aim)
        assert reaches(told.metric, target, mode) == reaches(whole.metric, target, mode)
        assert told == whole or not reaches(told.metric, target, mode)
        assert 0 <= told.metric <= 1 and 0 <= told.loss <= 1


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
    early = run.evaluate(run.validation, Aim.at(0.9, run.validation))
    assert early.examples == 50 and early.metric < 0.9  # 31 wrong are too many
    reached = run.evaluate(run.validation, Aim.at(whole.metric, run.validation))
    assert reached == whole._replace(loss=pytest.approx(whole.loss))


def test_ending_evaluations_early_changes_no_weight_and_hardly_the_crossing(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = to_end(make(digits))
    as_it_is = Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", lambda self, split, *_: as_it_is(self, split))
    whole = to_end(make(digits))
    assert early[-1].examples_to_target == pytest.approx(whole[-1].examples_to_target, rel=0.05)
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
