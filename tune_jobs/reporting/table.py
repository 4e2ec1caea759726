"""What is printed, for a terminal or a log."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from tune_jobs.uris import shown, without_user

if TYPE_CHECKING:
    from tune_jobs.store import SweepStore


NO_STORE = "no tracking store was reachable; report.py FOLDER --sync-mlflow makes the copy later"


def wide_console() -> Console:
    """The terminal as it is; elsewhere wide enough that no column of the table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def say(console: Console, line: str) -> None:
    """One line, as it is; a terminal wraps it."""
    console.print(line, highlight=False, soft_wrap=True)


def number(value: float | None, form: str) -> str:
    """The number in the given form, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def places(store: SweepStore, uri: str | None, lacks: str | None) -> list[tuple[str, str]]:
    """Where to look further. `uri` is MLflow's store; `lacks` says what is missing there."""
    ui = f"scripts/mlflow_ui (store: {shown(uri)})" if uri else NO_STORE
    if uri and uri.startswith("http"):
        ui = without_user(uri)
    again = f"python tune_jobs/report.py {shlex.quote(store.address)}"
    return [
        ("records", store.address),
        ("report", f"{store.folder}/report.html, {again}"),
        ("MLflow UI", f"{ui}; {lacks}" if lacks else ui),
    ]


def print_places(told: Sequence[tuple[str, str]], console: Console) -> None:
    """Where the records, the report and the UI are."""
    console.print()
    for what, where in told:
        say(console, f"{what + ':':<10} {where}")
