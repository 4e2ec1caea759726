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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from tune_jobs import remote_folder
from tune_jobs.errors import StoreError, UserError
from tune_jobs.records import BatchSizeProfile, Look, Measurement, NoiseScale, TrialResult
from tune_jobs.remote_folder import RemoteFolder

Row = TypeVar("Row")
PROBE = ".writable"
PART_ROWS = 500  # some 10 ms to write
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class SweepStore:
    """`runs/<name>/`: what a sweep leaves behind. Reading never changes anything."""

    def __init__(self, folder: Path, remote: RemoteFolder | None = None) -> None:
        self.folder = folder
        self.remote = remote
        self.config = folder / "sweep.toml"
        self.environment = folder / "environment.json"
        self.profiles = folder / "profiles.parquet"
        self.noise_scale = folder / "noise_scale.parquet"
        self.trials = folder / "trials.parquet"
        self.measurements = folder / "measurements.parquet"
        self.verdict = folder / "verdict.json"
        self.looks = folder / "looks.json"
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
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write_text(self.folder / PROBE, "")
            self.delete(self.folder / PROBE)
        except StoreError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); give another --runs-dir"
            ) from error

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
                _replace(self.folder / name, content)

    def publish(self) -> None:
        """Put every file of this machine's copy (report, figures, MLflow's tie) on the remote."""
        if self.remote is None:
            return
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            own = name.parts[0] in (self.ray.name, self.lock.name) or path.suffix == ".tmp"
            if path.is_file() and not own:
                self.remote.write(name.as_posix(), path.read_bytes())

    def write_text(self, path: Path, text: str) -> None:
        self._write(path, text.encode())

    def read_text(self, path: Path) -> str | None:
        """A text file of this folder; None where there is none."""
        content = self._read(path)
        return None if content is None else content.decode()

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.delete(path.relative_to(self.folder).as_posix())

    def age_seconds(self, path: Path) -> float:
        """Since the file was written, by the clock of the storage: hosts may differ."""
        now = self.folder / PROBE
        self.write_text(now, "")
        age = self._written_at(now) - self._written_at(path)
        self.delete(now)
        return age

    def _written_at(self, path: Path) -> float:
        if self.remote is not None:
            return self.remote.written_at(path.relative_to(self.folder).as_posix())
        return path.stat().st_mtime

    def _write(self, path: Path, content: bytes) -> None:
        _replace(path, content)
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

    def write_environment(self, facts: dict[str, Any]) -> None:
        self.write_text(self.environment, json.dumps(facts, indent=2) + "\n")

    def write_looks(self, looks: Sequence[Look]) -> None:
        self.write_text(self.looks, json.dumps([asdict(look) for look in looks]) + "\n")

    def read_looks(self) -> list[Look]:
        """Raises StoreError where the file is not what `write_looks` leaves."""
        try:
            rows = json.loads(self.read_text(self.looks) or "[]")
            return [Look(**{**row, "alive": tuple(row["alive"])}) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self.looks} is not a list of looks: {error!r}") from error

    def write_profiles(self, rows: Sequence[BatchSizeProfile]) -> None:
        self._write(self.profiles, encoded(BatchSizeProfile, rows))

    def write_noise_scale(self, rows: Sequence[NoiseScale]) -> None:
        self._write(self.noise_scale, encoded(NoiseScale, rows))

    def write_trials(self, rows: Sequence[TrialResult]) -> None:
        self._write_whole(TrialResult, self.trials, rows)

    def write_measurements(self, rows: Sequence[Measurement]) -> None:
        self._write_whole(Measurement, self.measurements, rows)

    def growing_trials(self) -> GrowingTable[TrialResult]:
        return GrowingTable(self, TrialResult, self.trials)

    def growing_measurements(self) -> GrowingTable[Measurement]:
        return GrowingTable(self, Measurement, self.measurements)

    def read_profiles(self) -> list[BatchSizeProfile]:
        return decoded(BatchSizeProfile, self._read(self.profiles), self.profiles)

    def read_noise_scale(self) -> list[NoiseScale]:
        return decoded(NoiseScale, self._read(self.noise_scale), self.noise_scale)

    def read_trials(self) -> list[TrialResult]:
        return self._read_whole(TrialResult, self.trials)

    def read_measurements(self) -> list[Measurement]:
        return self._read_whole(Measurement, self.measurements)

    def _write_whole(self, kind: type, path: Path, rows: Sequence[Any]) -> None:
        """The table as one file; its parts, which are in it, go after it stands."""
        parts = list(self._parts(path))
        self._write(path, encoded(kind, rows))
        for part, _ in reversed(parts):  # a reader finds no gap before what is left
            self.delete(part)
        if parts:
            part_of(path, 1).parent.rmdir()

    def _read_whole(self, kind: type[Row], path: Path) -> list[Row]:
        # Parts first: those that are merged away meanwhile are in the file that is read after them.
        added = [row for part, of in self._parts(path) for row in decoded(kind, of, part)]
        rows = decoded(kind, self._read(path), path) + added
        return list({KEYS[kind](row): row for row in rows}.values())

    def _parts(self, path: Path) -> Iterator[tuple[Path, bytes]]:
        number = 1
        while (content := self._read(part := part_of(path, number))) is not None:
            yield part, content
            number += 1


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
        self.number = 1 + sum(1 for _ in store._parts(path))
        self.last: dict[Any, Row] = {}

    def add(self, row: Row) -> None:
        """In the table from the next `write` on."""
        self.last[KEYS[self.kind](row)] = row

    def write(self) -> None:
        """Put the added rows where a reader finds them; the last part is written again."""
        if not self.last:
            return
        self.store._write(part_of(self.path, self.number), encoded(self.kind, self.last.values()))
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


def schema_of(kind: type) -> pa.Schema:
    """The Arrow schema of a record: one nullable column per field."""
    hints = get_type_hints(kind)
    return pa.schema([(f.name, _arrow_type(hints[f.name])) for f in fields(kind)])


def _arrow_type(hint: Any) -> pa.DataType:
    plain = [t for t in get_args(hint) if t is not type(None)] or [hint]
    return _ARROW[plain[0]]


def encoded(kind: type, rows: Iterable[Any]) -> bytes:
    """The rows as a Parquet file."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema_of(kind))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def decoded(kind: type[Row], content: bytes | None, path: Path) -> list[Row]:
    """The rows of a Parquet file, none where there is no file; `path` names it in errors."""
    if content is None:
        return []
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is not a readable Parquet file: {error}") from error
    known = fields(kind)  # type: ignore[arg-type]
    absent = [f for f in known if f.name not in table.column_names]
    # A column with a default is younger than the oldest tables.
    missing = [f.name for f in absent if f.default is MISSING]
    if missing:
        raise StoreError(f"{path} lacks the column {missing[0]}: it is not a table of this project")
    names = [f.name for f in known if f not in absent]
    return [kind(**{n: row[n] for n in names}) for row in table.to_pylist()]


def _replace(path: Path, content: bytes) -> None:
    """Write a file of a disk, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.parent.suffix == ".parts":
        path.parent.mkdir(exist_ok=True)
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _copy_of(address: str) -> Path:
    """This machine's copy of a remote folder, the same for every process of the user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "batch-size-sweep" / hashlib.sha256(address.encode()).hexdigest()[:16]
