"""Sweeps on real Ray nodes of this machine: a head, three workers, an MLflow server.

Each has an address of its own; jobs are submitted with the real client. What has to hold:
  1. every confirm run and every search trial stands once in the store and once in MLflow;
  2. workers of every address ran trials, the head none;
  3. a worker killed in the middle and an MLflow server that was away cost no row;
  4. a sweep that `ray job stop` ended goes on, and keeps what it had;
  5. a folder that the nodes do not share is refused before anything is measured.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tune_jobs.records import TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.verdicts import STATUSES

ROOT = Path(__file__).resolve().parents[1]
SIZES, SEEDS, BUDGET = (16, 64), 3, 75_008
SMALL = (
    'profile_seconds = 5\nnoise_scale = false\ncpus_per_trial = "1"\nvalidation_examples = 300\n'
)
NOT_ALLOWED = "network namespaces are not allowed"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class LocalCluster:
    """What `cluster/local.sh` started, and how to reach it."""

    state: Path
    shared: Path
    started_with: list[str] = field(default_factory=list)

    def surroundings(self) -> dict[str, str]:
        return {**os.environ, "SWEEP_CLUSTER_STATE": str(self.state)}

    def call(self, *words: str) -> str:
        """`cluster/local.sh WORDS`; its output, its errors too where it failed."""
        done = subprocess.run(
            [str(ROOT / "cluster" / "local.sh"), *words],
            env=self.surroundings(), capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        return done.stdout + (done.stderr if done.returncode else "")

    def addresses(self) -> dict[str, str]:
        """Address of each node by its name."""
        return dict(line.split()[:2] for line in self.call("status").splitlines())

    def tracking_uri(self) -> str:
        found = re.search(r"MLFLOW_TRACKING_URI=(\S+)", self.call("env"))
        assert found
        return found[1]

    def submit(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(ROOT / "scripts" / "submit"), *options],
            cwd=self.state, env=self.surroundings(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def store(self, name: str) -> SweepStore:
        return SweepStore(self.shared / name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    local = LocalCluster(folder / "state", folder / "runs")
    local.state.mkdir()
    (local.state / "small.toml").write_text(SMALL)
    try:
        told = local.call("up", "3", "--shared", str(local.shared))
        if NOT_ALLOWED in told:
            local.started_with.append("--loopback")
            told = local.call("up", "3", "--shared", str(local.shared), "--loopback")
        assert "submit a job:" in told, told
        yield local
    finally:
        local.call("down")


def options(name: str) -> tuple[str, ...]:
    return (
        "--name", name, "--config", "small.toml", "--model", "mlp", "--data", "digits",
        "--batch-sizes", ",".join(map(str, SIZES)), "--trials", "6", "--seeds", str(SEEDS),
        "--budget-examples", str(BUDGET), "--target", "0.93",
    )  # fmt: skip


def when(happens: Callable[[], object], job: subprocess.Popen[str], seconds: float = 500) -> None:
    """Wait until `happens()`; fails where the job ends or the time is over before it."""
    until = time.monotonic() + seconds
    while not happens():
        assert job.poll() is None, job.communicate()[0][-3000:]
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)


def of_stage(store: SweepStore, stage: str) -> list[TrialResult]:
    return [row for row in store.read_trials() if row.stage == stage]


def check_whole(cluster: LocalCluster, name: str) -> list[TrialResult]:
    """The records and MLflow hold every trial once; two seeds of each batch size at the least, each
    made again to the whole budget, since every batch size is next to the one to use."""
    store = cluster.store(name)
    rows = store.read_trials()
    assert len({row.trial_id for row in rows}) == len(rows)
    confirmed = [row for row in rows if row.stage == "confirm"]
    whole = {(row.batch_size, row.seed) for row in confirmed if row.examples_seen == BUDGET}
    assert {(size, seed) for size in SIZES for seed in (1, 2)} <= whole
    made = [(r.batch_size, r.seed, r.learning_rate, r.examples_seen == BUDGET) for r in confirmed]
    assert len(set(made)) == len(made)  # a seed runs anew where a better rate was found
    assert max(row.seed for row in confirmed) <= SEEDS
    client = MlflowClient(cluster.tracking_uri())
    experiment = client.get_experiment_by_name("batch-size")
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id], filter_string=f"tags.sweep = '{name}'", max_results=1000
    )
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert parents[0].data.tags["submission_id"].startswith(name)
    facts = json.loads(store.environment.read_text())
    assert parents[0].data.tags["commit"] == facts["commit"]
    nested = [run.data.tags for run in runs if "mlflow.parentRunId" in run.data.tags]
    trials = [tags["trial_id"] for tags in nested if tags["stage"] != "measure"]
    assert sorted(trials) == sorted(row.trial_id for row in rows)
    return rows


def test_a_sweep_outlives_a_worker_and_the_tracking_server(cluster: LocalCluster) -> None:
    workers = {n: a for n, a in cluster.addresses().items() if n.startswith("worker")}
    assert len(set(workers.values())) == 3
    store = cluster.store("loses")
    job = cluster.submit(*options("loses"))
    when(lambda: of_stage(store, "search"), job)
    cluster.call("tracking", "stop")
    when(lambda: of_stage(store, "confirm"), job)
    cluster.call("lose", "worker2")
    cluster.call("tracking", "start")  # takes seconds: what worker2 still sent is written by then
    before = [row.trial_id for row in store.read_trials()]
    said, _ = job.communicate(timeout=600)
    assert job.returncode == 0, said[-3000:]
    if "missing there" in said:  # the sweep was over before the server was back: do as it says
        told = re.search(r"python (tune_jobs/report.py \S+ --sync-mlflow) completes it", said)
        assert told, said[-3000:]
        done = subprocess.run(
            [sys.executable, *told[1].split(), "--tracking-uri", cluster.tracking_uri()],
            cwd=ROOT, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    rows = check_whole(cluster, "loses")
    assert {row.node for row in rows} <= set(workers.values())
    assert {row.node for row in rows} >= {workers["worker1"], workers["worker3"]}
    assert all(r.node != workers["worker2"] for r in rows if r.trial_id not in before)
    for row in of_stage(store, "confirm"):
        assert row.measured_train_seconds <= row.wall_time_seconds
        assert row.waited_seconds is not None
    assert json.loads(store.verdict.read_text())[0]["status"] in STATUSES
    assert "\x1b" not in said
    assert re.search(r"b16-lr\S+-s0", said)


def test_a_sweep_that_was_stopped_goes_on(cluster: LocalCluster) -> None:
    store = cluster.store("stopped")
    job = cluster.submit(*options("stopped"))
    when(lambda: len(of_stage(store, "confirm")) >= 2, job)
    (submission,) = re.findall(
        r"submitted (stopped-\S+)", subprocess_output := first_lines(job, "submitted")
    ) or [subprocess_output]
    stopping = cluster.submit("--stop", submission)
    said, _ = stopping.communicate(timeout=300)
    assert "stopped" in said.splitlines()[-1], said
    job.communicate(timeout=300)
    assert job.returncode == 1
    kept = store.read_trials()

    again = cluster.submit("--resume", "--name", "stopped")
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said[-3000:]
    rows = {row.trial_id: row for row in check_whole(cluster, "stopped")}
    assert all(rows[row.trial_id] == row for row in kept)
    assert "error" not in cluster.call("drain", "worker1", "300")


def test_a_folder_that_the_nodes_do_not_share_is_refused(cluster: LocalCluster) -> None:
    unseen = ROOT / ".data" / "runs-of-a-test"  # of the project's data workers see nothing
    if "--loopback" in cluster.started_with:
        pytest.skip("without network namespaces all nodes see the same folders")
    job = cluster.submit("--runs-dir", str(unseen), *options("unseen"))
    said, _ = job.communicate(timeout=600)
    shutil.rmtree(unseen, ignore_errors=True)
    assert job.returncode == 2, said[-3000:]
    assert "--runs-dir" in said and "is not the same folder on the nodes" in said
    assert "s3://" in said


def first_lines(job: subprocess.Popen[str], word: str) -> str:
    """The job's output up to the line that holds the word."""
    assert job.stdout is not None
    for line in job.stdout:
        if word in line:
            return line
    raise AssertionError(f"no line has {word}")
