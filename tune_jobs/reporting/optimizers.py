"""Several optimizers' sweeps in one answer, for a terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_jobs.config import SweepConfig
from tune_jobs.formatting import DASH, count, learning_rate, quantity
from tune_jobs.judging.optimizers import Comparison, OptimizerRow, compare
from tune_jobs.reporting.answer import answer_of_sweep, policy_of
from tune_jobs.reporting.table import say
from tune_jobs.reporting.terminal import QUANTITIES
from tune_jobs.store import SweepStore


def compared(sweeps: Sequence[tuple[SweepConfig, SweepStore]]) -> Comparison:
    """The sweeps of one workload, each of an optimizer of its own."""
    answers = {config.optimizer: answer_of_sweep(config, store) for config, store in sweeps}
    config = sweeps[0][0]
    policy = policy_of(config, config.goal, next(iter(answers.values())).trials)
    verdicts = {name: answer.verdicts[0] for name, answer in answers.items()}
    return compare(verdicts, {name: answer.runs for name, answer in answers.items()}, policy)


def print_comparison(found: Comparison, quantity_name: str, console: Console) -> None:
    """The answer first, then a row for each optimizer."""
    console.print()
    console.print(found.answer, style="bold", highlight=False, markup=False)
    say(console, found.moves)
    _, show = QUANTITIES.get(quantity_name, ("", quantity))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    titles = ("optimizer", "batch\nsize", "learning\nrate", quantity_name.replace("_", " "),
              "times\nthe best", "critical\nbatch size", "best rate\ngrows as")  # fmt: skip
    for title in titles:
        table.add_column(Text(title), justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*_cells(row, show(row.median)))
    console.print(table)


def _cells(row: OptimizerRow, median: str) -> list[str]:
    times, power = row.times, row.exponent
    return [
        row.optimizer,
        str(row.batch_size or DASH),
        learning_rate(row.learning_rate),
        median,
        DASH if times is None else quantity(times.value, times.low, times.high),
        count(row.critical_batch_size),
        DASH if power is None else f"B^{quantity(power.value, power.low, power.high, digits=2)}",
    ]


def as_json(found: Comparison) -> str:
    """What `optimizers.json` holds."""
    return json.dumps(asdict(found), indent=2) + "\n"
