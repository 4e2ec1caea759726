"""A verdict for MLflow's parent run: tags to filter by, and a note in Markdown."""

from __future__ import annotations

from tune_jobs.reporting.terminal import table_rows
from tune_jobs.verdicts import Verdict


def tags_of(verdict: Verdict) -> dict[str, str]:
    """Tags of the parent run; what is not known is left out."""
    critical = verdict.critical_batch_size
    known = {
        "verdict": verdict.status,
        "recommended_batch_size": verdict.recommended_batch_size,
        "tied_batch_sizes": ", ".join(map(str, verdict.tied_batch_sizes)) or None,
        "binding_limit": verdict.binding_limit,
        "critical_batch_size": None if critical is None else f"{critical.value:.3g}",
        "goal": verdict.goal,
        "target": verdict.target,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def note_of(verdict: Verdict) -> str:
    """The answer first, its reasons after it, then the table."""
    told = [verdict.advice, verdict.limit_reason, *verdict.warnings]
    title, *rows = table_rows(verdict)
    lines = [title, ["---:"] * len(title), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([verdict.reason, *(text for text in told if text), table])
