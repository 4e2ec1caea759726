"""Trials of all batch sizes and stages follow each other in as many processes as there are places:
starting one takes seconds. On Ray, with trials that train nothing.

1. A search, a wait for its last trial, then confirm runs, of which one is alone: two processes.
2. A process that starts keeps its trial, however soon others are idle: no node stays unused.
3. An idle process that died, or whose node is about to go, costs no trial and gets none.
4. More trials than an experiment takes are made in several, so that the driver's memory is flat.
5. The first trials of a Ray on this machine get the processes that were begun with it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from tests import rows
from tests.null_trial import STEPS
from tests.simulated_sweep import drain, null_trainable
from tune_jobs.config import SweepConfig
from tune_jobs.records import ConfirmRun
from tune_jobs.store import SweepStore
from tune_jobs.tuning import stages
from tune_jobs.tuning.cluster import cluster_now
from tune_jobs.tuning.kept import Kept
from tune_jobs.tuning.planned import Asked
from tune_jobs.tuning.requests import TrialRequest, evened
from tune_jobs.tuning.stages import Stage
from tune_jobs.tuning.starting import AHEAD, await_ahead, begun_ahead, start_ray

SIZES, TRIALS = (16, 64, 512), 6
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Asking:
    placement_group_factory: str


def test_idle_processes_are_kept_until_others_are_wanted() -> None:
    waiting: list[Asking] = []
    controller: Any = SimpleNamespace(
        _pending_trials=waiting, _trial_to_actor={}, get_trials=lambda: waiting,
        _actor_manager=SimpleNamespace(is_actor_started=bool),
    )  # fmt: skip
    cache = Kept(controller, 2)
    assert [cache.cache_object("small", k) for k in range(3)] == [True, True, False]
    assert list(cache.flush_cached_objects()) == []
    waiting.append(Asking("large"))
    assert list(cache.flush_cached_objects()) == [0, 1]
    waiting.clear()
    assert cache.cache_object("large", 3) and list(cache.flush_cached_objects(True)) == [3]


def test_the_most_memory_is_asked_for_where_no_place_is_lost_by_it() -> None:
    asked = {16: TrialRequest(1.0, 0.0, 2048), 512: TrialRequest(1.0, 0.0, 2560)}
    by_cpus = evened(asked, lambda bundle: min(2, 8192 * 2**20 // bundle["memory"]))
    assert {r.memory_mib for r in by_cpus.values()} == {2560}
    assert evened(asked, lambda bundle: min(2, 4608 * 2**20 // bundle["memory"])) == asked
    other = asked | {64: TrialRequest(2.0, 0.0, 2560)}
    assert evened(other, lambda bundle: 2) == other
    shares = {16: TrialRequest(1.0, 0.25, None), 512: TrialRequest(1.0, 0.5, None)}
    assert evened(shares, lambda bundle: 2) == shares


@pytest.fixture
def two_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # on loopback
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, logging_level="error", **quiet)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_trials_have_the_processes_that_were_begun_with_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": "", AHEAD: "1"}  # all as before afterwards
    for name in (*told, "PL_DISABLE_FORK", "RAY_enable_worker_prestart",
                 "RAY_preload_python_modules", "RAY_enable_metrics_collection",
                 "RAY_IGNORE_UNHANDLED_ERRORS"):  # fmt: skip
        monkeypatch.setenv(name, told.get(name, ""))
        if name not in told:
            monkeypatch.delenv(name)
    start_ray(ROOT)
    await_ahead()
    try:
        ahead = begun_ahead()
        assert len(ahead) == ray.cluster_resources()["CPU"]
        stage = stage_of(tmp_path, monkeypatch)
        confirm(stage, 3)
        assert {step["process"] for step in steps_of(stage)} <= ahead
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A place on each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(ROOT))
        nodes = RayCluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, logging_level="error", log_to_driver=False)
        yield
        ray.shutdown()
        nodes.shutdown()


def stage_of(folder: Path, monkeypatch: pytest.MonkeyPatch, late_seconds: float = 0.0) -> Stage:
    """A sweep's stage whose trials train nothing."""
    config = SweepConfig(name="kept", batch_sizes=SIZES, trials=TRIALS, runs_dir=str(folder))
    store = SweepStore.open(str(folder), "kept")
    store.create()
    (data := folder / "data").write_bytes(b"nothing")
    profiles = [
        rows.profile(batch_size=size, micro_batch_size=size, peak_memory_mib=400.0 + size)
        for size in SIZES
    ]
    trains_nothing = null_trainable(folder, 0.05, late_seconds=late_seconds)
    monkeypatch.setattr(stages, "_trainable", trains_nothing)
    return Stage.of(config, store, data, cluster_now(), profiles)


def steps_of(stage: Stage) -> list[dict[str, Any]]:
    log = Path(stage.config.runs_dir) / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def confirm(stage: Stage, seeds: int, between: Callable[[], object] | None = None) -> None:
    """So many runs of one batch size; `between` is called once two are made and the rest not
    asked for, while their processes are idle."""
    run, called = ConfirmRun(16, 1e-3, 1e-3, 0, stage.config.budget_examples), []

    def plan(under_way: Sequence[Asked]) -> list[Asked]:
        made = {trial.seed for trial in stage.store.read_trials() if trial.outcome == "finished"}
        if between is not None and not called:
            if len(made) < 2:
                return [stages.asked_of(replace(run, seed=k)) for k in range(2) if k not in made]
            called.append(between())
        return [stages.asked_of(replace(run, seed=k)) for k in range(seeds) if k not in made]

    stages.run(stage, plan, seeds, resume=False)
    rows = stage.store.read_trials()
    assert [row.outcome for row in rows] == ["finished"] * seeds
    assert sorted(row.seed for row in rows) == list(range(seeds))


@pytest.mark.slow
def test_search_and_confirm_runs_are_made_by_two_processes(
    two_places: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    run = ConfirmRun(16, 1e-3, 1e-3, 1, stage.config.budget_examples)
    runs = [run, replace(run, seed=2), replace(run, batch_size=512, seed=1, alone=True),
            replace(run, seed=3), replace(run, batch_size=64)]  # fmt: skip

    def plan(under_way: Sequence[Asked]) -> list[Asked]:
        found = stages.searched_next(stage, TRIALS, under_way)
        if found or any(asked["stage"] == "search" for asked in under_way):
            return found
        made = {(t.batch_size, t.seed) for t in stage.store.read_trials() if t.stage == "confirm"}
        return [stages.asked_of(r) for r in runs if (r.batch_size, r.seed) not in made]

    stages.run(stage, plan, TRIALS + len(runs), resume=False)
    steps = steps_of(stage)
    assert len({step["trial"] for step in steps}) == TRIALS + len(runs)
    assert len({step["process"] for step in steps}) == 2
    alone = [step for step in steps if step["batch_size"] == 512 and step["stage"] == "confirm"]
    began, ended = min(s["began"] for s in alone), max(s["ended"] for s in alone)
    others = [step for step in steps if step not in alone]
    assert all(step["ended"] <= began or step["began"] >= ended for step in others)


@pytest.mark.slow
def test_a_process_that_starts_late_keeps_the_trial_it_starts_for(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(tmp_path, monkeypatch, late_seconds=3.0)
    confirm(stage, 5)
    steps = steps_of(stage)
    late = {step["process"] for step in steps} - {steps[0]["process"]}
    assert len(late) == 1
    assert steps[0]["ended"] + 2 < min(s["began"] for s in steps if s["process"] in late)


@pytest.mark.slow
def test_an_idle_process_that_died_is_given_no_trial(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    confirm(stage, 5, lambda: os.kill(steps_of(stage)[-1]["process"], signal.SIGKILL))


@pytest.mark.slow
def test_an_idle_process_of_a_node_that_leaves_is_given_no_trial(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, going = stage_of(tmp_path, monkeypatch), []
    confirm(stage, 5, lambda: going.append(drain(lambda node: node["Resources"].get("CPU") == 1)))
    after = steps_of(stage)[-3 * STEPS :]
    assert len({step["node"] for step in steps_of(stage)}) == 2
    assert not {step["node"] for step in after} & set(going)


@pytest.mark.slow
def test_more_trials_than_an_experiment_takes_are_made_in_several(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "EXPERIMENT_TRIALS", 4)
    monkeypatch.setattr(stages, "TRIALS_A_PLACE", 1)
    stage = stage_of(tmp_path, monkeypatch)
    confirm(stage, 10)
    path, _ = stage.store.ray_storage()
    states = [len(list(Path(path).glob(f"trials-{k}/b16-*"))) for k in (1, 2, 3, 4)]
    assert states == [4, 4, 2, 0]
