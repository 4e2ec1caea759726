"""A user's own training function as a run: it reports, waits for leave, and goes on.

The function has a thread of its own, which runs only while `advance` waits for its next report: the
clock between two reports is the run's alone.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tune_jobs.errors import UserError
from tune_jobs.own_loop import OwnLoop, Settings
from tune_jobs.training import device as devices
from tune_jobs.training.loop import Progress, Report, RunSettings
from tune_jobs.workload import reaches

SECONDS_TO_END = 5.0  # that a function has to return once it is told to


class Returned(Exception):
    """The function called `sys.exit`."""


class _Stopped(BaseException):
    """Ends a function that reports again after it was told to return."""


class OwnRun:
    """A run of one configuration; `advance`, `state` and `load_state` as `TrainingRun` has them."""

    def __init__(
        self, settings: RunSettings, loop: OwnLoop, device: torch.device, folder: Path
    ) -> None:
        devices.reset_peak_memory(device)
        self.settings = settings
        self.loop = loop
        self.device = device
        self.folder = folder
        self.progress = Progress()
        self.last: Report | None = None
        self.seen = 0
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.leave: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.stopped = False

    def advance(self) -> Report:
        """Let the function train to its next report."""
        began, before = time.perf_counter(), self.seen
        while True:
            self._go_on()
            told = self.told.get()
            if isinstance(told, BaseException):
                raise told
            if told is None:  # it returned
                return self._ended(time.perf_counter() - began)
            if told["examples_seen"] > before:  # a function taken up again may repeat itself
                return self._reported(told, time.perf_counter() - began)

    def stop(self) -> bool:
        """Tell the function to return; whether it did."""
        if self.thread is None or not self.thread.is_alive():
            return True
        self.stopped = True
        self.leave.put(False)
        self.thread.join(SECONDS_TO_END)
        return not self.thread.is_alive()

    def _go_on(self) -> None:
        if self.thread is not None:
            self.leave.put(True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        settings = Settings(
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            seed=self.settings.seed,
            budget_examples=self.settings.budget_examples,
            device="cuda:0" if self.device.type == "cuda" else "cpu",
            target=self.settings.target,
            checkpoint_folder=self.folder,
        )
        try:
            self.loop(settings, self._report)
            self.told.put(None)
        except SystemExit as error:
            self.told.put(Returned(f"the function called sys.exit({error.code!r})"))
        except BaseException as error:  # it goes on to whoever waits for a report
            self.told.put(error)

    def _report(self, **told: Any) -> bool:
        if self.stopped:
            raise _Stopped  # it was told to return, and went on
        self.told.put(_checked(told))
        return self.leave.get()

    def _reported(self, told: dict[str, Any], seconds: float) -> Report:
        progress, size = self.progress, self.settings.batch_size
        before, self.seen = self.seen, told["examples_seen"]
        progress.updates = told.get("updates") or max(1, round(self.seen / size))
        progress.train_seconds += seconds
        progress.wall_time_seconds += seconds
        diverged = not math.isfinite(told["val_metric"])
        reached = not diverged and reaches(told["val_metric"], self.settings.target, self.loop.mode)
        if reached and progress.updates_to_target is None:
            progress.updates_to_target = progress.updates
            progress.train_seconds_to_target = progress.train_seconds
            self.examples_to_target = self.seen
        passed = [k for k, rung in enumerate(self.settings.rungs) if before < rung <= self.seen]
        self.last = self._as_report(told, passed[-1] if passed else None, diverged)
        return self.last

    def _as_report(self, told: dict[str, Any], rung: int | None, diverged: bool) -> Report:
        progress, settings = self.progress, self.settings
        progress.peak_memory_mib = devices.peak_memory_mib(self.device)
        reached = progress.updates_to_target is not None
        most = (
            settings.budget_examples
            if reached
            else (settings.most_examples or settings.budget_examples)
        )
        done = diverged or self.seen >= most or (reached and settings.stops_at_target)
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
            evaluation_seconds=0.0,
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

    def _ended(self, seconds: float) -> Report:
        """It returned before its budget was used: what it said last stands."""
        if self.last is None:
            raise UserError(
                "the function returned without a report; call report(examples_seen=..., "
                "val_metric=...) at least once"
            )
        self.progress.wall_time_seconds += seconds
        told = {"val_metric": self.last.val_metric, "test_metric": self.last.test_metric}
        return Report(**{**vars(self._as_report(told, None, False)), "done": True})

    def ended_report(self) -> Report:
        """Where the run stands when it cannot go on."""
        return self._as_report({"val_metric": math.nan}, None, diverged=True)

    examples_to_target: int = 0

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
            "files": files,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`: what was reported before is not reported again."""
        self.progress = Progress(**state["progress"])
        self.seen, self.examples_to_target = state["seen"], state["examples_to_target"]
        for name, content in state["files"].items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """A report as it was made.

    Errors:
        UserError: examples seen are no positive integer, or the metric is no number.
    """
    seen, value = told.get("examples_seen"), told.get("val_metric")
    if not isinstance(seen, (int, np.integer)) or isinstance(seen, bool) or seen < 1:
        raise UserError(f"report(examples_seen={seen!r}): must be a number of examples, 1 or more")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise UserError(f"report(val_metric={value!r}): must be a number; give float(...)")
    return told | {"examples_seen": int(seen), "val_metric": float(value)}
