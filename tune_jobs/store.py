"""The sweep's folder: every path named once; records to and from Parquet, atomically.

Tables that grow while a sweep runs are written in parts (`trials.parts/00001.parquet` ...), so that
the work of a row does not grow with the table; reading gives the whole table and its parts as one,
and `GrowingTable.merge` makes them one file again. A row replaces an earlier one of its key.

The folder lies on a disk (this machine's or a shared one), or on storage that pyarrow opens by URI.
Then `folder` is this machine's copy of it, for whoever needs files; the records are read from the
storage itself, so several drivers in turn, on several machines, see the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NoReturn

from tune_jobs import remote_folder
from tune_jobs.config import SweepConfig, resolve, to_toml
from tune_jobs.durable import LEFT_BEHIND_SECONDS, remove_left_behind, sync_folder, write_whole
from tune_jobs.errors import StoreError, UserError
from tune_jobs.private import folder_mode
from tune_jobs.records import (
    BatchSizeProfile,
    Look,
    Measurement,
    NoiseScale,
    RangePoint,
    TrialResult,
)
from tune_jobs.remote_folder import RemoteFolder
from tune_jobs.tables import Row, decoded, encoded

PROBE = ".writable"
PART_ROWS = 500  # some 10 ms to write
SEAL = "# sha256 of the lines below: "
AGAIN = "delete it: --resume makes it again"
# File -> what is lost where it cannot be read, and what to do.
LOST = {
    "sweep.toml": (
        "what the sweep was begun with",
        "put a copy in its place (the params of its MLflow run say the same), or begin a sweep "
        "with another --name",
    ),
    "environment.json": ("where the sweep ran, and no result", AGAIN),
    "verdict.json": ("the verdict, which the records make again", "delete it and run report.py"),
    "looks.json": ("the looks that seeds were planned by", AGAIN),
    "profiles.parquet": ("what an update costs at each batch size", AGAIN),
    "range_test.parquet": ("the range test, of --search rules alone", "begin another sweep"),
    "noise_scale.parquet": ("the noise scale along a run, which decides nothing", "delete it"),
    "trials.parquet": (
        "the rows of trials that had ended",
        "put a copy in its place (MLflow keeps one of a finished sweep), or delete it: --resume "
        "writes again what Ray kept of them",
    ),
    "measurements.parquet": (
        "the curves of trials that had ended",
        "put a copy in its place (MLflow keeps one of a finished sweep), or delete it",
    ),
    "trials.parts": (
        "the trials of this part; the table's other parts stand",
        "delete it: --resume writes again what Ray kept of them",
    ),
    "measurements.parts": (
        "the curves' points of this part; the table's other parts stand",
        "delete it",
    ),
}


class SweepStore:
    """`runs/<name>/`: what a sweep leaves behind. Reading never changes anything."""

    def __init__(self, folder: Path, remote: RemoteFolder | None = None) -> None:
        self.folder = folder
        self.remote = remote
        self.config = folder / "sweep.toml"
        self.environment = folder / "environment.json"
        self.profiles = folder / "profiles.parquet"
        self.noise_scale = folder / "noise_scale.parquet"
        self.range_test = folder / "range_test.parquet"
        self.trials = folder / "trials.parquet"
        self.measurements = folder / "measurements.parquet"
        self.verdict = folder / "verdict.json"
        self.looks = folder / "looks.json"
        self.optimizers = folder / "optimizers.json"
        self.lock = folder / "driver.json"
        self.ray = folder / "ray"

    @classmethod
    def open(cls, runs_dir: str, name: str) -> SweepStore:
        """The sweep `name` in `runs_dir`: a folder, or a URI that pyarrow opens."""
        return cls.at(remote_folder.joined(runs_dir, name))

    @classmethod
    def at(cls, address: str) -> SweepStore:
        """The sweep whose own folder has this path or URI. Raises UserError, StoreError."""
        if not remote_folder.is_remote(address):
            return cls(Path(address.removeprefix("file://")))
        store = cls(_copy_of(address), RemoteFolder.open(address))
        store.fetch()
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its address: another machine has no copy yet, and opens its own."""
        return (SweepStore.at, (self.address,)) if self.remote else (SweepStore, (self.folder,))

    @property
    def address(self) -> str:
        """What the user may give to open this sweep again: its path or its URI."""
        return self.remote.address if self.remote else str(self.folder)

    def ray_storage(self) -> tuple[str, Any]:
        """Where Ray Tune keeps its state: `storage_path` and `storage_filesystem`."""
        if self.remote is None:
            return str(self.ray.resolve()), None
        return self.remote.key(self.ray.name), self.remote.filesystem

    def exists(self) -> bool:
        if self.remote is not None:
            return self.remote.exists(self.config.name)
        return self.config.exists()

    def create(self) -> None:
        """Make the folder; raises UserError when it cannot be written."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True, mode=folder_mode())
            self.write_text(self.folder / PROBE, "", lasting=False)
            self.delete(self.folder / PROBE)
            sync_folder(self.folder.parent)
            remove_left_behind(self.folder, LEFT_BEHIND_SECONDS)
        except StoreError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); give another --runs-dir"
            ) from error

    def take_back(self) -> None:
        """What was begun and has no row yet is no sweep: its name is free again."""
        if not (self.read_profiles() or self.read_trials()):
            self.delete(self.config)
            self.delete(self.environment)

    def fetch(self) -> None:
        """Bring the files of a remote folder (not Ray's state) into this machine's copy."""
        if self.remote is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in self.remote.names():
            if name == self.lock.name:
                continue  # a driver's, and not a file of the sweep's
            content = self.remote.read(name)
            if content is not None:
                write_whole(self.folder / name, content, lasting=False)

    def publish(self) -> None:
        """Put every file of this machine's copy (report, figures, MLflow's tie) on the remote."""
        if self.remote is None:
            return
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            own = name.parts[0] in (self.ray.name, self.lock.name) or path.suffix == ".tmp"
            if path.is_file() and not own:
                self.remote.write(name.as_posix(), path.read_bytes())

    def write_text(self, path: Path, text: str, *, lasting: bool = True) -> None:
        self._write(path, text.encode(), lasting=lasting)

    def read_text(self, path: Path) -> str | None:
        """A text file of this folder; None where there is none. Raises StoreError."""
        content = self._read(path)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            self._damaged(path, error)

    def _json(self, path: Path, otherwise: Any) -> Any:
        """What a JSON file says, `otherwise` where there is none; an emptied one is damaged."""
        text = self.read_text(path)
        try:
            return otherwise if text is None else json.loads(text)
        except (ValueError, RecursionError) as error:
            self._damaged(path, error)

    def _damaged(self, path: Path, why: object) -> NoReturn:
        name = path.parent.name if path.parent != self.folder else path.name
        lost, remedy = LOST[name]
        raise StoreError(f"{path} is damaged ({why}). With it is lost: {lost}. To go on: {remedy}")

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.delete(path.relative_to(self.folder).as_posix())

    def age_seconds(self, path: Path) -> float:
        """Since the file was written, by the clock of the storage: hosts may differ."""
        now = self.folder / PROBE
        self.write_text(now, "", lasting=False)
        age = self._written_at(now) - self._written_at(path)
        self.delete(now)
        return age

    def _written_at(self, path: Path) -> float:
        if self.remote is not None:
            return self.remote.written_at(path.relative_to(self.folder).as_posix())
        return path.stat().st_mtime

    def _write(self, path: Path, content: bytes, *, lasting: bool = True) -> None:
        write_whole(path, content, lasting=lasting and self.remote is None)
        if self.remote is not None:
            self.remote.write(path.relative_to(self.folder).as_posix(), content)

    def _read(self, path: Path) -> bytes | None:
        if self.remote is not None:
            return self.remote.read(path.relative_to(self.folder).as_posix())
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror})") from error

    def write_config(self, config: SweepConfig) -> None:
        """The configuration, sealed: a cut or changed one never reads as another's."""
        text = to_toml(config)
        self.write_text(self.config, f"{SEAL}{_sha256(text)}\n{text}")

    def read_config(self) -> SweepConfig:
        """What the sweep was begun with. Raises StoreError where that cannot be told."""
        whole = self.read_text(self.config) or ""
        first, _, text = whole.partition("\n")
        if first.startswith(SEAL) and first != SEAL + _sha256(text):
            self._damaged(self.config, "changed since; if you changed it, delete its first line")
        # Without a seal it is of an earlier version, or was changed: its last setting must stand.
        if not re.search(r"(?m)^experiment\s*=", whole):
            self._damaged(self.config, "settings are missing at its end")
        try:
            return resolve(self.config, {})
        except UserError as error:
            self._damaged(self.config, error)

    def write_environment(self, facts: dict[str, Any]) -> None:
        self.write_text(self.environment, json.dumps(facts, indent=2) + "\n")

    def read_environment(self) -> dict[str, Any]:
        """Where the sweep ran; nothing where that was not kept. Raises StoreError."""
        facts = self._json(self.environment, {})
        if not isinstance(facts, dict):
            self._damaged(self.environment, "not an object of JSON")
        return facts

    def read_data_digest(self) -> str | None:
        """What the sweep's data were known by; None where that was not kept, or is damaged."""
        try:
            return self.read_environment().get("data_digest")
        except StoreError:
            return None

    def write_looks(self, looks: Sequence[Look]) -> None:
        self.write_text(self.looks, json.dumps([asdict(look) for look in looks]) + "\n")

    def read_looks(self) -> list[Look]:
        """Raises StoreError where the file is not what `write_looks` leaves."""
        rows = self._json(self.looks, [])
        try:
            return [
                Look(**{**row, "alive": tuple(row["alive"]), "rates": tuple(row.get("rates", ()))})
                for row in rows
            ]
        except (ValueError, TypeError, KeyError) as error:
            self._damaged(self.looks, f"not a list of looks: {error!r}")

    def write_profiles(self, rows: Sequence[BatchSizeProfile]) -> None:
        self._write(self.profiles, encoded(BatchSizeProfile, rows))

    def write_noise_scale(self, rows: Sequence[NoiseScale]) -> None:
        self._write(self.noise_scale, encoded(NoiseScale, rows))

    def write_range_test(self, rows: Sequence[RangePoint]) -> None:
        self._write(self.range_test, encoded(RangePoint, rows))

    def write_trials(self, rows: Sequence[TrialResult]) -> None:
        self._write_whole(TrialResult, self.trials, rows)

    def write_measurements(self, rows: Sequence[Measurement]) -> None:
        self._write_whole(Measurement, self.measurements, rows)

    def drop_lost(self, stages: Collection[str], taken_up: Collection[str]) -> None:
        """Remove the points of trials of these stages that have no row and are not taken up again:
        a killed driver had begun them, and Ray does not know them."""
        held = {row.trial_id for row in self.read_trials()} | set(taken_up)
        points = self.read_measurements()
        kept = [m for m in points if m.stage not in stages or m.trial_id in held]
        if len(kept) < len(points):
            self.write_measurements(kept)

    def growing_trials(self) -> GrowingTable[TrialResult]:
        return GrowingTable(self, TrialResult, self.trials)

    def growing_measurements(self) -> GrowingTable[Measurement]:
        return GrowingTable(self, Measurement, self.measurements)

    def read_profiles(self) -> list[BatchSizeProfile]:
        return self._rows(BatchSizeProfile, self.profiles, self._read(self.profiles))

    def read_noise_scale(self) -> list[NoiseScale]:
        return self._rows(NoiseScale, self.noise_scale, self._read(self.noise_scale))

    def read_range_test(self) -> list[RangePoint]:
        return self._rows(RangePoint, self.range_test, self._read(self.range_test))

    def read_trials(self) -> list[TrialResult]:
        return self._read_whole(TrialResult, self.trials)

    def read_measurements(self) -> list[Measurement]:
        return self._read_whole(Measurement, self.measurements)

    def _rows(self, kind: type[Row], path: Path, content: bytes | None) -> list[Row]:
        try:
            return [] if content is None else decoded(kind, content)
        except ValueError as error:
            self._damaged(path, error)

    def _write_whole(self, kind: type, path: Path, rows: Sequence[Any]) -> None:
        """The table as one file; its parts, which are in it, go after it stands."""
        parts = self._part_numbers(path)
        self._write(path, encoded(kind, rows))
        for number in parts:
            self.delete(part_of(path, number))
        folder = part_of(path, 1).parent
        remove_left_behind(folder, 0)  # the table has one writer
        with suppress(OSError):
            folder.rmdir()

    def _read_whole(self, kind: type[Row], path: Path) -> list[Row]:
        # Parts first: those that are merged away meanwhile are in the file that is read after them.
        parts = [part_of(path, number) for number in self._part_numbers(path)]
        added = [row for part in parts for row in self._rows(kind, part, self._read(part))]
        rows = self._rows(kind, path, self._read(path)) + added
        return list({KEYS[kind](row): row for row in rows}.values())

    def _part_numbers(self, path: Path) -> list[int]:
        """In their order; one that is missing hides none of the others."""
        folder = part_of(path, 1).parent
        if self.remote is not None:
            names = self.remote.names(folder.name)
        else:
            names = [part.name for part in folder.glob("*.parquet")]
        return sorted(int(name.split(".")[0]) for name in names if PART_NAME.fullmatch(name))


PART_NAME = re.compile(r"[0-9]{5,}\.parquet")
KEYS: dict[type, Callable[[Any], Any]] = {
    TrialResult: lambda row: row.trial_id,
    Measurement: lambda row: (row.trial_id, row.examples_seen),
}


class GrowingTable(Generic[Row]):
    """A table of a sweep that runs. One writer at a time; what an earlier one left is kept."""

    def __init__(self, store: SweepStore, kind: type[Row], path: Path) -> None:
        self.store = store
        self.kind = kind
        self.path = path
        self.number = 1 + max(store._part_numbers(path), default=0)
        self.last: dict[Any, Row] = {}

    def add(self, row: Row) -> None:
        """In the table from the next `write` on."""
        self.last[KEYS[self.kind](row)] = row

    def write(self) -> None:
        """Put the added rows where a reader finds them; the last part is written again."""
        if not self.last:
            return
        part = part_of(self.path, self.number)
        if not part.parent.exists() and self.store.folder.exists():
            part.parent.mkdir(exist_ok=True)
            sync_folder(self.store.folder)
        self.store._write(part, encoded(self.kind, self.last.values()))
        if len(self.last) >= PART_ROWS:
            self.number, self.last = self.number + 1, {}

    def merge(self) -> None:
        """Make the table one file."""
        self.write()
        self.store._write_whole(self.kind, self.path, self.store._read_whole(self.kind, self.path))
        self.number, self.last = 1, {}


def part_of(path: Path, number: int) -> Path:
    """`trials.parts/00001.parquet` of `trials.parquet`."""
    return path.with_suffix(".parts") / f"{number:05}.parquet"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy_of(address: str) -> Path:
    """This machine's copy of a remote folder, the same for every process of the user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "batch-size-sweep" / hashlib.sha256(address.encode()).hexdigest()[:16]
