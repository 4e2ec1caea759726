"""Records as Parquet files, and back: a table that reads as anything else than it was is refused.

Page checksums find what was damaged within a page; headers and footers have none, so the file
carries a digest of its own values as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

Row = TypeVar("Row")
DIGEST = b"batch_size_sweep.sha256"  # of the values; tables from before it was written lack it
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


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
    table = table.replace_schema_metadata({DIGEST: _digest(table)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def decoded(kind: type[Row], content: bytes) -> list[Row]:
    """The rows of a Parquet file. Raises ValueError with what is wrong with it."""
    try:
        source = pa.BufferReader(content)
        table = pq.read_table(source, page_checksum_verification=True)
        expected = (table.schema.metadata or {}).get(DIGEST)
        if expected is not None and expected != _digest(table):
            raise ValueError("its values are not those that were written")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"not a readable Parquet file: {error}") from error
    return _rows(kind, table)


def _rows(kind: type[Row], table: pa.Table) -> list[Row]:
    known = fields(kind)  # type: ignore[arg-type]
    absent = [f for f in known if f.name not in table.column_names]
    # A column with a default is younger than the oldest tables.
    missing = [f.name for f in absent if f.default is MISSING]
    if missing:
        raise ValueError(f"lacks the column {missing[0]}: not a table of this project")
    names = [f.name for f in known if f not in absent]
    for name in names:
        wanted, found = schema_of(kind).field(name).type, table.schema.field(name).type
        if found != wanted:
            raise ValueError(f"has {found} in the column {name}, not {wanted}")
    return [kind(**{n: row[n] for n in names}) for row in table.to_pylist()]


def _digest(table: pa.Table) -> bytes:
    values = repr([(name, table[name].to_pylist()) for name in table.column_names])
    return hashlib.sha256(values.encode("utf-8", "surrogatepass")).hexdigest().encode()
