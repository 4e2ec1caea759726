"""The confirm stage on Ray: planned runs, some of them alone on their device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from tune_jobs.records import ConfirmRun
from tune_jobs.training.schedule import updates_for
from tune_jobs.tuning.requests import TrialRequest

TRIES = 3  # what the machine failed is tried again so often

# By the sweep's name, the runs that are missing now. Ray pickles searchers, but not this.
PLANS: dict[str, Callable[[], list[ConfirmRun]]] = {}


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


class Planned(Searcher):  # type: ignore[misc]
    """Asks the sweep's plan for the next run, again after each that ended.

    The plan is a function of the recorded rows, kept by name in PLANS: what is saved of this
    searcher is which runs are under way, and which the machine failed how often.
    """

    def __init__(self, sweep: str) -> None:
        super().__init__(metric="score", mode="max")
        self.sweep = sweep
        self.running: dict[str, str] = {}
        self.failures: dict[str, int] = {}
        self.left: list[ConfirmRun] | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.left is None:
            self.left = [run for run in PLANS[self.sweep]() if self._wanted(run)]
        if self.left:
            run = self.left.pop(0)
            self.running[trial_id] = _key(asdict(run))
            return {**asdict(run), "races": False}
        return None if self.running else str(Searcher.FINISHED)

    def _wanted(self, run: ConfirmRun) -> bool:
        key = _key(asdict(run))
        return key not in self.running.values() and self.failures.get(key, 0) < TRIES

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        key = self.running.pop(trial_id, None)
        if key is not None and error:
            self.failures[key] = self.failures.get(key, 0) + 1
        self.left = None

    def save(self, checkpoint_path: str) -> None:
        state = {"sweep": self.sweep, "running": self.running, "failures": self.failures}
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        self.__dict__.update(json.loads(Path(checkpoint_path).read_text()), left=None)


def _key(run: Mapping[str, Any]) -> str:
    """What makes two runs the same."""
    return f"{run['batch_size']} {run['learning_rate']!r} {run['seed']} {run['whole']}"
