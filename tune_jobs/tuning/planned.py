"""The searcher that asks the sweep's plan what to run next. Nothing of the plan is pickled.

A plan is a function of the recorded rows, kept by the sweep's name in PLANS; it is asked again
after each run that ended. A driver that was killed plans again from the rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

TRIES = 3  # what the machine failed is tried again so often
Asked = dict[str, Any]  # a trial's configuration

# The configurations that are missing now, given those under way. Ray pickles searchers, not this.
PLANS: dict[str, Callable[[Sequence[Asked]], list[Asked]]] = {}


class Planned(Searcher):  # type: ignore[misc]
    """Gives Ray Tune the runs of a plan. Saved are those under way, and what the machine failed.

    Where it `holds`, a run that is to be alone waits for all others, and all others for it.
    """

    def __init__(self, sweep: str, holds: bool = False) -> None:
        super().__init__(metric="score", mode="max")
        self.sweep = sweep
        self.holds = holds
        self.running: dict[str, Asked] = {}
        self.failures: dict[str, int] = {}
        self.waits = False

    def suggest(self, trial_id: str) -> Asked | str | None:
        if self.waits:
            return None
        under_way = list(self.running.values())
        keys = {_key(asked) for asked in under_way}
        for asked in PLANS[self.sweep](under_way):
            key = _key(asked)
            if key not in keys and self.failures.get(key, 0) < TRIES:
                if self.holds and under_way and _alone([asked, *under_way]):
                    break
                self.running[trial_id] = asked
                return {**asked, "asked_at": time.time()}
        self.waits = bool(self.running)
        return None if self.waits else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        asked = self.running.pop(trial_id, None)
        if asked is not None and error:
            self.failures[_key(asked)] = self.failures.get(_key(asked), 0) + 1
        self.waits = False

    def save(self, checkpoint_path: str) -> None:
        state = {name: getattr(self, name) for name in ("sweep", "holds", "running", "failures")}
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        self.__dict__.update(json.loads(Path(checkpoint_path).read_text()), waits=False)


def _alone(runs: Sequence[Asked]) -> bool:
    return any(asked.get("alone") for asked in runs)


def _key(asked: Mapping[str, Any]) -> str:
    """What makes two runs the same."""
    named = (asked["batch_size"], asked["learning_rate"], asked["seed"], asked["whole"])
    return " ".join(map(repr, (*named, asked.get("schedule"))))
