"""The closing table for a terminal or a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from tune_jobs.records import BatchSizeRow, SearchSummary

COLUMNS: tuple[tuple[str, Callable[[BatchSizeRow], str]], ...] = (
    ("batch\nsize", lambda r: str(r.batch_size)),
    ("learning\nrate", lambda r: number(r.learning_rate, ".2g")),
    ("examples\nto target", lambda r: number(r.examples_to_target, "d")),
    ("train s\nto target", lambda r: number(r.time_to_target_seconds, ".1f")),
    ("examples\n/s", lambda r: number(r.examples_per_second, ".0f")),
    ("peak\nMiB", lambda r: number(r.peak_memory_mib, ".0f")),
    ("val\naccuracy", lambda r: number(r.val_accuracy, ".4f")),
    ("test\naccuracy", lambda r: number(r.test_accuracy, ".4f")),
    ("trials", lambda r: str(r.trials)),
    ("stopped", lambda r: str(r.stopped)),
)


def wide_console() -> Console:
    """The terminal as it is; elsewhere wide enough that no column of the table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def number(value: float | None, form: str) -> str:
    """The number in the given form, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def print_verdict(verdict: SearchSummary, console: Console) -> None:
    """The table, a row for each batch size, then the sentence that answers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for row in verdict.rows:
        chosen = row.batch_size == verdict.fastest_batch_size
        table.add_row(*(cell(row) for _, cell in COLUMNS), style="bold green" if chosen else None)
    console.print(table)
    console.print()
    console.print(verdict.reason, highlight=False, soft_wrap=True)


def print_places(places: Sequence[tuple[str, str]], console: Console) -> None:
    """Where the records, the report and the UI are."""
    console.print()
    for what, where in places:
        console.print(f"{what + ':':<10} {where}", highlight=False, soft_wrap=True)
