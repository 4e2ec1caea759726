"""What does an update cost in the project's loop, beside a bare one and beside the usual one?

    python scripts/bench/loop.py OUT.json [rounds]

Three loops over one network and the same examples, each in a fresh process, batch sizes and loops
in turn: ours; a bare one in the best arrangement known (tensors normalised before, channels last,
the fused optimizer, pages kept); and the usual one (torchvision's transforms through a DataLoader,
plain Adam, the allocator as it comes).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np
import torch
import torch.nn.functional as F

from models.registry import build
from tune_jobs import environment
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.measure.fresh import FreshProcesses
from tune_jobs.measure.probe import Subject, training_run
from tune_jobs.training import allocator
from tune_jobs.training import device as devices
from tune_jobs.workload_source import WorkloadSource

BATCH_SIZES = (4, 16, 64, 256, 512)
SECONDS = 3.0  # of timed updates in each process
FEWEST, WARM = 5, 3
LEARNING_RATE = 1e-3
Update = Callable[[], object]
Ask = tuple[Subject, str, int]


def images_of(subject: Subject) -> Dataset:
    assert subject.source.data_path is not None
    data = open_dataset(Path(subject.source.data_path))
    assert isinstance(data, Dataset), "images"
    return data


def ours(subject: Subject, size: int) -> Update:
    """The loop that trials run."""
    allocator.keep_pages()
    run = training_run(subject, size, size, devices.pick(0.0))

    def update() -> None:
        run.update(run.next_batch())
        run.progress.updates += 1

    return update


def bare(subject: Subject, size: int) -> Update:
    """Nothing but the update, everything prepared."""
    allocator.keep_pages()
    data = images_of(subject)
    images = torch.from_numpy(np.array(data.train.images)).float()
    images = images.div_(255).sub_(data.mean).div_(data.std).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.array(data.train.labels))
    model = network(subject, data).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    batches = _batches(len(labels), size)

    def update() -> None:
        chosen = next(batches)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def usual(subject: Subject, size: int) -> Update:
    """As tutorials have it."""
    from PIL import Image
    from torchvision import transforms

    data = images_of(subject)
    prepared = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))]
    )

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(data.train.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = Image.fromarray(data.train.images[index, 0])
            return prepared(image), int(data.train.labels[index])

    loader = torch.utils.data.DataLoader(Images(), batch_size=size, shuffle=True)
    batches = (batch for epoch in cycle([loader]) for batch in epoch)
    model = network(subject, data)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def update() -> None:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return update


LOOPS: dict[str, Callable[[Subject, int], Update]] = {"ours": ours, "bare": bare, "usual": usual}


def network(subject: Subject, data: Dataset) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(subject.source.model, tuple(data.train.images.shape[1:]), data.classes)


def _batches(examples: int, size: int) -> Iterator[torch.Tensor]:
    while True:
        order = torch.randperm(examples)
        yield from torch.split(order[: examples - examples % size], size)


def seconds_an_update(asked: Ask) -> float:
    """The median of those timed, in this process."""
    subject, loop, size = asked
    torch.set_num_threads(subject.threads)
    update = LOOPS[loop](subject, size)
    for _ in range(WARM):
        update()
    taken: list[float] = []
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(taken) < FEWEST:
        began = time.perf_counter()
        update()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measured(subject: Subject, rounds: int) -> list[dict[str, Any]]:
    """One row for each batch size: milliseconds of each loop, and what ours is of the others."""
    seen: dict[tuple[int, str], list[float]] = {}
    with FreshProcesses() as fresh:
        for _ in range(rounds):
            for size in BATCH_SIZES:
                for loop in LOOPS:
                    told = fresh.call(seconds_an_update, (subject, loop, size), 120.0)[0]
                    if told.value is None:
                        raise RuntimeError(f"{loop} at {size}: {told.reason}\n{told.trace}")
                    seen.setdefault((size, loop), []).append(told.value)
    rows = []
    for size in BATCH_SIZES:
        mine = np.array(seen[size, "ours"])
        row: dict[str, Any] = {"batch_size": size}
        for loop in LOOPS:
            row[f"{loop}_ms"] = [round(1000 * s, 2) for s in seen[size, loop]]
        for loop in islice(LOOPS, 1, None):
            ratios = np.array(seen[size, loop]) / mine  # pairs of one round
            row[f"speed_of_{loop}"] = [
                round(float(x), 3) for x in (np.median(ratios), ratios.min(), ratios.max())
            ]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def mnist_subject() -> Subject:
    source = WorkloadSource("simple_cnn", "mnist", str(prepare("mnist", ROOT / ".data")))
    return Subject(source, "adam", LEARNING_RATE, 2000, 0, 1, 0.0, None)


def main() -> int:
    out, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rows = measured(mnist_subject(), rounds)
    facts = environment.describe(ROOT)
    out.write_text(json.dumps({"rounds": rounds, "environment": facts, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    # What is pickled for other processes must not belong to a module called __main__.
    from scripts.bench import loop

    raise SystemExit(loop.main())
