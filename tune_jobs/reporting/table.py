"""What is printed, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console


def wide_console() -> Console:
    """The terminal as it is; elsewhere wide enough that no column of the table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def number(value: float | None, form: str) -> str:
    """The number in the given form, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def print_places(places: Sequence[tuple[str, str]], console: Console) -> None:
    """Where the records, the report and the UI are."""
    console.print()
    for what, where in places:
        console.print(f"{what + ':':<10} {where}", highlight=False, soft_wrap=True)
