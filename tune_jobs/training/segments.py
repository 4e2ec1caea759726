"""A batch schedule: the segments of a run, each with its batch size and learning rate.

As text it is `0:32@0.0016 1536:64@0.0016`: from which example on, the batch size, the rate.
No torch is needed to know it, so whoever plans may ask.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Segment:
    """Once `from_examples` are seen, updates are of `batch_size` examples at `learning_rate`;
    `micro_batch_size` of them go through the model at a time, None for all at once."""

    from_examples: int
    batch_size: int
    learning_rate: float
    micro_batch_size: int | None = None


def as_text(segments: Sequence[Segment]) -> str:
    """Exactly, so that `segments_of` gives the same back, micro-batches aside."""
    return " ".join(f"{s.from_examples}:{s.batch_size}@{s.learning_rate!r}" for s in segments)


def segments_of(text: str) -> tuple[Segment, ...]:
    """What `as_text` wrote."""
    parts = (part.replace("@", ":").split(":") for part in text.split())
    return tuple(Segment(int(at), int(size), float(rate)) for at, size, rate in parts)


class Course:
    """Which updates a run of these segments makes: examples are counted exactly across them.

    A segment begins with the first update that follows `from_examples`; no update is cut short.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        assert segments and segments[0].from_examples == 0, "a course begins at its first example"
        self.segments = tuple(segments)
        self.first_updates, self.first_examples = [0], [0]
        for before, after in pairwise(self.segments):
            assert before.from_examples < after.from_examples, "segments ascend"
            lacking = max(0, after.from_examples - self.first_examples[-1])
            updates = math.ceil(lacking / before.batch_size)
            self.first_updates.append(self.first_updates[-1] + updates)
            self.first_examples.append(self.first_examples[-1] + updates * before.batch_size)

    @classmethod
    def fixed(cls, batch_size: int, learning_rate: float = 0.0) -> Course:
        """One batch size all along."""
        return cls((Segment(0, batch_size, learning_rate),))

    def at(self, updates: int) -> Segment:
        """The segment of the update that follows so many."""
        return self.segments[bisect_right(self.first_updates, updates) - 1]

    def examples(self, updates: int) -> int:
        """Examples seen after so many updates."""
        k = bisect_right(self.first_updates, updates) - 1
        return self.first_examples[k] + (updates - self.first_updates[k]) * (
            self.segments[k].batch_size
        )

    def updates_for(self, examples: float) -> int:
        """The fewest whole updates that see at least so many examples."""
        k = max(0, bisect_left(self.first_examples, examples) - 1)
        further = math.ceil((examples - self.first_examples[k]) / self.segments[k].batch_size)
        return max(1, self.first_updates[k] + further)

    def by_batch_size(self, updates: int) -> dict[int, int]:
        """How many of so many updates are made at each batch size."""
        made: dict[int, int] = {}
        ends = [*self.first_updates[1:], updates]
        for segment, first, end in zip(self.segments, self.first_updates, ends, strict=True):
            count = max(0, min(end, updates) - first)
            made[segment.batch_size] = made.get(segment.batch_size, 0) + count
        return {size: count for size, count in made.items() if count}
