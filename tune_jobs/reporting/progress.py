"""What is shown while a sweep runs: one live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tune_jobs.config import SweepConfig
from tune_jobs.records import Begun, ConfirmRun, Measurement, TrialResult
from tune_jobs.reporting.standing import (
    Rows,
    purpose,
    seconds_left,
    standings,
    table_lines,
    work_of,
    work_wanted,
)
from tune_jobs.reporting.table import number
from tune_jobs.verdicts import Verdict

REFRESHES = 2  # a second


class Progress:
    """Hears every record of a sweep and what its confirm stage wants; shows how each batch size
    stands, what runs now and what for, and the time left.

    The pace is taken over all stages that this driver has run: work ended or under way, over the
    time that it took. A confirm stage plans a block at a time, so that its time left is that to
    the next look, until a look leaves nothing to go on for.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lock = threading.RLock()  # the panel is drawn by a thread of its own
        self.verdict: Verdict | None = None
        self.goes_on = True
        self.done = self.elapsed = 0.0  # work of runs that have ended; seconds of stages before
        self.slots = 1
        self._begin(SweepConfig(), "", Rows([], [], []), 0)

    def _begin(self, config: SweepConfig, stage: str, rows: Rows, trials: int) -> None:
        self.config, self.stage, self.trials = config, stage, trials
        self.rows = Rows(list(rows.trials), list(rows.measurements), rows.profiles)
        mine = [t for t in rows.trials if t.stage == stage]
        self.ended = Counter(t.outcome for t in mine)
        self.work = sum(work_of(t, self.slots) for t in mine)  # of the stage, whoever ran it
        self.running: dict[str, Begun] = {}
        self.seconds: dict[str, float] = {}  # of training, of those running
        self.wanted: list[ConfirmRun] = []
        self.began = time.monotonic()
        self.first: float | None = None  # when its first run began

    @contextmanager
    def watching(
        self, config: SweepConfig, stage: str, rows: Rows, trials: int = 0
    ) -> Iterator[Progress]:
        """While a stage runs, of a configuration that may have got further batch sizes.

        `rows` are those of the store: runs that had ended count, and say nothing of the pace;
        `trials` are those that a search makes in all.
        """
        with self.lock:
            self._begin(config, stage, rows, trials)
        # Drawn when it is refreshed, not at every record.
        self.live = Live(
            console=self.console, refresh_per_second=REFRESHES, transient=True,
            get_renderable=self._panel,
        )  # fmt: skip
        try:
            if self.console.is_terminal:
                self.live.start()
            yield self
        finally:
            self.live.stop()
            with self.lock:
                self.elapsed = self._elapsed()

    def turn_to(self, stage: str, trials: int = 0, wanted: Sequence[ConfirmRun] = ()) -> None:
        """The stage whose runs are made now, of those watched; and what is wanted of it."""
        with self.lock:
            if stage != self.stage:
                self.elapsed = self._elapsed()
                self._begin(self.config, stage, self.rows, trials)
            self.trials, self.wanted = trials, list(wanted)

    def judged(self, verdict: Verdict, goes_on: bool) -> None:
        """What the last look found, and whether further seeds are made after it."""
        with self.lock:
            self.verdict, self.goes_on = verdict, goes_on

    def __call__(self, record: Begun | Measurement | TrialResult) -> None:
        with self.lock:
            if isinstance(record, Begun):
                self.first = self.first or time.monotonic()
                self.running[record.trial_id] = record
                self.slots = max(self.slots, len(self.running))
            elif isinstance(record, Measurement):
                self.seconds[record.trial_id] = record.train_seconds
                if self.console.is_terminal:
                    self.rows.measurements.append(record)
            else:
                self._end(record)

    def _end(self, result: TrialResult) -> None:
        self.running.pop(result.trial_id, None)
        self.seconds.pop(result.trial_id, None)
        self.ended[result.outcome] += 1
        self.work += work_of(result, self.slots)
        self.done += work_of(result, self.slots)
        self.rows.trials.append(result)
        key = (result.batch_size, result.seed, result.learning_rate)
        self.wanted = [r for r in self.wanted if (r.batch_size, r.seed, r.learning_rate) != key]
        if not self.console.is_terminal:
            self.console.print(self._line(result), highlight=False, soft_wrap=True, markup=False)

    def _line(self, r: TrialResult) -> str:
        reached = number(r.examples_to_target, "d")
        return (
            f"[{time.monotonic() - self.began:5.0f} s] {self.stage} "
            f"{self.ended.total():3}/{self._all()} "
            f"{r.name:<24} {r.outcome:<9} {r.examples_seen:>7} examples  "
            f"val {number(r.val_metric, '.4f')}  to target {reached:>6}  {self.left()}"
        ).rstrip()

    def _all(self) -> int:
        """Runs of the stage, those that are planned so far included."""
        return max(self.trials, self.ended.total() + len(self.wanted))

    def left(self) -> str:
        """The time left, in words; nothing before the pace is known."""
        done = self.done + sum(self._under_way())
        seconds = seconds_left(self._work_left(), done, self._elapsed())
        if seconds is None:
            return ""
        until = "to the next look" if self.stage == "confirm" and self.goes_on else "left"
        return f"about {seconds:.0f} s {until}"

    def _under_way(self) -> list[float]:
        return [
            self.seconds.get(name, 0.0) * (self.slots if begun.alone else 1)
            for name, begun in self.running.items()
        ]

    def _elapsed(self) -> float:
        return self.elapsed + (time.monotonic() - self.first if self.first else 0.0)

    def _work_left(self) -> float:
        if self.stage == "confirm":
            wanted = work_wanted(self.wanted, self.rows.trials, self.slots)
            return max(0.0, sum(wanted) - sum(self._under_way()))
        each = self.work / max(1, self.ended.total())
        begun = sum(max(0.0, each - seconds) for seconds in self._under_way())
        return begun + each * max(0, self.trials - self.ended.total() - len(self.running))

    def lines(self) -> list[str]:
        """The panel as text."""
        with self.lock:
            made = standings(
                self.config, self.rows, self.running.values(), self.wanted, self.verdict
            )
            now = (f"{begun.name} ({purpose(begun)})" for begun in self.running.values())
            told = [self._heading(), *table_lines(made), f"now: {'; '.join(now) or 'nothing'}"]
            return told + ([f"so far: {self.verdict.answer}"] if self.verdict else [])

    def _heading(self) -> str:
        done, stopped = self.ended["finished"], self.ended["stopped"]
        other = self.ended.total() - done - stopped
        return (
            f"{self.stage}: {len(self.running)} running, {stopped} stopped, {done} done"
            + (f", {other} diverged or failed" if other else "")
            + f" of {self._all()}   {self.left()}"
        ).rstrip()

    def _panel(self) -> Text:
        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")
