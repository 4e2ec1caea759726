"""The table of recorded runs: its rows, its grid, and that its runs are those of the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from scripts.bench import tabulate
from scripts.bench.tabulate import (
    EVALUATIONS,
    FIRST,
    RATE_FACTORS,
    SEEDS,
    WORKLOADS,
    SideBySide,
    evaluation_updates,
    learning_rates,
    losses,
    mapped,
    rate_left,
    tabulated,
    write,
)
from tests import trained
from tune_jobs.data.dataset import open_dataset
from tune_jobs.data.sources import prepare

BUDGET = 2048
DIGITS = ("digits-mlp-adam", "digits-mlp-sgd")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """The tests' data folder, and runs of digits that are soon over."""
    monkeypatch.setattr(tabulate, "DATA_DIR", data_dir)
    for name in DIGITS:
        monkeypatch.setitem(WORKLOADS, name, replace(WORKLOADS[name], budget=BUDGET))


def test_a_file_has_a_row_for_each_evaluation_of_each_run(tmp_path: Path) -> None:
    made = pa.concat_tables([tabulated(DIGITS[0], size) for size in (256, 1024)])
    write(made, tmp_path / "table.parquet")
    table = pq.read_table(tmp_path / "table.parquet")
    assert table.column_names == [
        "workload", "batch_size", "learning_rate", "seed", "examples_seen", "val_accuracy",
        "train_loss", "diverged",
    ]  # fmt: skip
    keys = [tuple(row[c] for c in table.column_names[1:5]) for row in table.to_pylist()]
    assert keys == [
        (size, rate, seed, updates * size)
        for size in (256, 1024)
        for rate in learning_rates(WORKLOADS[DIGITS[0]], size)
        for seed in SEEDS
        for updates in evaluation_updates(BUDGET, size)
    ]
    assert set(table["workload"].to_pylist()) == {DIGITS[0]}
    assert set(table["diverged"].to_pylist()) == {False}
    assert max(table["val_accuracy"].to_pylist()) > 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_the_same_seeds_give_the_same_table() -> None:
    assert tabulated(DIGITS[1], 256).equals(tabulated(DIGITS[1], 256))


@pytest.mark.parametrize("name", WORKLOADS)
def test_all_batch_sizes_share_a_geometric_grid_up_to_whole_updates(name: str) -> None:
    budget = WORKLOADS[name].budget
    factor = FIRST ** (-1 / (EVALUATIONS - 1))
    grid = [budget * FIRST * factor**k for k in range(EVALUATIONS)]
    for size in WORKLOADS[name].batch_sizes:
        seen = [updates * size for updates in evaluation_updates(budget, size)]
        assert seen[-1] == budget
        assert all(any(0 <= s - point + 1e-6 <= size for s in seen) for point in grid)
        assert all(any(0 <= s - point + 1e-6 <= size for point in grid) for s in seen)


def test_nine_rates_lie_about_the_rule_for_each_batch_size() -> None:
    assert RATE_FACTORS == (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)
    assert learning_rates(WORKLOADS["mnist10k-cnn-sgd"], 512)[4] == pytest.approx(0.2)
    assert learning_rates(WORKLOADS["mnist10k-cnn-adam"], 1024)[4] == pytest.approx(0.024)


def test_the_cosine_begins_at_the_whole_rate_and_ends_at_none() -> None:
    assert [rate_left(update, 100) for update in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize("name", DIGITS)
def test_a_run_is_the_one_that_the_loop_makes_of_its_seed(name: str, data_dir: Path) -> None:
    """96 examples go through the network in two parts here, in one there."""
    of = SideBySide(WORKLOADS[name], 96)
    run = of.runs.index((learning_rates(WORKLOADS[name], 96)[4], 1))
    digits = open_dataset(prepare("digits", data_dir))
    alone = trained.make(
        digits, batch_size=96, micro_batch_size=96, learning_rate=of.runs[run][0],
        optimizer=WORKLOADS[name].optimizer, seed=1,
    )  # fmt: skip
    for _ in range(15):  # beyond the first epoch
        expected = alone.update(alone.next_batch())
        alone.progress.updates += 1
        assert float(of.update()[run]) == pytest.approx(float(expected), rel=1e-3)
    weights = torch.cat([p.detach().flatten() for p in alone.model.parameters()])
    torch.testing.assert_close(of.weights[run], weights, rtol=1e-3, atol=1e-4)


def test_a_run_that_diverged_ends_with_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "RATE_FACTORS", (1.0, 1e38))
    rows = tabulated(DIGITS[1], 64).to_pylist()
    ended = [row for row in rows if row["learning_rate"] > 1]
    assert [row["seed"] for row in ended] == list(SEEDS)
    assert all(
        row["diverged"] and row["val_accuracy"] is row["train_loss"] is None for row in ended
    )
    going = len(SEEDS) * len(evaluation_updates(BUDGET, 64))
    assert [row["diverged"] for row in rows if row["learning_rate"] < 1] == [False] * going


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_network_fits_its_data(name: str) -> None:
    torch.manual_seed(0)
    data, network = WORKLOADS[name].load(), WORKLOADS[name].build()
    inputs, labels = (of[:5] for of in data.train)
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    logits = mapped(network)(weights[None], inputs[None])
    torch.testing.assert_close(logits[0], network(inputs))
    assert losses(logits, labels[None]).isfinite().all()
    assert len(data.train.labels) > 1000 and len(data.validation.labels) >= 300
