"""What a sweep costs its driver, its object store and its MLflow server, as it grows.

    python scripts/bench/scale.py OUT.json [driver] [whole] [broadcast] [mlflow]

driver     our own callbacks as Ray Tune calls them, with made-up trials and without Ray:
           milliseconds for a report and for a trial once 100, 1,000, 10,000 trials have ended
whole      search on Ray Tune, its trials training nothing: milliseconds of the tuning loop for a
           report, and how they divide
broadcast  MNIST through Ray's object store to nodes that have none: several nodes of this machine
mlflow     rows a second into a real MLflow server on SQLite, and what queueing costs the driver
load       2,000 trials on Ray Tune, their reports into a real MLflow server: what arrived, the
           driver's memory, the server's answers, and the sweep's charts in a browser
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
os.environ["PYTHONPATH"] = str(ROOT)  # for Ray's workers

import numpy as np
import psutil
from rich.console import Console

import tune_jobs.tuning  # noqa: F401  what Ray reads as it is imported
from tests import rows
from tune_jobs import environment
from tune_jobs.config import SweepConfig
from tune_jobs.planning.known import Known
from tune_jobs.planning.search_plan import rungs_of
from tune_jobs.planning.ways import WAYS
from tune_jobs.records import Measurement, TrialResult
from tune_jobs.reporting.progress import Progress
from tune_jobs.reporting.standing import Rows
from tune_jobs.store import SweepStore
from tune_jobs.tuning import keeper, stages
from tune_jobs.tuning.planned import Planned
from tune_jobs.tuning.racing import BatchSizeRaces
from tune_jobs.tuning.requests import Requests, TrialRequest

SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
BUDGET = 9216
REPORTS = 20  # of a trial
TRIALS = (100, 1_000, 10_000)
SAMPLE = 40  # trials that are timed at each count
TPE_TRIALS = (10, 50, 200, 1_000)  # of one batch size
WHOLE_TRIALS = 1_200
PLACES = 8  # actors at once in `whole`
RECEIVERS = (1, 2, 4, 8)
MLFLOW_TRIALS = 100
LOAD_TRIALS = 2_000
LOAD_WINDOW = 200  # trials between two looks at the driver's memory


class Stopwatch:
    """Seconds of named calls, those inside others too."""

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.calls[name].append(time.perf_counter() - began)

        return wrapper

    def taken(self) -> dict[str, list[float]]:
        """What was seen since the last call."""
        seen, self.calls = dict(self.calls), defaultdict(list)
        return seen


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds of one call."""
    ms = [1000 * s for s in seconds]
    return {
        "n": len(ms), "mean": statistics.mean(ms), "median": statistics.median(ms), "max": max(ms),
    }  # fmt: skip


def config_of(folder: Path, **changes: Any) -> SweepConfig:
    config = SweepConfig(
        name="scale", batch_sizes=SIZES, budget_examples=BUDGET, search="random",
        runs_dir=str(folder),
    )  # fmt: skip
    return replace(config, **changes)


# Our callbacks, as Tune calls them


class MadeUpTrials:
    """Trials and reports as Tune hands them over, for the keeper, the races and the progress."""

    def __init__(self, folder: Path, ended: int) -> None:
        self.config = config_of(folder, trials=ended + SAMPLE)
        self.rungs = rungs_of(self.config)
        self.steps = sorted({*(BUDGET * k // REPORTS for k in range(1, REPORTS + 1)), *self.rungs})
        store = SweepStore.open(str(folder), "scale")
        store.create()
        self.ended = ended
        before = [(f"{k:08x}", SIZES[k % len(SIZES)]) for k in range(ended)]
        store.write_trials([rows.result(trial_id=name, batch_size=b) for name, b in before])
        store.write_measurements([
            rows.measurement(trial_id=name, batch_size=b, examples_seen=seen, rung=self.rung(seen))
            for name, b in before
            for seen in self.steps
        ])  # fmt: skip
        each = {size: TrialRequest(1.0, 0.0, None) for size in SIZES}
        self.keeper = keeper.RecordKeeper(self.config, store, [], Requests(each, each), "search")
        self.keeper.setup()
        self.races = BatchSizeRaces(self.rungs, self.config.reduction_factor, 0.99, BUDGET, store)
        progress = Progress(Console(file=io.StringIO()))
        had = Rows(store.read_trials(), [], [])
        self.watched = progress.watching(self.config, "search", had, ended)
        keeper.LISTENERS["scale"] = [self.watched.__enter__()]

    def rung(self, seen: int) -> int | None:
        return self.rungs.index(seen) if seen in self.rungs else None

    def result(self, seen: int) -> dict[str, Any]:
        rung, done = self.rung(seen), seen == BUDGET
        found = {
            "examples_seen": seen, "updates": seen // 16, "train_loss": 0.1, "val_loss": 0.1,
            "val_metric": 0.9, "test_metric": None, "examples_to_target": None,
            "train_seconds": 1.0, "wall_time_seconds": 1.0, "rung": rung, "score": 0.9,
            "outcome": "finished" if done else "stopped", "done": done,
        }  # fmt: skip
        return found | ({"rung_examples": seen} if rung is not None else {})

    def one_more(self, watch: Stopwatch) -> None:
        size = SIZES[self.ended % len(SIZES)]
        asked = {
            "batch_size": size, "base_learning_rate": 1e-3, "learning_rate": 1e-3, "seed": 0,
            "races": True,
        }  # fmt: skip
        trial: Any = SimpleNamespace(
            trial_id=f"{self.ended:08x}", config=asked, last_result={},
            run_metadata=SimpleNamespace(),
        )  # fmt: skip
        self.races.on_trial_add(None, trial)
        for seen in self.steps:
            trial.last_result = result = self.result(seen)
            watch.timed("keeper, a report", self.keeper.on_trial_result)(0, [], trial, result)
            decide = watch.timed("race, a report", self.races.on_trial_result)
            decide(None, trial, result)
        watch.timed("keeper, a trial's end", self.keeper.on_trial_complete)(0, [], trial)
        self.races.on_trial_complete(None, trial, trial.last_result)
        self.ended += 1


def driver(folder: Path) -> dict[str, Any]:
    """Milliseconds of our callbacks by the number of trials that have ended."""
    found: dict[str, Any] = {}
    for count in TRIALS:
        made, watch = MadeUpTrials(folder / str(count), count), Stopwatch()
        for _ in range(len(SIZES)):
            made.one_more(Stopwatch())  # opens the races, which read what is recorded
        for _ in range(SAMPLE):
            made.one_more(watch)
        began = time.perf_counter()
        made.keeper.on_experiment_end([])
        merging = time.perf_counter() - began
        calls = {name: spread(seconds) for name, seconds in watch.taken().items()}
        found[str(count)] = calls | {"merging the tables once, seconds": merging}
    return {"by_ended_trials": found, "proposal": {k: proposals(k) for k in ("tpe", "random")}}


def proposals(kind: str) -> dict[int, dict[str, float]]:
    """Milliseconds of one proposal, once so many trials of its batch size have ended."""
    found, watch = {}, Stopwatch()
    for count in TPE_TRIALS:
        config = SweepConfig(batch_sizes=(64,), trials=10 * count)
        propose = watch.timed("", WAYS[kind].propose)
        ended: list[TrialResult] = []
        rates = np.geomspace(3e-4, 3e-2, count + 8)
        for k, rate in enumerate(rates):
            if k >= count:
                propose(config, (64,), Known(ended, {}, (), {64: 1.0}))
            far = abs(math.log(rate / 2e-3))
            ended.append(
                rows.result(trial_id=f"t{k}", batch_size=64, base_learning_rate=float(rate),
                            examples_to_target=round(300 * (1 + far)))
            )  # fmt: skip
        found[count] = spread(watch.taken()[""])
    return found


# The whole on Ray Tune


@contextmanager
def watched(watch: Stopwatch, calls: list[tuple[type, str, str]]) -> Iterator[None]:
    kept = [(of, name, getattr(of, name)) for of, name, _ in calls]
    for of, name, told in calls:
        setattr(of, name, watch.timed(told, getattr(of, name)))
    try:
        yield
    finally:
        for of, name, call in kept:
            setattr(of, name, call)


def null_stage(folder: Path, trials: int) -> tuple[stages.Stage, SweepStore]:
    """A search of so many trials on a Ray of this machine; they train nothing."""
    import ray

    from tests.simulated_sweep import null_trainable
    from tune_jobs.tuning.cluster import cluster_now

    os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback
    quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
    ray.init(address="local", num_cpus=PLACES, **quiet)
    store = SweepStore.open(str(folder), "scale")
    store.create()
    (data := folder / "data").write_bytes(b"nothing")
    profiles = [rows.profile(batch_size=b, micro_batch_size=b, peak_memory_mib=1.0) for b in SIZES]
    config = config_of(folder, trials=trials)
    stages._trainable = null_trainable(folder, 0.0, saves=False)
    return stages.Stage.of(config, store, data, cluster_now(), profiles), store


def search(stage: stages.Stage) -> None:
    trials = stage.config.trials
    plan = functools.partial(stages.searched_next, stage, trials)
    stages.run(stage, plan, trials, resume=False)


def whole(folder: Path) -> dict[str, Any]:
    """The tuning loop's milliseconds a report, over the first and the last tenth of the trials."""
    import ray
    from ray.tune.execution.tune_controller import TuneController

    stage, store = null_stage(folder, WHOLE_TRIALS)
    watch = Stopwatch()
    windows: list[tuple[float, Any]] = []
    ended = 0

    def every_tenth(record: object) -> None:
        nonlocal ended
        ended += isinstance(record, TrialResult)
        if ended == (len(windows) + 1) * WHOLE_TRIALS // 10:
            windows.append((time.perf_counter(), watch.taken()))

    keeper.LISTENERS["scale"] = [every_tenth]
    calls = [
        (TuneController, "step", "all of the tuning loop, waiting included"),
        (TuneController, "save_to_dir", "Tune's own state, a save"),
        (keeper.RecordKeeper, "on_trial_result", "keeper, a report"),
        (keeper.RecordKeeper, "on_trial_complete", "keeper, a trial's end"),
        (BatchSizeRaces, "on_trial_result", "race, a report"),
        (Planned, "suggest", "searcher, a proposal"),
    ]
    began = time.perf_counter()
    with watched(watch, calls):
        search(stage)
    ray.shutdown()
    found = []
    for k, (at, seen) in enumerate(windows):
        since = windows[k - 1][0] if k else began
        reports = len(seen.get("keeper, a report", []))
        found.append({
            "ended": (k + 1) * WHOLE_TRIALS // 10, "seconds": at - since, "reports": reports,
            "wall_ms_a_report": 1000 * (at - since) / max(1, reports),
            "calls": {name: spread(s) | {"seconds": sum(s)} for name, s in seen.items()},
        })  # fmt: skip
    state = max(
        folder.glob("scale/ray/trials-1/experiment_state-*.json"), key=lambda p: p.stat().st_size
    )
    trials = len(store.read_trials())
    return {
        "windows": found,
        "state_bytes_a_trial": state.stat().st_size / trials,
        "trials": trials,
    }


# The data set to every node


def broadcast(folder: Path) -> dict[str, Any]:
    """Seconds until N nodes hold MNIST, asked for at once; each node gets it once."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from tune_jobs.data.sources import prepare

    os.environ["RAY_AUTH_MODE"] = "disabled"
    content = prepare("mnist", ROOT / ".data").read_bytes()
    size = len(content)
    found: dict[int, list[Any]] = {}
    cluster = Cluster()
    cluster.add_node(num_cpus=0, object_store_memory=600 * 2**20)
    for _ in range(max(RECEIVERS)):
        cluster.add_node(num_cpus=1, object_store_memory=600 * 2**20)
    cluster.connect()
    cluster.wait_for_nodes()
    nodes = [n["NodeID"] for n in ray.nodes() if n["Resources"].get("CPU")]

    @ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
    def holds(reference: list[Any]) -> float:
        began = time.perf_counter()
        assert len(ray.get(reference[0])) == size
        return time.perf_counter() - began

    def ask(at: list[str], reference: list[Any]) -> list[float]:
        there = [
            holds.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False))
            for n in at
        ]
        return list(ray.get([one.remote(reference) for one in there]))

    ask(nodes, [ray.put(content)])  # starts the workers
    for count in (*RECEIVERS, *RECEIVERS):
        began = time.perf_counter()
        reference = [ray.put(content)]
        put = time.perf_counter() - began
        began = time.perf_counter()
        first = ask(nodes[:count], reference)
        wall = time.perf_counter() - began
        again = ask(nodes[:count], reference)
        found.setdefault(count, []).append({
            "put_seconds": put, "wall_seconds": wall, "each_node_seconds": first,
            "again_seconds": again,
        })  # fmt: skip
    ray.shutdown()
    cluster.shutdown()
    return {"bytes": size, "by_nodes": found}


# MLflow


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server on SQLite, as cluster/local.sh starts it."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1",
            "--port", str(port), "--workers", "1", "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
        ],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                          "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def mlflow(folder: Path) -> dict[str, Any]:
    """Rows a second, once as they come from a sweep, once in `complete` after an outage."""
    from tune_jobs.tracking.mlflow_copy import MlflowCopy

    trials = [rows.result(trial_id=f"t{k}", batch_size=SIZES[k % 8]) for k in range(MLFLOW_TRIALS)]
    points = [
        rows.measurement(trial_id=t.trial_id, batch_size=t.batch_size, examples_seen=320 * (k + 1))
        for t in trials
        for k in range(REPORTS)
    ]
    total = len(points) + len(trials)
    with server(folder) as uri:
        came = MlflowCopy(uri, "scale", "came", None)
        came.start({}, {"sweep": "came"})
        began = time.perf_counter()
        for t in trials:
            for point in points:
                if point.trial_id == t.trial_id:
                    came.measurement(point)
            came.result(t)
        queued = time.perf_counter() - began
        assert came.finish("", {}, [], timeout_seconds=600)
        as_they_come = time.perf_counter() - began
        later = MlflowCopy(uri, "scale", "later", None)
        began = time.perf_counter()
        assert later.complete(trials, points)
        after = time.perf_counter() - began
    return {
        "trials": len(trials), "points": len(points), "queueing_ms_a_row": 1000 * queued / total,
        "as_they_come": {"seconds": as_they_come, "rows_per_second": total / as_they_come,
                         "trials_per_second": len(trials) / as_they_come},
        "after_an_outage": {"seconds": after, "rows_per_second": total / after,
                            "trials_per_second": len(trials) / after},
    }  # fmt: skip


# All of it at once


def load(folder: Path) -> dict[str, Any]:
    """What arrived in the store and in MLflow, the driver's memory, the server's answers."""
    import ray

    from scripts.bench.browser import the_chromium
    from tune_jobs.tracking.mlflow_copy import MlflowCopy
    from tune_jobs.tracking.of_sweep import SweepCopy

    the_chromium()
    stage, store = null_stage(folder, LOAD_TRIALS)
    told, memory, driver = {"reports": 0, "ends": 0}, [], psutil.Process()
    with server(folder) as uri, asked_for(uri) as answers:
        copy = MlflowCopy(uri, "scale", "scale", folder / "mlflow.json")
        copy.start({}, {"sweep": "scale"})

        def count(record: object) -> None:
            ended = isinstance(record, TrialResult)
            told["ends" if ended else "reports"] += ended or isinstance(record, Measurement)
            if ended and told["ends"] % LOAD_WINDOW == 0:
                memory.append(driver.memory_info().rss / 2**20)

        keeper.LISTENERS["scale"] = [SweepCopy(store, copy), count]
        began = time.perf_counter()
        search(stage)
        searched = time.perf_counter() - began
        ray.shutdown()
        whole = copy.finish("", {}, [], timeout_seconds=1_800)
        drained = time.perf_counter() - began
        held = in_mlflow(uri, "scale")
        assert copy.page is not None
        charts = asyncio.run(looked_at(copy.page))
    points = store.read_measurements()
    return {
        "told": told, "whole": whole, "dropped": copy.dropped,
        "store": {"trials": len(store.read_trials()), "points": len(points)},
        "mlflow": held, "search_seconds": searched, "drained_seconds": drained,
        "driver_mib_by_200_trials": [round(mib) for mib in memory],
        "server_ms": {f"p{p}": float(np.percentile(answers, p)) for p in (50, 90, 99)}
        | {"n": len(answers), "max": max(answers)},
        "charts": charts,
    }  # fmt: skip


@contextmanager
def asked_for(uri: str) -> Iterator[list[float]]:
    """Milliseconds of a small question to the server, once a second while this lasts."""
    answers, over = [], threading.Event()
    address = uri + "/api/2.0/mlflow/experiments/search?max_results=1"

    def ask() -> None:
        while not over.wait(1):
            began = time.perf_counter()
            try:
                urllib.request.urlopen(address, timeout=60).close()
            finally:
                answers.append(1000 * (time.perf_counter() - began))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join(70)


def in_mlflow(uri: str, experiment: str) -> dict[str, int]:
    """Closed and other runs of trials, and the points of their curves."""
    from tune_jobs.tracking.client import PARENT, connect, search

    client = connect(uri)
    of = client.get_experiment_by_name(experiment).experiment_id
    nested = [run for run in search(client, of) if PARENT in run.data.tags]
    points = [len(client.get_metric_history(r.info.run_id, "train_seconds")) for r in nested]
    closed = sum(run.info.status == "FINISHED" for run in nested)
    return {"closed": closed, "others": len(nested) - closed, "points": sum(points)}


async def looked_at(address: str) -> dict[str, Any]:
    """The sweep's charts in MLflow's UI: seconds until they are drawn, and what is told of runs."""
    from scripts.bench.browser import open_page

    began = time.perf_counter()
    async with open_page() as page:
        await page.open(address)
        await page.wait_for("document.querySelectorAll('.js-plotly-plot').length > 1", 300)
        drawn = await page.evaluate("document.querySelectorAll('.js-plotly-plot').length")
        matching = await page.evaluate(
            "(document.body.innerText.match(/[^\\n]*matching runs?/) || [''])[0]"
        )
    return {"seconds": time.perf_counter() - began, "drawn": drawn, "told": matching}


PARTS = {
    "driver": driver, "whole": whole, "broadcast": broadcast, "mlflow": mlflow, "load": load,
}  # fmt: skip


def main() -> None:
    out, asked = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    found = json.loads(out.read_text()) if out.exists() else {}
    facts = environment.describe(ROOT)
    facts.pop("host")
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in asked:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found[name] = PARTS[name](Path(folder)) | {"load": os.getloadavg()}
        print(name, json.dumps(found[name], indent=1), flush=True)
        out.write_text(json.dumps(found | {"machine": facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
