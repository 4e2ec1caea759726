"""Whether the budget is too short for the target, by the first trials that used all of it in vain.

A target that is never reached tells nothing of batch sizes, so the budget is doubled, and doubled
again, as long as the best trial was still on its way there.
"""

from __future__ import annotations

import math

from tune_jobs.config import SweepConfig
from tune_jobs.planning.known import Known, best_so_far
from tune_jobs.reading.sweep_runs import NEARLY, Curve, curve

IN_VAIN = 3  # trials that used the whole budget, and none reached; a third of all, where few
LEAST = 1e-9  # of an error, so that it has a log
MOST = 8  # times the budget that the sweep began with


def longer_budget(config: SweepConfig, known: Known) -> int | None:
    """Twice the budget; None where it need not, or may not, be longer: a target was reached, the
    budget was given, a run means something at its end alone, or the target is out of sight."""
    reached = any(t.examples_to_target is not None for t in known.trials)
    if not config.lengthens or config.training.ends_with_the_budget or reached:
        return None
    enough = NEARLY * config.budget_examples
    whole = [t for t in known.trials if t.outcome == "finished" and t.examples_seen >= enough]
    best = best_so_far(known)
    if best is None or len(whole) < max(1, min(IN_VAIN, config.trials // 3)):
        return None
    most = MOST * min(t.budget_examples for t in known.trials)
    points = curve(best, known.curves.get(best.trial_id, ()))
    longer = 2 * config.budget_examples
    return longer if longer <= most and needs(points, config.target) <= most else None


def needs(points: Curve, target: float) -> float:
    """Examples to the target, were the metric to go on as over its last octave: of a fraction that
    rises what it lacks of 1 by a power of the examples, else the metric by their log. Infinite
    where it came no nearer."""
    end = points[-1][0] if points else 0.0
    half = [value for examples, value in points if examples <= end / 2]
    if not half:
        return math.inf
    before, last = half[-1], points[-1][1]
    if 0 <= before < last < target <= 1:
        before, last, target = (math.log(max(1 - v, LEAST)) for v in (before, last, target))
    gained, left = last - before, target - last
    if gained * left <= 0:
        return math.inf
    return float(end * 2 ** min(left / gained, 1_000))
