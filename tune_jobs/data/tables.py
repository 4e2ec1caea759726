"""A table as a data set: numeric columns are features, one column is the label.

Features are standardised by the train split, and so is the label of a regression; both are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tune_jobs.errors import DataError, UserError, unknown_name

FEW_VALUES = 20  # an integer label of so many values at the most names classes
FEWEST_ROWS = 10
SHOWN = 5
TASKS = ("classification", "regression")


@dataclass(frozen=True)
class TableSet:
    """One split: `features` float32 (n, d), `labels` (n,): int64 classes, or float32."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        """The features, as the file knows them."""
        return self.features


@dataclass(frozen=True)
class Table:
    """A decoded table.

    `classes` is None for a regression, whose labels are (value - mean) / `label_std` in the label's
    own unit. `validation` is None where it is to be carved from train; `test` where there is none.
    """

    name: str
    train: TableSet
    test: TableSet | None
    classes: int | None
    label_std: float
    validation: TableSet | None = None

    @property
    def described(self) -> dict[str, Any]:
        """What the file says of it beside its splits."""
        named = ("name", "classes", "label_std")
        return {"kind": "table", **{name: getattr(self, name) for name in named}}


def make_table(
    name: str,
    splits: Mapping[str, pa.Table],
    label: str | None,
    drop: Sequence[str] = (),
    task: str | None = None,
) -> Table:
    """The Table of Arrow tables by split: all columns but `label` and those to `drop` are features.

    A label of text or truth values, or of integers that take at most `FEW_VALUES` values, names
    classes; any other makes a regression. `task` says otherwise.

    Errors:
        UserError: the label is not named or not there, or an option is not known.
        DataError: columns are not numeric or have missing values, the label is constant, the
            splits do not fit each other, or there is too little.
    """
    train = splits["train"]
    known = train.column_names
    _check_names(name, known, label, drop, task)
    assert label is not None
    splits = {title: _plain(table) for title, table in splits.items()}
    columns = [column for column in known if column != label and column not in drop]
    for title, table in splits.items():
        fewest = FEWEST_ROWS if title == "train" else 1
        _check_split(f"data {name!r}, {title}", table, [*columns, label], label, fewest)
    made, classes, std = _labels(name, splits, label, task)
    raw = {title: _matrix(table, columns) for title, table in splits.items()}
    middle, spread = raw["train"].mean(axis=0), raw["train"].std(axis=0)
    spread[spread == 0] = 1.0
    sets = {
        title: TableSet(((raw[title] - middle) / spread).astype(np.float32), made[title])
        for title in splits
    }
    test, validation = sets.get("test"), sets.get("validation")
    return Table(name, sets["train"], test, classes, std, validation)


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionaries, as which frames keep categories."""
    kinds = [(f.name, f.type) for f in table.schema]
    return table.cast(
        pa.schema([(n, k.value_type if pa.types.is_dictionary(k) else k) for n, k in kinds])
    )


def _check_names(
    name: str, known: Sequence[str], label: str | None, drop: Sequence[str], task: str | None
) -> None:
    columns = f"its columns: {', '.join(map(str, known))}"
    if label is None:
        raise UserError(
            f"--data {name}: which column is the label? Add ?label=COLUMN, or label under "
            f"[data_arguments]; {columns}"
        )
    for column in (label, *drop):
        if column not in known:
            raise unknown_name(f"data {name!r}: column", column, known)
    twice = sorted({column for column in known if known.count(column) > 1})
    if twice:
        raise DataError(f"data {name!r}: the column {twice[0]!r} stands twice; rename one")
    if task is not None and task not in TASKS:
        raise unknown_name(f"data {name!r}: task", task, TASKS)
    if label in drop or not set(known) - {label, *drop}:
        raise UserError(
            f"data {name!r}: no column is left for features beside the label {label!r}; {columns}"
        )


def _check_split(
    where: str, table: pa.Table, columns: Sequence[str], label: str, fewest: int
) -> None:
    absent = [column for column in columns if column not in table.column_names]
    if absent:
        raise DataError(f"{where}: the column {absent[0]!r} of train is not there; add it")
    if len(table) < fewest:
        raise DataError(f"{where}: {len(table)} rows; it needs at least {fewest}")
    wrong = [
        f"{c!r} ({table[c].type})" for c in columns if c != label and not _numeric(table[c].type)
    ]
    if wrong:
        raise DataError(
            f"{where}: {len(wrong)} columns are not numeric: {_few(wrong)}; make them numbers, or "
            "leave them out with drop=COLUMN,COLUMN"
        )
    lacking = {column: _missing(table[column]) for column in columns}
    told = [f"{column!r} ({count})" for column, count in lacking.items() if count]
    if told:
        raise DataError(
            f"{where}: {len(told)} columns have missing or infinite values in {len(table)} rows: "
            f"{_few(told)}; fill them in, leave those rows out, or the columns with "
            "drop=COLUMN,COLUMN"
        )


def _few(told: Sequence[str]) -> str:
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


def _numeric(kind: pa.DataType) -> bool:
    is_of = pa.types
    return bool(
        is_of.is_integer(kind)
        or is_of.is_floating(kind)
        or is_of.is_decimal(kind)
        or is_of.is_boolean(kind)
    )


def _names_classes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _missing(column: pa.ChunkedArray) -> int:
    """Rows without a finite value."""
    if not pa.types.is_floating(column.type):
        return int(column.null_count)
    return len(column) - int(pc.sum(pc.is_finite(column)).as_py() or 0)


def _matrix(table: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.stack([_numbers(table[column]) for column in columns], axis=1)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    found: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return found


def _labels(
    name: str, splits: Mapping[str, pa.Table], label: str, task: str | None
) -> tuple[dict[str, npt.NDArray[Any]], int | None, float]:
    """Labels by split, how many classes (None for a regression), and the std of the latter's."""
    train = splits["train"][label]
    if not (_numeric(train.type) or _names_classes(train.type)):
        raise DataError(f"data {name!r}: the label {label!r} is {train.type}; name a column of "
                        "numbers, text or truth values")  # fmt: skip
    values = train.unique().to_pylist()
    if len(values) == 1:
        raise DataError(
            f"data {name!r}: the label {label!r} is {values[0]!r} in all {len(train)} rows of "
            "train; there is nothing to learn: name another column"
        )
    if _names_classes(train.type) and 2 * len(values) > len(train):
        raise DataError(
            f"data {name!r}: the label {label!r} takes {len(values)} values in {len(train)} rows; "
            "a class needs examples: name another column"
        )
    integer, numeric = pa.types.is_integer(train.type), _numeric(train.type)
    few = pa.types.is_boolean(train.type) or (integer and len(values) <= FEW_VALUES)
    if (task or ("classification" if few or not numeric else "regression")) == "classification":
        names = sorted(values)
        return _numbered(name, splits, label, names), len(names), 1.0
    if not all(_numeric(table[label].type) for table in splits.values()):
        raise DataError(
            f"data {name!r}: the label {label!r} is not numeric in every split, as a "
            "regression's must be; name a numeric column"
        )
    raw = {title: _numbers(table[label]) for title, table in splits.items()}
    middle, std = float(raw["train"].mean()), float(raw["train"].std())
    return {t: ((y - middle) / std).astype(np.float32) for t, y in raw.items()}, None, std


def _numbered(
    name: str, splits: Mapping[str, pa.Table], label: str, names: Sequence[Any]
) -> dict[str, npt.NDArray[Any]]:
    number = {value: n for n, value in enumerate(names)}
    found = {}
    for title, table in splits.items():
        values = table[label].to_pylist()
        new = sorted({value for value in values if value not in number})
        if new:
            raise DataError(
                f"data {name!r}: {title} has the label {new[0]!r}, which train has not; leave "
                "those rows out, or add such to train"
            )
        found[title] = np.array([number[value] for value in values], np.int64)
    return found
