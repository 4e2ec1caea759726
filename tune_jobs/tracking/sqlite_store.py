"""MLflow's SQLite database: made whole or not at all, and looked at before anything is begun.

MLflow makes it by some sixty migrations in its place; killed meanwhile it leaves a file that no
MLflow opens, and calls one of a newer MLflow out of date.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from tune_jobs.durable import LEFT_BEHIND_SECONDS, remove_left_behind, sync_folder

ANOTHER = "name another with --tracking-uri"


def make_whole(path: Path, make: Callable[[str], None]) -> None:
    """Where there is no database, have `make` build one by its URI beside the place, and put it
    there; of two that are made at once the first stands."""
    if path.exists() and path.stat().st_size:
        return
    remove_left_behind(path.parent, LEFT_BEHIND_SECONDS)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_WRONLY, 0o600))
        make(f"sqlite:///{unfinished.absolute()}")
        if path.exists() and not path.stat().st_size:
            path.unlink()
        with suppress(FileExistsError):
            os.link(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def amiss(path: Path) -> str | None:
    """Why this MLflow cannot use the database there, and what to do; None where it can."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        version = _version(path)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return None  # by a writer, who will be done
        return f"is not a SQLite database ({error}); move it away, or {ANOTHER}"
    known, newest = _revisions()
    if version == newest or not known:
        return None
    again = f"run `mlflow db upgrade sqlite:///{path.absolute()}` on a copy of it"
    if version is None or version in known:
        return (
            f"was left half made, or by an earlier MLflow (schema {version or 'none'}, not "
            f"{newest}); {again}, move it away, or {ANOTHER}"
        )
    return f"is of a newer MLflow than this one (schema {version}); install that one, or {ANOTHER}"


def _version(path: Path) -> str | None:
    # Not `ro`: what a writer that was killed left half done is taken back by whoever opens it next.
    with closing(sqlite3.connect(f"file:{path.absolute()}?mode=rw", uri=True, timeout=1)) as base:
        names = {name for (name,) in base.execute("select name from sqlite_master")}
        found = base.execute("select version_num from alembic_version").fetchone() if (
            "alembic_version" in names) else None  # fmt: skip
    return str(found[0]) if found else None


def _revisions() -> tuple[set[str], str | None]:
    """The schemas that this MLflow knows, and its own; read from its files, since the import takes
    seconds."""
    spec = importlib.util.find_spec("mlflow")
    places = spec.submodule_search_locations if spec else None
    known, before = set[str](), set[str]()
    for place in places or ():
        for file in Path(place).glob("store/db_migrations/versions/*.py"):
            for kind, said in re.findall(r"(?m)^(revision|down_revision)\s*=\s*(.+)$",
                                         file.read_text(encoding="utf-8")):  # fmt: skip
                (known if kind == "revision" else before).update(re.findall("[0-9a-f]{12}", said))
    newest = known - before
    return (known, newest.pop()) if len(newest) == 1 else (set(), None)
