"""Accuracies as fractions, whatever they were written in; a column that mixes both is refused."""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.errors import UserError
from tune_jobs.reading.columns import Named
from tune_jobs.reading.names import ACCURACIES, PARTS, words
from tune_jobs.reading.rows import Row

Runs = Sequence[Sequence[Row]]


def parts_of(named: Named) -> dict[str, str]:
    """Our names of what is a part of one, and what the table calls it."""
    roles = {name: name for name in ACCURACIES}
    metric = named.metric
    if metric is not None and metric.role == "metric" and metric.mode != "min":
        column = named.by_ours["metric"]
        if column.factor == 1 and PARTS.fullmatch(words(column.theirs)):
            roles["metric"] = column.theirs
    return roles


def as_fractions(
    runs: Runs, roles: dict[str, str], stem: str
) -> tuple[list[list[Row]], list[str], set[str]]:
    """The runs with fractions, what is told, and our names of those that were in per cent.

    A workload's column whose largest value is above 1 is in per cent. A run may begin below 1 %,
    but one that never comes above 1 beside others that do could be either: refused.
    """
    changed, notes, percent = [list(run) for run in runs], [], set()
    for workload in dict.fromkeys(run[0].get("workload") or stem for run in runs):
        of = [n for n, run in enumerate(runs) if (run[0].get("workload") or stem) == workload]
        for role, theirs in roles.items():
            best = {
                n: max(values)
                for n in of
                if (values := [v for row in runs[n] if (v := row.get(role)) is not None])
            }
            if max(best.values(), default=0) <= 1:
                continue
            _refuse_mixed(runs, best, role, theirs)
            percent.add(role)
            notes.append(f"{workload}: {theirs} read as per cent")
            for n in best:
                changed[n] = [_hundredth(row, role) for row in changed[n]]
    return changed, notes, percent


def _hundredth(row: Row, role: str) -> Row:
    value = row.get(role)
    return row if value is None else row.having(**{role: value / 100})


def _refuse_mixed(runs: Runs, best: dict[int, float], role: str, theirs: str) -> None:
    small = next((n for n, value in best.items() if 0 < value <= 1), None)
    if small is None:
        return
    large = next(n for n, value in best.items() if value > 1)
    raise UserError(
        f"{runs[large][0].place} and {runs[small][0].place.rpartition(', ')[2]}, column {theirs}: "
        f"{best[large]:g} is per cent and {best[small]:g} could be a fraction; write all of them "
        "as fractions"
    )
