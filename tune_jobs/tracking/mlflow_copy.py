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
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_jobs.errors import TrackingUnreachable
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TrialResult
from tune_jobs.tracking import compare_view

log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000
MAX_METRICS = 1_000  # MLflow's limits for one log_batch
MAX_PARAMS_AND_TAGS = 100
MAX_PARAM_CHARACTERS = 6_000
MAX_TAG_CHARACTERS = 8_000
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.5, 30.0
REJECTIONS_BEFORE_GIVING_UP = 2

# The metric logged first is the one that MLflow's Compare draws (from SQLite; a server's database
# may order otherwise), so a quantity that every trial has from its first report on leads.
CURVES = (
    "val_accuracy",
    "val_loss",
    "train_loss",
    "test_accuracy",
    "train_accuracy",
    "train_seconds",
    "wall_time_seconds",
)
PARAMS = (
    "batch_size",
    "micro_batch_size",
    "learning_rate",
    "base_learning_rate",
    "optimizer",
    "seed",
    "model",
    "data",
)
# batch_size and learning_rate stand here too: runs sort, and charts draw, by a metric as a number.
END_METRICS = (
    "wall_time_seconds",
    "train_seconds",
    "measured_train_seconds",
    "evaluation_seconds",
    "waited_seconds",
    "energy_joules",
    "peak_memory_mib",
    "test_accuracy",
    "val_accuracy",
    "train_accuracy",
    "examples_per_second",
    "examples_seen",
    "updates",
    "examples_to_target",
    "updates_to_target",
    "time_to_target_seconds",
    "measured_time_to_target_seconds",
    "batch_size",
    "learning_rate",
)
PROFILE_PARAMS = ("batch_size", "micro_batch_size", "optimizer", "model", "data")
PROFILE_METRICS = (
    "step_seconds",
    "step_seconds_low",
    "step_seconds_high",
    "step_seconds_min",
    "examples_per_second",
    "evaluation_examples_per_second",
    "peak_memory_mib",
    "reserved_memory_mib",
    "base_memory_mib",
    "allocator_retries",
    "batch_size",
)
END_TAGS = ("outcome", "reason", "device", "node")
CLOSED = ("FINISHED", "FAILED")
LOCAL_UI = "http://127.0.0.1:5000"  # where scripts/mlflow_ui serves a local store


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def check_reachable(uri: str, timeout_seconds: float = 5) -> None:
    """Raise TrackingUnreachable when `uri` cannot take a run; costs no import of MLflow."""
    if uri.startswith(("http://", "https://")):
        _check_server(uri, timeout_seconds)
    elif (path := _sqlite_path(uri)) is not None:
        _check_sqlite(uri, path)
    elif uri.startswith("file:") or "://" not in uri:
        raise TrackingUnreachable(
            f"tracking store {uri!r} is a folder, which MLflow no longer writes; "
            "use sqlite:////absolute/path/mlflow.db or the http(s) address of a server"
        )


def _check_server(uri: str, timeout_seconds: float) -> None:
    health = uri.rstrip("/") + "/health"
    remedy = (
        "start it (mlflow server --host 127.0.0.1 --port 5000), correct --tracking-uri or "
        "MLFLOW_TRACKING_URI, or leave both out to use SQLite in the working folder"
    )
    try:
        with urllib.request.urlopen(health, timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as error:
        failed = f"answered {error.code} {error.reason}"
        if error.code == 403:
            remedy = "start the server with this host in --allowed-hosts"
        error.close()
    except (OSError, ValueError) as error:
        failed = f"failed ({getattr(error, 'reason', None) or error})"
    raise TrackingUnreachable(f"tracking server {uri!r}: GET {health} {failed}; {remedy}")


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0])


def _check_sqlite(uri: str, path: Path) -> None:
    writable = path if path.exists() else path.parent
    if not path.parent.is_dir():
        failed = f"folder {path.parent} does not exist"
    elif path.is_dir() or not (os.access(writable, os.W_OK) and os.access(path.parent, os.W_OK)):
        failed = f"{writable} cannot be written"
    else:
        return
    raise TrackingUnreachable(
        f"tracking store {uri!r}: {failed}; make it writable, or name another with --tracking-uri"
    )


def _client(uri: str) -> Any:
    """An MlflowClient that gives up soon and keeps quiet. The import takes seconds."""
    # With MLflow's own 7 retries one call to a dead server blocks for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # Two lines for each run that ends, into the job's log.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


End = TrialResult | BatchSizeProfile
Row = Measurement | End


def _identity(row: Row) -> str:
    """What the row's run is found by: its `trial_id`, or what tells one profile from another."""
    if isinstance(row, BatchSizeProfile):
        return f"profile-{row.device}-b{row.batch_size}-m{row.micro_batch_size}"
    return row.trial_id


def _name(row: Row) -> str:
    """The name that the runs table shows; a trial's own is known when it has ended."""
    if isinstance(row, TrialResult):
        return row.name
    if isinstance(row, Measurement):
        return f"b{row.batch_size}-{row.trial_id}"
    whole = row.micro_batch_size == row.batch_size
    return f"b{row.batch_size}{'' if whole else f'-m{row.micro_batch_size}'}-profile"


def _values(row: Row, names: Iterable[str]) -> dict[str, float]:
    """The row's finite numbers by name; +inf, which MLflow makes 1.8e308, is left out like None."""
    found = ((name, getattr(row, name)) for name in names)
    return {name: value for name, value in found if value is not None and math.isfinite(value)}


def _end_metrics(row: End) -> dict[str, float]:
    """What the closed run of `row` says in numbers."""
    return _values(row, PROFILE_METRICS if isinstance(row, BatchSizeProfile) else END_METRICS)


def _end_tags(row: End) -> dict[str, str]:
    """What the closed run of `row` says in words."""
    found = ((name, getattr(row, name)) for name in END_TAGS)
    return {name: str(value)[:MAX_TAG_CHARACTERS] for name, value in found if value is not None}


@dataclass
class _Nested:
    """What is known of the run of one trial or profile."""

    run_id: str
    closed: bool = False
    closed_ms: int = 0  # the timestamp of what it was closed with by this process
    reopened: bool = False  # began in an earlier process: points may be missing
    tags: dict[str, str] = field(default_factory=dict)
    steps: set[int] = field(default_factory=set)
    latest: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    row: Row
    timestamp_ms: int


class MlflowCopy:
    """One sweep in MLflow: a parent run, and a nested run for each profile, trial and confirm run.

    `state_path` names a small file that ties a sweep's folder to its parent run, so that another
    sweep of the same name on a shared server is not taken for this one. Without it the parent is
    searched by the tag `sweep`.

    Calls come from one thread (the driver's); the worker thread does the talking to MLflow.
    """

    def __init__(self, uri: str, experiment: str, sweep: str, state_path: Path | None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.sweep = sweep
        self.state_path = state_path
        self.parent_run_id: str | None = None
        self.dropped = 0
        """Rows that were not written when they came; `complete` fills them in."""
        self.last_error: str | None = None
        self.page: str | None = None
        """Address of this sweep's charts in MLflow's UI, once `finish` has made them."""
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._queue: queue.Queue[_Item] = queue.Queue(maxsize=QUEUE_SIZE)
        self._lock = threading.RLock()  # held while talking to MLflow
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._experiment_id: str | None = None
        self._nested: dict[str, _Nested] | None = None
        self._own: set[str] = set()  # nested runs that this process began
        self._incomplete: set[str] = set()
        self._last_timestamp_ms = 0

    # What the sweep calls

    def start(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Start the worker, which opens the parent run (a killed sweep's own, if there is one)."""
        self._params, self._tags = dict(params), dict(tags)
        self._thread = threading.Thread(target=self._work, name="mlflow-copy", daemon=True)
        self._thread.start()

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
        curves: dict[str, list[Measurement]] = {}
        for row in measurements:
            curves.setdefault(row.trial_id, []).append(row)
        try:
            check_reachable(self.uri)
            with self._lock:
                self._open()
                self._complete_profiles(profiles)
                for result in results:
                    self._complete_trial(result, curves.get(result.trial_id, []))
                self._complete_noise(noise)
        except Exception as error:
            self._note(error)
            self._nested = None  # read again, since what was written is not known
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
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        drained = self._thread is None or not self._thread.is_alive()
        if not self._lock.acquire(timeout=timeout_seconds if drained else 1):
            return False
        try:
            check_reachable(self.uri)
            whole = self._end_parent(verdict_note, tags, artifacts)
        except Exception as error:
            self._note(error)
            return False
        finally:
            self._lock.release()
        return drained and whole and not self._incomplete

    # The worker

    def _enqueue(self, row: Row) -> None:
        try:
            self._queue.put_nowait(_Item(row, self._now_ms()))
        except queue.Full:
            self._lose(_identity(row))

    def _now_ms(self) -> int:
        """Later than every time it gave before: MLflow's latest value is the one of latest time."""
        self._last_timestamp_ms = max(time.time_ns() // 1_000_000, self._last_timestamp_ms + 1)
        return self._last_timestamp_ms

    def _lose(self, identity: str) -> None:
        self.dropped += 1
        self._incomplete.add(identity)

    def _note(self, error: BaseException) -> None:
        message = f"{type(error).__name__}: {error}"
        # Once for each outage, not for each attempt; the sweep goes on with the store.
        if self.last_error is None:
            log.warning("MLflow at %s: %s", self.uri, message.splitlines()[0])
        self.last_error = message

    def _work(self) -> None:
        """Write what is queued until told to close; an outage is waited out, with back-off."""
        pending: list[_Item] = []
        backoff, rejections, opened = FIRST_BACKOFF_SECONDS, 0, False
        while not (self._closing.is_set() and opened and not pending and self._queue.empty()):
            pending = pending or self._take(block=opened)
            try:
                with self._lock:
                    self._open()
                    opened = True
                    self._write(pending)
                pending, backoff, rejections = [], FIRST_BACKOFF_SECONDS, 0
                self.last_error = None
            except Exception as error:
                self._note(error)
                self._nested = None  # a run may exist whose creation we believe failed
                rejections += self._is_rejection()
                if rejections >= REJECTIONS_BEFORE_GIVING_UP or self._closing.is_set():
                    self._lose_all(pending)
                    pending, rejections = [], 0
                if self._closing.is_set():
                    self._lose_all(self._take(block=False))
                    return
                self._closing.wait(backoff)
                backoff = min(2 * backoff, LAST_BACKOFF_SECONDS)

    def _take(self, block: bool) -> list[_Item]:
        """All that is queued; waits a moment for the first when `block`."""
        items: list[_Item] = []
        try:
            items.append(self._queue.get(block=block, timeout=0.2))
            while True:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return items

    def _is_rejection(self) -> bool:
        """Whether MLflow answers, so that what failed was refused rather than not delivered."""
        try:
            check_reachable(self.uri)
        except TrackingUnreachable:
            return False
        return True

    def _lose_all(self, items: Iterable[_Item]) -> None:
        for item in items:
            self._lose(_identity(item.row))

    def _write(self, items: Iterable[_Item]) -> None:
        """Write queued rows, one log_batch for all the points of a trial."""
        by_run: dict[str, list[_Item]] = {}
        for item in items:
            by_run.setdefault(_identity(item.row), []).append(item)
        for of_run in by_run.values():
            last = of_run[-1]
            if isinstance(last.row, BatchSizeProfile):
                self._write_profile(last.row, last.timestamp_ms)
            else:
                self._write_trial(of_run)

    def _write_trial(self, items: Sequence[_Item]) -> None:
        nested = self._nested_run(items[0].row)
        if nested.closed:
            return
        self._log_curve(nested, items)
        for item in items:
            lacking = nested.reopened or _identity(item.row) in self._incomplete
            if isinstance(item.row, TrialResult) and not lacking:
                self._close(nested, item.row, item.timestamp_ms)
            elif isinstance(item.row, TrialResult):
                self._incomplete.add(item.row.trial_id)

    def _write_profile(self, profile: BatchSizeProfile, timestamp_ms: int) -> None:
        """The closed run of a profile; one that says something else is written anew."""
        assert self._nested is not None
        identity = _identity(profile)
        nested = self._nested.get(identity)
        if nested is not None and timestamp_ms < nested.closed_ms:
            return  # a later row of this profile is written already
        if nested is not None and not _says(nested, profile):
            self._delete(identity)
        nested = self._nested_run(profile)
        if not nested.closed:
            self._close(nested, profile, timestamp_ms)

    # Talking to MLflow; the lock is held

    def _open(self) -> None:
        """The client, the parent run and the nested runs that exist already."""
        if self._client is None:
            self._client = _client(self.uri)
        if self._experiment_id is None:
            self._experiment_id = self._find_experiment()
        if self.parent_run_id is None:
            self.parent_run_id = self._find_parent() or self._create_parent()
        if self._nested is None:
            self._nested = self._find_nested()

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        path = _sqlite_path(self.uri)
        # Beside the database, and not in whatever folder a process happens to run.
        place = None if path is None else (path.absolute().parent / "mlruns").as_uri()
        return str(self._client.create_experiment(self.experiment, artifact_location=place))

    def _parent_tag(self) -> tuple[str, str]:
        """The tag that marks this sweep's parent run. Its token is kept before it is used."""
        if self.state_path is None:
            return "sweep", self.sweep
        if not self.state_path.exists():
            self.state_path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.state_path.with_name(self.state_path.name + ".tmp")
            unfinished.write_text(json.dumps({"sweep_id": uuid.uuid4().hex}))
            os.replace(unfinished, self.state_path)
        return "sweep_id", str(json.loads(self.state_path.read_text())["sweep_id"])

    def _search(self, tag: str, value: str) -> list[Any]:
        quoted = value.replace("'", "")
        runs, token = [], None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{tag}` = '{quoted}'",
                max_results=1_000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def _find_parent(self) -> str | None:
        for run in self._search(*self._parent_tag()):
            if "mlflow.parentRunId" not in run.data.tags:
                run_id = str(run.info.run_id)
                self._client.update_run(run_id, status="RUNNING")
                self._log_batch(run_id, tags=self._tags)
                return run_id
        return None

    def _create_parent(self) -> str:
        key, value = self._parent_tag()
        tags = self._tags | {"sweep": self.sweep, key: value}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=self.sweep)
        self._log_batch(run.info.run_id, params=self._params)
        return str(run.info.run_id)

    def _find_nested(self) -> dict[str, _Nested]:
        """The nested run of each trial; of two (an answer was lost) the closed or older one."""
        assert self.parent_run_id is not None
        nested: dict[str, _Nested] = {}
        runs = self._search("mlflow.parentRunId", self.parent_run_id)
        for run in sorted(runs, key=lambda run: run.info.status not in CLOSED):
            trial_id = run.data.tags.get("trial_id")
            if trial_id in nested:
                self._client.delete_run(run.info.run_id)
            elif trial_id is not None:
                nested[trial_id] = self._reopen(run)
        return nested

    def _reopen(self, run: Any) -> _Nested:
        closed = run.info.status in CLOSED
        run_id = str(run.info.run_id)
        # Every point has train_seconds; the others may be None.
        points = [] if closed else self._client.get_metric_history(run_id, "train_seconds")
        return _Nested(
            run_id=run_id,
            closed=closed,
            reopened=run_id not in self._own,
            tags=dict(run.data.tags),
            steps={point.step for point in points},
            latest=dict(run.data.metrics),
        )

    def _nested_run(self, row: Row) -> _Nested:
        assert self._nested is not None
        identity = _identity(row)
        if identity not in self._nested:
            tags = {
                "mlflow.parentRunId": str(self.parent_run_id),
                "stage": "measure" if isinstance(row, BatchSizeProfile) else row.stage,
                "sweep": self.sweep,
                "trial_id": identity,
            }
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=_name(row))
            run_id = str(run.info.run_id)
            self._own.add(run_id)
            self._nested[identity] = _Nested(run_id, tags=tags)
        return self._nested[identity]

    def _delete(self, identity: str) -> None:
        assert self._nested is not None
        self._client.delete_run(self._nested[identity].run_id)
        del self._nested[identity]

    def _log_curve(self, nested: _Nested, items: Iterable[_Item]) -> None:
        """One log_batch for the points whose step is not there yet."""
        points: dict[int, _Item] = {}
        for item in items:
            if isinstance(item.row, Measurement) and item.row.examples_seen not in nested.steps:
                points.setdefault(item.row.examples_seen, item)
        metrics = [
            (name, value, item.timestamp_ms, step)
            for step, item in sorted(points.items())
            for name, value in _values(item.row, CURVES).items()
        ]
        self._log_batch(nested.run_id, metrics=metrics)
        nested.steps.update(points)
        nested.latest.update({name: value for name, value, _, _ in metrics})

    def _close(self, nested: _Nested, row: End, timestamp_ms: int) -> None:
        """Write the end of a trial or a profile, then close its run: nothing is missing now."""
        profile = isinstance(row, BatchSizeProfile)
        step = 0 if isinstance(row, BatchSizeProfile) else row.examples_seen
        values = _end_metrics(row)
        metrics = [
            (name, value, timestamp_ms, step)
            for name, value in values.items()
            if nested.latest.get(name) != value  # the curve's last point holds it already
        ]
        params = {name: str(getattr(row, name)) for name in (PROFILE_PARAMS if profile else PARAMS)}
        tags = _end_tags(row)
        self._log_batch(nested.run_id, metrics=metrics, params=params, tags=tags)
        self._client.update_run(nested.run_id, name=_name(row))
        status = "FAILED" if row.outcome == "failed" else "FINISHED"
        self._client.set_terminated(nested.run_id, status=status)
        nested.latest.update(values)
        nested.tags.update(tags)
        nested.closed, nested.closed_ms = True, timestamp_ms

    def _complete_profiles(self, profiles: Sequence[BatchSizeProfile]) -> None:
        """Each profile of the store; runs of profiles that it no longer holds are deleted."""
        assert self._nested is not None
        held = {_identity(profile) for profile in profiles}
        for identity, nested in list(self._nested.items()):
            measured = nested.tags.get("stage") == "measure"
            if held and measured and identity not in held:
                self._delete(identity)
        for profile in profiles:
            self._write_profile(profile, self._now_ms())
        self._incomplete -= held

    def _complete_trial(self, result: TrialResult, curve: Sequence[Measurement]) -> None:
        assert self._nested is not None
        nested = self._nested.get(result.trial_id)
        if nested is not None and not (_says(nested, result) or _can_be_filled(nested, curve)):
            self._delete(result.trial_id)
        nested = self._nested_run(result)
        if not nested.closed:
            self._log_curve(nested, [_Item(row, self._now_ms()) for row in curve])
            self._close(nested, result, self._now_ms())
        self._incomplete.discard(result.trial_id)

    def _complete_noise(self, rows: Sequence[NoiseScale]) -> None:
        """The noise scale along training, on the parent; a point that is there stays alone."""
        run_id = str(self.parent_run_id)
        there = {
            (name, point.step, point.value)
            for name in {_noise_name(row) for row in rows}
            for point in self._client.get_metric_history(run_id, name)
        }
        points = [
            (_noise_name(row), row.noise_scale, row.examples_seen)
            for row in rows
            if row.noise_scale is not None and math.isfinite(row.noise_scale)
        ]
        self._log_batch(
            run_id,
            metrics=[
                (name, value, self._now_ms(), step)
                for name, value, step in points
                if (name, step, value) not in there
            ],
        )

    def _end_parent(
        self, verdict_note: str, tags: Mapping[str, str], artifacts: Sequence[Path]
    ) -> bool:
        self._open()
        assert self._nested is not None
        run_id = self.parent_run_id
        unfinished = [nested for nested in self._nested.values() if not nested.closed]
        for nested in unfinished:
            self._client.set_terminated(nested.run_id, status="KILLED")
        self._save_view()
        note = _with_link(verdict_note, self.page)
        self._log_batch(str(run_id), tags={**tags, "mlflow.note.content": note})
        uploaded = self._log_artifacts(str(run_id), artifacts)
        self._client.set_terminated(run_id)
        return uploaded and not unfinished

    def _save_view(self) -> None:
        """Charts of this sweep's most telling stage; a store that refuses them loses no number."""
        assert self._nested is not None
        stages = {nested.tags.get("stage") for nested in self._nested.values()}
        stage = next((stage for stage in compare_view.AXES if stage in stages), None)
        if stage is None:
            return
        experiment, run_id = str(self._experiment_id), str(self.parent_run_id)
        try:
            view = compare_view.tag_value(self.sweep, run_id, stage, self._now_ms())
            self._client.set_experiment_tag(experiment, compare_view.tag_name(run_id), view)
            for name in compare_view.outdated(self._client.get_experiment(experiment).tags):
                self._client.delete_experiment_tag(experiment, name)
        except Exception as error:
            self._note(error)
            return
        base = self.uri.rstrip("/") if self.uri.startswith("http") else LOCAL_UI
        self.page = base + compare_view.page(experiment, run_id)

    def _log_artifacts(self, run_id: str, artifacts: Sequence[Path]) -> bool:
        """Files under the run's root, folders under their name. Without them the run is closed."""
        try:
            self._check_artifact_place(run_id)
            for path in artifacts:
                if path.is_dir():
                    self._client.log_artifacts(run_id, str(path), path.name)
                else:
                    self._client.log_artifact(run_id, str(path))
        except Exception as error:
            self._note(error)
            return False
        return True

    def _check_artifact_place(self, run_id: str) -> None:
        """Raise when MLflow would write the artifacts to this machine's disk, not the server's."""
        place = urllib.parse.urlsplit(self._client.get_run(run_id).info.artifact_uri)
        server = urllib.parse.urlsplit(self.uri)
        if place.scheme not in ("", "file") or server.scheme not in ("http", "https"):
            return
        if server.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise TrackingUnreachable(
                f"tracking server {self.uri!r} keeps artifacts in {place.path}, a folder of its "
                "own machine; start it with --serve-artifacts, and name a new experiment"
            )

    def _log_batch(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """log_batch in pieces of the size that MLflow takes; nothing at all costs no call."""
        from mlflow.entities import Metric, Param, RunTag

        words, marks = params or {}, tags or {}
        parts = [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in words.items()]
        labels = [RunTag(key, str(value)[:MAX_TAG_CHARACTERS]) for key, value in marks.items()]
        points = [Metric(*metric) for metric in metrics]
        half = MAX_PARAMS_AND_TAGS // 2
        while points or parts or labels:
            head = points[: MAX_METRICS - MAX_PARAMS_AND_TAGS]
            self._client.log_batch(run_id, metrics=head, params=parts[:half], tags=labels[:half])
            points, parts, labels = points[len(head) :], parts[half:], labels[half:]


def _says(nested: _Nested, row: End) -> bool:
    """Whether a closed run says what the store does, so that it can stay as it is."""
    wanted = _end_metrics(row)
    curves = () if isinstance(row, BatchSizeProfile) else CURVES
    ends = {name: value for name, value in nested.latest.items() if name not in curves}
    numbers = all(nested.latest.get(name) == value for name, value in wanted.items())
    words = {name: nested.tags[name] for name in END_TAGS if name in nested.tags}
    return nested.closed and numbers and ends.keys() <= wanted.keys() and words == _end_tags(row)


def _can_be_filled(nested: _Nested, curve: Sequence[Measurement]) -> bool:
    """Whether adding points makes the run equal the store; otherwise it is written anew."""
    ended = nested.closed or "outcome" in nested.tags
    return not ended and nested.steps <= {row.examples_seen for row in curve}


def _noise_name(row: NoiseScale) -> str:
    return f"noise_scale_{row.kind}"


def _with_link(note: str, page: str | None) -> str:
    """The note with the charts' address after its first paragraph: MLflow folds away what follows.

    Without the host, so that the link holds wherever the store is served.
    """
    if page is None:
        return note
    first, _, rest = note.partition("\n\n")
    link = f"[Charts of batch size](#{page.partition('#')[2]})"
    return "\n\n".join(part for part in (first, link, rest) if part)
