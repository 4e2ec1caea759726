"""What a sweep says of trials that wait and of nodes that go; where a trial saves itself."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tune_jobs.tuning import leaving, trial, waiting
from tune_jobs.tuning.guard import NoReport

MIB = 2**20
NODES = [{"NodeID": "a1", "NodeManagerAddress": "10.0.0.7"}]


def test_what_trials_wait_for_is_told_with_what_there_is() -> None:
    asked = [{"CPU": 1.0, "GPU": 0.5, "memory": 2048.0 * MIB}] * 2
    total = {"CPU": 8.0, "GPU": 2.0, "memory": 9000.0 * MIB}
    told = waiting.line(61.2, asked, {"CPU": 3.0, "memory": 4096.0 * MIB}, total)
    assert told == (
        "2 trials wait for 61 s by now; the first asks for 1 CPU, 0.5 GPU, 2048 MiB memory on one "
        "node; free in all: 3 of 8 CPU, 0 of 2 GPU, 4096 MiB of 9000 MiB memory"
    )


def test_a_trial_that_is_begun_again_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failed:
        def __str__(self) -> str:
            return "b16-lr0.002-s1"

        def get_pickled_error(self) -> Exception:
            return NoReport("no report within 60 s\nand a traceback")

    heard: list[str] = []
    monkeypatch.setitem(waiting.SAY, "it", heard.append)
    failed: Any = Failed()
    waiting.Waiting("it").on_trial_recover(0, [], failed)
    (told,) = heard
    assert told.startswith("b16-lr0.002-s1 goes on from its last checkpoint, or begins again: ")
    assert told.endswith("NoReport: no report within 60 s")


def test_a_node_that_leaves_is_told_once_with_the_time_left() -> None:
    now = 1_000.0
    (told,) = leaving.lines({"a1"}, {"a1": 1_110_000}, NODES, now)
    assert told.startswith("node 10.0.0.7 is leaving in 110 s: ")
    (told,) = leaving.lines({"a1"}, {"a1": 0}, NODES, now)
    assert told.startswith("node 10.0.0.7 is leaving: ")
    assert leaving.lines(set(), {"a1": 0}, NODES, now) == []


def test_the_callback_looks_now_and_then_and_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[str] = []
    monkeypatch.setitem(leaving.SAY, "it", heard.append)
    monkeypatch.setattr(leaving, "leaving_nodes", lambda: {"a1": 0})
    monkeypatch.setattr(leaving.ray, "nodes", lambda: NODES)
    callback = leaving.Leaving("it")
    for _ in range(2):
        callback.looked_at = 0.0
        callback.on_step_begin(0, [])
    assert len(heard) == 1
    monkeypatch.setattr(leaving, "leaving_nodes", lambda: pytest.fail("looked again at once"))
    callback.on_step_begin(0, [])


@pytest.mark.parametrize(
    ("saved_ago", "leaves", "done", "saves"),
    [(1, False, False, False), (9, False, False, True), (1, True, False, True),
     (9, True, True, False)],
)  # fmt: skip
def test_a_trial_on_a_leaving_node_saves_itself_at_every_report(
    monkeypatch: pytest.MonkeyPatch, saved_ago: float, leaves: bool, done: bool, saves: bool
) -> None:
    monkeypatch.setattr(trial, "on_a_leaving_node", lambda: leaves)
    monkeypatch.setattr(trial, "asdict", vars)
    report: Any = SimpleNamespace(
        val_metric=0.9, examples_to_target=None, diverged=False, done=done, rung=None
    )
    it: Any = object.__new__(trial.BatchSizeTrial)
    it.shared = SimpleNamespace(goal="time", budget_examples=100, checkpoint_seconds=8.0)
    it.mode = "max"
    it.micro_batch_size = it.waited_seconds = it.node = it.device_name = None
    it.saved_at = time.monotonic() - saved_ago
    assert it._result(report)[trial.SHOULD_CHECKPOINT] is saves
