"""Runs with a planted truth, and the verdict on them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests import rows
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import BatchSizeVerdict, Verdict

RATE = 100.0  # examples per second, unless a test says otherwise


def runs_of(
    seconds: Mapping[int, float],
    seeds: int = 5,
    noise: float = 0.01,
    ends: float | None = None,
    **fields: Any,
) -> list[TargetRun]:
    """Log-normal times around `seconds`; a run that takes more than `ends` never reaches."""
    chance = random.Random(1)
    found = []
    for size, typical in seconds.items():
        for seed in range(seeds):
            took = typical * math.exp(chance.gauss(0, noise))
            found.append(run_of(size, seed, took, ends, **fields))
    return found


def timed(
    seconds: Mapping[int, Sequence[float]], cut: Mapping[int, Sequence[float]] | None = None
) -> list[TargetRun]:
    """Runs of exactly these times, and of each batch size those that were `cut` at these."""
    found = []
    for size in sorted({*seconds, *(cut or {})}):
        took, ended = seconds.get(size, ()), (cut or {}).get(size, ())
        found += [run_of(size, seed, value) for seed, value in enumerate(took)]
        found += [run_of(size, len(took) + n, 2 * end, end) for n, end in enumerate(ended)]
    return found


def run_of(
    size: int, seed: int | None, took: float, ends: float | None = None, **fields: Any
) -> TargetRun:
    reached, whole = ends is None or took <= ends, ends or 2 * took
    values = {
        "batch_size": size, "seed": seed, "examples_per_second": RATE,
        "time_to_target_seconds": took if reached else None,
        "examples_to_target": took * RATE if reached else None,
        "updates_to_target": took * RATE / size if reached else None,
        "train_seconds": whole, "examples_seen": round(whole * RATE),
        "updates": round(whole * RATE / size), "peak_memory_mib": 400.0 + size,
    }  # fmt: skip
    return rows.target_run(**(values | fields))


def verdict_of(runs: Sequence[TargetRun], goal: str = "time", **more: Any) -> Verdict:
    policy = more.pop("policy", {})
    (verdict,) = judge_runs(runs, Policy(goal, **policy), **more)
    return verdict


def used(verdict: Verdict) -> int | None:
    """The batch size to use."""
    return verdict.use.batch_size if verdict.use else None


def row_of(verdict: Verdict, size: int) -> BatchSizeVerdict:
    return next(row for row in verdict.per_batch_size if row.batch_size == size)


def standings(verdict: Verdict) -> list[str]:
    """Ascending in the batch size."""
    return [row.standing for row in verdict.per_batch_size]
