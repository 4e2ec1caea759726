"""Batch normalisation: a batch that would be cut, or is of one example, is told before a start."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tune_jobs import preparing
from tune_jobs.config import resolve
from tune_jobs.errors import UserError


def normalised(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return of_layer(input_shape, classes, nn.BatchNorm1d(8))


def by_groups(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return of_layer(input_shape, classes, nn.GroupNorm(2, 8))


def of_layer(input_shape: tuple[int, ...], classes: int, layer: nn.Module) -> nn.Module:
    pixels = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), layer, nn.Linear(8, classes))


def prepared(model: str, data_dir: Path, **given: Any) -> Path | None:
    named = {"model": f"tests.test_batch_norm:{model}", "data": "digits", "target": 0.9}
    return preparing.data(resolve(None, {**named, "data_dir": str(data_dir), **given}))


@pytest.mark.parametrize(("sizes", "micro"), [((24, 48), "12"), ((5, 20), "4"), ((7, 6), "6")])
def test_passes_of_a_batch_that_is_normalised_over_are_refused(
    sizes: tuple[int, ...], micro: str, data_dir: Path
) -> None:
    with pytest.raises(UserError, match=rf"--micro-batch {micro}: .*leave --micro-batch out"):
        prepared("normalised", data_dir, batch_sizes=sizes, micro_batch=micro)
    assert prepared("by_groups", data_dir, batch_sizes=sizes, micro_batch=micro)


def test_a_batch_of_one_example_that_is_normalised_over_is_refused(data_dir: Path) -> None:
    with pytest.raises(UserError, match=r"--batch-sizes: 1: .*leave 1 out"):
        prepared("normalised", data_dir, batch_sizes=(1, 12))
    assert prepared("by_groups", data_dir, batch_sizes=(1, 12))


@pytest.mark.parametrize("micro", ["auto", "whole", "48"])
def test_whole_batches_may_be_normalised_over(micro: str, data_dir: Path) -> None:
    assert prepared("normalised", data_dir, batch_sizes=(24, 48), micro_batch=micro)
