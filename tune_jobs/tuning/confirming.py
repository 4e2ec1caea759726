"""The confirm stage on Ray: listed runs, each alone on its device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ray.tune.search import Searcher

from tune_jobs.records import ConfirmRun
from tune_jobs.training.schedule import updates_for
from tune_jobs.tuning.requests import TrialRequest
from tune_jobs.tuning.searcher import SavedSearcher


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


class Listed(SavedSearcher):
    """Gives the runs of a list in their order, then ends."""

    def __init__(self, runs: Sequence[ConfirmRun]) -> None:
        super().__init__(metric="score", mode="max")
        self.left = list(runs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not self.left:
            return str(Searcher.FINISHED)
        return {**asdict(self.left.pop(0)), "races": False}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A list learns nothing."""
