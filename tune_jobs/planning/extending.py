"""Whether the batch size beyond those tried may still win: a leader at the edge needs a worse
neighbour on both sides, as a learning rate does. Most extensions are ruled out without a run.

At best, with tuned rates, half the batch takes as much less examples as the hyperbola of the least
critical batch size that the noise scale allows, and twice the batch takes no more (Shallue et al.
2019); seconds an example come from the line through the profiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_jobs.config import SweepConfig
from tune_jobs.judging.critical_batch import noise_summaries
from tune_jobs.judging.speed import line_of_step_seconds
from tune_jobs.measure.clock import chosen
from tune_jobs.planning.known import Known
from tune_jobs.planning.learning_rates import valleys_of
from tune_jobs.planning.timing import seconds_decide

TRIALS = 3  # of the search, at a batch size that is added
OFF = 4.0  # times by which the noise scale may miss the critical batch size


def next_size(
    config: SweepConfig, sizes: Sequence[int], known: Known, most_examples: int
) -> int | None:
    """Half the smallest of `sizes` or twice the largest, where that one leads and the next may be
    better by more than the tolerance; None elsewhere.

    Args:
        sizes: those that fit, of which trials were made.
        most_examples: no batch is larger: what there is to train on, or the budget.
    """
    leader = leading(config, sizes, known)
    if leader is None or not config.extends or not seconds_decide(config):
        return None
    for edge, size in ((min(sizes), min(sizes) // 2), (max(sizes), 2 * max(sizes))):
        fits = 1 <= size <= most_examples and size not in config.batch_sizes
        if leader == edge and fits and at_best(edge, size, known) < 1 - config.tolerance:
            return size
    return None


def leading(config: SweepConfig, sizes: Sequence[int], known: Known) -> int | None:
    """The batch size whose best learning rate is expected to take least."""
    tried = [s for s in sizes if any(t.batch_size == s for t in known.trials)]
    needs = {s: v.needs()[0] for s, v in valleys_of(config, tried, known).items()}
    told = {s: need + math.log(known.cost[s]) for s, need in needs.items() if math.isfinite(need)}
    return min(told, key=lambda s: (told[s], s), default=None)


def at_best(edge: int, size: int, known: Known) -> float:
    """The least that a batch size may take over what the edge takes; infinite where speeds do not
    tell."""
    rates = {p.batch_size: p.examples_per_second for p in chosen(known.profiles)}
    line = line_of_step_seconds({s: r for s, r in rates.items() if r}, known.profiles)
    if line is None:
        return math.inf
    slower = (line.at(size) / size) / (line.at(edge) / edge)
    if size > edge:
        return slower
    raw = next((n for n in noise_summaries(known.noise) if n.kind == "raw"), None)
    critical = (raw.low or raw.value or 0.0) / OFF if raw is not None else 0.0
    return slower * ((critical + size) / (critical + edge))
