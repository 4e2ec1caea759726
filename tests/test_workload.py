"""Any workload: exact weighted gradients, metrics of either direction, and what is told early.

1. The gradient of an update is the weighted mean over its whole batch, however it is cut.
2. A run is seeded: the same numbers again, whatever loads the data, interrupted or not.
3. Where smaller is better, everything that compares runs knows.
4. What cannot train, or would be compared wrongly, is told before anything starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import rows, workloads
from tests.tracked import result
from tests.trained import CPU
from tune_jobs.config import resolve
from tune_jobs.data.examples import digest_of, splits_of
from tune_jobs.errors import UserError
from tune_jobs.few_lines import MOST, few_lines
from tune_jobs.preparing import data_facts, of_workload
from tune_jobs.reading.choosing import WORST, best_trial, score
from tune_jobs.store import SweepStore
from tune_jobs.training.loop import Report, RunSettings, TrainingRun
from tune_jobs.training.rehearsal import rehearse
from tune_jobs.workload import (
    Metric,
    Workload,
    accuracy,
    cross_entropy,
    perplexity,
    squared_error,
)
from tune_jobs.workload_source import users_workload


def run_of(workload: Workload, **changes: Any) -> TrainingRun:
    settings: dict[str, Any] = {
        "batch_size": 24, "micro_batch_size": 24, "learning_rate": 1e-2, "optimizer": "adam",
        "seed": 0, "budget_examples": 1200, "target": workload.target,
    }  # fmt: skip
    splits = splits_of(workload, 100, 0, CPU)
    return TrainingRun(RunSettings(**{**settings, **changes}), workload, splits, CPU)


def to_end(run: TrainingRun) -> list[Report]:
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    return reports


def numbers(reports: list[Report]) -> list[tuple[Any, ...]]:
    return [(r.examples_seen, r.train_loss, r.val_metric, r.examples_to_target) for r in reports]


def gradients(run: TrainingRun) -> torch.Tensor:
    run.update(run.next_batch())
    return torch.cat([p.grad.flatten() for p in run.trained() if p.grad is not None])


@pytest.mark.parametrize("micro", [1, 5, 7, 23])
@pytest.mark.parametrize("make", [workloads.prices, workloads.sequences])
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(make: Any, micro: int) -> None:  # 1
    torch.manual_seed(0)
    found = []
    for size in (24, micro):
        workload = make(train=quiet(make().train))
        found.append(gradients(run_of(workload, micro_batch_size=size, learning_rate=0.0)))
    torch.testing.assert_close(found[1], found[0], rtol=2e-5, atol=1e-7)


def quiet(data: Any) -> Any:
    """The examples as they are drawn once: augmentation differs with the pieces."""
    if isinstance(data, tuple):
        return data
    torch.manual_seed(1)
    return [data[i] for i in range(len(data))]


def test_weights_make_a_weighted_mean_and_not_a_mean_of_means() -> None:  # 1
    x = torch.tensor([[1.0], [2.0], [3.0]])
    weights = torch.tensor([1.0, 1.0, 8.0])
    workload = Workload(
        "w", lambda: nn.Linear(1, 1, bias=False), (x, weights),
        loss=lambda model, batch: (model(batch[0])[:, 0], batch[1]),
        metric=Metric("m", of=lambda model, batch: model(batch[0])[:, 0]), validation=(x, weights),
    )  # fmt: skip
    run = run_of(workload, batch_size=3, micro_batch_size=2, target=0.0)
    assert gradients(run).item() == pytest.approx(float((x[:, 0] * weights).sum() / 10))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_the_same_whatever_loads_its_data(workers: int) -> None:  # 2
    plain = numbers(to_end(run_of(workloads.sequences(), budget_examples=480)))
    again = numbers(to_end(run_of(workloads.sequences(workers), budget_examples=480)))
    assert plain == again


def test_an_interrupted_run_on_a_dataset_goes_on_as_if_it_had_not_been() -> None:  # 2
    whole = to_end(run_of(workloads.sequences()))
    first, second = run_of(workloads.sequences()), run_of(workloads.sequences())
    for _ in range(3):
        first.advance()
    second.load_state(first.state())
    assert numbers(to_end(second)) == numbers(whole[3:])


def test_a_metric_of_which_less_is_better_falls_to_its_target() -> None:  # 3
    last = to_end(run_of(workloads.prices()))[-1]
    assert last.examples_to_target is not None and last.val_metric is not None
    assert last.val_metric <= 0.8 and last.test_metric is None


def test_the_metric_is_what_numpy_makes_of_the_same_outputs() -> None:
    run = run_of(workloads.prices())
    split = run.validation
    with torch.no_grad():
        output = run.model.eval()(torch.from_numpy(workloads.X[split.indices]))[:, 0].numpy()
    wanted = np.sqrt(np.mean((output - workloads.Y[split.indices]) ** 2))
    assert run.evaluate(split).metric == pytest.approx(wanted, rel=1e-5)


def test_a_metric_that_is_no_mean_comes_of_all_batches() -> None:
    def spread(model: Any, batches: Any) -> float:
        return float(torch.cat([model(x)[:, 0] for x, _ in batches]).std())

    run = run_of(workloads.prices(metric=Metric("spread", evaluate=spread), target=9.0))
    assert run.evaluate(run.validation).metric > 0
    assert run.evaluate(run.validation).examples == 100


def test_races_and_searches_order_metrics_of_either_direction() -> None:  # 3
    assert (
        score(0.2, None, 900, "min") > score(0.3, None, 900, "min") > score(1e9, None, 900, "min")
    )
    assert score(-1e9, None, 900, "min") < 1 and score(1e9, None, 900, "min") > WORST
    assert score(5.0, 800, 900, "min") > score(0.0, None, 900, "min")


def test_ready_made_metrics_take_sequences_and_leave_padding_out() -> None:
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 2, -100], [0, 4, 3]])
    model = lambda x: logits  # noqa: E731
    values, weights = cross_entropy(model, (None, labels))
    assert weights.tolist() == [2, 3]
    wanted = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert float((values * weights).sum() / weights.sum()) == pytest.approx(float(wanted))
    right, counted = accuracy(model, (None, labels))
    assert counted.tolist() == [2, 3] and bool((right <= 1).all())
    assert perplexity.finished(800.0) == float("inf")


def told(workload: Workload, target: float | None = None) -> str:
    with pytest.raises(UserError) as found:
        rehearse(workload, splits_of(workload, 100, 0, CPU), target)
    return str(found.value)


NAN = workloads.X.copy()
NAN[7, 2] = np.nan
LABELS = workloads.classes().train[1].copy()
LABELS[399] = 9


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (workloads.prices(train=(NAN, workloads.Y)), "NaN or infinity in 1 of 400 examples "
         "(array 0, first in example 7)"),
        (workloads.prices(loss=lambda m, b: ((m(b[0])[:, 0] - b[1]) ** 2).mean()), "one for each"),
        (workloads.prices(loss=lambda m, b: (m(b[0]) - b[1]) ** 2), "were broadcast"),
        (workloads.prices(loss=lambda m, b: nn.functional.mse_loss(m(b[0]), b[1],
         reduction="none")), "Using a target size"),
        (workloads.prices(build=lambda: nn.Linear(5, 1)), "mat1 and mat2 shapes"),
        (workloads.prices(build=lambda: 3), "AttributeError"),
        (workloads.prices(metric=Metric("m", of=lambda m, b: b[1] * 0)), "for every model"),
        (workloads.prices(metric=Metric("m", of=lambda m, b: b[1] * np.nan)), "metric is nan"),
        (workloads.classes(train=(workloads.X, LABELS)), "label 9 in 1 places"),
        (workloads.classes(train=(workloads.X, workloads.Y[:, None])),
         "does not fit labels of shape (3, 1)"),
        (workloads.sequences(collate=lambda examples: "text"), "holds no tensor"),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_cannot_train_is_told_before_anything_starts(workload: Workload, words: str) -> None:
    assert words in told(workload)  # 4


def test_a_target_on_the_wrong_side_of_the_start_is_told() -> None:  # 4
    assert "the untrained model has rmse" in told(workloads.prices(), target=50.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": (workloads.X, workloads.Y[:9])}, "arrays of 9 and 400 examples"),
        ({"train": (workloads.X[:0], workloads.Y[:0])}, "train is empty"),
        ({"train": iter([1])}, "without `len` and `[i]`"),
    ],
)
def test_splits_that_cannot_be_drawn_from_are_told(changes: Any, words: str) -> None:  # 4
    with pytest.raises(UserError, match=words.replace("[", r"\[").replace("]", r"\]")):
        splits_of(workloads.prices(**changes), 100, 0, CPU)


def test_a_split_that_stands_twice_is_told() -> None:  # 4
    data = (workloads.X, workloads.Y)
    with pytest.raises(UserError, match="train and validation are one and the same object"):
        splits_of(workloads.prices(train=data, validation=data), 100, 0, CPU)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nowhere.py:workload", {}, "there is no file nowhere.py"),
        ("tests.workloads:missing", {}, "has no function 'missing'; it has: absolute, prices"),
        ("tests.no_such_module:f", {}, "No module named 'tests.no_such_module'"),
        ("tests.workloads", {}, "names no function"),
        ("tests.workloads:raises", {}, "raised RuntimeError: no data here"),
        ("tests.workloads:something_else", {}, "gave str, not a Workload"),
        ("tests.workloads:prices", {"width": "wide"}, "width = 'wide' is str, the function takes"),
        ("tests.workloads:raises", {"depth": 3}, "got an unexpected keyword argument 'depth'"),
    ],
)
def test_a_function_that_gives_no_workload_is_told(name: str, arguments: Any, words: str) -> None:
    with pytest.raises(UserError) as found:  # 4
        users_workload(name, arguments)
    assert words in str(found.value)


def test_a_file_is_imported_with_its_neighbours_and_once(tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_it.py").write_text("WIDTH = 5\n")
    file = tmp_path / "own_workload_file.py"
    file.write_text(
        "from a_neighbour_of_it import WIDTH\nfrom tests.workloads import prices\n"
        "def mine(target: float = 0.5):\n    return prices(WIDTH, target)\n"
    )
    workload = users_workload(f"{file}:mine", {"target": 1})
    assert workload.target == 1
    assert users_workload(f"{file}:mine", {}).target == 0.5


def test_a_ready_made_metric_in_another_keeps_its_direction() -> None:
    root = Metric("rmse", of=squared_error, finish=lambda mean: mean**0.5)
    assert (root.mode, root.best, root.finished(4.0)) == ("min", 0.0, 2.0)


def test_the_best_trial_has_the_least_where_less_is_better() -> None:  # 3
    told = {"metric": "rmse", "mode": "min", "val_accuracy": None, "outcome": "finished"}
    rows = [result("t", 1, val_metric=v, **told) for v in (0.5, 0.3, 0.9)]
    best = best_trial(rows, "accuracy")
    assert best is not None and best.val_metric == 0.3


def test_data_are_known_again_and_others_are_not() -> None:
    def digest(workload: Workload) -> str:
        return digest_of(splits_of(workload, 40, 0, CPU))

    prices = workloads.prices()
    assert digest(prices) == digest(workloads.prices())
    changed = workloads.X.copy()
    changed[:, 2] *= 2
    assert digest(workloads.prices(train=(changed, workloads.Y))) != digest(prices)
    assert digest(workloads.prices(train=(workloads.X[:-1], workloads.Y[:-1]))) != digest(prices)
    assert digest(workloads.sequences()) == digest(workloads.sequences())  # their noise is seeded


def test_a_sweep_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    store = SweepStore(tmp_path / "it")
    config = resolve(None, {"data": "digits", "workload": "tests.workloads:prices"})
    facts = data_facts(config, None, store)
    assert facts["train_examples"] == 400 - config.validation_examples
    store.write_environment({**facts, "data_digest": "of then"})
    assert data_facts(config, None, store) == facts  # nothing was measured of it
    store.write_profiles([rows.profile()])
    with pytest.raises(UserError, match=r"^--resume: .* other examples than when .* --name$"):
        data_facts(config, None, store)
    store.write_environment(facts)
    assert data_facts(config, None, store) == facts
    store.environment.write_text("{")  # holds no result, and is written again
    assert data_facts(config, None, store) == facts


def test_of_what_a_workload_prints_the_first_lines_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_workload({"workload": "tests.workloads:talkative"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "line 0" and lines[MOST - 1] == f"line {MOST - 1}"
    assert lines[MOST:] == ["... further lines are left out"]


def test_lines_are_counted_however_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with few_lines(2):
        print("a", end="")
        print("b\nc\nd")
        print("e")
    print("after")
    assert capsys.readouterr().out == "ab\nc\n... further lines are left out\nafter\n"
