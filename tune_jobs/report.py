"""Entry: which batch size, and why, from runs that are over. Measures nothing.

    python tune_jobs/report.py runs/<name>                  a sweep, finished or interrupted
    python tune_jobs/report.py --table runs.csv             anyone's runs: CSV, Markdown, Parquet
    python tune_jobs/report.py --from-mlflow EXPERIMENT     the runs of an MLflow experiment

Needs neither Ray nor torch, and MLflow for an experiment alone. The exit status is 0 whatever the
verdict, also when it is undecided; 2 for what was asked wrongly; 1 for records that cannot be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from tune_jobs.command_line import without_controls
from tune_jobs.config import SweepConfig, validate
from tune_jobs.errors import UserError, exit_status, unknown_name
from tune_jobs.reading import table_of_runs
from tune_jobs.reading.cells import printable
from tune_jobs.reading.said import judgeable
from tune_jobs.reading.table_of_runs import (
    COLUMNS,
    MAPPABLE,
    Asked,
    NamedRow,
    TableOfRuns,
    require_our_columns,
    runs_of_rows,
    runs_of_table,
)
from tune_jobs.reporting.answer import (
    Answer,
    answer_of_sweep,
    answer_of_table,
    as_json,
    write_page,
)
from tune_jobs.reporting.table import wide_console
from tune_jobs.reporting.terminal import print_verdicts
from tune_jobs.store import SweepStore


@dataclass(frozen=True)
class Options:
    """What to judge, and how."""

    folder: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """a sweep's folder, such as runs/first"""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """a table of runs: CSV, JSON, Parquet or Markdown"""
    from_mlflow: Annotated[str | None, tyro.conf.arg(metavar="EXPERIMENT")] = None
    """an MLflow experiment whose runs have ended"""
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """MLflow server or store; default MLFLOW_TRACKING_URI or mlflow.db here"""
    map: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OURS=THEIRS")
    ] = ()
    """a column's name elsewhere: batch_size=bs in a table, batch_size=params.bs in MLflow"""
    goal: Annotated[str | None, tyro.conf.arg(metavar="GOAL")] = None
    """time, examples, energy, cost, accuracy, memory; default the sweep's own, or time"""
    target: Annotated[float | None, tyro.conf.arg(metavar="VALUE")] = None
    """judge at this target alone, or where a table's curves reach it; default the sweep's own, or
    each of the table's"""
    mode: Literal["min", "max"] | None = None
    """whether a smaller or a larger metric of the table is better; default as its name says"""
    rows: Literal["run", "point"] | None = None
    """what a row of the table is: a run, or a point of its curve; default as its columns say"""
    tolerance: Annotated[float | None, tyro.conf.arg(metavar="PART")] = None
    """batch sizes this close to the best count as equal; default 0.05"""
    confidence: Annotated[float | None, tyro.conf.arg(metavar="PART")] = None
    """of every interval and comparison; default 0.95"""
    price_per_device_hour: Annotated[float | None, tyro.conf.arg(metavar="PRICE")] = None
    """for --goal cost, in any currency"""
    trainings_to_come: Annotated[int | None, tyro.conf.arg(metavar="COUNT")] = None
    """how many trainings the answer is for; default 100"""
    json: bool = False
    """print the verdicts as a JSON list, one for each workload and target"""
    sync_mlflow: bool = False
    """complete the copy of a sweep in MLflow from its records; safe to repeat"""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write the report as one self-contained file"""


SOURCES = "give one of: a sweep's folder, --table FILE, --from-mlflow EXPERIMENT"


def main() -> int:
    with without_controls():
        options = tyro.cli(
            Options,
            prog="report.py",
            description=f"{__doc__}\nThe table\n\n{table_of_runs.__doc__}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    return exit_status(partial(run, options))


def run(options: Options) -> int:
    """Judge, print, and write what is asked for."""
    given = [options.folder, options.table, options.from_mlflow]
    if sum(source is not None for source in given) != 1:
        raise UserError(f"{'two sources' if any(given) else 'nothing'} to judge: {SOURCES}")
    if options.html is not None:
        check_writable(options.html)
    if options.folder is not None:
        return of_sweep(options.folder, options)
    if options.sync_mlflow:
        raise UserError("--sync-mlflow is for a sweep; give its folder, such as runs/first")
    config = judged_by(SweepConfig(), options)
    answer = answer_of_table(config, judgeable(table_of(options)), options.goal)
    show(answer, options)
    if options.html is not None:
        write_html(
            answer, options.html, config, {"source": str(options.table or options.from_mlflow)}
        )
    return 0


def of_sweep(folder: str, options: Options) -> int:
    """The sweep's verdict again; left in its folder, unless it was asked for in another way.

    Returns the exit status: 1 where MLflow was to be completed and is not.
    """
    store = SweepStore.at(folder)
    if not store.exists():
        raise UserError(f"{folder} holds no {store.config.name}; give a sweep's folder")
    if options.map:
        raise UserError("--map: a sweep's own names are known; leave it out")
    if options.mode or options.rows:
        raise UserError("--mode and --rows say how to read a table; leave them out")
    own = store.read_config()
    config = judged_by(own, options)
    answer = answer_of_sweep(config, store, options.target)
    show(answer, options)
    facts = {"sweep": config.name, **store.read_environment()}
    if options.html is not None:
        write_html(answer, options.html, config, facts)
    elif config == own and options.target is None:
        store.write_text(store.verdict, as_json(answer.verdicts))
        write_page(answer, store.folder, config, config.name, facts)
        store.publish()
    return sync_mlflow(store, own, answer, options.tracking_uri) if options.sync_mlflow else 0


def sync_mlflow(store: SweepStore, config: SweepConfig, answer: Answer, uri: str | None) -> int:
    """Bring what MLflow lacks of the sweep, which nobody else is at work on."""
    from tune_jobs.holding import held
    from tune_jobs.reporting.summary import note_of, tags_of
    from tune_jobs.tracking.of_sweep import SweepCopy, reachable_uri

    asked = replace(config, tracking_uri=uri or config.tracking_uri, tracking_required=True)
    reached = reachable_uri(asked, lambda _: None)
    with held(store):
        copy = SweepCopy.begin(config, store, reached, store.read_environment())
        lacks = copy.finish(note_of(answer.verdicts[0]), tags_of(answer.verdicts[0]))
    print(f"MLflow: {lacks or 'every row of the sweep stands there'}", file=sys.stderr)
    return 1 if lacks else 0


def judged_by(config: SweepConfig, options: Options) -> SweepConfig:
    """The configuration with the options that say how to judge. Raises UserError."""
    names = ("goal", "tolerance", "confidence", "price_per_device_hour", "trainings_to_come")
    given = {n: v for n in names if (v := getattr(options, n)) is not None}
    changed = replace(config, **given)
    validate(changed)
    return changed


def table_of(options: Options) -> TableOfRuns:
    """The runs of a file or of an MLflow experiment."""
    mapping = mapping_of(options.map)
    if options.table is not None:
        asked = Asked(options.mode, options.rows, options.target, options.goal)
        return runs_of_table(options.table, mapping, asked)
    from tune_jobs.tracking.mlflow_experiment import read_experiment
    from tune_jobs.tracking.reachable import default_uri

    assert options.from_mlflow is not None
    experiment = options.from_mlflow
    uri = options.tracking_uri or default_uri()
    read = read_experiment(experiment, uri, COLUMNS, mapping)
    require_our_columns(read.found, read.names, f"experiment {experiment!r}")
    rows = [NamedRow(place, cells) for place, cells in read.rows]
    return replace(runs_of_rows(rows, experiment, read.notes), target=options.target)


def mapping_of(pairs: Sequence[str]) -> dict[str, str]:
    """`batch_size=bs` and so on, by our names. Raises UserError."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs):
            raise UserError(f"--map {pair!r}: must be OURS=THEIRS, such as batch_size=bs")
        if ours not in MAPPABLE:
            raise unknown_name("--map: the column", ours, MAPPABLE)
        if ours in mapping:
            raise UserError(f"--map {ours}: mapped twice; name each column once")
        mapping[ours] = theirs
    return mapping


def show(answer: Answer, options: Options) -> None:
    """Notes on standard error; the verdicts, and what is left out of them, on standard output."""
    for note in answer.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    beside = sys.stderr if options.json else sys.stdout
    for sentence in answer.said:
        print(printable(sentence), file=beside)
    if options.json:
        print(as_json(answer.verdicts), end="")
    elif answer.verdicts:
        print_verdicts(answer.verdicts, wide_console())
    for line in answer.left_out:
        print(f"left out: {printable(line)}", file=beside)


def check_writable(file: Path) -> None:
    """Before anything is judged. Raises UserError."""
    if not file.parent.is_dir():
        raise UserError(f"--html {file}: there is no folder {file.parent}; name a writable file")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"--html {file}: cannot be written; name a writable file")


def write_html(
    answer: Answer, file: Path, config: SweepConfig, facts: Mapping[str, object]
) -> None:
    """The page alone, as one file. Raises UserError when it cannot be written."""
    with TemporaryDirectory() as folder:
        page = write_page(answer, Path(folder), config, "Which batch size?", facts)
        try:
            file.write_bytes(page.read_bytes())
        except OSError as error:
            raise UserError(f"--html {file}: {error.strerror}; name a writable file") from error


if __name__ == "__main__":
    raise SystemExit(main())
