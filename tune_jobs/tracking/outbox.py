"""A queue and the thread that empties it: its owner never waits, and an outage is waited out.

Knows nothing of MLflow: what an item is, how it is written, and what it means to lose one, say the
three functions it is given.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

QUEUE_SIZE = 10_000
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.5, 30.0
REJECTIONS_BEFORE_GIVING_UP = 2

T = TypeVar("T")


class Outbox(Generic[T]):
    """Hands the items to `write` in the order they came, as many at once as there are.

    Args:
        write: whether the items, perhaps none, are written; it is asked again until they are.
        answers: whether the other side answers, so that what failed was refused, not undelivered.
        lose: hears of each item that is given up, here or on the owner's thread.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], bool],
        answers: Callable[[], bool],
        lose: Callable[[T], None],
    ) -> None:
        self._write, self._answers, self._lose = write, answers, lose
        self._queue: queue.Queue[T] = queue.Queue(maxsize=QUEUE_SIZE)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it begins with a `write` of what is there, were it nothing."""
        self._thread = threading.Thread(target=self._work, name="mlflow-copy", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue the item, or lose it when the queue is full; returns at once."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._lose(item)

    def close(self, timeout_seconds: float) -> bool:
        """End the thread when all is written or nothing can be; whether it ended in time."""
        self._closing.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        pending: list[T] = []
        backoff, rejections, began = FIRST_BACKOFF_SECONDS, 0, False
        while not (self._closing.is_set() and began and not pending and self._queue.empty()):
            pending = pending or self._take(block=began)
            if self._write(pending):
                pending, backoff, rejections, began = [], FIRST_BACKOFF_SECONDS, 0, True
                continue
            rejections += self._answers()
            if self._closing.is_set():
                self._lose_all(pending + self._take(block=False))
                return
            if rejections >= REJECTIONS_BEFORE_GIVING_UP:
                self._lose_all(pending)
                pending, rejections = [], 0
            self._closing.wait(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF_SECONDS)

    def _take(self, block: bool) -> list[T]:
        """All that is queued; waits a moment for the first when `block`."""
        items: list[T] = []
        try:
            items.append(self._queue.get(block=block, timeout=0.2))
            while True:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return items

    def _lose_all(self, items: Sequence[T]) -> None:
        for item in items:
            self._lose(item)
