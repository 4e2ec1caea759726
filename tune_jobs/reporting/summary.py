"""A verdict for MLflow's parent run: tags to filter by, and a note in Markdown."""

from __future__ import annotations

from tune_jobs.reporting.terminal import next_step, table_rows
from tune_jobs.verdicts import Verdict


def tags_of(verdict: Verdict) -> dict[str, str]:
    """Tags of the parent run; what is not known is left out."""
    critical, use = verdict.critical_batch_size, verdict.use
    known = {
        "verdict": verdict.status,
        "answer": verdict.answer,
        "use_batch_size": None if use is None else use.batch_size,
        "use_learning_rate": None if use is None else use.learning_rate,
        "expected_regret": None if use is None else use.expected_regret,
        "regret_bound": None if use is None else use.regret_bound,
        "tied_batch_sizes": ", ".join(map(str, verdict.tied_batch_sizes)) or None,
        "open_batch_sizes": ", ".join(map(str, verdict.open_batch_sizes)) or None,
        "binding_limit": verdict.binding_limit,
        "critical_batch_size": None if critical is None else f"{critical.value:.3g}",
        "goal": verdict.goal,
        "target": verdict.target,
        "metric": verdict.metric,
        "mode": verdict.mode,
        "schedule": verdict.schedule.sentence if verdict.schedule else None,
        "front": verdict.front,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def note_of(verdict: Verdict) -> str:
    """The answer first, its reasons after it, then the table."""
    schedule = verdict.schedule.sentence if verdict.schedule else None
    told = [verdict.front, schedule, verdict.change, next_step(verdict, "`"), verdict.reason]
    told += [verdict.limit_reason, *verdict.left_out, *verdict.warnings]
    title, *rows = table_rows(verdict)
    lines = [title, ["---:"] * len(title), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return "\n\n".join([f"**{verdict.answer}**", *(text for text in told if text), table])
