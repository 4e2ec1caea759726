"""Whole sweeps, in processes of their own, on real data with real Ray and MLflow.

Invariants of a sweep that is interrupted:
  1. a trial that had finished is kept as it was and not run again;
  2. every trial stands once in the store and once in MLflow;
  3. the sweep ends with all its trials;
  4. a race's rungs hold what was recorded before the interruption.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.s3_server import credentials, query
from tune_jobs.records import TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.verdicts import STATUSES

ROOT = Path(__file__).resolve().parents[1]
END_METRICS = (
    "wall_time_seconds", "train_seconds", "peak_memory_mib", "test_accuracy", "val_accuracy",
    "examples_per_second", "examples_seen", "updates",
)  # fmt: skip
# The measure stage's care costs a minute; its own tests hold it to that.
QUICKLY = 'profile_seconds = 5\nnoise_scale = false\ncpus_per_trial = "1"\n'


def command(folder: Path, data_dir: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--name", "it",
        "--data-dir", str(data_dir), "--tracking-uri", f"sqlite:///{folder}/mlflow.db", *arguments,
    ]  # fmt: skip


def surroundings(folder: Path) -> dict[str, str]:
    """A home of its own, since Ray keeps a token there; no idle workers, which no trial uses."""
    idle = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
    return {**os.environ, **idle, "HOME": str(folder)}


def run(folder: Path, data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(folder, data_dir, *arguments),
        cwd=folder, env=surroundings(folder), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def mlflow_runs(folder: Path) -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("batch-size")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    nested = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert len(runs) == len(nested) + 1
    profiles = SweepStore(folder / "runs" / "it").read_profiles()
    assert [r.data.tags["stage"] for r in nested].count("measure") == len(profiles)
    trials = [r for r in nested if r.data.tags["stage"] != "measure"]
    by_trial = {r.data.tags["trial_id"]: r for r in trials}
    assert len(by_trial) == len(trials), "a trial stands twice in MLflow"
    return by_trial


def killed_at_work(folder: Path, data_dir: Path, *arguments: str) -> list[TrialResult]:
    """Begin a sweep and kill its driver once some trials have ended; their rows."""
    driver = subprocess.Popen(
        command(folder, data_dir, *arguments),
        cwd=folder, env=surroundings(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    store = SweepStore(folder / "runs" / "it")
    while len(store.read_trials()) < 2:  # the test's own time limit ends a driver that stands still
        assert driver.poll() is None, driver.communicate()[0][-3000:]
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    return store.read_trials()


def at_rungs(store: SweepStore) -> dict[tuple[str, int], float | None]:
    """What was recorded at the rungs, by trial and rung."""
    rows = store.read_measurements()
    return {(m.trial_id, m.rung): m.val_accuracy for m in rows if m.rung is not None}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_mnist_killed_at_work_goes_on_and_reads_back_the_same_everywhere(
    tmp_path: Path, mnist_dir: Path
) -> None:
    (tmp_path / "small.toml").write_text(QUICKLY + "validation_examples = 500\n")
    before = killed_at_work(
        tmp_path, mnist_dir, "--config", "small.toml", "--batch-sizes", "64,256", "--trials", "6",
        "--budget-examples", "1536", "--target", "0.6", "--seeds", "2",
    )  # fmt: skip
    store = SweepStore(tmp_path / "runs" / "it")
    rungs = at_rungs(store)
    done = run(tmp_path, mnist_dir, "--resume")
    rows = store.read_trials()
    after = {r.trial_id: r for r in rows}
    assert all(after[row.trial_id] == row for row in before)  # 1
    assert len(rows) == len(after)  # 2
    check_trials(rows)  # 3
    kept = {key: value for key, value in rungs.items() if key[0] in after}  # others were lost
    assert kept and kept.items() <= at_rungs(store).items()  # 4
    assert {m.trial_id for m in store.read_measurements()} <= after.keys()  # 2
    check_mlflow(tmp_path, rows)
    check_report(store, done.stdout)
    refused = subprocess.run(
        command(tmp_path, mnist_dir), cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "--resume" in refused.stderr


def check_trials(rows: list[TrialResult]) -> None:
    """All that were asked for: 6 raced, and the best of each batch size confirmed by 2 seeds, made
    again to the whole budget once that was the answer."""
    searched = [r for r in rows if r.stage == "search"]
    raced = [r for r in searched if r.outcome in ("finished", "stopped")]
    assert len(raced) >= 6
    for size in (64, 256):
        assert any(r.outcome == "finished" for r in raced if r.batch_size == size)
    confirmed = [r for r in rows if r.stage == "confirm"]
    made = [(r.seed, r.batch_size, r.examples_seen == 1536, r.learning_rate) for r in confirmed]
    assert len(set(made)) == len(made)  # a seed runs anew where a better rate was found
    whole = sorted((seed, size) for seed, size, ended, _ in made if ended)
    assert whole == [(1, 64), (1, 256), (2, 64), (2, 256)]  # both are next to the one to use
    assert {r.seed for r in confirmed if r.alone} == {1}
    for row in confirmed:
        tried = [r.learning_rate for r in searched if r.batch_size == row.batch_size]
        assert min(tried) / 4 <= row.learning_rate <= 4 * max(tried)  # the model's best of them
        assert row.outcome == "finished"
        if row.examples_seen == 1536:
            assert row.test_accuracy is not None and row.train_accuracy is not None


def check_mlflow(folder: Path, rows: list[TrialResult]) -> None:
    runs = mlflow_runs(folder)
    assert set(runs) == {r.trial_id for r in rows}  # 2
    for row in rows:
        kept = runs[row.trial_id].data
        assert kept.tags["stage"] == row.stage and kept.tags["outcome"] == row.outcome
        assert kept.params["batch_size"] == str(row.batch_size)
        assert float(kept.params["learning_rate"]) == row.learning_rate
        for name in END_METRICS:
            assert kept.metrics[name] == getattr(row, name), name
        reached = row.time_to_target_seconds
        assert kept.metrics.get("time_to_target_seconds") == reached
        assert 100 < (row.peak_memory_mib or 0) < 8000


def check_report(store: SweepStore, said: str) -> None:
    """The verdict and the page are there, and report.py makes the same of the records."""
    verdict = json.loads(store.verdict.read_text())
    assert verdict[0]["status"] in STATUSES and verdict[0]["target"] == 0.6
    assert [row["seeds"] for row in verdict[0]["per_batch_size"]] == [2, 2]
    assert (store.folder / "report.html").stat().st_size > 10_000
    again, text = (
        subprocess.run(
            [sys.executable, str(ROOT / "tune_jobs" / "report.py"), str(store.folder), *extra],
            capture_output=True, text=True, check=True,
        ).stdout
        for extra in (["--json"], [])
    )  # fmt: skip
    assert json.loads(again) == verdict
    assert text.strip() in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_kept_at_a_uri_takes_further_seeds_from_another_machine(
    tmp_path: Path, data_dir: Path, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = f"s3://sweeps/{tmp_path.name}{query(s3_port)}"
    (tmp_path / "small.toml").write_text(QUICKLY + "validation_examples = 300\n")
    first, second = (tmp_path / name for name in ("first machine", "second machine"))
    seen = []
    for machine, asked in (
        (first, ("--config", "../small.toml", "--model", "mlp", "--data", "digits",
                 "--batch-sizes", "8,32", "--trials", "2", "--budget-examples", "6016",
                 "--target", "0.8", "--seeds", "1")),
        (second, ("--resume", "--seeds", "3")),
    ):  # fmt: skip
        machine.mkdir()
        for name, value in credentials(machine / "cache").items():
            monkeypatch.setenv(name, value)
        run(machine, data_dir, "--runs-dir", runs, *asked)
        assert not (machine / "runs").exists()
        store = SweepStore.open(runs, "it")
        seen.append({r.trial_id: r for r in store.read_trials()})
    before, after = seen
    assert all(after[name] == row for name, row in before.items())
    made = {(r.batch_size, r.seed) for r in after.values() if r.stage == "confirm"}
    assert made >= {(size, seed) for size in (8, 32) for seed in (1, 2)}  # a third where it is open
    (verdict,) = json.loads(store.read_text(store.verdict) or "")
    seeds = [sum(size == of for of, _ in made) for size in (8, 32)]
    assert [row["seeds"] for row in verdict["per_batch_size"]] == seeds
    assert [look.seeds for look in store.read_looks()][:2] == [1, 2]
    assert store.remote is not None and "report.html" in store.remote.names()
    assert len(store.read_measurements()) > len(after)
