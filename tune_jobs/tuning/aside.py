"""What goes on beside a sweep's stages, on threads of the driver."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Jobs begun beside the stages. `wait` raises what one of them raised; `close` ends them early,
    each by what it was begun with for that."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4)
        self._jobs: list[Future[object]] = []
        self._ends: list[Callable[[], None]] = []

    def begin(self, job: Callable[[], T], end: Callable[[], None] | None = None) -> Future[T]:
        begun = self._threads.submit(job)
        self._jobs.append(begun)  # type: ignore[arg-type]
        self._ends += [end] if end else []
        return begun

    def wait(self) -> None:
        """Until all are done."""
        while self._jobs:
            self._jobs.pop(0).result()

    def close(self) -> None:
        for end in self._ends:
            end()
        self._threads.shutdown(cancel_futures=True)
