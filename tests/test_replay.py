"""Replaying ways to search on a table of recorded runs; other people's tables included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.bench.replay import STRATEGIES, Table, World, replayed, targets_of
from scripts.bench.ways import Subject, swept_line
from tests import rows
from tune_jobs.errors import UserError

SIZES, BUDGET = (16, 64, 256), 20_000


def table(path: Path, power: float, seeds: Sequence[int] = (0, 1, 2), factor: float = 2.0) -> Table:
    """Runs whose error falls with the examples seen, fastest at a rate that grows as B^power, with
    fewer examples needed the smaller the batch is; the largest rates diverge."""
    made: list[tuple[object, ...]] = []
    chance = np.random.default_rng(0)
    for size in SIZES:
        best = 0.01 * (size / 64) ** power
        for rate in [best * factor**k for k in (-3, -2, -1, 0, 1, 2, 3)]:
            for seed in seeds:
                off = math.log(rate / best)
                slow = (1 + size / 128) * math.exp(0.3 * off**2 + chance.normal(0, 0.05))
                diverges = rate > 6 * best
                for k in range(1, 21):
                    seen = k * BUDGET // 20
                    broken = diverges and k > 3
                    accuracy = 1 - min(0.9, 300 * slow / seen)
                    made.append((size, rate, seed, seen, None if broken else accuracy, broken))
                    if broken:
                        break
    names = ["batch_size", "learning_rate", "seed", "examples_seen", "val_accuracy", "diverged"]
    columns = dict(zip(names, zip(*made, strict=True), strict=True))
    pq.write_table(pa.table({"workload": ["made"] * len(made), **columns}), path)
    return Table.read(path)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_projects_way_finds_the_best_cell_of_any_grid_of_rates(
    tmp_path: Path, power: float
) -> None:
    found = replayed(table(tmp_path / "made.parquet", power), "ours", 0.93, 1.0, 1.0, 2)
    assert found["success"] >= 0.5 and found["mean_regret"] < 0.2
    assert found["examples_total"] < found["grid_examples"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_ends_in_a_choice(tmp_path: Path, name: str) -> None:
    made = table(tmp_path / "made.parquet", 0.5, seeds=(4,))
    profiles = [rows.profile(batch_size=s, micro_batch_size=s, step_seconds=8.0 + s) for s in SIZES]
    noise = [rows.noise_scale(kind=kind, noise_scale=300.0) for kind in ("raw", "raw_average")]
    found = replayed(made, name, targets_of(made)[1], 8.0, 1.0, 1, profiles, noise)
    assert found["runs"] > 3 and sum(found["batch_sizes"].values()) == 1
    assert 0 <= found["mean_regret"] < math.inf


def test_a_way_that_goes_by_what_was_measured_says_so_where_nothing_was(tmp_path: Path) -> None:
    made = table(tmp_path / "made.parquet", 0.5, seeds=(4,))
    with pytest.raises(UserError, match="noise scale was not measured"):
        replayed(made, "by-theory", targets_of(made)[1], 8.0, 1.0, 1)


def test_a_sweeps_answer_is_rated_by_the_recorded_rate_next_to_it(tmp_path: Path) -> None:
    made = table(tmp_path / "made.parquet", 0.5)
    on = Subject("made", made, 0.93, [], [], (8.0, 1.0))
    regrets = {(s, rate): on.regret(s, rate) for s in SIZES for rate in made.rates[s]}
    assert min(r for r in regrets.values() if r is not None) == pytest.approx(0.0)
    rate = made.rates[64][2]
    assert on.regret(64, rate * 1.2) == regrets[64, rate] != regrets[64, made.rates[64][3]]
    assert on.regret(48, rate) is None
    rows = [
        {"answer": "", "runs": 40 + k, "examples": 1000, "seconds": 2.0, "batch_size": 64,
         "learning_rate": rate, "regret": 0.1 * k} for k in range(3)
    ]  # fmt: skip
    line = swept_line("made", "grow", rows)
    assert (
        line.startswith("| made | `grow` | 3 sweeps | 41 | 1,000 | 2.0 | 64 at") and "10%" in line
    )


def test_what_a_table_says_of_a_rate_is_kept(tmp_path: Path) -> None:
    made = table(tmp_path / "made.parquet", 1.0)
    assert made.optimizer == "sgd"
    world = World(made, 0.93, 8.0, 1.0, np.random.default_rng(0))
    row = world.run(world.snapped(64, world.base((64, 3))), 1, BUDGET)
    assert row.learning_rate == pytest.approx(0.01) and row.outcome == "finished"
    lost = world.run((64, 6), 1, BUDGET)
    assert lost.outcome == "diverged" and lost.examples_seen == 3 * BUDGET // 20
