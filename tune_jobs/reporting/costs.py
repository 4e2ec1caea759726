"""The measure stage for a terminal: what each batch size costs, and where the limits are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tune_jobs.config import SweepConfig
from tune_jobs.judging.binding import loading_limit
from tune_jobs.measure.cost_model import DeviceLimits, LineFit, limits
from tune_jobs.records import BatchSizeProfile, NoiseScale
from tune_jobs.reporting.table import say
from tune_jobs.store import SweepStore

HEADINGS = (
    "batch\nsize",
    "examples\na pass",
    "ms an update\n(95 % interval)",
    "examples\n/s",
    "peak\nMiB",
    "outcome",
)


def report_costs(
    config: SweepConfig,
    store: SweepStore,
    facts: Mapping[str, object],
    tell: Callable[[str], None],
) -> None:
    """The noise scale, told, and the page of the measure stage, which stands until there is a
    verdict.

    `facts` hold `train_examples`. The drawing is imported here: it takes seconds.
    """
    train_examples = facts["train_examples"]
    assert isinstance(train_examples, int)
    profiles, noise = store.read_profiles(), store.read_noise_scale()
    for line in noise_lines(noise):
        tell(line)
    if store.verdict.exists():
        return
    from tune_jobs.reporting.page.html import write_report

    write_report(
        store.folder,
        [],
        [],
        profiles,
        noise,
        title=config.name,
        facts=facts,
        margin=config.memory_margin,
        train_examples=train_examples,
    )


def print_costs(
    profiles: Sequence[BatchSizeProfile], margin: float, train_examples: int, console: Console
) -> None:
    """One table and one paragraph for each device type."""
    for device in sorted({p.device for p in profiles}):
        rows = [p for p in profiles if p.device == device]
        console.print(_table(device, rows))
        for line in limit_lines(limits(rows, margin, train_examples)):
            say(console, line)
        behind = [b for p in rows if p.chosen and (b := loading_limit(p.batch_size, rows))]
        for told in behind[-1:]:
            say(console, f"{told[0].upper()}{told[1:]}.")
        console.print()


def _table(device: str, rows: Sequence[BatchSizeProfile]) -> Table:
    table = Table(
        title=f"Cost of an update on {device}, {rows[0].cpus:g} CPU (chosen ways in bold)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=heading != "outcome")
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row.chosen else "dim")
    return table


def _cells(row: BatchSizeProfile) -> tuple[str, ...]:
    return (
        str(row.batch_size),
        str(row.micro_batch_size),
        _milliseconds(row),
        "-" if row.examples_per_second is None else f"{row.examples_per_second:.0f}",
        "-" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}",
        row.outcome.replace("_", " ") + (f": {escape(row.reason[:60])}" if row.reason else ""),
    )


def _milliseconds(row: BatchSizeProfile) -> str:
    if row.step_seconds is None:
        return "-"
    middle = f"{row.step_seconds * 1e3:.3g}"
    if row.step_seconds_low is None or row.step_seconds_high is None:
        return middle
    return f"{middle} [{row.step_seconds_low * 1e3:.3g}, {row.step_seconds_high * 1e3:.3g}]"


def limit_lines(known: DeviceLimits) -> list[str]:
    """Sentences: the two fits, where speed stops growing, what fits; a bad fit is called so."""
    lines = []
    if known.step_seconds is not None:
        lines.append(_fit_line("ms an update, whole batches", known.step_seconds, 1e3, "ms"))
    if known.memory_mib is not None:
        lines.append(_fit_line("MiB while training", known.memory_mib, 1.0, "MiB"))
    lines.append(_speed_line(known))
    lines.append(_memory_line(known))
    return lines


def noise_lines(noise: Sequence[NoiseScale]) -> list[str]:
    """The averages over training, each with its interval, or the reason why it says nothing."""
    lines = []
    for row in noise:
        if not row.kind.endswith("_average"):
            continue
        kind = row.kind.removesuffix("_average")
        if not row.useful or row.noise_scale is None:
            lines.append(f"Gradient noise scale ({kind}): cannot be told: {row.reason}")
            continue
        high = "no upper end" if row.high is None else f"{row.high:.0f}"
        low = "0" if row.low is None else f"{row.low:.0f}"
        lines.append(
            f"Gradient noise scale ({kind}), averaged over training: {row.noise_scale:.0f} "
            f"[{low}, {high}] examples"
        )
    return lines


def _fit_line(what: str, fit: LineFit, scale: float, unit: str) -> str:
    line = f"{what} = {fit.intercept * scale:.3g} + {fit.slope * scale:.3g} B {unit}"
    if fit.slope_low is not None and fit.slope_high is not None:
        line += f" (slope [{fit.slope_low * scale:.3g}, {fit.slope_high * scale:.3g}])"
    line += f", off by {fit.largest_residual:.0%} at most"
    return line if fit.good else line + ": a bad fit, do not extrapolate it"


def _speed_line(known: DeviceLimits) -> str:
    fastest = f"Most examples/s whole: batch size {known.fastest_batch_size}."
    if known.plateau_batch_size is None:
        return f"{fastest} No line fits the cost, so no plateau is computed."
    return f"{fastest} 90 % of the fitted limit is reached at {known.plateau_batch_size:.0f}."


def _memory_line(known: DeviceLimits) -> str:
    line = f"Largest batch that ran whole: {known.largest_batch_size}"
    if known.memory_limit_mib is not None:
        line += f", of {known.memory_limit_mib:.0f} MiB"
    if known.predicted_largest is None:
        return line + "; the memory fit allows no prediction."
    reason = "memory, the margin kept free" if known.limited_by == "memory" else "the data"
    state = "verified by a probe" if known.verified else "predicted, not verified"
    return f"{line}; largest that {reason} allows: {known.predicted_largest} ({state})."
