"""The sweep's folder: every path named once; records to and from Parquet, atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from tune_jobs.errors import StoreError, UserError
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TrialResult, Verdict

Row = TypeVar("Row")
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class SweepStore:
    """`runs/<name>/`: what a sweep leaves behind. Reading never changes anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "sweep.toml"
        self.environment = folder / "environment.json"
        self.profiles = folder / "profiles.parquet"
        self.noise_scale = folder / "noise_scale.parquet"
        self.trials = folder / "trials.parquet"
        self.measurements = folder / "measurements.parquet"
        self.verdict = folder / "verdict.json"
        self.ray = folder / "ray"

    def exists(self) -> bool:
        return self.config.exists()

    def create(self) -> None:
        """Make the folder; raises UserError when it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); give another --runs-dir"
            ) from error

    def write_text(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text)
        os.replace(temporary, path)

    def write_environment(self, facts: dict[str, Any]) -> None:
        self.write_text(self.environment, json.dumps(facts, indent=2) + "\n")

    def write_verdict(self, verdict: Verdict) -> None:
        self.write_text(self.verdict, json.dumps(asdict(verdict), indent=2) + "\n")

    def write_profiles(self, rows: Sequence[BatchSizeProfile]) -> None:
        _write(self.profiles, BatchSizeProfile, rows)

    def write_noise_scale(self, rows: Sequence[NoiseScale]) -> None:
        _write(self.noise_scale, NoiseScale, rows)

    def write_trials(self, rows: Sequence[TrialResult]) -> None:
        _write(self.trials, TrialResult, rows)

    def write_measurements(self, rows: Sequence[Measurement]) -> None:
        _write(self.measurements, Measurement, rows)

    def read_profiles(self) -> list[BatchSizeProfile]:
        return _read(self.profiles, BatchSizeProfile)

    def read_noise_scale(self) -> list[NoiseScale]:
        return _read(self.noise_scale, NoiseScale)

    def read_trials(self) -> list[TrialResult]:
        return _read(self.trials, TrialResult)

    def read_measurements(self) -> list[Measurement]:
        return _read(self.measurements, Measurement)


def schema_of(kind: type) -> pa.Schema:
    """The Arrow schema of a record: one nullable column per field."""
    hints = get_type_hints(kind)
    return pa.schema([(f.name, _arrow_type(hints[f.name])) for f in fields(kind)])


def _arrow_type(hint: Any) -> pa.DataType:
    plain = [t for t in get_args(hint) if t is not type(None)] or [hint]
    return _ARROW[plain[0]]


def _write(path: Path, kind: type, rows: Iterable[Any]) -> None:
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema_of(kind))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def _read(path: Path, kind: type[Row]) -> list[Row]:
    if not path.exists():
        return []
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is not a readable Parquet file: {error}") from error
    missing = [f.name for f in fields(kind) if f.name not in table.column_names]  # type: ignore[arg-type]
    if missing:
        raise StoreError(f"{path} lacks the column {missing[0]}: it is not a table of this project")
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return [kind(**{n: row[n] for n in names}) for row in table.to_pylist()]
