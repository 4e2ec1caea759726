"""Layers that normalise over the batch: in passes, an update is not that of the whole batch."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_jobs.config import SweepConfig, requested_micro_batch
from tune_jobs.errors import UserError


def has_batch_norm(model: nn.Module) -> bool:
    """Whether an update depends on how its batch is cut."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def check_cut(model: nn.Module, config: SweepConfig) -> None:
    """Raises UserError where batches are to be cut, or hold one example, and the model's layers
    normalise over them."""
    if not has_batch_norm(model):
        return
    micro = requested_micro_batch(config)
    if micro is not None and micro < max(config.batch_sizes):
        raise UserError(
            f"--micro-batch {micro}: the model has batch normalisation, whose statistics would be "
            f"those of a pass of {micro} or fewer examples, and not of the batch of "
            f"{max(config.batch_sizes)}; leave --micro-batch out, or let the model normalise "
            "otherwise (nn.GroupNorm, nn.LayerNorm)"
        )
    if 1 in config.batch_sizes:
        raise UserError(
            "--batch-sizes: 1: batch normalisation cannot train on one example; leave 1 out"
        )
