"""Image classification as a workload: a model's function on a decoded data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tune_jobs.data.dataset import Dataset
from tune_jobs.data.table_workload import arrays_of, class_loss
from tune_jobs.workload import Batch, Workload, accuracy


def image_workload(name: str, dataset: Dataset, build: Callable[[], nn.Module]) -> Workload:
    """Batches are (images uint8 (b, c, h, w), labels int64 (b,)) until `prepare` normalises them.

    Only a batch is copied, and it travels as uint8; conversion is the device's work.
    """
    mean, std = dataset.mean, dataset.std

    def prepare(batch: Batch) -> Batch:
        images, labels = batch
        inputs = images.to(torch.float32, memory_format=torch.channels_last)
        return inputs.div_(255).sub_(mean).div_(std), labels

    return Workload(
        name=name,
        build=build,
        train=arrays_of(dataset.train),
        validation=arrays_of(dataset.validation),
        test=arrays_of(dataset.test),
        loss=class_loss(dataset.classes),
        metric=accuracy,
        prepare=prepare,
        channels_last=True,
    )
