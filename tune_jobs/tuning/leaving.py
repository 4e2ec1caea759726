"""Nodes that are about to go: after a spot warning, or a pod's SIGTERM. Ray calls them draining.

Ray starts nothing more on such a node. Its trials save themselves at every report from then on and
go on elsewhere once it is gone; Tune does not count that as a failure of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from tune_jobs.tuning.waiting import SAY

LOOK_SECONDS = 2.0


def leaving_nodes() -> dict[str, int]:
    """The nodes that are draining, by id, and until when (ms since 1970; 0 where that is open)."""
    # Ray Train looks in the same place; there is no public one.
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found


def on_a_leaving_node() -> bool:
    """Whether the node that this process runs on is draining; a call to Ray's GCS."""
    return ray.get_runtime_context().get_node_id() in leaving_nodes()


class Leaving(Callback):  # type: ignore[misc]
    """Tells once of every node that begins to leave while trials run."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self.looked_at = 0.0
        self.known: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if time.monotonic() - self.looked_at < LOOK_SECONDS or self.sweep not in SAY:
            return
        self.looked_at = time.monotonic()
        leaving = leaving_nodes()
        for told in lines(set(leaving) - self.known, leaving, ray.nodes(), time.time()):
            SAY[self.sweep](told)
        self.known |= set(leaving)


def lines(
    new: set[str], until_ms: Mapping[str, int], nodes: Sequence[Mapping[str, Any]], now: float
) -> list[str]:
    """`node 10.0.0.7 is leaving in 110 s: ...`, one for each new node."""
    address = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    told = []
    for node in sorted(new):
        left = until_ms[node] / 1000 - now
        soon = f" in {max(0.0, left):.0f} s" if until_ms[node] else ""
        told.append(
            f"node {address.get(node, node)} is leaving{soon}: its trials save themselves at every "
            "report, and go on elsewhere when it is gone"
        )
    return told
