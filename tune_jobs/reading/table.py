"""What a table comes to: its runs, and what a reader should know of how they were read."""

from __future__ import annotations

from dataclasses import dataclass

from tune_jobs.records import TargetRun


@dataclass(frozen=True)
class Asked:
    """How a table is to be read, where it does not tell.

    Attributes:
        mode: `min` or `max`: whether a smaller or larger metric is better.
        rows: `run` or `point`: what a row is.
        target: of a table of curves, what is to be reached.
        goal: what is to be judged by.
    """

    mode: str | None = None
    rows: str | None = None
    target: float | None = None
    goal: str | None = None


@dataclass(frozen=True)
class TableOfRuns:
    """The runs of a table, and what a reader should know of how they were read.

    Attributes:
        notes: what was read as what, one line for each thing.
        left_out: how many rows are no part of any verdict, and why; one line for each reason.
        searched: the runs of a grid of learning rates that `runs` were chosen from, by workload and
            batch size, at each rate and seed; what the choice of a rate is worth is told from them.
        said: what can be said where there is nothing to judge by; it stands in a verdict's place.
        goal: what the runs can be judged by where that is not what a target took: `accuracy`.
        target: the target that was asked for, as the runs bear it (per cent as a fraction).
    """

    runs: tuple[TargetRun, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    searched: tuple[TargetRun, ...] = ()
    said: tuple[str, ...] = ()
    goal: str | None = None
    target: float | None = None
