"""What goes on beside a sweep's stages, on threads of the driver."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Jobs begun beside the stages. `wait` raises what one of them raised; `close` ends them early,
    each by what it was begun with for that.

    What begins `later` waits for the first trial to begin, whose process needs the cores to start,
    or for who waits.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4)
        self._jobs: list[Future[object]] = []
        self._ends: list[Callable[[], None]] = []
        self._held: list[tuple[Callable[[], object], Callable[[], None] | None]] = []

    def begin(self, job: Callable[[], T], end: Callable[[], None] | None = None) -> Future[T]:
        begun = self._threads.submit(job)
        self._jobs.append(begun)  # type: ignore[arg-type]
        self._ends += [end] if end else []
        return begun

    def later(self, job: Callable[[], object], end: Callable[[], None] | None = None) -> None:
        self._held.append((job, end))

    def go(self, _: object = None) -> None:
        """Begin what waits: a trial has begun, by a record of it."""
        while self._held:
            self.begin(*self._held.pop(0))

    def wait(self) -> None:
        """Until all are done."""
        self.go()
        while self._jobs:
            self._jobs.pop(0).result()

    def close(self) -> None:
        self._held.clear()
        for end in self._ends:
            end()
        self._threads.shutdown(cancel_futures=True)
