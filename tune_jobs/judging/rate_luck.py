"""How far a batch size's chosen learning rate may be from its best one, and what that costs.

A search tries few rates, so the best of them is short of the optimum by a part that no further
seed shows: the largest error of all. `valley.py` tells how far. Batch sizes are compared as they
would be at their best rates: what each is short of that is drawn and taken off. Where no rate that
the search tried reached the target, the valleys of the other batch sizes alone tell of it; how much
a better rate may save has an end there as well (`regret.at_best_rates`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tune_jobs.judging.valley import NOTHING, Tried, valleys
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun

NOISE = 0.12  # deviation of a run's log examples to target, where seeds do not tell better


def tried_rates(runs: Sequence[TargetRun], noise: float = NOISE) -> dict[int, Tried]:
    """By batch size, of runs at one target; batch sizes of which none reached it are left out."""
    found: dict[int, list[tuple[float, float, bool]]] = {}
    for run in runs:
        needed = run.examples_to_target or run.time_to_target_seconds
        limit = run.examples_seen or run.train_seconds
        value = needed if reached(run) else limit
        if run.learning_rate and value and value > 0:
            row = (math.log(run.learning_rate), math.log(value), not reached(run))
            found.setdefault(run.batch_size, []).append(row)
    return {
        size: Tried(
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows]),
            np.full(len(rows), noise),
        )
        for size, rows in sorted(found.items())
        if not all(row[2] for row in rows)
    }


class Shortfall(NamedTuple):
    """Of the log of what a run takes over what it would take at the best learning rate; `borrowed`
    where the trials of other batch sizes alone tell of it, else `tried` so many rates."""

    mean: float
    variance: float
    borrowed: bool = False
    tried: int = 0


def shortfalls(
    searched: Sequence[TargetRun], chosen: Mapping[int, float | None], noise: float = NOISE
) -> dict[int, Shortfall]:
    """By batch size, what the choice of its learning rate leaves.

    Args:
        searched: the search's runs at one target.
        chosen: the rate that each batch size's runs are judged with, None where unknown.

    Returns:
        Those of known rate; none where no batch size had two rates.
    """
    tried = tried_rates(searched, noise)
    if not any(len(set(t.rate)) > 1 for t in tried.values()):
        return {}
    known = {size: rate for size, rate in chosen.items() if rate}
    tried = {size: NOTHING for size in known} | tried
    found = valleys(tried)
    count = {size: len(set(of.rate)) for size, of in tried.items()}
    return {
        size: Shortfall(*found[size].shortfall(math.log(rate)), not count[size], count[size])
        for size, rate in sorted(known.items())
    }
