"""What the search cost, and what following it blindly would have cost.

The best trial of a search is a lucky one: whoever trains with its batch size, unconfirmed, takes
what the verdict expects of that batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.formatting import count, learning_rate, seconds
from tune_jobs.judging.sentences import per_cent
from tune_jobs.reading.choosing import goodness
from tune_jobs.records import TrialResult
from tune_jobs.verdicts import BatchSizeVerdict, SearchCost


def search_cost(
    way: str,
    goal: str,
    search: Sequence[TrialResult],
    rows: Sequence[BatchSizeVerdict],
    told: Sequence[str] = (),
) -> SearchCost | None:
    """None without a search; `told` is what the way adds of itself."""
    ran = [t for t in search if t.outcome != "failed"]
    if not ran:
        return None
    examples, spent = sum(t.examples_seen for t in ran), sum(t.train_seconds for t in ran)
    best = best_for(goal, ran)
    row = next((r for r in rows if best is not None and r.batch_size == best.batch_size), None)
    regret = row.expected_regret if row is not None else None
    said = (
        f"The search ({way}) made {len(search)} trials: {count(examples)} examples, "
        f"{seconds(spent)} of training."
    )
    if best is not None and regret is not None:
        said += (
            f" Its best trial alone would have named {best.batch_size} at "
            f"{learning_rate(best.learning_rate)}: expected to be {per_cent(regret)} worse than "
            "the best."
        )
    return SearchCost(
        way=way,
        trials=len(search),
        examples_seen=examples,
        train_seconds=spent,
        blind_batch_size=best.batch_size if best else None,
        blind_learning_rate=best.learning_rate if best else None,
        blind_regret=regret,
        sentence=" ".join([said, *told]),
    )


def best_for(goal: str, trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial that a search by this goal ends with; None where none reached the target."""
    if goal == "accuracy":
        return max(trials, key=goodness, default=None)
    if goal in ("time", "cost"):
        known = [t for t in trials if t.time_to_target_seconds is not None]
        return min(known, key=lambda t: t.time_to_target_seconds or 0.0, default=None)
    known = [t for t in trials if t.examples_to_target is not None]
    return min(known, key=lambda t: t.examples_to_target or 0, default=None)
