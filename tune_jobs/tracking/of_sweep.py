"""MLflow's copy of one sweep: what it is told at the start, what it hears, which files it keeps."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from tune_jobs.config import MAY_CHANGE, SweepConfig, to_be_kept
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.records import BatchSizeProfile, Begun, Measurement, TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.tracking.mlflow_copy import MlflowCopy
from tune_jobs.tracking.reachable import check_experiment, check_reachable, default_uri
from tune_jobs.uris import with_password

# A server that is begun again takes a while: seconds to wait before each try, and in it.
TRIES = ((0, 60), (1, 5), (2, 5), (4, 5), (8, 5), (8, 5))
FACTS = ("commit", "cluster", "ray_job_id", "submission_id")


def reachable_uri(config: SweepConfig, say: Callable[[str], None]) -> str | None:
    """The store that MLflow is copied to; None when it does not answer, which is told at once.

    Errors:
        TrackingUnreachable: it does not answer, and the configuration requires it.
        UserError: its password is not at hand.
    """
    uri = with_password(config.tracking_uri or default_uri(), os.environ)
    try:
        check_reachable(uri)
        check_experiment(uri, config.experiment)
    except TrackingUnreachable as error:
        if config.tracking_required:
            raise
        say(f"note: {error}")
        say("note: going on with the records alone")
        return None
    return uri


@dataclass(frozen=True)
class SweepCopy:
    """Hears a sweep's records. Without a store to copy to (`copy` is None) it does nothing."""

    store: SweepStore
    copy: MlflowCopy | None

    @classmethod
    def begin(
        cls, config: SweepConfig, store: SweepStore, uri: str | None, facts: Mapping[str, object]
    ) -> SweepCopy:
        """The parent run is begun, or found again, and the copy's thread runs on return."""
        if uri is None:
            return cls(store, None)
        copy = MlflowCopy(uri, config.experiment, config.name, store.folder / "mlflow.json")
        kept = to_be_kept(config)
        asked = {f.name: str(getattr(kept, f.name)) for f in fields(SweepConfig)}
        # MLflow never changes a param; a tag it does.
        params = {name: value for name, value in asked.items() if name not in MAY_CHANGE}
        tags = {name: asked[name] for name in MAY_CHANGE}
        tags |= {name: str(facts[name]) for name in FACTS if facts.get(name) is not None}
        copy.start(params, {"sweep": config.name, **tags})
        return cls(store, copy)

    def profiles(self, rows: Iterable[BatchSizeProfile]) -> None:
        """Queue the rows of the measure stage."""
        if self.copy is not None:
            for row in rows:
                self.copy.profile(row)

    def __call__(self, record: Begun | Measurement | TrialResult) -> None:
        """Queue one record of a trial; that it has begun is told by its first."""
        if self.copy is None:
            return
        if isinstance(record, Measurement):
            self.copy.measurement(record)
        elif isinstance(record, TrialResult):
            self.copy.result(record)

    def finish(self, note: str, tags: Mapping[str, str]) -> str | None:
        """Fill what is missing from the store, then close the parent run.

        A store that is away is tried again for some seconds. Returns what MLflow lacks and how to
        complete it, None when it is whole.
        """
        if self.copy is None:
            return None
        store = self.store
        profiles, noise = store.read_profiles(), store.read_noise_scale()
        rows = store.read_trials(), store.read_measurements(), profiles, noise
        files = [store.config, store.environment, store.profiles, store.noise_scale, store.trials]
        files += [store.measurements, store.verdict]
        files += [store.folder / "report.html", store.folder / "figures"]
        for pause_seconds, patience_seconds in TRIES:
            time.sleep(pause_seconds)
            self.copy.complete(*rows)
            if self.copy.finish(note, tags, [f for f in files if f.exists()], patience_seconds):
                return None
        return self._lacking(len(rows[0]) + len(profiles), self.copy.missing(rows[0], profiles))

    def _lacking(self, rows: int, missing: int) -> str:
        assert self.copy is not None
        what = f"{missing} of {rows} rows" if missing else "the verdict or its files"
        why = (self.copy.last_error or "not all could be written").splitlines()[0]
        return f"{what} missing there ({why}); {sync_command(self.store)} completes it"


def sync_command(store: SweepStore) -> str:
    """What fills MLflow's copy from the records, as often as it is given."""
    return f"python tune_jobs/report.py {shlex.quote(store.address)} --sync-mlflow"
