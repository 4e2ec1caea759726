"""A trial that trains nothing: it says where it ran, for tests of placement. Light to import."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from tune_jobs.reading.choosing import score

STEPS = 6


class NullTrial(tune.Trainable):  # type: ignore[misc]
    """Steps through its budget. `facts`: budget, rungs, seconds (of a step), log, saves,
    late_seconds (that every process but the first takes to start)."""

    def setup(self, config: dict[str, Any], facts: dict[str, Any]) -> None:
        self.facts = facts
        try:
            Path(facts["log"]).with_suffix(".first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(facts["late_seconds"])
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.asked = new_config
        self.steps_made = 0
        return True

    def _log(self, began: float) -> None:
        line = {
            "trial": self.trial_id,
            "stage": self.asked["stage"],
            "process": os.getpid(),
            "batch_size": self.asked["batch_size"],
            "step": self.steps_made,
            "node": ray.get_runtime_context().get_node_id(),
            "gpus": ray.get_gpu_ids(),
            "began": began,
            "ended": time.time(),
        }
        with Path(self.facts["log"]).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def step(self) -> dict[str, Any]:
        began = time.time()
        time.sleep(self.facts["seconds"])
        self.steps_made += 1
        self._log(began)
        seen = self.facts["budget"] * self.steps_made // STEPS
        rungs = self.facts["rungs"]
        done = self.steps_made == STEPS
        accuracy = 0.5 + 0.4 * self.steps_made / STEPS
        result = {
            "examples_seen": seen, "updates": seen // self.asked["batch_size"],
            "train_loss": 0.1, "val_loss": 0.1, "val_metric": accuracy, "test_metric": accuracy,
            "examples_to_target": None, "train_seconds": 1.0, "wall_time_seconds": 1.0,
            "rung": rungs.index(seen) if seen in rungs else None,
            "score": score(accuracy, None, self.facts["budget"]),
            "outcome": "finished" if done else "stopped", "done": done,
            "node": self.asked["stage"], "device_name": None,
            SHOULD_CHECKPOINT: self.facts["saves"] and not done,
        }  # fmt: skip
        if seen in rungs:
            result["rung_examples"] = seen
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "steps").write_text(str(self.steps_made))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.steps_made = int((Path(checkpoint_dir) / "steps").read_text())
