"""Whole sweeps that end in a batch schedule, on digits with real Ray and MLflow.

Invariants:
  1. the schedule's runs have the seeds of the batch size to use, each once, and end at the target;
  2. what is judged beside it is what a sweep without it judges: fixed batch sizes alone;
  3. the verdict tells of it in the terminal, the page, MLflow and verdict.json;
  4. a resumed sweep makes none of its runs again;
  5. a batch size that the schedule needs and the sweep did not try is measured, and no more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_sweep import QUICKLY, mlflow_runs, run
from tune_jobs.records import TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.training.segments import segments_of

# Where all rates are low, more updates of fewer examples reach the target in fewest examples: the
# smallest batch size is best, and has room to grow.
LOW = "validation_examples = 300\nbase_learning_rate = 2e-3\nlearning_rate_span = 1.5\n"
ASKED = (
    "--config", "small.toml", "--model", "mlp", "--data", "digits", "--batch-sizes", "8,16,32",
    "--budget-examples", "6016", "--target", "0.85", "--goal", "examples", "--seeds", "2",
)  # fmt: skip


def swept(folder: Path, data_dir: Path, *arguments: str) -> tuple[SweepStore, str]:
    (folder / "small.toml").write_text(QUICKLY + LOW)
    done = run(folder, data_dir, *ASKED, *arguments)
    return SweepStore(folder / "runs" / "it"), done.stdout


def of_stage(store: SweepStore, stage: str) -> list[TrialResult]:
    return [t for t in store.read_trials() if t.stage == stage]


def check_schedule(folder: Path, store: SweepStore, said: str) -> dict[str, Any]:
    """The runs of the schedule, and what is told of them; the verdict's own part."""
    (verdict,) = json.loads(store.verdict.read_text())
    told, runs = verdict["schedule"], of_stage(store, "schedule")
    fixed = {
        t.seed for t in of_stage(store, "confirm") if t.batch_size == told["batch_size"]
    }  # fmt: skip
    assert sorted(t.seed for t in runs) == sorted(fixed)  # 1
    assert {t.schedule for t in runs} == {told["schedule"]}
    sizes = {p.batch_size for p in store.read_profiles()}
    assert {s.batch_size for s in segments_of(told["schedule"])} <= sizes
    for trial in runs:
        reached = trial.examples_to_target
        assert reached is None or trial.examples_seen < 1.6 * reached + 64
    judged = {row["batch_size"]: row["seeds"] for row in verdict["per_batch_size"]}
    assert judged[told["batch_size"]] == len(fixed)  # 2
    assert " ".join(told["sentence"].split())[:40] in " ".join(said.split())  # 3
    assert 'id="schedule"' in (store.folder / "report.html").read_text()
    for trial in runs:
        kept = mlflow_runs(folder)[trial.trial_id].data
        assert kept.tags["stage"] == "schedule" and kept.params["schedule"] == trial.schedule
    return dict(told)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_that_grows_the_batch_judges_it_against_the_best_fixed_size(
    tmp_path: Path, data_dir: Path
) -> None:
    store, said = swept(
        tmp_path, data_dir, "--search", "grow", "--trials", "4", "--batch-sizes", "8,16"
    )
    told = check_schedule(tmp_path, store, said)
    assert told["name"] == "grow" and told["pairs"] == 2
    before, sizes = store.read_trials(), {s.batch_size for s in segments_of(told["schedule"])}
    assert "to be measured" in said and max(sizes) > 16  # 5
    run(tmp_path, data_dir, "--resume")
    assert store.read_trials() == before  # 4
    assert {t.batch_size for t in before} <= {8, 16} and store.read_config().batch_sizes == (8, 16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_population_leaves_a_schedule_that_is_replayed_with_seeds_of_its_own(
    tmp_path: Path, data_dir: Path
) -> None:
    store, said = swept(tmp_path, data_dir, "--search", "pbt", "--trials", "7")
    members, searched = of_stage(store, "pbt"), of_stage(store, "search")
    assert len(members) == 3 and len(searched) >= 4
    for member in members:
        segments = segments_of(member.schedule or "")
        assert segments[-1].batch_size == member.batch_size
        assert segments[-1].from_examples <= member.examples_seen
    (verdict,) = json.loads(store.verdict.read_text())
    if verdict["schedule"]["schedule"]:
        check_schedule(tmp_path, store, said)
    else:
        assert verdict["schedule"]["told"].startswith("pbt is left out: ")
