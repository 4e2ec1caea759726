"""The contention-free clock: what the profile says that so many updates take on a device alone."""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.records import BatchSizeProfile
from tune_jobs.training.segments import Course, Segment

A_ROUND = 0.1  # deviation of the log of one round's seconds, where rounds do not tell it


class ProfiledClock:
    """Seconds from updates, for the batch sizes and device types that were profiled."""

    def __init__(self, profiles: Sequence[BatchSizeProfile]) -> None:
        rows = chosen(profiles)
        self.step_seconds = {(p.device, p.batch_size): p.step_seconds for p in rows}

    def seconds(self, device: str | None, batch_size: int, updates: int | None) -> float | None:
        """Train seconds of `updates`; None where the profile has no such row."""
        step = self.step_seconds.get((device or "", batch_size))
        return None if step is None or updates is None else step * updates

    def seconds_of(
        self, device: str | None, segments: Sequence[Segment], updates: int | None
    ) -> float | None:
        """Train seconds of `updates` of a batch schedule: each update as its batch size was
        profiled."""
        if updates is None:
            return None
        made = Course(segments).by_batch_size(updates)
        parts = [self.seconds(device, size, count) for size, count in made.items()]
        return None if None in parts else sum(p for p in parts if p is not None)

    def examples_per_second(self, device: str | None, batch_size: int) -> float | None:
        """The profiled throughput, or None."""
        step = self.step_seconds.get((device or "", batch_size))
        return None if step is None else batch_size / step


def chosen(profiles: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    """The rows that trials use: one for each device type and feasible batch size."""
    return [p for p in profiles if p.chosen and p.outcome == "finished"]


def feasible(profiles: Sequence[BatchSizeProfile]) -> tuple[int, ...]:
    """Batch sizes that every profiled device type can train, ascending."""
    devices = {p.device for p in profiles}
    sizes = {p.batch_size for p in profiles}
    can = {(p.device, p.batch_size) for p in chosen(profiles)}
    return tuple(sorted(size for size in sizes if all((d, size) in can for d in devices)))


def micro_batch_sizes(profiles: Sequence[BatchSizeProfile]) -> dict[tuple[str, int], int]:
    """Examples per pass by device type and batch size."""
    return {(p.device, p.batch_size): p.micro_batch_size for p in chosen(profiles)}
