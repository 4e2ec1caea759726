"""What is known when a trial is proposed, and what a proposal is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tune_jobs.config import SweepConfig
from tune_jobs.measure.clock import chosen
from tune_jobs.reading.sweep_runs import curve
from tune_jobs.records import (
    BatchSizeProfile,
    Measurement,
    NoiseScale,
    RangePoint,
    TrialResult,
)
from tune_jobs.training.schedule import crossing


@dataclass(frozen=True)
class Proposal:
    """A trial to make: it ends in vain at `most_examples`; `why` is for whoever watches. Where it
    `races`, one that falls behind those of its own batch size is stopped."""

    batch_size: int
    base_learning_rate: float
    most_examples: int
    why: str
    races: bool = True
    space: Mapping[str, float] = field(default_factory=dict)


Pending = tuple[int, float]  # batch size and base learning rate of a trial that is under way


@dataclass(frozen=True)
class Known:
    """What is known when a trial is proposed.

    Attributes:
        trials: those of the search that have ended; `repeated` confirm runs, by `repeated_before`;
            `curves` the measurements of both.
        pending: those under way.
        cost: seconds an example by batch size, or 1 where examples are what counts.
        profiles, noise, range_test: what was measured before.
    """

    trials: Sequence[TrialResult]
    curves: Mapping[str, Sequence[Measurement]]
    pending: Sequence[Pending]
    cost: Mapping[int, float]
    profiles: Sequence[BatchSizeProfile] = ()
    noise: Sequence[NoiseScale] = ()
    range_test: Sequence[RangePoint] = ()
    repeated: Sequence[TrialResult] = ()


def known_now(
    config: SweepConfig,
    trials: Sequence[TrialResult],
    measurements: Sequence[Measurement],
    profiles: Sequence[BatchSizeProfile],
    noise: Sequence[NoiseScale] = (),
    range_test: Sequence[RangePoint] = (),
) -> Known:
    """What the store's rows say, nothing under way."""
    curves: dict[str, list[Measurement]] = {}
    for row in sorted(measurements, key=lambda row: row.examples_seen):
        curves.setdefault(row.trial_id, []).append(row)
    cost = dict.fromkeys(config.batch_sizes, 1.0)
    if config.goal in ("time", "cost"):
        steps = {p.batch_size: p.step_seconds for p in chosen(profiles) if p.step_seconds}
        cost |= {size: step / size for size, step in steps.items()}
    searched = [t for t in trials if t.stage == "search"]
    measured = (cost, profiles, noise, range_test)
    return Known(searched, curves, (), *measured, repeated_before(trials))


def repeated_before(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Confirm runs that had ended, in the order of the rows, when the last trial of the search did:
    the rates that are confirmed stay until the search has told more."""
    last = max((k for k, t in enumerate(trials) if t.stage == "search"), default=0)
    return [t for t in trials[:last] if t.stage == "confirm"]


def best_so_far(known: Known) -> TrialResult | None:
    """The trial of the best metric at its end."""
    told = [t for t in known.trials if t.val_metric is not None and t.outcome != "failed"]
    least = [t for t in told if t.mode == "min"]
    if least:
        return min(least, key=lambda t: t.val_metric or 0.0)
    return max(told, key=lambda t: t.val_metric or 0.0, default=None)


def by_what_was_reached(known: Known) -> Known:
    """Where no trial reached the target, all as they would be at a nearer one: what the best of
    them had half way to its end."""
    best = best_so_far(known)
    if best is None or any(t.examples_to_target is not None for t in known.trials):
        return known
    curves = {t.trial_id: curve(t, known.curves.get(t.trial_id, ())) for t in known.trials}
    points = curves[best.trial_id]
    early = [value for examples, value in points if examples <= points[-1][0] / 2]
    if not early:
        return known
    target = min(early) if best.mode == "min" else max(early)
    needs = {name: crossing(of, target, best.mode) for name, of in curves.items()}
    trials = [
        t if (n := needs[t.trial_id]) is None else replace(t, examples_to_target=round(n))
        for t in known.trials
    ]
    return replace(known, trials=trials)


def count_of(size: int, known: Known) -> int:
    """Trials of a batch size that have ended or are under way."""
    return sum(t.batch_size == size for t in known.trials) + sum(
        s == size for s, _ in known.pending
    )


def rates_of(size: int, known: Known) -> list[float]:
    """Logs of the base rates tried or under way."""
    tried = [t.base_learning_rate for t in known.trials if t.batch_size == size]
    return [math.log(base) for base in [*tried, *(b for s, b in known.pending if s == size)]]
