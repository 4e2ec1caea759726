"""What a user's own loop says of the sweep, once it has been tried up to its first report."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_jobs.config import SweepConfig, probe_seconds
from tune_jobs.errors import LoopFailed, LoopSilent, UserError
from tune_jobs.own_loop import Settings
from tune_jobs.training.own_process import NO_REPORT, OwnProcess
from tune_jobs.workload_source import WorkloadSource

TRIED_RATE = 1e-4


def facts(given: Mapping[str, Any], flag: str = "train") -> dict[str, Any]:
    """Settings that hold where the user gave none, and the metric, after a short run.

    Errors:
        UserError: the function cannot be had, raises, exits, hangs, reports no number or nothing at
            all; nothing names a target; or a batch is to be cut into passes.
    """
    name, micro_batch = given[flag], given.get("micro_batch", "auto")
    if micro_batch not in ("auto", "whole"):
        raise UserError(
            f"--micro-batch {micro_batch}: a training loop of your own is given whole batches; "
            "leave it out"
        )
    seconds = probe_seconds(given.get("profile_seconds", SweepConfig.profile_seconds))
    source = WorkloadSource(
        model=name.rpartition(":")[2],
        data=name,
        data_path=None,
        folder=os.getcwd(),
        train=name,
        lightning=flag == "lightning",
    )
    try:
        loop = OwnProcess(source, seconds=seconds)
        target = _target(given, flag, loop)
        _try(loop, target, _smallest(given))
    except LoopFailed as error:
        remedy = "correct it"
        if isinstance(error, LoopSilent):
            remedy = "let it report sooner, or raise profile_seconds, of which this is twice"
        raise UserError(f"--{flag} {name}: {error}; {remedy}") from error
    except MemoryError as error:
        raise UserError(
            f"--{flag} {name}: batch size {_smallest(given)} does not fit: {error}; give smaller "
            "--batch-sizes"
        ) from error
    return {
        "model": source.model,
        "data": name,
        "metric": loop.metric,
        "mode": loop.mode,
        "target": target,
        "budget_examples": loop.budget_examples,
        "validation_examples": 0,
        "noise_scale": False,
    }


def _target(given: Mapping[str, Any], flag: str, loop: OwnProcess) -> float:
    target: float | None = given.get("target", loop.target)
    if target is None:
        loop.end()
        raise UserError(
            f"--{flag} {given[flag]} names no target; give --target, a validation {loop.metric} "
            "that is worth reaching"
        )
    return target


def _smallest(given: Mapping[str, Any]) -> int:
    sizes = given.get("batch_sizes", SweepConfig.batch_sizes)
    return min(size for size in sizes if isinstance(size, int))


def _try(loop: OwnProcess, target: float, batch_size: int) -> None:
    """Let it train to its first report.

    Errors:
        LoopFailed: as `OwnProcess.hear` raises it, and where that report is no use.
    """
    with tempfile.TemporaryDirectory(prefix="own-loop-", ignore_cleanup_errors=True) as folder:
        budget, device = loop.budget_examples, loop.device
        loop.begin(Settings(batch_size, TRIED_RATE, 0, budget, device, target, Path(folder)))
        word = loop.hear()
        loop.leave()
    if "returned" in word:
        raise LoopFailed(NO_REPORT)
    if not math.isfinite(word["report"]["val_metric"]):
        raise LoopFailed(f"its first {loop.metric} is not finite")
