"""Trials of all batch sizes and stages follow each other in as many processes as there are places:
starting one takes seconds.

On Ray, with trials that train nothing: a search, a wait for its last trial, then confirm runs, of
which one is alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from tests import rows
from tests.simulated_sweep import null_trainable
from tune_jobs.config import SweepConfig
from tune_jobs.records import ConfirmRun
from tune_jobs.store import SweepStore
from tune_jobs.tuning import stages
from tune_jobs.tuning.cluster import cluster_now
from tune_jobs.tuning.kept import Kept
from tune_jobs.tuning.planned import Asked
from tune_jobs.tuning.requests import TrialRequest, evened

SIZES, TRIALS = (16, 64, 512), 6


def test_idle_processes_are_kept_until_others_are_wanted() -> None:
    cache = Kept(2)
    assert [cache.cache_object("small", k) for k in range(3)] == [True, True, False]
    assert list(cache.flush_cached_objects()) == []
    cache.increase_max("large")
    assert list(cache.flush_cached_objects()) == [0, 1]
    cache.decrease_max("large")
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
def two_places(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # on loopback
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, logging_level="error", **quiet)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_search_and_confirm_runs_are_made_by_two_processes(
    two_places: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SweepConfig(name="kept", batch_sizes=SIZES, trials=TRIALS, runs_dir=str(tmp_path))
    store = SweepStore.open(str(tmp_path), "kept")
    store.create()
    (data := tmp_path / "data").write_bytes(b"nothing")
    profiles = [
        rows.profile(batch_size=size, micro_batch_size=size, peak_memory_mib=400.0 + size)
        for size in SIZES
    ]
    stage = stages.Stage.of(config, store, data, cluster_now(), profiles)
    monkeypatch.setattr(stages, "_trainable", null_trainable(tmp_path, 0.05))
    run = ConfirmRun(16, 1e-3, 1e-3, 1, config.budget_examples)
    runs = [run, replace(run, seed=2), replace(run, batch_size=512, seed=1, alone=True),
            replace(run, seed=3), replace(run, batch_size=64)]  # fmt: skip

    def plan(under_way: Sequence[Asked]) -> list[Asked]:
        found = stages.searched_next(stage, TRIALS, under_way)
        if found or any(asked["stage"] == "search" for asked in under_way):
            return found
        made = {(t.batch_size, t.seed) for t in store.read_trials() if t.stage == "confirm"}
        return [stages.asked_of(r) for r in runs if (r.batch_size, r.seed) not in made]

    stages.run(stage, plan, TRIALS + len(runs), resume=False)
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len({step["trial"] for step in steps}) == TRIALS + len(runs)
    assert len({step["process"] for step in steps}) == 2
    alone = [step for step in steps if step["batch_size"] == 512 and step["stage"] == "confirm"]
    began, ended = min(s["began"] for s in alone), max(s["ended"] for s in alone)
    others = [step for step in steps if step not in alone]
    assert all(step["ended"] <= began or step["began"] >= ended for step in others)
