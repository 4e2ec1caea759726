"""What a user's workload says itself of the sweep: its metric, target, budget and batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tune_jobs.config import SweepConfig
from tune_jobs.data.examples import digest_of, examples_of, splits_of
from tune_jobs.errors import UserError
from tune_jobs.training.rehearsal import rehearse
from tune_jobs.workload import Workload
from tune_jobs.workload_source import source_of, users_workload

MOST_VALIDATION, PART_FOR_VALIDATION = 2000, 5
EPOCHS = {"quick": 8, "full": 32}
MOST_EXAMPLES = {"quick": 16_384, "full": 299_520}
CPU = torch.device("cpu")


def facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that hold where the user gave none, and the metric, after a rehearsal.

    Errors:
        UserError: the workload cannot be had or trained, or nothing names a target.
    """
    workload = users_workload(given["workload"], given.get("workload_arguments", {}))
    return {"model": workload.name, "data": given["workload"], **facts_of(workload, given)}


def facts_of(workload: Workload, given: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a workload that is at hand, without the names of its model and data."""
    metric, target = workload.metric, given.get("target", workload.target)
    held_out = given.get("validation_examples", _held_out(workload))
    splits = splits_of(workload, held_out, given.get("split_seed", 0), CPU)
    if not len(splits.validation.indices):
        raise UserError(
            f"workload {workload.name!r}: of {len(splits.train.indices)} training examples a "
            "fifth is none, so nothing is left to validate on; give more, or a validation split"
        )
    untrained = rehearse(workload, splits, target)
    if target is None:
        raise UserError(
            f"workload {workload.name!r} names no target; give --target, a validation "
            f"{metric.name} that is worth reaching: untrained it has {untrained:.3g}"
        )
    examples, preset = len(splits.train.indices), given.get("preset", "quick")
    budget = min(EPOCHS.get(preset, 1) * examples, MOST_EXAMPLES.get(preset, examples))
    return {
        "metric": metric.name,
        "mode": metric.mode,
        "unit": metric.unit,
        "target": target,
        "validation_examples": held_out,
        "budget_examples": workload.budget_examples or budget,
        "batch_sizes": _fitting(examples),
    }


def check_trains(workload: Workload, config: SweepConfig) -> None:
    """Raises UserError where a run of this configuration could not be made."""
    splits = splits_of(workload, config.validation_examples, config.split_seed, CPU)
    rehearse(workload, splits, config.target)


def data_facts(config: SweepConfig, data_path: Path | None) -> dict[str, Any]:
    """What there is to train on once validation is carved off, and by what the data are known
    again."""
    workload = source_of(config, data_path).open()
    splits = splits_of(workload, config.validation_examples, config.split_seed, CPU)
    return {"train_examples": len(splits.train.indices), "data_digest": digest_of(splits)}


def _held_out(workload: Workload) -> int:
    """Examples to validate on: the user's own, else 2,000 or a fifth of what there is to train."""
    if workload.validation is not None:
        return len(examples_of(workload.validation, workload, "validation", CPU))
    whole = len(examples_of(workload.train, workload, "train", CPU))
    return min(MOST_VALIDATION, whole // PART_FOR_VALIDATION)


def _fitting(examples: int) -> tuple[int, ...]:
    """The default batch sizes of which the training split holds two, the smallest at least."""
    known = SweepConfig.batch_sizes
    return tuple(size for size in known if 2 * size <= examples) or known[:1]
