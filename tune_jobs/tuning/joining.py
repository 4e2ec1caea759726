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
from tune_jobs.tuning.starting import Start, start_ray


def join(
    config: SweepConfig,
    store: SweepStore,
    root: Path,
    say: Callable[[str], None],
    start: Start | None = None,
) -> Cluster:
    """The job's cluster, or a Ray started on this machine, whose `start` may be under way.

    Errors:
        UserError: no node holds a trial, nodes see different storage, or energy is not counted.
    """
    if not in_a_cluster():
        check_request(config, this_machine())  # before the seconds that Ray takes to start
    start_ray(root, say) if start is None else start.wait()
    cluster = cluster_now()
    check_request(config, cluster)
    check_storage(store, cluster)
    check_energy(config, cluster, say)
    return cluster
