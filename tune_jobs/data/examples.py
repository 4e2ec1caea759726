"""A split of a workload as something to draw batches from, by index.

Arrays are indexed as a whole and live on the device where they fit well; anything else that has
`len` and `[i]` goes through torch's DataLoader.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, default_collate

from tune_jobs.data.batches import Indices, split_indices
from tune_jobs.errors import UserError
from tune_jobs.workload import Batch, Workload

ON_DEVICE = 0.125  # of a GPU's memory that a split's arrays may take
A_FEW = 64  # examples of a split, by which it is known again
Part = tuple[int, Indices]
"""Where a batch's first example stands in the run, and which examples it holds."""


class Examples(Protocol):
    """`len` examples, of which any may be asked for."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Indices) -> Batch:
        """The batch of these examples."""

    def stream(self, parts: Iterable[Part], seed: int) -> Iterator[Batch]:
        """The batches of these parts one after the other, loaded ahead where that is done."""


def examples_of(data: Any, workload: Workload, title: str, device: torch.device) -> Examples:
    """The split `data` of a workload.

    Errors:
        UserError: it is nothing that examples can be drawn from by index, or is empty.
    """
    where = f"workload {workload.name!r}: {title}"
    kind = Arrays if _is_arrays(data) else Items
    if kind is Items and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise UserError(
            f"{where} is a {type(data).__name__} without `len` and `[i]`, so batches of any size "
            "in any order cannot be drawn from it; give a tuple of arrays, a list, or a map-style "
            "Dataset"
        )
    found = Arrays(data, where, device) if kind is Arrays else Items(data, workload)
    if not len(found):
        raise UserError(f"{where} is empty; it needs at least one example")
    return found


def _is_arrays(data: Any) -> bool:
    """Whether it is an array, or a tuple or dict of arrays (a list is one of examples)."""
    if isinstance(data, Mapping):
        return bool(data) and all(map(_is_array, data.values()))
    if isinstance(data, tuple):
        return bool(data) and all(map(_is_array, data))
    return _is_array(data)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim > 0


class Arrays:
    """Arrays of one length; a batch has the same structure, of tensors.

    float64 arrays of numpy become float32, which is what models are made of; tensors stay as they
    are.

    Errors:
        UserError: the arrays differ in length.
    """

    def __init__(self, data: Any, where: str, device: torch.device) -> None:
        lengths = sorted({len(leaf) for leaf in leaves(data)})
        if len(lengths) > 1:
            raise UserError(f"{where}: arrays of {lengths[0]} and {lengths[-1]} examples; let them "
                            "agree")  # fmt: skip
        self.length = lengths[0]
        single = [_single(leaf) for leaf in leaves(data)]
        if _fits(single, device):
            single = [_tensor(leaf).to(device) for leaf in single]
        self.arrays = _like(data, single)

    def __len__(self) -> int:
        return self.length

    def fetch(self, indices: Indices) -> Batch:
        return _like(self.arrays, [_taken(leaf, indices) for leaf in leaves(self.arrays)])

    def stream(self, parts: Iterable[Part], seed: int) -> Iterator[Batch]:
        return (self.fetch(indices) for _, indices in parts)


def leaves(data: Any) -> list[Any]:
    """The arrays of a split, in the order in which they stand."""
    if isinstance(data, Mapping):
        return list(data.values())
    return list(data) if isinstance(data, tuple) else [data]


def _like(data: Any, leaves: list[Any]) -> Any:
    if isinstance(data, Mapping):
        return dict(zip(data, leaves, strict=True))
    return tuple(leaves) if isinstance(data, tuple) else leaves[0]


def _single(leaf: Any) -> Any:
    double = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    return leaf.astype(np.float32) if double else leaf


def _tensor(leaf: Any) -> torch.Tensor:
    return leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf)


def _fits(leaves: list[Any], device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    total = torch.cuda.get_device_properties(device).total_memory
    return bool(sum(leaf.nbytes for leaf in leaves) < ON_DEVICE * total)


def _taken(leaf: Any, indices: Indices) -> torch.Tensor:
    """Only the batch is copied."""
    if isinstance(leaf, torch.Tensor):
        return leaf.index_select(0, torch.from_numpy(indices).to(leaf.device))
    return torch.from_numpy(leaf.take(indices, axis=0))


class Items:
    """Anything with `len` and `[i]`, through torch's DataLoader: its workers, its collate.

    Whatever an example draws at random (an augmentation) follows from the seed and the example's
    place in the run, not from the number of workers or from where a resumed run began.
    """

    def __init__(self, data: Any, workload: Workload) -> None:
        self.data = data
        self.collate = workload.collate or default_collate
        self.workers = workload.workers
        self.plan = _Plan()
        self.loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def fetch(self, indices: Indices) -> Batch:
        return self.collate([self.data[int(i)] for i in indices])

    def stream(self, parts: Iterable[Part], seed: int) -> Iterator[Batch]:
        """One stream at a time: a further one takes the workers over."""
        self.plan.parts, self.plan.seed = parts, seed
        if self.loader is None:
            self.loader = DataLoader(
                _Seeded(self.data),
                batch_sampler=self.plan,
                collate_fn=self.collate,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=torch.cuda.is_available(),
            )
        return iter(self.loader)


class _Plan:
    """The sampler: what is to be loaded next, and the seed of each part's random draws."""

    parts: Iterable[Part] = ()
    seed: int = 0

    def __iter__(self) -> Iterator[Any]:
        for place, indices in self.parts:
            yield (self.seed, place), indices


class _Seeded(torch.utils.data.Dataset[Any]):
    """Examples of one part after the other, each part with random states of its own."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitems__(self, asked: tuple[tuple[int, ...], npt.NDArray[np.int64]]) -> list[Any]:
        key, indices = asked
        with random_states(key):
            return [self.data[int(i)] for i in indices]


@contextmanager
def random_states(key: tuple[int, ...]) -> Iterator[None]:
    """Random states of torch's CPU generator, numpy and Python are made from `key` meanwhile."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


@dataclass(frozen=True)
class Split:
    """Some of the examples that there are: `indices` (n,) of them."""

    examples: Examples
    indices: Indices


@dataclass(frozen=True)
class Splits:
    """What a run trains on, is compared by, and is told of; `test` is None where there is none."""

    train: Split
    validation: Split
    test: Split | None


def splits_of(
    workload: Workload, validation_examples: int, seed: int, device: torch.device
) -> Splits:
    """The workload's splits; `validation_examples` are carved from `train` where it has no others.

    Errors:
        UserError: a split cannot be drawn from, is empty, or is another one as well.
    """
    _check_apart(workload)
    train = examples_of(workload.train, workload, "train", device)
    indices = np.arange(len(train))
    if workload.validation is None:
        indices, carved = split_indices(len(train), validation_examples, seed)
        validation = Split(train, carved)
        if isinstance(train, Items):  # loaders of their own
            validation = Split(Items(train.data, workload), carved)
    else:
        validation = _whole(examples_of(workload.validation, workload, "validation", device))
    test = None
    if workload.test is not None:
        test = _whole(examples_of(workload.test, workload, "test", device))
    return Splits(Split(train, indices), validation, test)


def digest_of(splits: Splits) -> str:
    """Of how many examples there are, and of A_FEW of each split: another one once the data are
    others."""
    found = hashlib.sha256()
    for split in (splits.train, splits.validation, splits.test):
        count = 0 if split is None else len(split.indices)
        found.update(f"{count} ".encode())
        if split is None or not count:
            continue
        places = np.unique(np.linspace(0, count - 1, A_FEW).astype(np.int64))
        with random_states((0,)):
            batch = split.examples.fetch(split.indices[places])
        for tensor in _tensors(batch):
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _tensors(batch: Batch) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor) and batch.layout == torch.strided:
        yield batch.detach().cpu().contiguous()
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, (tuple, list, Mapping)):
        for part in parts:
            yield from _tensors(part)


def _whole(examples: Examples) -> Split:
    return Split(examples, np.arange(len(examples)))


def _check_apart(workload: Workload) -> None:
    parts = {"train": workload.train, "validation": workload.validation, "test": workload.test}
    given = [(title, data) for title, data in parts.items() if data is not None]
    for n, (title, data) in enumerate(given):
        for other, same in given[n + 1 :]:
            if data is same:
                raise UserError(
                    f"workload {workload.name!r}: {title} and {other} are one and the same object, "
                    f"so {other} would tell nothing new; give examples that are not in {title}, or "
                    "None"
                )


def on_device(
    batch: Batch, device: torch.device, prepare: Callable[[Batch], Batch] | None
) -> Batch:
    """A batch's tensors on the device, then what the workload makes of them there."""
    moved = moved_to(batch, device)
    return moved if prepare is None else prepare(moved)


def moved_to(batch: Batch, device: torch.device) -> Batch:
    """The same structure, its tensors on the device; what is no tensor stays."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: moved_to(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved_to(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(moved_to(part, device) for part in batch)
    return batch.to(device) if hasattr(batch, "to") else batch
