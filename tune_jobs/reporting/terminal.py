"""Verdicts for a terminal or a log: the answer, at most ten lines, then a table."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_jobs import formatting
from tune_jobs.formatting import (
    ACCURACY,
    DASH,
    accuracy,
    count,
    goal_name,
    quantity,
    seconds,
    target_name,
    with_unit,
)
from tune_jobs.judging.sentences import per_cent
from tune_jobs.verdicts import BatchSizeVerdict, Estimate, TargetAnswer, Verdict

LINES = 10
WIDTH = 100
GAP = 2

Show = Callable[..., str]


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """Each verdict, its answer first; an empty line between two."""
    several = len({verdict.workload for verdict in verdicts}) > 1
    for number, verdict in enumerate(verdicts):
        if number:
            console.print()
        print_one(verdict, console, f"{verdict.workload}: " if several else "")


def print_one(verdict: Verdict, console: Console, whose: str = "") -> None:
    width = min(console.width, WIDTH)
    for line in wrap(whose + verdict.answer, width):
        console.print(line, style="bold", highlight=False, markup=False)
    for line in lines(verdict, width):
        console.print(line, highlight=False, markup=False)
    console.print()
    console.print(table_of(verdict, width))


def wrap(text: str, width: int) -> list[str]:
    """Lines of a width; a number is never parted from its per cent."""
    whole = textwrap.wrap(text.replace(" %", "\u00a0%"), width, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in whole]


def lines(verdict: Verdict, width: int = WIDTH) -> list[str]:
    """What stands below the answer, in at most ten lines of `width` characters, what matters most
    first.

    A sentence that would not fit whole is left out for the next that does; all are in the JSON.
    """
    shown: list[str] = []
    for text in _sentences(verdict):
        wrapped = wrap(text, width)
        if len(shown) + len(wrapped) <= LINES or not shown:
            shown += wrapped
    return shown[:LINES]


def _sentences(verdict: Verdict) -> list[str]:
    """What could change it and what to do; what was left out; why; how the answer moves."""
    schedule = verdict.schedule.sentence if verdict.schedule else None
    told = [
        verdict.front,
        schedule,
        verdict.change,
        next_step(verdict),
        _heading(verdict),
        *verdict.left_out,
    ]
    told += [verdict.reason, verdict.limit_reason, *verdict.warnings[:2]]
    told += [_by_target(verdict), _critical(verdict)]
    if verdict.search_cost is not None:
        told.append(verdict.search_cost.sentence)
    if verdict.closed_form is not None and verdict.closed_form.agrees is False:
        told.append(verdict.closed_form.sentence)
    if verdict.generalization is not None:
        told.append(verdict.generalization.sentence)
    if verdict.learning_rate_rule is not None:
        told.append(verdict.learning_rate_rule.sentence)
    return [text for text in told if text]


def next_step(verdict: Verdict, quote: str = "") -> str | None:
    """What is worth doing next: a command, or a sentence."""
    if verdict.advice is None:
        return None
    sentence = verdict.advice.endswith((".", ")"))
    return verdict.advice if sentence else f"Next: {quote}{verdict.advice}{quote}"


def _heading(verdict: Verdict) -> str:
    target = "" if verdict.target is None else f", target {named_target(verdict)}"
    goal = goal_name(verdict.goal, verdict.metric)
    return f"{verdict.workload}{target}, goal {goal}: {verdict.status}."


def named_target(verdict: Verdict) -> str:
    """`0.95`, or `rmse 0.8 kg`."""
    return target_name(verdict.target, verdict.metric, verdict.unit)


def target_title(verdict: Verdict) -> str:
    """What a table or an axis of targets is headed by: `target`, or `target rmse, kg`."""
    if verdict.metric == ACCURACY:
        return "target"
    return with_unit(f"target {verdict.metric}", verdict.unit)


def _critical(verdict: Verdict) -> str | None:
    fit = verdict.critical_batch_size
    if fit is None:
        return None
    noise = [n for n in verdict.noise_scale if n.value is not None]
    beside = "".join(f"; noise scale ({n.kind}) {count(n.value, n.low, n.high)}" for n in noise[:1])
    return f"Critical batch size {count(fit.value, fit.low, fit.high)}{beside}."


def _by_target(verdict: Verdict) -> str | None:
    if len(verdict.sensitivity) < 2:
        return None
    answers = (f"{target_name(a.target)}: {_answer(a)}" for a in verdict.sensitivity)
    return (
        f"By {target_title(verdict)}, the batch size to use, with its bound: {'; '.join(answers)}."
    )


def _answer(answer: TargetAnswer) -> str:
    if answer.use is None:
        return answer.status
    if answer.regret_bound is None:
        return f"{answer.use} ({answer.status})"
    return f"{answer.use} ({per_cent(answer.regret_bound)})"


def table_of(verdict: Verdict, width: int = WIDTH) -> Table:
    """One row for each batch size, ascending; no cell is cut.

    Columns of which nothing is known are left out, then those that matter least, until the table
    is at most `width` wide.
    """
    columns = [c for c in _columns(verdict) if any(cell != DASH for cell in c.cells)]
    while sum(c.width for c in columns) + GAP * (len(columns) - 1) > width and len(columns) > 2:
        columns.remove(max(columns, key=lambda c: c.dispensable))
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=True)
    for n, row in enumerate(verdict.per_batch_size):
        chosen = verdict.use is not None and row.batch_size == verdict.use.batch_size
        table.add_row(*(c.cells[n] for c in columns), style="bold green" if chosen else None)
    return table


def table_rows(verdict: Verdict) -> list[list[str]]:
    """The whole table as text, titles first; columns of which nothing is known are left out."""
    columns = [c for c in _columns(verdict) if any(cell != DASH for cell in c.cells)]
    titles = [c.title.replace("\n", " ") for c in columns]
    return [titles, *(list(row) for row in zip(*(c.cells for c in columns), strict=True))]


@dataclass(frozen=True)
class _Column:
    """A column as text; the larger `dispensable`, the sooner it is left out."""

    title: str
    cells: tuple[str, ...]
    dispensable: int

    @property
    def width(self) -> int:
        return max(map(len, (*self.title.split("\n"), *self.cells)))


def _columns(verdict: Verdict) -> list[_Column]:
    """The batch size, the judged quantity with its interval, then the other quantities."""
    rows = verdict.per_batch_size
    _, show = QUANTITIES.get(verdict.quantity, ("", quantity))

    def column(title: str, cell: Callable[[BatchSizeVerdict], str], dispensable: int) -> _Column:
        return _Column(title, tuple(cell(row) for row in rows), dispensable)

    first = [
        column("batch\nsize", lambda r: str(r.batch_size), 0),
        column(title_of(verdict.quantity, verdict), lambda r: show(r.median, r.low, r.high), 1),
        column("times\nthe best", lambda r: _middle(quantity, r.ratio_to_best), 5),
        column("", standing, 2),
        column("expected worse\nby, at most", _regret, 4),
        column("runs", lambda r: str(r.seeds), 3)
        if verdict.target is None and verdict.quantity in AT_THE_END
        else column("seeds\nreached", lambda r: f"{r.reached}/{r.seeds}", 3),
        column("learning\nrate", lambda r: formatting.learning_rate(r.learning_rate), 4),
    ]
    twice = all(row.val_accuracy == row.val_metric for row in rows)
    for name, (_, show) in QUANTITIES.items():
        if name != verdict.quantity and not (twice and name == "val_accuracy"):
            cell, last = partial(_value_of, name=name, show=show), name in LEAST
            title = title_of(name, verdict)
            first.append(column(title, cell, 5 + LEAST.index(name) if last else 4))
    return first


def title_of(name: str, verdict: Verdict) -> str:
    """What a table's column of a quantity is headed by, in lines."""
    title, _ = QUANTITIES.get(name, (name.replace("_", "\n"), quantity))
    if name.endswith("_metric"):
        return title.format(metric=with_unit(verdict.metric, verdict.unit))
    return title.replace("examples\nto", f"{verdict.examples_unit}\nto")


def _value_of(row: BatchSizeVerdict, name: str, show: Show) -> str:
    return _middle(show, getattr(row, name))


def _middle(show: Show, value: Estimate | float | None) -> str:
    """The value alone, with the digits that its interval supports."""
    if isinstance(value, Estimate):
        return show(value.value, value.low, value.high).split(" [")[0]
    return show(value)


def standing(row: BatchSizeVerdict) -> str:
    """A batch size's standing in a word; `unproven` where a single run leaves it open."""
    if row.standing == "used":
        return "use this"
    return "unproven" if row.standing == "open" and row.seeds < 2 else row.standing


def _regret(row: BatchSizeVerdict) -> str:
    """What it is expected to be worse than the best, and at the most."""
    if row.expected_regret is None or row.regret_bound is None:
        return DASH
    return f"{per_cent(row.expected_regret)}, {per_cent(row.regret_bound)}"


# Title and format by the field of BatchSizeVerdict, in the table's order; see `title_of`.
QUANTITIES: dict[str, tuple[str, Show]] = {
    "time_to_target_seconds": ("time\nto target", seconds),
    "examples_to_target": ("examples\nto target", count),
    "updates_to_target": ("updates\nto target", count),
    "examples_per_second": ("examples\n/s", count),
    "peak_memory_mib": ("peak\nMiB", count),
    "energy_joules": ("energy\nJ", count),
    "val_accuracy": ("val\naccuracy", accuracy),
    "test_accuracy": ("test\naccuracy", accuracy),
    "val_metric": ("{metric}\nat end", quantity),
    "test_metric": ("{metric}\non test", quantity),
    "train_seconds": ("train\ntime", seconds),
}
AT_THE_END = ("val_accuracy", "val_metric", "peak_memory_mib")  # every run has one
# Left out of a table that is too wide, the last first; nothing above them is.
LEAST = ("peak_memory_mib", "test_accuracy", "test_metric", "examples_per_second", "energy_joules",
         "val_accuracy", "updates_to_target")  # fmt: skip
