"""The copy's queue and its thread, with writes that fail as they are told to; no MLflow is near."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tune_jobs.tracking import outbox
from tune_jobs.tracking.outbox import Outbox


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "LAST_BACKOFF_SECONDS", 0.0)


class Store:
    """Writes by the given outcomes, then always; `settled` once `last` is written or lost."""

    def __init__(self, outcomes: Iterator[bool], answers: bool, last: int) -> None:
        self.outcomes, self.answers, self.last = outcomes, answers, last
        self.attempts: list[list[int]] = []
        self.written: list[int] = []
        self.lost: list[int] = []
        self.settled = threading.Event()
        self.outbox = Outbox(self.write, lambda: self.answers, self.lose)

    def write(self, items: Sequence[int]) -> bool:
        self.attempts.append(list(items))
        taken = next(self.outcomes, True)
        if taken:
            self.written += items
        if taken and self.last in items:
            self.settled.set()
        return taken

    def lose(self, item: int) -> None:
        self.lost.append(item)
        if item == self.last:
            self.settled.set()


def test_an_outage_is_waited_out_and_nothing_is_lost() -> None:
    store = Store(iter([False] * 5), answers=False, last=2)
    for item in (1, 2):
        store.outbox.put(item)
    store.outbox.start()
    assert store.settled.wait(30)
    assert store.outbox.close(30)
    assert (store.written, store.lost) == ([1, 2], [])
    assert store.attempts[:6] == [[1, 2]] * 6


def test_what_is_refused_twice_is_given_up_and_what_follows_is_written() -> None:
    store = Store(iter([False, False]), answers=True, last=1)
    store.outbox.put(1)
    store.outbox.start()
    assert store.settled.wait(30)
    store.outbox.put(2)
    assert store.outbox.close(30)
    assert (store.written, store.lost) == ([2], [1])


def test_closing_in_an_outage_loses_what_is_queued_and_waits_no_more() -> None:
    store = Store(iter(lambda: False, None), answers=False, last=2)
    for item in (1, 2):
        store.outbox.put(item)
    store.outbox.start()
    assert store.outbox.close(30)
    assert (store.written, sorted(store.lost)) == ([], [1, 2])


def test_it_begins_with_nothing_to_write_and_closing_writes_what_came_since() -> None:
    store = Store(iter(()), answers=True, last=1)
    store.outbox.start()
    store.outbox.put(1)
    assert store.outbox.close(30)
    assert store.written == [1]

    idle = Store(iter(()), answers=True, last=1)
    idle.outbox.start()
    assert idle.outbox.close(30)
    assert idle.attempts and not any(idle.attempts)


def test_an_outbox_that_was_never_started_is_closed_at_once() -> None:
    store = Store(iter(()), answers=True, last=1)
    assert store.outbox.close(30)
    assert store.attempts == []
