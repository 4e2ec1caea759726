"""What confirm runs ask of Ray that want a device for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tune_jobs.training.schedule import updates_for
from tune_jobs.tuning.requests import TrialRequest


def equal_updates(budget_examples: int, batch_sizes: Iterable[int]) -> int:
    """The updates that the largest batch size makes in the whole budget: all others pass them."""
    return updates_for(budget_examples, max(batch_sizes))


def alone(
    requests: Mapping[int, TrialRequest], node_cpus: float, accelerator: str | None
) -> dict[int, TrialRequest]:
    """Requests that leave no room for a neighbour: a whole GPU, or every CPU of a node.

    GPUs are of one type, so that seconds can be compared: `accelerator`, but for a batch size that
    asks for another already. `node_cpus` are those of the node that was profiled: nodes with fewer
    are left idle, since what was measured does not hold for them.
    """
    return {
        size: replace(r, gpus=1.0, accelerator=r.accelerator or accelerator)
        if r.gpus
        else replace(r, cpus=node_cpus)
        for size, r in requests.items()
    }
