"""Batches: the validation split, the stream of examples, what a run draws of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tune_jobs.data.batches import ExampleStream, split_indices
from tune_jobs.data.dataset import Dataset, ImageSet
from tune_jobs.data.examples import examples_of, on_device
from tune_jobs.data.image_workload import image_workload
from tune_jobs.errors import UserError

SEEDS = st.integers(0, 2**31)


@given(st.integers(1, 200), st.data(), SEEDS)
def test_the_split_is_disjoint_whole_and_sorted(examples: int, data: st.DataObject, seed: int):
    count = data.draw(st.integers(0, examples - 1))
    train, validation = split_indices(examples, count, seed)
    assert len(validation) == count
    assert sorted([*train, *validation]) == list(range(examples))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)


def test_the_split_follows_its_seed() -> None:
    one, same, other = (split_indices(1000, 100, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count", [-1, 10, 11])
def test_a_validation_split_that_leaves_nothing_is_refused(count: int) -> None:
    with pytest.raises(UserError, match="choose from 0 to 9"):
        split_indices(10, count, seed=0)


@given(st.integers(1, 60), st.integers(1, 200), st.integers(1, 4), SEEDS)
def test_every_epoch_holds_every_example_once_for_any_batch_size(
    examples: int, batch_size: int, epochs: int, seed: int
) -> None:
    indices = np.arange(examples) * 3 + 5
    stream = ExampleStream(indices, seed)
    batches = -(-epochs * examples // batch_size)
    seen = np.concatenate([stream.take(i * batch_size, batch_size) for i in range(batches)])
    assert len(seen) == batches * batch_size
    for epoch in range(epochs):
        assert sorted(seen[epoch * examples : (epoch + 1) * examples]) == indices.tolist()


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 100))), SEEDS)
def test_the_stream_gives_the_same_whatever_was_taken_before(
    examples: int, windows: list[tuple[int, int]], seed: int
) -> None:
    whole = ExampleStream(np.arange(examples), seed).take(0, 400)
    stream = ExampleStream(np.arange(examples), seed)
    for start, count in windows:
        assert np.array_equal(stream.take(start, count), whole[start : start + count])


def test_epochs_and_seeds_differ_in_order() -> None:
    first, again, other = (ExampleStream(np.arange(100), seed).take(0, 200) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:100], first[100:])
    assert not np.array_equal(first, other)


def test_a_stream_refuses_no_examples_and_negative_positions() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        ExampleStream(np.arange(0), 0)
    with pytest.raises(ValueError, match="begin at 0"):
        ExampleStream(np.arange(3), 0).take(-1, 2)


def batch_of(images: np.ndarray, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """As a run of the image workload draws it."""
    labels, cpu = np.arange(len(images)), torch.device("cpu")
    data = Dataset("it", ImageSet(images, labels), None, len(images), mean=0.25, std=0.5)
    workload = image_workload("it", data, torch.nn.Identity)
    examples = examples_of(workload.train, workload, "train", cpu)
    inputs, targets = on_device(examples.fetch(np.array(chosen)), cpu, workload.prepare)
    return inputs, targets


@given(st.integers(1, 3), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_a_batch_holds_the_normalised_examples(channels: int, chosen: list[int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, channels, 4, 5)).astype(np.uint8)
    images.flags.writeable = False
    inputs, targets = batch_of(images, chosen)
    expected = (images[chosen] / 255 - 0.25) / 0.5
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert targets.dtype == torch.int64
    assert targets.tolist() == chosen


def test_a_batch_shares_no_memory_with_the_data_set() -> None:
    images = np.zeros((4, 1, 2, 2), np.uint8)
    inputs, targets = batch_of(images, [0, 1, 2, 3])
    inputs.fill_(1)
    targets.fill_(9)
    assert images.max() == 0
    assert batch_of(images, [0, 1, 2, 3])[1].tolist() == [0, 1, 2, 3]
