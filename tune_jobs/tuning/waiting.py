"""Tells what trials wait for, when they wait long, and which are begun again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from tune_jobs.tuning.failures import reason_of

PATIENCE_SECONDS = 60.0

# As with the keeper's listeners: what Ray cannot pickle is kept out of the callback.
SAY: dict[str, Callable[[str], None]] = {}


class Waiting(Callback):  # type: ignore[misc]
    """One line once no trial could start for a minute, then after twice as long each time."""

    def __init__(self, sweep: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.sweep = sweep
        self.patience = patience_seconds
        self._begin()

    def _begin(self) -> None:
        self.since = time.monotonic()
        self.next_seconds = self.patience

    def setup(self, stop: Any = None, num_samples: Any = None, **info: Any) -> None:
        self._begin()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._begin()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        pending = [t for t in trials if t.status == Trial.PENDING]
        if not pending:
            self._begin()
            return
        waited = time.monotonic() - self.since
        if waited >= self.next_seconds and self.sweep in SAY:
            self.next_seconds *= 2
            total, free = ray.cluster_resources(), ray.available_resources()
            SAY[self.sweep](line(waited, [_asked(t) for t in pending], free, total))

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        if self.sweep in SAY:
            SAY[self.sweep](again(str(trial), reason_of(trial.get_pickled_error())))


def again(trial: str, reason: str) -> str:
    """`b16-lr0.002-s1 goes on from its last checkpoint, or begins again: NoReport: no ...`."""
    first = reason.partition("\n")[0]
    return f"{trial} goes on from its last checkpoint, or begins again: {first}"


def _asked(trial: Trial) -> Mapping[str, float]:
    bundle: Mapping[str, float] = trial.placement_group_factory.bundles[0]
    return bundle


def line(
    waited_seconds: float,
    asked: Sequence[Mapping[str, float]],
    free: Mapping[str, float],
    total: Mapping[str, float],
) -> str:
    """`2 trials wait for 60 s; the first asks for 1 CPU, 0.5 GPU on one node; free in all ...`."""
    parts = [
        f"{_amount(name, free.get(name, 0.0))} of {_amount(name, total.get(name, 0.0))} {name}"
        for name in asked[0]
    ]
    wanted = ", ".join(f"{_amount(name, amount)} {name}" for name, amount in asked[0].items())
    trials = f"{len(asked)} trials wait" if len(asked) > 1 else "1 trial waits"
    return (
        f"{trials} for {waited_seconds:.0f} s by now; the first asks for {wanted} on one node; "
        f"free in all: {', '.join(parts)}"
    )


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**20:.0f} MiB" if name == "memory" else f"{amount:g}"
