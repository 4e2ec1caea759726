"""Which examples make a batch: the validation split, and the order of examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tune_jobs.errors import UserError

Indices = npt.NDArray[np.int64]


def split_indices(examples: int, validation_examples: int, seed: int) -> tuple[Indices, Indices]:
    """Indices (train, validation) of a train split of `examples`: seeded, disjoint, each sorted.

    Errors:
        UserError: `validation_examples` is not within 0..examples - 1.
    """
    if not 0 <= validation_examples < examples:
        raise UserError(
            f"{validation_examples} validation examples cannot be carved from {examples}; "
            f"choose from 0 to {examples - 1}"
        )
    order = np.random.default_rng(seed).permutation(examples)
    return np.sort(order[validation_examples:]), np.sort(order[:validation_examples])


class ExampleStream:
    """An endless stream of `indices`: one seeded permutation of them after the other.

    Batches are windows of the stream and cross the borders of epochs, so that the k-th n examples
    (n = len(indices)) hold every example once whatever the batch size, no batch is short, and the
    examples seen alone say where a resumed trial goes on.
    """

    def __init__(self, indices: Indices, seed: int) -> None:
        if len(indices) == 0:
            raise ValueError("a stream needs at least one example, got none")
        self.indices = np.asarray(indices)
        self._seed = seed
        self._epoch: int | None = None
        self._order = self.indices

    def take(self, start: int, count: int) -> Indices:
        """The examples at stream positions [start, start + count), int64 (count,).

        Errors:
            ValueError: `start` or `count` is negative.
        """
        if start < 0 or count < 0:
            raise ValueError(f"positions begin at 0, got start {start} and count {count}")
        taken = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            epoch, offset = divmod(start + filled, len(self.indices))
            part = self._permutation(epoch)[offset : offset + count - filled]
            taken[filled : filled + len(part)] = part
            filled += len(part)
        return taken

    def _permutation(self, epoch: int) -> Indices:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self.indices)
            self._epoch = epoch
        return self._order
