"""How a sweep comes to its cluster: what could never run there is refused before it is begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tune_jobs.config import SweepConfig
from tune_jobs.store import SweepStore
from tune_jobs.tuning.cluster import (
    Cluster,
    check_request,
    check_storage,
    cluster_now,
    in_a_cluster,
    this_machine,
)
from tune_jobs.tuning.energy import check_energy
from tune_jobs.tuning.starting import await_ahead, start_ray


def start(config: SweepConfig, root: Path, say: Callable[[str], None]) -> None:
    """Ray on this machine, or the job's cluster; not twice.

    Errors:
        UserError: no trial would find room on this machine, or as `start_ray`.
    """
    if not in_a_cluster():
        check_request(config, this_machine())  # before the seconds that Ray takes to start
    start_ray(root, say)


def join(config: SweepConfig, store: SweepStore, root: Path, say: Callable[[str], None]) -> Cluster:
    """The job's cluster, or a Ray started on this machine.

    Errors:
        UserError: no node holds a trial, nodes see different storage, or energy is not counted.
    """
    start(config, root, say)
    cluster = cluster_now()
    check_request(config, cluster)
    check_storage(store, cluster)
    check_energy(config, cluster, say)
    if not in_a_cluster():
        await_ahead()
    return cluster
