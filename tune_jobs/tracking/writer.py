"""Writes rows into their nested runs: points of curves as they come, then the end, which closes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.tracking import fields
from tune_jobs.tracking.client import log_batch
from tune_jobs.tracking.fields import End, Item
from tune_jobs.tracking.nested import NestedRun, NestedRuns


class Writer:
    """`incomplete` names the runs of which a row was lost: they are closed by `filler` alone.

    It is the caller's set, which may grow while the writer works.
    """

    def __init__(self, nested: NestedRuns, incomplete: set[str]) -> None:
        self.nested = nested
        self.incomplete = incomplete
        self._client = nested.parent.client

    def write(self, items: Iterable[Item]) -> None:
        """Write queued rows, one log_batch for all the points of a trial."""
        by_run: dict[str, list[Item]] = {}
        for item in items:
            by_run.setdefault(fields.identity(item.row), []).append(item)
        for of_run in by_run.values():
            last = of_run[-1]
            if isinstance(last.row, BatchSizeProfile):
                self.profile(last.row, last.timestamp_ms)
            else:
                self._trial(of_run)

    def profile(self, profile: BatchSizeProfile, timestamp_ms: int) -> None:
        """The closed run of a profile; one that says something else is written anew."""
        run = self.nested.known.get(fields.identity(profile))
        if run is not None and timestamp_ms < run.closed_ms:
            return  # a later row of this profile is written already
        if run is not None and not run.says(profile):
            self.nested.delete(fields.identity(profile))
        run = self.nested.of(profile)
        if not run.closed:
            self.close(run, profile, timestamp_ms)

    def _trial(self, items: Sequence[Item]) -> None:
        run = self.nested.of(items[0].row)
        if run.closed:
            return
        self.curve(run, items)
        for item in items:
            lacking = run.reopened or fields.identity(item.row) in self.incomplete
            if isinstance(item.row, TrialResult) and not lacking:
                self.close(run, item.row, item.timestamp_ms)
            elif isinstance(item.row, TrialResult):
                self.incomplete.add(item.row.trial_id)

    def curve(self, run: NestedRun, items: Iterable[Item]) -> None:
        """One log_batch for the points whose step is not there yet."""
        points: dict[int, tuple[Measurement, int]] = {}
        for item in items:
            if isinstance(item.row, Measurement) and item.row.examples_seen not in run.steps:
                points.setdefault(item.row.examples_seen, (item.row, item.timestamp_ms))
        metrics = [
            (name, value, timestamp_ms, step)
            for step, (row, timestamp_ms) in sorted(points.items())
            for name, value in fields.curve_metrics(row).items()
        ]
        log_batch(self._client, run.run_id, metrics=metrics)
        run.steps.update(points)
        run.latest.update({name: value for name, value, _, _ in metrics})

    def close(self, run: NestedRun, row: End, timestamp_ms: int) -> None:
        """Write the end of a trial or a profile, then close its run: nothing is missing now."""
        step = 0 if isinstance(row, BatchSizeProfile) else row.examples_seen
        values, tags = fields.end_metrics(row), fields.end_tags(row)
        metrics = [
            (name, value, timestamp_ms, step)
            for name, value in values.items()
            if run.latest.get(name) != value  # the curve's last point holds it already
        ]
        log_batch(
            self._client, run.run_id, metrics=metrics, params=fields.end_params(row), tags=tags
        )
        self._client.update_run(run.run_id, name=fields.run_name(row))
        status = "FAILED" if row.outcome == "failed" else "FINISHED"
        self._client.set_terminated(run.run_id, status=status)
        run.latest.update(values)
        run.tags.update(tags)
        run.closed, run.closed_ms = True, timestamp_ms
