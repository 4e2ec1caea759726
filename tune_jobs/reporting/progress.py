"""What is shown while a sweep runs: one live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tune_jobs.reading.choosing import best_trial
from tune_jobs.records import Measurement, TrialResult
from tune_jobs.reporting.table import number


class Progress:
    """Hears every record; shows counts, the best of each batch size, and the time left."""

    def __init__(
        self, stage: str, batch_sizes: Sequence[int], trials: int, console: Console
    ) -> None:
        self.stage = stage
        self.console = console
        self.trials = trials
        self.batch_sizes = sorted(batch_sizes)
        self.began = time.monotonic()
        self.running: set[str] = set()
        self.ended: dict[str, str] = {}
        self.best: dict[int, TrialResult] = {}
        self.before = 0
        # Drawn when it is refreshed, not at every record.
        self.live = Live(
            console=console, refresh_per_second=2, transient=True, get_renderable=self._panel
        )

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def already(self, results: Sequence[TrialResult]) -> None:
        """Trials that an earlier driver finished; they count, and say nothing of the time left."""
        for result in results:
            self._end(result)
        self.before = len(self.ended)

    def _end(self, result: TrialResult) -> None:
        self.running.discard(result.trial_id)
        self.ended[result.trial_id] = result.outcome
        best = self.best.get(result.batch_size)
        found = best_trial([result] if best is None else [best, result])
        if found is not None:
            self.best[result.batch_size] = found

    def __call__(self, record: Measurement | TrialResult) -> None:
        if isinstance(record, Measurement):
            self.running.add(record.trial_id)
        else:
            self._end(record)
            self.trials = max(self.trials, len(self.ended))
            if not self.console.is_terminal:
                self.console.print(self._line(record), highlight=False, soft_wrap=True)

    def _line(self, r: TrialResult) -> str:
        reached = number(r.examples_to_target, "d")
        return (
            f"[{time.monotonic() - self.began:5.0f} s] {self.stage} "
            f"{len(self.ended):3}/{self.trials} "
            f"{r.name:<24} {r.outcome:<9} {r.examples_seen:>7} examples  "
            f"val {number(r.val_metric, '.4f')}  to target {reached:>6}  {self._left()}"
        ).replace("[", r"\[")

    def _left(self) -> str:
        here = len(self.ended) - self.before
        if not here:
            return ""
        each = (time.monotonic() - self.began) / here
        return f"about {max(0, self.trials - len(self.ended)) * each:.0f} s left"

    def _panel(self) -> Table:
        outcomes = Counter(self.ended.values())
        done, stopped = outcomes["finished"], outcomes["stopped"]
        other = len(self.ended) - done - stopped
        title = (
            f"{self.stage}: {len(self.running)} running, {stopped} stopped, {done} done"
            + (f", {other} diverged or failed" if other else "")
            + f" of {self.trials}   {self._left()}"
        )
        table = Table(title=title, box=None, title_justify="left")
        for heading in ("batch size", "best learning rate", "examples to target", "val metric"):
            table.add_column(heading, justify="right")
        for size in self.batch_sizes:
            best = self.best.get(size)
            if best is None:
                table.add_row(str(size), "-", "-", "-")
                continue
            table.add_row(
                str(size),
                number(best.learning_rate, ".2g"),
                number(best.examples_to_target, "d"),
                number(best.val_metric, ".4f"),
            )
        return table
