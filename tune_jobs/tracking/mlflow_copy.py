"""MLflow as a copy of the sweep's store, written by a thread of its own.

The store is written first; this copy may lag, lose a server, or be killed, and `complete` fills it
from the store's rows. What makes that safe:

1. Nothing here raises into the sweep or makes it wait; only `check_reachable` raises.
2. A trial is found again by its tags (`mlflow.parentRunId`, `trial_id`): MLflow is its own state.
   A profile, which is no trial, bears `profile-<device>-b<batch>-m<micro-batch>` as its `trial_id`.
3. A nested run is closed (FINISHED or FAILED) only after everything of its trial is written; every
   other run is unfinished business for `complete`.
4. A point keeps the timestamp it was queued with, so that writing it again after a lost answer
   changes nothing (MLflow drops an equal point).
5. A run that says something else than the store is deleted and written anew: MLflow can add a
   metric, and never take one back.

This file is the face that a sweep sees. A row goes into the queue (`outbox.py`), from there through
the writer (`writer.py`) into its run (`nested.py`), under the names of `fields.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tune_jobs.errors import TrackingUnreachable
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TrialResult
from tune_jobs.tracking.fields import Clock, Item, Row, identity
from tune_jobs.tracking.filler import fill
from tune_jobs.tracking.nested import NestedRuns
from tune_jobs.tracking.outbox import Outbox
from tune_jobs.tracking.parent import Sweep, log_artifacts, open_parent, save_charts, write_verdict
from tune_jobs.tracking.reachable import check_reachable
from tune_jobs.tracking.writer import Writer
from tune_jobs.uris import hidden, shown

log = logging.getLogger(__name__)


class MlflowCopy:
    """One sweep in MLflow: a parent run, and a nested run for each profile, trial and confirm run.

    `state_path` names a small file that ties a sweep's folder to its parent run, so that another
    sweep of the same name on a shared server is not taken for this one. Without it the parent is
    searched by the tag `sweep`.

    Calls come from one thread (the driver's); the outbox's thread writes what is queued.
    """

    def __init__(self, uri: str, experiment: str, sweep: str, state_path: Path | None) -> None:
        self.uri = uri
        self.dropped = 0
        """Rows that were not written when they came; `complete` fills them in."""
        self.last_error: str | None = None
        self.page: str | None = None
        """Address of this sweep's charts in MLflow's UI, once `finish` has made them."""
        self._sweep = Sweep(uri, experiment, sweep, state_path)
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._clock = Clock()
        self._outbox = Outbox(self._write, self._answers, self._lose)
        self._lock = threading.Lock()
        self._writer: Writer | None = None  # once the parent run is open
        self._incomplete: set[str] = set()

    @property
    def parent_run_id(self) -> str | None:
        """None until the parent run is open."""
        return None if self._writer is None else self._writer.nested.parent.run_id

    def start(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Start the thread, which opens the parent run (a killed sweep's own, if there is one)."""
        self._params, self._tags = dict(params), dict(tags)
        self._outbox.start()

    def measurement(self, measurement: Measurement) -> None:
        """Queue one point of a curve; returns at once, never raises."""
        self._enqueue(measurement)

    def result(self, result: TrialResult) -> None:
        """Queue a trial's end; returns at once, never raises."""
        self._enqueue(result)

    def profile(self, profile: BatchSizeProfile) -> None:
        """Queue what was measured of one batch size; returns at once, never raises."""
        self._enqueue(profile)

    def complete(
        self,
        results: Sequence[TrialResult],
        measurements: Sequence[Measurement],
        profiles: Sequence[BatchSizeProfile] = (),
        noise: Sequence[NoiseScale] = (),
    ) -> bool:
        """Write every row of the store whose run is missing, not closed, or says something else.

        Idempotent. Waits for MLflow, so it belongs at the sweep's beginning and end. True when
        MLflow then holds all rows.
        """
        try:
            check_reachable(self.uri)
            with self._talking() as writer:
                fill(writer, self._clock, results, measurements, profiles, noise)
        except Exception as error:
            self._note(error)
            return False
        return True

    def finish(
        self,
        verdict_note: str,
        tags: Mapping[str, str],
        artifacts: Sequence[Path],
        timeout_seconds: float = 60,
    ) -> bool:
        """Drain the queue, write the verdict, end the parent run. True when the copy is whole."""
        drained = self._outbox.close(timeout_seconds)
        try:
            check_reachable(self.uri)
            with self._talking(timeout_seconds if drained else 1) as writer:
                whole = self._end(writer.nested, verdict_note, tags, artifacts)
        except Exception as error:
            self._note(error)
            return False
        return drained and whole and not self._incomplete

    def missing(self, results: Sequence[TrialResult], profiles: Sequence[BatchSizeProfile]) -> int:
        """How many of these rows are not known to stand whole in MLflow, which is not asked."""
        known = {} if self._writer is None else self._writer.nested.known
        whole = {key for key, run in known.items() if run.closed}
        rows: list[Row] = [*results, *profiles]
        return sum(identity(row) not in whole for row in rows)

    @contextmanager
    def _talking(self, wait_seconds: float = -1) -> Iterator[Writer]:
        """The writer, for as long as nobody else has it; after a failure its runs are read again.

        The lock's rule: who talks to MLflow, or uses what is known of its runs, does it in here.
        """
        if not self._lock.acquire(timeout=wait_seconds):
            raise TimeoutError(f"rows are still being written after {wait_seconds:g} s more")
        try:
            if self._writer is None:
                parent = open_parent(self._sweep, self._params, self._tags)
                self._writer = Writer(NestedRuns(parent), self._incomplete)
            self._writer.nested.read()
            yield self._writer
        except Exception:
            if self._writer is not None:
                self._writer.nested.forget()
            raise
        finally:
            self._lock.release()

    def _end(
        self, nested: NestedRuns, note: str, tags: Mapping[str, str], artifacts: Sequence[Path]
    ) -> bool:
        """End the parent run; whether nothing is missing. It ends without what is refused."""
        parent, uploaded = nested.parent, True
        unfinished = nested.kill_unfinished()
        try:
            self.page = save_charts(parent, nested.stages(), self._clock.now_ms())
        except Exception as error:  # costs no number
            self._note(error)
        write_verdict(parent, note, self.page, tags)
        try:
            log_artifacts(parent, artifacts)
        except Exception as error:
            self._note(error)
            uploaded = False
        parent.client.set_terminated(parent.run_id)
        return uploaded and not unfinished

    # What the outbox asks

    def _enqueue(self, row: Row) -> None:
        self._outbox.put(Item(row, self._clock.now_ms()))

    def _write(self, items: Sequence[Item]) -> bool:
        try:
            with self._talking() as writer:
                writer.write(items)
        except Exception as error:
            self._note(error)
            return False
        self.last_error = None
        return True

    def _answers(self) -> bool:
        try:
            check_reachable(self.uri)
        except TrackingUnreachable:
            return False
        return True

    def _lose(self, item: Item) -> None:
        self.dropped += 1
        self._incomplete.add(identity(item.row))

    def _note(self, error: Exception) -> None:
        message = hidden(f"{type(error).__name__}: {error}", self.uri)
        # Once for each outage, not for each attempt; the sweep goes on with the store.
        if self.last_error is None:
            log.warning("MLflow at %s: %s", shown(self.uri), message.splitlines()[0])
        self.last_error = message
