"""Population based training (Jaderberg et al. 2017): where its members begin, how one explores, and
the schedule that the best one leaves. Pure.

The fixed batch sizes are searched and confirmed first, so that members begin at their best rates.
What a member has trained at so far is a batch schedule; one that takes over another's weights takes
its schedule over as well, and goes on with a segment of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.planning.batch_schedules import Given, Schedule, changing, left_out
from tune_jobs.planning.confirm_plan import LONGEST_UNSEEN
from tune_jobs.records import TrialResult
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.training.segments import Segment, as_text, segments_of

INTERVALS = 5  # between two of which members are compared, on the way to the target
FACTORS = (1.0, 1.5, 1 / 1.5)  # of the best base rate of a batch size, by the turn of its members
EXPLORED = (0.8, 1.25)  # factors of the base rate that is taken over
STEPS = (-1, 0, 1)  # among the batch sizes that fit


def members_of(
    config: SweepConfig, given: Given, bases: Mapping[int, float]
) -> list[dict[str, Any]]:
    """What each member begins with, as Ray takes it: batch sizes in turn, that to use first, each
    at its best base rate and then about it."""
    sizes = sorted(
        (s for s in given.fitting if s in bases),
        key=lambda s: (abs(math.log(s / given.batch_size)), s),
    )
    most = min(config.budget_examples, math.ceil(LONGEST_UNSEEN * given.examples_to_target))
    members = []
    for k in range(config.members):
        size, turn = sizes[k % len(sizes)], k // len(sizes)
        base = bases[size] * FACTORS[turn % len(FACTORS)] ** (1 + turn // len(FACTORS))
        rate = scaled_learning_rate(config.optimizer, base, size)
        members.append(
            {
                "member": k,
                "batch_size": size,
                "base_learning_rate": base,
                "learning_rate": rate,
                "seed": config.seed,
                "races": False,
                "whole": False,
                "most_examples": most,
                "schedule": as_text([Segment(0, size, rate)]),
            }
        )
    return members


def compared_at(given: Given, most_examples: int) -> tuple[int, ...]:
    """Examples seen at which members are compared: evenly, to the end of the longest run."""
    every = max(1, math.ceil(given.examples_to_target / INTERVALS))
    return tuple(range(every, most_examples, every)) or (every,)


def explored(
    config: SweepConfig,
    taken: Mapping[str, Any],
    examples_seen: int,
    sizes: Sequence[int],
    chance: np.random.Generator,
) -> dict[str, Any]:
    """What a member goes on with that took over the weights of another one, after so many
    examples: its schedule, and a segment of a batch size and a rate near its last."""
    at = sorted(sizes).index(taken["batch_size"])
    size = sorted(sizes)[min(max(0, at + int(chance.choice(STEPS))), len(sizes) - 1)]
    base = taken["base_learning_rate"] * float(chance.choice(EXPLORED))
    rate = scaled_learning_rate(config.optimizer, base, size)
    before = [s for s in segments_of(taken["schedule"]) if s.from_examples < examples_seen]
    return {
        **taken,
        "batch_size": size,
        "base_learning_rate": base,
        "learning_rate": rate,
        "schedule": as_text([*before, Segment(examples_seen, size, rate)]),
    }


def best_of_population(config: SweepConfig, trials: Sequence[TrialResult]) -> Schedule:
    """The schedule of the member that took least to the target, in the goal's own quantity."""
    of = [t for t in trials if t.stage == "pbt" and t.examples_to_target is not None]
    if not of:
        return left_out(config.search, "no member of the population reached the target")
    best = min(of, key=lambda t: (_spent(config, t), t.trial_id))
    segments = [
        s
        for s in segments_of(best.schedule or "")
        if s.from_examples < (best.examples_to_target or 0)
    ]
    if len(changing(segments)) < 2:
        only = f"batch size {segments[0].batch_size}, learning rate {segments[0].learning_rate:.2g}"
        return left_out(config.search, f"its best member kept to one segment, {only}")
    return Schedule(config.search, changing(segments))


def _spent(config: SweepConfig, trial: TrialResult) -> float:
    spent = trial.time_to_target_seconds if config.goal in ("time", "cost") else None
    return spent or float(trial.examples_to_target or math.inf)
