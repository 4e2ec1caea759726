"""The cluster that a sweep joins: what it has, what its autoscaler may add, and what is refused."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_jobs.config import SweepConfig, custom_resources, requested_cpus, requested_gpus
from tune_jobs.environment import cluster_address
from tune_jobs.errors import UserError
from tune_jobs.store import SweepStore
from tune_jobs.tuning.requests import LABEL, SHARE_OF_LABEL

Shape = Mapping[str, float]


@dataclass(frozen=True)
class Addition:
    """A kind of node that the autoscaler may add: its resources, and how many at the most."""

    shape: Shape
    at_most: int


@dataclass(frozen=True)
class Cluster:
    """What Ray has, and what it could have.

    Attributes:
        shapes: the resources of every node that is alive, named as Ray names them.
        additions: what the autoscaler may add to them; empty where there is none.
    """

    shapes: tuple[Shape, ...]
    additions: tuple[Addition, ...] = ()

    @property
    def nodes(self) -> int:
        return len(self.shapes)

    @property
    def spread_out(self) -> bool:
        """Whether there is, or may come to be, more than one node."""
        return self.nodes > 1 or bool(self.additions)

    def has(self, resource: str) -> float:
        """How much of a resource the living nodes have together."""
        return sum(shape.get(resource, 0.0) for shape in self.shapes)

    def could_have(self, resource: str) -> float:
        """The same, once the autoscaler has added all it may."""
        added = sum(a.at_most * a.shape.get(resource, 0.0) for a in self.additions)
        return self.has(resource) + added

    def places_for(self, bundle: Shape) -> float:
        """How many such bundles it could hold at once; each lies on one node."""
        held = sum(_times(shape, bundle) for shape in self.shapes)
        return held + sum(a.at_most * _times(a.shape, bundle) for a in self.additions)

    def __str__(self) -> str:
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        told = f"{nodes}, {self.has('CPU'):g} CPUs, {self.has('GPU'):g} GPUs"
        more = sum(a.at_most for a in self.additions)
        return f"{told}, {more} nodes more at the most" if more else told


def _times(shape: Shape, bundle: Shape) -> float:
    """How often a bundle fits a node. Shares of a GPU never span two: each GPU holds its own."""
    times = [shape.get(name, 0.0) / amount for name, amount in bundle.items() if name != "GPU"]
    gpus, share = shape.get("GPU", 0.0), bundle.get("GPU", 0.0)
    if 0 < share < 1:
        times.append(gpus * math.floor(1 / share + 1e-9))
    elif share:
        times.append(gpus / share)
    return math.floor(min(times, default=0.0) + 1e-9)


def cluster_now() -> Cluster:
    """The cluster as it is: nodes come and go."""
    shapes = tuple(node["Resources"] for node in alive())
    return Cluster(shapes, tuple(additions(ray.get_runtime_context().gcs_address, len(shapes))))


def alive() -> list[dict[str, Any]]:
    """Ray's living nodes."""
    return [node for node in ray.nodes() if node["Alive"]]


def in_a_cluster() -> bool:
    """True where RAY_ADDRESS names a cluster to join."""
    return cluster_address(os.environ) is not None


def this_machine() -> Cluster:
    """What a Ray started here will have: told without starting it."""
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    return Cluster((here,))


def additions(gcs_address: str, nodes: int) -> Iterator[Addition]:
    """What the autoscaler of the head on this host may add; none where it runs elsewhere.

    Ray tells a job nothing of it, but the autoscaler's process names the file it was started with,
    and jobs run on the head. `nodes` are alive already, the head among them.
    """
    settings = _autoscaler_settings(gcs_address)
    room = settings.get("max_workers", 0) - (nodes - 1)
    for kind in settings.get("available_node_types", {}).values():
        at_most = min(room, kind.get("max_workers", room))
        if at_most > 0 and kind.get("resources"):
            yield Addition({k: float(v) for k, v in kind["resources"].items()}, at_most)


def _autoscaler_settings(gcs_address: str) -> dict[str, Any]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in words:
            continue
        for word in words:
            name, _, path = word.partition("=")
            if name == "--autoscaling-config" and Path(path).is_file():
                return yaml.safe_load(Path(path).read_text()) or {}
    return {}


def accelerator(node: Mapping[str, Any]) -> str:
    """A node's type of GPU as Ray names it, `GPU` where it names none."""
    labels = [key.removeprefix(LABEL) for key in node["Resources"] if key.startswith(LABEL)]
    return labels[0] if labels else "GPU"


def check_request(config: SweepConfig, cluster: Cluster) -> float:
    """GPUs per trial; raises UserError when no node there is or could be holds a trial."""
    gpus = requested_gpus(config, cluster.could_have("GPU"))
    wanted = {"--cpus-per-trial": ("CPU", requested_cpus(config) or 1.0)}
    wanted["--gpus-per-trial"] = ("GPU", gpus)
    if config.accelerator:
        wanted["--accelerator"] = (LABEL + config.accelerator, SHARE_OF_LABEL)
    for name, amount in custom_resources(config).items():
        wanted[f"custom_resources {name}"] = (name, amount)
    for flag, (resource, amount) in wanted.items():
        if amount and not cluster.places_for({resource: amount}):
            raise UserError(_refusal(flag, resource, amount, cluster))
    return gpus


def _refusal(flag: str, resource: str, amount: float, cluster: Cluster) -> str:
    if flag == "--accelerator":
        found = {k.removeprefix(LABEL) for shape in _shapes(cluster) for k in shape if LABEL in k}
        known = ", ".join(sorted(found)) or "none"
        return f"{flag} {resource.removeprefix(LABEL)}: no node has it; the cluster has {known}"
    most = max((shape.get(resource, 0.0) for shape in _shapes(cluster)), default=0.0)
    remedy = "lower it, or give 0 to train on CPUs" if resource == "GPU" else "lower it"
    return (
        f"{flag} {amount:g}: the largest node of the cluster has {most:g}, so no trial could ever "
        f"start; {remedy}"
    )


def _shapes(cluster: Cluster) -> Sequence[Shape]:
    return [*cluster.shapes, *(a.shape for a in cluster.additions)]


def check_storage(store: SweepStore, cluster: Cluster) -> None:
    """Raises UserError when the sweep's folder is not seen by every node of the cluster."""
    if cluster.nodes < 2 or store.remote is not None:
        return
    marker = store.folder.resolve() / ".seen-by-all-nodes"
    marker.write_text(word := secrets.token_hex(8))
    try:
        blind = [at for at, said in _read_everywhere(marker).items() if said != word]
    finally:
        marker.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"--runs-dir: {store.folder.resolve()} is not the same folder on the nodes "
            f"{', '.join(sorted(blind))}, where trials keep their checkpoints; give a folder that "
            "all nodes share, or a URI such as s3://bucket/runs"
        )


def _read_everywhere(path: Path) -> dict[str, str | None]:
    """What each node's file of this path says, by the node's address."""

    def read(path: Path) -> str | None:
        return path.read_text() if path.exists() else None

    there = ray.remote(num_cpus=0, max_retries=0)(read)
    asked = {
        n["NodeManagerAddress"] + ":" + n["NodeID"][:4]: there.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
        ).remote(path)
        for n in alive()
    }
    return {at: ray.get(answer) for at, answer in asked.items()}


def job_facts(cluster: Cluster) -> dict[str, object]:
    """The Ray job's ids and the cluster's shape, for `environment.json` and MLflow."""
    return {
        "ray_job_id": ray.get_runtime_context().get_job_id(),
        "submission_id": _submission_id(),
        "cluster": str(cluster),
    }


def _submission_id() -> str | None:
    """The name that `ray job` knows this driver by; None outside a job."""
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return (told.get("metadata") or {}).get("job_submission_id")


def cpus_of_the_largest_node() -> float:
    """CPUs of the node that a CPU profile is taken on."""
    return float(max(n["Resources"].get("CPU", 0) for n in alive()))


def main_accelerator(config: SweepConfig) -> str | None:
    """The type of GPU whose seconds are judged: the one asked for, else the one with most GPUs.

    None where there is one type alone, or none.
    """
    if config.accelerator:
        return config.accelerator
    count: dict[str, float] = {}
    for node in alive():
        gpus = node["Resources"].get("GPU", 0.0)
        if gpus:
            count[accelerator(node)] = count.get(accelerator(node), 0.0) + gpus
    most = max(sorted(count), key=lambda name: count[name], default=None)
    return most if len(count) > 1 and most != "GPU" else None
