"""A finished MLflow experiment as rows that can be judged: one for each run.

Anyone's runs: a column is looked for among a run's params, metrics (their last values) and tags,
under our name or the one that `--map` gives. Our own sweeps are known by the tag `stage`: their
confirm runs alone are read, each sweep being a workload of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_jobs.errors import StoreError, UserError, unknown_name
from tune_jobs.records import OUTCOMES, STAGES
from tune_jobs.tracking.client import PARENT, connect, search
from tune_jobs.tracking.reachable import check_reachable, sqlite_path
from tune_jobs.uris import hidden, shown

SECTIONS = ("params", "metrics", "tags")
INFINITE = 1e300  # MLflow keeps an infinity as 1.8e308

Cells = dict[str, object]


@dataclass(frozen=True)
class ExperimentRows:
    """What an experiment holds.

    Attributes:
        rows: for each run its place, for messages, and its cells by our column names.
        found: our columns that a run has, or that were mapped.
        names: what the runs log, as `params.x`, `metrics.x`, `tags.x`.
        notes: what was left out, and why.
    """

    rows: tuple[tuple[str, Cells], ...]
    found: tuple[str, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_experiment(
    experiment: str, uri: str, columns: Sequence[str], mapping: Mapping[str, str]
) -> ExperimentRows:
    """Read the runs of `experiment` in the store at `uri`; nothing there is changed.

    Args:
        columns: our column names to look for.
        mapping: our column name to `params.x`, `metrics.x` or `tags.x`, or to an `x` in any.

    Raises:
        UserError: no such store, experiment or mapped name, or no run to judge.
        TrackingUnreachable: the server does not answer.
        StoreError: MLflow refuses to read the store.
    """
    _require_store(uri)
    runs = list(_runs(uri, experiment))
    names = sorted({f"{s}.{key}" for run in runs for s in SECTIONS for key in _section(run, s)})
    for ours, theirs in mapping.items():
        if not set(_places(theirs)) & set(names):
            what = f"--map {ours}={theirs}: in the experiment {experiment!r} the name"
            raise unknown_name(what, theirs, [n for n in names if not n.startswith("tags.mlflow")])
    of_sweeps = any(_section(run, "tags").get("stage") in STAGES for run in runs)
    chosen, left_out = (_confirm_runs if of_sweeps else _finished_runs)(runs)
    if not chosen:
        raise UserError(
            f"experiment {experiment!r} holds no run to judge"
            + (f" ({'; '.join(_told(left_out))})" if left_out else "")
            + ("; let the sweep confirm first, or give its folder" if of_sweeps else "")
        )
    of = _workloads(runs) if of_sweeps else {}
    cells = {_place(run): _cells(run, columns, mapping) | of.get(_id(run), {}) for run in chosen}
    sized = {place: row for place, row in cells.items() if row.get("batch_size") is not None}
    left_out["runs without a batch size"] += len(cells) - len(sized)
    rows = sized or cells
    found = [c for c in columns if of_sweeps or any(row[c] is not None for row in rows.values())]
    return ExperimentRows(
        rows=tuple(rows.items()),
        found=tuple(dict.fromkeys([*found, *mapping])),
        names=tuple(names),
        notes=_told(+left_out) if sized else (),
    )


def _require_store(uri: str) -> None:
    """Refuse a database that MLflow would have to make first."""
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise UserError(
            f"--tracking-uri {shown(uri)}: there is no such database; name the one that holds the "
            "experiment, such as sqlite:////absolute/path/mlflow.db"
        )
    if path is not None:
        with path.open("rb") as file:
            if file.read(15) != b"SQLite format 3":
                raise UserError(f"--tracking-uri {shown(uri)}: {path} is not a SQLite database")
    check_reachable(uri)


def _runs(uri: str, experiment: str) -> Iterator[Any]:
    """Every run of the experiment that is not deleted, the first begun first."""
    client = connect(uri)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = [e.name for e in client.search_experiments()]
            raise unknown_name("--from-mlflow: the experiment", experiment, known)
        yield from search(client, found.experiment_id)
    except MlflowException as error:
        raise StoreError(f"MLflow cannot read {shown(uri)}: {hidden(str(error), uri)}") from error


def _confirm_runs(runs: Sequence[Any]) -> tuple[list[Any], Counter[str]]:
    """The confirm runs of our sweeps that ended of themselves, reached or not."""
    chosen, left_out = [], Counter[str]()
    for run in runs:
        tags = _section(run, "tags")
        if tags.get("stage") != "confirm":
            continue
        if tags.get("outcome") in set(OUTCOMES) - {"failed"}:
            chosen.append(run)
        else:
            left_out["confirm runs that failed or have not ended"] += 1
    return chosen, left_out


def _finished_runs(runs: Sequence[Any]) -> tuple[list[Any], Counter[str]]:
    """Anyone's runs that are finished and are not the parents of others."""
    parents = {_section(run, "tags").get(PARENT) for run in runs}
    chosen, left_out = [], Counter[str]()
    for run in runs:
        if _id(run) in parents:
            left_out["parents of other runs"] += 1
        elif run.info.status != "FINISHED":
            left_out[f"runs of status {run.info.status}"] += 1
        else:
            chosen.append(run)
    return chosen, left_out


def _workloads(runs: Sequence[Any]) -> dict[str, Cells]:
    """Workload and target of each nested run of our sweeps; the parent run knows the target."""
    parents = {_id(run): run for run in runs if PARENT not in _section(run, "tags")}
    names = Counter(_section(run, "tags").get("sweep") for run in parents.values())
    cells: dict[str, Cells] = {}
    for run in runs:
        tags, params = _section(run, "tags"), _section(run, "params")
        parent = parents.get(str(tags.get(PARENT)))
        sweep = tags.get("sweep")
        alike = f" ({tags.get(PARENT, '')[:8]})" if names[sweep] > 1 else ""
        trained = f"{params.get('model')} on {params.get('data')}"
        cells[_id(run)] = {
            "workload": f"{sweep}{alike}: {trained}",
            "target": _section(parent, "params").get("target") if parent else None,
        }
    return cells


def _cells(run: Any, columns: Sequence[str], mapping: Mapping[str, str]) -> Cells:
    found = (_section(run, s).items() for s in SECTIONS)
    values = {f"{s}.{k}": v for s, items in zip(SECTIONS, found, strict=True) for k, v in items}
    cells: Cells = {}
    for column in columns:
        places = _places(mapping.get(column, column))
        cells[column] = next((values[p] for p in places if p in values), None)
    return cells


def _places(name: str) -> list[str]:
    """Where a name may stand: in its own section, else in each."""
    section, dot, _ = name.partition(".")
    if dot and section in SECTIONS:
        return [name]
    return [f"{section}.{name}" for section in SECTIONS]


def _section(run: Any, section: str) -> dict[str, Any]:
    """A run's params, metrics or tags; a metric that is NaN or infinite is none."""
    values = dict(getattr(run.data, section))
    if section == "metrics":
        return {name: v for name, v in values.items() if abs(v) < INFINITE}
    return values


def _id(run: Any) -> str:
    return str(run.info.run_id)


def _place(run: Any) -> str:
    return f"MLflow run {run.info.run_name} ({_id(run)[:8]})"


def _told(left_out: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{what}: {n} left out" for what, n in left_out.items())
