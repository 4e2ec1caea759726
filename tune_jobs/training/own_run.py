"""A user's own training function as a run: it reports, waits for leave, and goes on.

It trains in a process of its own, and only while `advance` waits for its next report: the clock
between two reports is the run's alone.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tune_jobs.errors import LoopFailed
from tune_jobs.own_loop import Settings
from tune_jobs.training.loop import Progress, Report, RunSettings
from tune_jobs.training.own_process import NO_REPORT, OwnProcess
from tune_jobs.workload import reaches


class OwnRun:
    """A run of one configuration; `advance`, `state` and `load_state` as `TrainingRun` has them.

    `process` is a fresh one, which the run ends. `reason` says why it ended, where it returned
    before its budget and nobody had told it to.
    """

    examples_to_target: int = 0
    evaluation_seconds: float | None = 0.0  # None once a report does not tell its own
    reason: str | None = None
    reserved_memory_mib: float | None = None
    allocator_retries: int | None = None

    def __init__(self, settings: RunSettings, process: OwnProcess) -> None:
        self.settings = settings
        self.process = process
        self.folder = Path(tempfile.mkdtemp(prefix="own-loop-"))
        self.progress = Progress()
        self.last: Report | None = None
        self.seen = 0
        self.stretch = 0  # examples between its last two reports
        self.begun = False

    def advance(self) -> Report:
        """Let the function train to its next report.

        Errors: as `OwnProcess.hear` raises them.
        """
        while True:
            if self.begun:
                self.process.tell(True)
            else:
                self.process.begin(self._settings())
            self.begun = True
            word = self.process.hear()
            if "returned" in word:
                return self._ended()
            told = word["report"]
            self.progress.wall_time_seconds += told["seconds"]
            if told["examples_seen"] > self.seen:  # one taken up again may repeat itself
                return self._reported(told)

    def stop(self) -> None:
        """Tell the function to return, and end its process; its files stay."""
        self.process.leave()

    def close(self) -> None:
        """End it, and let its files go."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self) -> Settings:
        return Settings(
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            seed=self.settings.seed,
            budget_examples=self.settings.budget_examples,
            device=self.process.device,
            target=self.settings.target,
            checkpoint_folder=self.folder,
        )

    def _reported(self, told: dict[str, Any]) -> Report:
        progress, size = self.progress, self.settings.batch_size
        before, self.seen = self.seen, told["examples_seen"]
        self.stretch = self.seen - before
        progress.updates = told["updates"] or max(1, round(self.seen / size))
        self._count(told["seconds"], told["evaluation_seconds"])
        peaks = (progress.peak_memory_mib, told["peak_memory_mib"])
        progress.peak_memory_mib = max((p for p in peaks if p is not None), default=None)
        self.reserved_memory_mib = told.get("reserved_memory_mib")
        self.allocator_retries = told.get("allocator_retries")
        diverged = not math.isfinite(told["val_metric"])
        reached = not diverged and reaches(
            told["val_metric"], self.settings.target, self.process.mode
        )
        if reached and progress.updates_to_target is None:
            progress.updates_to_target = progress.updates
            progress.train_seconds_to_target = progress.train_seconds
            self.examples_to_target = self.seen
        passed = [k for k, rung in enumerate(self.settings.rungs) if before < rung <= self.seen]
        self.last = self._as_report(told, passed[-1] if passed else None, diverged)
        return self.last

    def _count(self, seconds: float, evaluation: float | None) -> None:
        """The seconds since the last report: training, but for what the function says was not."""
        self.progress.train_seconds += seconds - (evaluation or 0.0)
        known = None if evaluation is None else self.evaluation_seconds
        self.evaluation_seconds = None if known is None else known + (evaluation or 0.0)

    def _most(self) -> int:
        """Examples at which it ends, the budget if it has reached its target."""
        if self.progress.updates_to_target is not None:
            return self.settings.budget_examples
        return self.settings.most_examples or self.settings.budget_examples

    def _as_report(self, told: dict[str, Any], rung: int | None, diverged: bool) -> Report:
        progress, settings = self.progress, self.settings
        reached = progress.updates_to_target is not None
        done = diverged or self.seen >= self._most() or (reached and settings.stops_at_target)
        return Report(
            examples_seen=self.seen,
            updates=progress.updates,
            train_loss=told.get("train_loss"),
            val_loss=None,
            val_metric=None if diverged else told["val_metric"],
            val_examples=None,
            test_metric=told.get("test_metric"),
            train_metric=None,
            train_seconds=progress.train_seconds,
            evaluation_seconds=self.evaluation_seconds,
            wall_time_seconds=progress.wall_time_seconds,
            peak_memory_mib=progress.peak_memory_mib,
            examples_to_target=self.examples_to_target if reached else None,
            updates_to_target=progress.updates_to_target,
            train_seconds_to_target=progress.train_seconds_to_target,
            energy_joules=None,
            rung=rung,
            diverged=diverged,
            done=done,
        )

    def _ended(self) -> Report:
        """It returned by itself: what it said last stands."""
        self.stop()
        if self.last is None:
            raise LoopFailed(NO_REPORT)
        if self.seen + self.stretch <= self._most():  # another report would have found room
            self.reason = (
                f"the function returned by itself after {self.seen:,} of {self._most():,} examples"
            )
        return replace(self.last, rung=None, done=True)

    def ended_report(self) -> Report:
        """Where the run stands when it cannot go on."""
        return self._as_report({"val_metric": math.nan}, None, diverged=True)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, for `torch.save`: the files that the function keeps, too."""
        files = {
            str(path.relative_to(self.folder)): torch.from_numpy(
                np.frombuffer(path.read_bytes(), np.uint8).copy()
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        return {
            "progress": dict(vars(self.progress)),
            "seen": self.seen,
            "examples_to_target": self.examples_to_target,
            "evaluation_seconds": self.evaluation_seconds,
            "last": None if self.last is None else vars(self.last),
            "files": files,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`: what was reported before is not reported again."""
        self.progress = Progress.of(state["progress"])
        self.seen, self.examples_to_target = state["seen"], state["examples_to_target"]
        self.evaluation_seconds = state["evaluation_seconds"]
        self.last = None if state["last"] is None else Report(**state["last"])
        for name, content in state["files"].items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())
