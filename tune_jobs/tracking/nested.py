"""The nested runs of a sweep's parent: one for each trial and profile, found again by its tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_jobs.records import BatchSizeProfile, Measurement
from tune_jobs.tracking import fields
from tune_jobs.tracking.client import PARENT, search
from tune_jobs.tracking.fields import End, Row
from tune_jobs.tracking.parent import Parent

CLOSED = ("FINISHED", "FAILED")


@dataclass
class NestedRun:
    """What is known of the run of one trial or profile."""

    run_id: str
    closed: bool = False
    closed_ms: int = 0  # the timestamp of what it was closed with by this process
    reopened: bool = False  # began in an earlier process: points may be missing
    tags: dict[str, str] = field(default_factory=dict)
    steps: set[int] = field(default_factory=set)
    latest: dict[str, float] = field(default_factory=dict)

    def says(self, row: End) -> bool:
        """Whether the run is closed and says what the store does, so that it can stay as it is."""
        if not self.closed:
            return False
        wanted = fields.end_metrics(row)
        curves = () if isinstance(row, BatchSizeProfile) else fields.CURVES
        ends = {name: value for name, value in self.latest.items() if name not in curves}
        numbers = all(self.latest.get(name) == value for name, value in wanted.items())
        words = {name: self.tags[name] for name in fields.END_TAGS if name in self.tags}
        return numbers and ends.keys() <= wanted.keys() and words == fields.end_tags(row)

    def can_be_filled(self, curve: Sequence[Measurement]) -> bool:
        """Whether adding points makes the run equal the store; otherwise it is written anew."""
        ended = self.closed or "outcome" in self.tags
        return not ended and self.steps <= {row.examples_seen for row in curve}


class NestedRuns:
    """What this process knows of the nested runs; MLflow is asked once, and again after `forget`.

    `known` holds them by identity. Whoever uses it has called `read` since the last `forget`.
    """

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.known: dict[str, NestedRun] = {}
        self._is_read = False
        self._own: set[str] = set()  # run ids that this process began

    def read(self) -> None:
        """Find each identity's run; of two (an answer was lost) the closed or older one."""
        if self._is_read:
            return
        client, found = self.parent.client, dict[str, NestedRun]()
        runs = search(client, self.parent.experiment_id, (PARENT, self.parent.run_id))
        for run in sorted(runs, key=lambda run: run.info.status not in CLOSED):
            trial_id = run.data.tags.get("trial_id")
            if trial_id in found:
                client.delete_run(run.info.run_id)
            elif trial_id is not None:
                found[trial_id] = self._reopen(run)
        self.known, self._is_read = found, True

    def forget(self) -> None:
        """After a failure: a run may exist whose creation we believe failed."""
        self._is_read = False

    def of(self, row: Row) -> NestedRun:
        """The row's run, begun if there is none."""
        parent, key = self.parent, fields.identity(row)
        if key not in self.known:
            tags = {
                PARENT: parent.run_id,
                "stage": "measure" if isinstance(row, BatchSizeProfile) else row.stage,
                "sweep": parent.sweep.name,
                "trial_id": key,
            }
            run = parent.client.create_run(
                parent.experiment_id, tags=tags, run_name=fields.run_name(row)
            )
            self._own.add(str(run.info.run_id))
            self.known[key] = NestedRun(str(run.info.run_id), tags=tags)
        return self.known[key]

    def delete(self, key: str) -> None:
        """Delete the run of this identity, so that it can be written anew."""
        self.parent.client.delete_run(self.known[key].run_id)
        del self.known[key]

    def stages(self) -> set[str]:
        """The stages that have a run."""
        return {run.tags["stage"] for run in self.known.values() if "stage" in run.tags}

    def kill_unfinished(self) -> int:
        """Mark the runs that are not closed, for a later `complete`; how many there are."""
        unfinished = [run for run in self.known.values() if not run.closed]
        for run in unfinished:
            self.parent.client.set_terminated(run.run_id, status="KILLED")
        return len(unfinished)

    def _reopen(self, run: Any) -> NestedRun:
        closed = run.info.status in CLOSED
        run_id = str(run.info.run_id)
        # Every point has train_seconds; the others may be None.
        points = [] if closed else self.parent.client.get_metric_history(run_id, "train_seconds")
        return NestedRun(
            run_id=run_id,
            closed=closed,
            reopened=run_id not in self._own,
            tags=dict(run.data.tags),
            steps={point.step for point in points},
            latest=dict(run.data.metrics),
        )
