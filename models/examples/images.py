"""ResNet-18 on a part of Fashion-MNIST, with augmentation, through a Dataset and its workers.

./scripts/sweep --workload models/examples/images.py:workload
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tune_jobs.data.dataset import ImageSet, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.workload import Workload, accuracy, cross_entropy

DATA, TRAIN, TEST = Path(__file__).resolve().parents[2] / ".data", 12_000, 1_000


class Clothes(torch.utils.data.Dataset[Any]):
    """(image (1, 28, 28), label); augmented: shifted by up to two pixels, flipped half the time."""

    def __init__(self, images: ImageSet, count: int, *, augmented: bool) -> None:
        self.images = torch.tensor(images.images[:count]).float() / 255
        self.labels = torch.tensor(images.labels[:count])
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        if self.augmented:
            image = image.roll(torch.randint(-2, 3, (2,)).tolist(), (1, 2))
            image = image.flip(2) if torch.rand(()) < 0.5 else image
        return image, self.labels[index]


def resnet() -> nn.Module:
    from torchvision.models import resnet18  # takes seconds: only where it is needed

    model: nn.Module = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)  # one channel
    return model


def workload(workers: int = 1) -> Workload:
    data: Any = open_dataset(prepare("fashion_mnist", DATA))
    rest = ImageSet(data.train.images[TRAIN:], data.train.labels[TRAIN:])
    return Workload(
        name="resnet18 on clothes",
        build=resnet,
        train=Clothes(data.train, TRAIN, augmented=True),
        validation=Clothes(rest, 400, augmented=False),
        test=Clothes(data.test, TEST, augmented=False),
        loss=cross_entropy, metric=accuracy, target=0.65, budget_examples=3_072,
        workers=workers, channels_last=True,
    )  # fmt: skip
