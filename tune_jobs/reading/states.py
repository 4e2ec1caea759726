"""How a run ended: it counts, it never got there (censored), or it says nothing (left out).

A column that speaks of success (`success`, `converged`) says with its other words that the target
was not reached. One that speaks of the program (`finished`, W&B, MLflow, Tune, Optuna) says with
`crashed`, `failed` or `running` that the machine or somebody ended the run: it says nothing of its
batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.reading import cells
from tune_jobs.reading.columns import Named, spent_of
from tune_jobs.reading.names import ACCURACIES, words
from tune_jobs.reading.rows import COUNTS_TO_TARGET, Row, some
from tune_jobs.reading.state_words import BAD_IF_TRUE, ENDED, GONE, NEVER, NO, SUCCESS


def ended(rows: Sequence[Row], named: Named) -> tuple[list[Row], list[str]]:
    """The rows that count, those that never got there censored; what was left out, by reason."""
    column = named.by_ours.get("state")
    name = words(column.theirs) if column else ""
    of_success = any(words(str(row.get("state"))) in SUCCESS for row in rows)
    kept, gone = [], []
    for row in rows:
        word = words(str(row.get("state") or ""))
        what = _what(word, name, of_success)
        if row.get("fault") and not cells.blank(row.get("fault")):
            gone.append((row, "an error"))
        elif what == "gone":
            gone.append((row, str(row.get("state"))))
        elif what == "never":
            kept.append(_never(row, str(row.get("state"))))
        elif what is None and column is not None:
            kept.append(_as_setting(row, column.theirs))
        else:
            kept.append(row)
    return kept, _left_out(gone, len(rows))


def _what(word: str, name: str, of_success: bool) -> str | None:
    """`counts`, `never`, `gone`, or None for an unknown word."""
    if name in BAD_IF_TRUE and word in SUCCESS | NO:
        return "never" if word in SUCCESS else "counts"
    if word in NO:
        return "gone" if name in ("done", "finished", "complete", "completed") else "never"
    if word in SUCCESS or word in ENDED:
        return "counts"
    if word in NEVER or (of_success and word in ("failed", "fail", "failure")):
        return "never"
    return "gone" if word in GONE else None


def _never(row: Row, word: str) -> Row:
    """What it took is what it spent; a metric at another budget is none."""
    values = {}
    for name in COUNTS_TO_TARGET:
        if row.get(name) is not None and row.get(spent_of(name)) is None:
            values[spent_of(name)] = row.get(name)
    none: dict[str, None] = dict.fromkeys((*COUNTS_TO_TARGET, *ACCURACIES, "metric"))
    changed = row.having(**values, **none)
    return Row(changed.place, changed.values, row.settings, row.machine, word)


def _as_setting(row: Row, theirs: str) -> Row:
    settings = {**row.settings, theirs: str(row.get("state"))}
    return Row(row.place, row.values, settings, row.machine, row.never)


def _left_out(gone: Sequence[tuple[Row, str]], of: int) -> list[str]:
    by_word: dict[str, list[str]] = {}
    for row, word in gone:
        by_word.setdefault(word, []).append(row.place.rpartition(", ")[2])
    return [
        f"{len(places)} of {of} runs left out: {word} ({some(places)})"
        for word, places in by_word.items()
    ]
