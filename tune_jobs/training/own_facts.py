"""What a user's own loop says of the sweep, once it has been tried up to its first report."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.training.loop import RunSettings
from tune_jobs.training.own_run import OwnRun
from tune_jobs.workload_source import raised, users_loop

TRIED_RATE = 1e-4


def facts(given: Mapping[str, Any], flag: str = "train") -> dict[str, Any]:
    """Settings that hold where the user gave none, and the metric, after a short run.

    Errors:
        UserError: the function cannot be had, raises, reports no number or nothing at all, or
            nothing names a target.
    """
    name = given[flag]
    loop = users_loop(name, lightning=flag == "lightning")
    target = given.get("target", loop.target)
    if target is None:
        raise UserError(
            f"--{flag} {name} names no target; give --target, a validation {loop.metric} "
            "that is worth reaching"
        )
    sizes = given.get("batch_sizes", SweepConfig.batch_sizes)
    smallest = min(size for size in sizes if isinstance(size, int))
    endless = math.inf if loop.mode == "max" else -math.inf
    settings = RunSettings(smallest, smallest, TRIED_RATE, "adam", 0, loop.budget_examples, endless)
    folder = Path(tempfile.mkdtemp(prefix="own-loop-"))
    run = OwnRun(settings, loop, torch.device("cpu"), folder)
    try:
        report = run.advance()
    except UserError as error:
        raise UserError(f"--{flag} {name}: {error}") from error
    except Exception as error:  # the user's own code may raise anything; all of it is told
        raise raised(f"--{flag} {name}", error) from error
    run.stop()
    if report.val_metric is None:
        raise UserError(f"--{flag} {name}: its first {loop.metric} is not finite")
    return {
        "model": name.rpartition(":")[2],
        "data": name,
        "metric": loop.metric,
        "mode": loop.mode,
        "target": target,
        "budget_examples": loop.budget_examples,
        "validation_examples": 0,
        "noise_scale": False,
    }
