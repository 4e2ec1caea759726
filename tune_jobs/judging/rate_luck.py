"""How far a batch size's chosen learning rate may be from its best one, and what that costs.

A search tries few rates, so the best of them is short of the optimum by a part that no further
seed shows: the largest error of all. Examples to target about the optimum are a parabola in the log
of the rate, log n = log n_min + c (x - x*)^2, whose curvature c all batch sizes share. For each
batch size x* is weighed by what its trials say of it (those that did not reach the target say that
they needed more), together with c; the shortfall of the chosen rate is c (x - x*)^2. What it
differs by from the other batch sizes' shortfalls is added, as a variance, to every comparison.
Batch sizes inform one another: x* moves smoothly with log B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.judging.posterior import Bools, Floats
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun

# Curvatures looked at: a rate off by a factor of two costs 2 to 60 % more examples.
CURVATURES = np.log1p(np.geomspace(0.02, 0.6, 12)) / math.log(2) ** 2
PLACES = 161  # of x*, over the rates tried and BEYOND on both sides
BEYOND = math.log(4)
NOISE = 0.12  # deviation of a search run's log examples to target, where seeds do not tell better
LINE = 0.5  # deviation of x* about a line in log B


@dataclass(frozen=True)
class Tried:
    """The rates tried at one batch size: their logs, and the log of what each needed, or was over
    where it is `short` of the target; all (M,)."""

    rate: Floats
    needed: Floats
    short: Bools


def tried_rates(runs: Sequence[TargetRun]) -> dict[int, Tried]:
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
        size: Tried(*(np.array(column) for column in zip(*rows, strict=True)))
        for size, rows in sorted(found.items())
        if not all(row[2] for row in rows)
    }


def variance_of_rates(
    searched: Sequence[TargetRun], chosen: Mapping[int, float | None], noise: float = NOISE
) -> dict[int, float]:
    """By batch size, the variance of the log that the choice of its learning rate leaves: of the
    shortfall about the mean of all.

    Args:
        searched: the search's runs at one target.
        chosen: the rate that each batch size's runs are judged with; those of unknown rate, and
            those of which fewer than two rates were tried, are left out.
    """
    tried = {size: t for size, t in tried_rates(searched).items() if len(set(t.rate)) > 1}
    if not tried:
        return {}
    places = {size: _places(t) for size, t in tried.items()}
    likely = {size: _log_likelihood(tried[size], places[size], noise) for size in tried}
    likely = {size: of + _line(size, places, likely) for size, of in likely.items()}
    curvature = _softmax(sum(special.logsumexp(of, axis=1) for of in likely.values()))
    short = {
        size: _shortfall(likely[size], places[size], math.log(rate), curvature)
        for size in tried
        if (rate := chosen.get(size))
    }
    common = sum(mean for mean, _ in short.values()) / max(1, len(short))
    return {size: variance + (mean - common) ** 2 for size, (mean, variance) in short.items()}


def _places(tried: Tried) -> Floats:
    return np.linspace(tried.rate.min() - BEYOND, tried.rate.max() + BEYOND, PLACES)


def _log_likelihood(tried: Tried, places: Floats, noise: float) -> Floats:
    """(curvatures, places): of what was needed at the rates tried, the least that any rate needs
    profiled out by those that reached."""
    shape = CURVATURES[:, None, None] * (tried.rate - places[:, None]) ** 2
    left = tried.needed - shape
    got = ~tried.short
    least = left[..., got].mean(axis=-1, keepdims=True)
    z = (left - least) / noise
    # Steeper above than a parabola: what is far off counts as far off, not by how much.
    told = np.where(got, -np.log1p(z**2 / 4) * 2.5, special.log_ndtr(-z))
    return np.asarray(told.sum(axis=-1))


def _line(size: int, places: Mapping[int, Floats], likely: Mapping[int, Floats]) -> Floats:
    """(places,): log prior of a batch size's x* from a line through the others'."""
    others = [other for other in places if other != size]
    if len(others) < 2:
        return np.zeros(PLACES)
    means, weights = [], []
    for other in others:
        chance = _softmax(special.logsumexp(likely[other], axis=0))
        mean = float(chance @ places[other])
        means.append(mean)
        weights.append(1 / (float(chance @ (places[other] - mean) ** 2) + LINE**2))
    x = np.log(np.array(others, dtype=np.float64))
    weight, y = np.array(weights), np.array(means)
    middle = weight @ x / weight.sum()
    spread = weight @ (x - middle) ** 2
    slope = float(weight @ ((x - middle) * y) / spread) if spread > 0 else 0.0
    at = math.log(size) - middle
    line = float(weight @ y / weight.sum()) + slope * at
    variance = LINE**2 + 1 / weight.sum() + (at**2 / spread if spread > 0 else 0.0)
    return np.asarray(-((places[size] - line) ** 2) / 2 / variance)


def _softmax(logs: Floats) -> Floats:
    found = np.exp(logs - logs.max())
    return np.asarray(found / found.sum())


def _shortfall(
    likely: Floats, places: Floats, chosen: float, curvature: Floats
) -> tuple[float, float]:
    """Mean and variance of what the chosen rate is short of the best, over all x* and c."""
    chance = np.exp(likely - likely.max(axis=1, keepdims=True))
    chance = curvature[:, None] * chance / chance.sum(axis=1, keepdims=True)
    short = np.minimum(CURVATURES[:, None] * (chosen - places) ** 2, 1.0)
    mean = float((chance * short).sum())
    return mean, float((chance * (short - mean) ** 2).sum())
