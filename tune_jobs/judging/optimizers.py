"""Optimizers side by side, each at its own batch size and learning rate, tuned with equal effort.

Runs are paired by seed where seeds are shared: what is judged is the mean of the log ratio of what
each takes to the same target, over what the best of them takes, with its t interval. A run that was
cut counts where it ended, so that what it is a part of has no upper end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune_jobs.formatting import learning_rate, quantity
from tune_jobs.judging.paired import log_ratios, pairs_of, ratio_of
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import Quantity, quantity_of
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Estimate, Verdict


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer: its verdict's batch size, and what it takes over what the best one takes.

    Attributes:
        times: None of the best itself, and where no run of it reached the target.
        critical_batch_size, exponent: of the critical batch size, and of best rate ~ B^p.
    """

    optimizer: str
    status: str
    batch_size: int | None
    learning_rate: float | None
    median: float | None
    times: Estimate | None
    critical_batch_size: float | None
    exponent: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """The optimizers, the best first; `answer` in a line, `moves` whether it matters to the batch
    size."""

    answer: str
    moves: str
    rows: tuple[OptimizerRow, ...]


def compare(
    verdicts: Mapping[str, Verdict], runs: Mapping[str, Sequence[TargetRun]], policy: Policy
) -> Comparison:
    """The verdicts of the same workload and target by optimizer, and the runs they are made of."""
    every = [run for of in runs.values() for run in of]
    judged = quantity_of(policy, every)
    medians = {name: _median(verdict) for name, verdict in verdicts.items()}
    order = sorted(verdicts, key=lambda name: (medians[name] is None, medians[name] or 0.0))
    best = order[0]
    mine = {name: _used_runs(verdicts[name], runs[name]) for name in verdicts}
    rows = tuple(
        OptimizerRow(
            optimizer=name,
            status=verdicts[name].status,
            batch_size=use.batch_size if (use := verdicts[name].use) else None,
            learning_rate=use.learning_rate if use else None,
            median=medians[name],
            times=None if name == best else _times(mine[name], mine[best], judged, policy),
            critical_batch_size=fit.value if (fit := verdicts[name].critical_batch_size) else None,
            exponent=rule.exponent if (rule := verdicts[name].learning_rate_rule) else None,
        )
        for name in order
    )
    return Comparison(_answer(rows, verdicts[best]), _moves(rows, verdicts), rows)


def _median(verdict: Verdict) -> float | None:
    return next((r.median for r in verdict.per_batch_size if r.standing == "used"), None)


def _used_runs(verdict: Verdict, runs: Sequence[TargetRun]) -> list[TargetRun]:
    size = verdict.use.batch_size if verdict.use else None
    return [run for run in runs if run.batch_size == size and run.target == verdict.target]


def _times(
    ours: Sequence[TargetRun], theirs: Sequence[TargetRun], judged: Quantity, policy: Policy
) -> Estimate | None:
    """Mean ratio with its interval; open above where a run of ours was cut."""
    pairs = pairs_of(ours, theirs)
    logs = log_ratios(pairs, judged)
    cut = sum(not reached(run) for run, _ in pairs)
    return ratio_of(logs, cut, policy.confidence) if logs else None


def _answer(rows: Sequence[OptimizerRow], verdict: Verdict) -> str:
    best, *others = rows
    if best.batch_size is None:
        return "No optimizer reached the target."
    told = [
        f"Use {best.optimizer} with batch size {best.batch_size}, learning rate "
        f"{learning_rate(best.learning_rate)}"
    ]
    for row in others:
        if row.times is None or row.times.value is None:
            told.append(f"{row.optimizer} did not reach the target")
            continue
        times = quantity(row.times.value, row.times.low, row.times.high)
        apart = row.times.low is not None and row.times.low > 1
        said = f"{row.optimizer} with {row.batch_size} takes {times} times as long"
        told.append(said if apart else f"{said}, not told apart")
    return "; ".join(told) + "."


def _moves(rows: Sequence[OptimizerRow], verdicts: Mapping[str, Verdict]) -> str:
    """Whether the choice of the optimizer moves the choice of the batch size."""
    known = [row for row in rows if row.batch_size is not None]
    sizes = {row.batch_size for row in known}
    named = ", ".join(f"{row.batch_size} with {row.optimizer}" for row in known)
    if len(known) < 2:
        return "Whether the optimizer moves the choice of batch size is not known."
    if len(sizes) == 1:
        return f"The optimizer does not move the choice of batch size: {named}."
    alike = set.intersection(*(_alike(verdicts[row.optimizer]) for row in known))
    if alike:
        also = ", ".join(map(str, sorted(alike)))
        return f"Whether the optimizer moves the batch size is open: {named}; {also} may be all's."
    return f"The optimizer moves the choice of batch size: {named}."


def _alike(verdict: Verdict) -> set[int]:
    """The batch size to use, and those that may be as good."""
    used = {verdict.use.batch_size} if verdict.use else set()
    return {*used, *verdict.open_batch_sizes, *verdict.tied_batch_sizes}
