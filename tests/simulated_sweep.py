"""A sweep's trials on simulated nodes, run by test_simulated_cluster.py in a process of its own.

Five nodes of eight pretended GPUs: 24 of type A100, 16 of type T4. Trials train nothing. Prints
one JSON object. All nodes share this machine, so that what is seen is placement, not speed.

python -m tests.simulated_sweep FOLDER
"""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.cluster_utils import Cluster as RayCluster
from ray.core.generated import autoscaler_pb2
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from tests import rows
from tests.null_trial import NullTrial
from tune_jobs.config import SweepConfig
from tune_jobs.records import BatchSizeProfile, ConfirmRun
from tune_jobs.store import SweepStore
from tune_jobs.tuning import stages
from tune_jobs.tuning.cluster import alive, cluster_now, main_accelerator
from tune_jobs.tuning.planned import Asked
from tune_jobs.tuning.trial import SharedByTrials
from tune_jobs.tuning.waiting import SAY

A100, T4 = ("A100", 81_920.0), ("T4", 16_384.0)
CPUS, GPUS = 32, 8
SIZES, SEEDS = (16, 64, 1024), (1,)
PATIENCE_SECONDS = 30.0


def profiles() -> list[BatchSizeProfile]:
    """A quarter of a GPU for 16 and 64 on either type; 1024 fits the A100 alone, half of it."""
    peaks = {16: 0.15, 64: 0.15, 1024: 0.4}
    return [
        rows.profile(
            batch_size=size, micro_batch_size=size, device=f"NVIDIA {name}", accelerator=name,
            gpus=1.0, cpus=1.0, memory_limit_mib=limit, peak_memory_mib=part * limit,
            reserved_memory_mib=part * limit, chosen=fits, outcome=outcome,
        )
        for name, limit in (A100, T4)
        for size, part in peaks.items()
        for fits in [size < 1024 or name == "A100"]
        for outcome in ["finished" if fits else "out_of_memory"]
    ]  # fmt: skip


def null_trainable(
    folder: Path, seconds: float, saves: bool = True, late_seconds: float = 0.0
) -> Any:
    """In place of `stages._trainable`: the same requests, a trial that trains nothing.

    Its steps take `seconds`; it `saves` itself after each, or never. Every process but the first
    takes `late_seconds` longer to start.
    """

    def make(shared: SharedByTrials) -> object:
        requests = shared.requests
        facts = {
            "budget": shared.budget_examples, "rungs": shared.rungs, "seconds": seconds,
            "log": str(folder / "log.jsonl"), "saves": saves, "late_seconds": late_seconds,
        }  # fmt: skip
        return tune.with_resources(
            tune.with_parameters(NullTrial, facts=facts),
            lambda asked: tune.PlacementGroupFactory([requests.of(asked).bundle()]),
        )

    return make


def eventually(happens: Callable[[], object]) -> bool:
    """Whether it comes to that in time."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not happens() and time.monotonic() < until:
        time.sleep(0.1)
    return bool(happens())


def placed(groups: list[PlacementGroup], seconds: float = PATIENCE_SECONDS) -> int:
    """How many of them found room in time. `ready()` would start a process for each."""
    until = time.monotonic() + seconds
    return sum(g.wait(timeout_seconds=max(0.1, until - time.monotonic())) for g in groups)


def waiting_runs() -> int:
    """How many placement groups of a whole GPU, as confirm runs ask for, have no room yet."""
    pending = [g for g in placement_group_table().values() if g["state"] == "PENDING"]
    return sum(group["bundles"][0].get("GPU") == 1 for group in pending)


def packing(bundle: dict[str, float]) -> dict[str, float]:
    """Fill the cluster with one bundle after the other; how many found room, and on what nodes."""
    predicted = int(cluster_now().places_for(bundle))
    groups = [placement_group([bundle]) for _ in range(predicted)]
    found_room = placed(groups)
    beyond = placement_group([bundle])
    room_for_more = beyond.wait(timeout_seconds=2)
    free = ray.available_resources().get("GPU", 0.0)
    for group in [*groups, beyond]:
        remove_placement_group(group)
    found = {"predicted": predicted, "placed": found_room, "free_gpus": free}
    return found | {"room_for_more": room_for_more}


def search(stage: stages.Stage, cluster: RayCluster, log: Path) -> str:
    """Search, and kill a node while a trial runs on it. Returns the lost node's id."""
    lost: list[str] = []

    def lose_the_first() -> None:
        while not (log.exists() and len(log.read_text().splitlines()) >= 4):
            time.sleep(0.1)
        lost.append(json.loads(log.read_text().splitlines()[-1])["node"])
        node = next(n for n in cluster.worker_nodes if n.node_id == lost[0])
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=lose_the_first, daemon=True)
    killer.start()
    trials = stage.config.trials
    stages.run(stage, partial(stages.searched_next, stage, trials), trials, resume=False)
    killer.join(PATIENCE_SECONDS)
    assert eventually(lambda: lost[0] not in {node["NodeID"] for node in alive()})
    return lost[0]


def drain(suits: Callable[[Any], bool]) -> str:
    """Warn of the end of a node that suits, as a provider of spot machines does. Its id."""
    node = next(node["NodeID"] for node in alive() if suits(node))
    gcs = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why_not = gcs.drain_node(node, reason, "a test", int(time.time() * 1000) + 300_000)
    assert accepted, why_not
    return str(node)


def confirm(stage: stages.Stage) -> tuple[str, int]:
    """Confirm while a neighbour holds a part of every GPU of the type, and a node is about to go.

    The neighbours leave once every run waits. Returns the node's id, and how many runs waited.
    """
    share = {"GPU": 0.5, "accelerator_type:A100": 0.001}
    neighbours = [placement_group([share]) for _ in range(int(cluster_now().places_for(share)))]
    placed(neighbours, seconds=5)  # a lost trial may leave its share reserved: not all find room
    for group in neighbours:
        if placement_group_table(group)["state"] == "PENDING":
            remove_placement_group(group)
    waited = []

    def leave() -> None:
        eventually(lambda: waiting_runs() == len(runs))
        waited.append(waiting_runs())
        for group in neighbours:
            remove_placement_group(group)
        (stage.store.folder / "left_at").write_text(str(time.time()))

    going = drain(lambda node: "accelerator_type:A100" in node["Resources"])
    runs = [
        ConfirmRun(size, 1e-3, 1e-3, seed, 9216, alone=True) for seed in SEEDS for size in SIZES
    ]
    leaving = threading.Thread(target=leave)
    leaving.start()

    def missing(_: object) -> list[Asked]:
        made = {t.batch_size for t in stage.store.read_trials() if t.stage == "confirm"}
        return [stages.asked_of(run) for run in runs if run.batch_size not in made]

    stages.run(stage, missing, len(runs), resume=False)
    leaving.join()
    return going, waited[0]


def main(folder: Path) -> None:
    cluster = RayCluster()
    cluster.add_node(num_cpus=0, num_gpus=0)
    for k in range(5):
        kind = "A100" if k < 3 else "T4"
        cluster.add_node(
            num_cpus=CPUS, num_gpus=GPUS, resources={f"accelerator_type:{kind}": 1}, wait=False,
            object_store_memory=80 * 2**20, memory=4 * 2**30,
        )  # fmt: skip
    cluster.wait_for_nodes()
    cluster.connect()
    config = SweepConfig(
        name="simulated", batch_sizes=SIZES, trials=6, budget_examples=9216,
        search="random", runs_dir=str(folder),
    )  # fmt: skip
    store = SweepStore.open(config.runs_dir, config.name)
    store.create()
    data, log = folder / "data", folder / "log.jsonl"
    data.write_bytes(b"nothing")
    stage = stages.Stage.of(config, store, data, cluster_now(), profiles())
    told: dict[str, Any] = {
        "cluster": str(stage.cluster),
        "main_accelerator": main_accelerator(config),
        "requests": {size: r.bundle() for size, r in stage.requests.items()},
        "packing": packing(stage.requests[16].bundle()),
        "types": {n["NodeID"]: next(k for k in n["Resources"] if k.startswith("accelerator"))
                  for n in ray.nodes() if n["Resources"].get("GPU")},
    }  # fmt: skip
    stages._trainable = null_trainable(folder, 0.5)
    told["lost"] = search(stage, cluster, log)
    told["searched"] = [(t.name, t.outcome, t.examples_seen) for t in store.read_trials()]
    heard: list[str] = []
    SAY[config.name] = heard.append
    (told["going"], told["waited"]), told["heard"] = confirm(stage), heard
    told["confirmed"] = [
        (t.batch_size, t.seed, t.outcome) for t in store.read_trials() if t.stage == "confirm"
    ]
    told["left_at"] = float((store.folder / "left_at").read_text())
    told["log"] = [json.loads(line) for line in log.read_text().splitlines()]
    print(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(360)  # where it stands, should it stand still
    main(Path(sys.argv[1]))
