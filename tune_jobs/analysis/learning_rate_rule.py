"""How the best learning rate grows with the batch size, measured, beside the two usual rules.

Linear (exponent 1, Goyal et al. 2017) and square root (0.5, Malladi et al. 2022). From the search's
trials: one learning rate for each batch size, a straight line through their logs, and what either
rule would have cost had it been trusted from one batch size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tune_jobs.analysis.choosing import best_trial
from tune_jobs.analysis.formatting import quantity
from tune_jobs.records import Estimate, LearningRateRule, RuleCost, TrialResult

RULES = (("linear", 1.0), ("square root", 0.5))
NEAR = 1.5  # a tried rate within this factor stands for the rule's


def learning_rate_rule(trials: Sequence[TrialResult], confidence: float) -> LearningRateRule | None:
    """The exponent over batch sizes of which some trial reached the target; None below two.

    Two batch sizes give an exponent without an interval.
    """
    searched = [t for t in trials if t.stage == "search"]
    best = best_rates(searched)
    if len(best) < 2:
        return None
    exponent = fitted_exponent(best, confidence)
    linear, root = (_inside(exponent, p) for _, p in RULES)
    anchor = min(best)
    costs = tuple(
        _cost(rule, p, best, anchor, size, [t for t in searched if t.batch_size == size])
        for rule, p in RULES
        for size in sorted({t.batch_size for t in searched} - {anchor})
    )
    return LearningRateRule(
        exponent, len(best), linear, root, costs, _sentence(exponent, (linear, root), len(best))
    )


def best_rates(trials: Sequence[TrialResult]) -> dict[int, TrialResult]:
    """The best trial of each batch size that reached the target in one."""
    found = {
        size: best_trial([t for t in trials if t.batch_size == size])
        for size in sorted({t.batch_size for t in trials})
    }
    return {
        size: t for size, t in found.items() if t is not None and t.examples_to_target is not None
    }


def fitted_exponent(best: dict[int, TrialResult], confidence: float) -> Estimate:
    """Slope of log best rate on log batch size with its t-interval; no ends from two points."""
    x = np.log(np.array(list(best), dtype=np.float64))
    y = np.log([t.learning_rate for t in best.values()])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    free = len(x) - 2
    if free < 1:
        return Estimate(slope, None, None)
    left = y - y.mean() - slope * x
    error = math.sqrt(float(left @ left) / free / float(x @ x))
    half = float(stats.t.ppf((1 + confidence) / 2, free)) * error
    return Estimate(slope, slope - half, slope + half)


def _inside(exponent: Estimate, value: float) -> bool | None:
    if exponent.low is None or exponent.high is None:
        return None
    return exponent.low <= value <= exponent.high


def _cost(
    rule: str,
    exponent: float,
    best: dict[int, TrialResult],
    anchor: int,
    size: int,
    trials: Sequence[TrialResult],
) -> RuleCost:
    rate = best[anchor].learning_rate * (size / anchor) ** exponent
    nearest = min(trials, key=lambda t: abs(math.log(t.learning_rate / rate)))
    own = best.get(size)
    ratio, reason = None, None
    if max(nearest.learning_rate / rate, rate / nearest.learning_rate) > NEAR:
        reason = f"no rate within a factor of {NEAR:g} was tried"
    elif nearest.examples_to_target is None:
        reason = f"{nearest.outcome} after {nearest.examples_seen} examples without the target"
    elif own is not None and own.examples_to_target:
        ratio = nearest.examples_to_target / own.examples_to_target
    tried = None if reason and reason.startswith("no rate") else nearest.learning_rate
    return RuleCost(rule, exponent, anchor, size, rate, tried, ratio, reason)


def _sentence(exponent: Estimate, plausible: Sequence[bool | None], sizes: int) -> str:
    power = quantity(exponent.value, exponent.low, exponent.high, digits=2)
    told = f"The best learning rate grows as B^{power} over {sizes} batch sizes"
    if plausible[0] is None:
        return f"{told}: too few to tell which rule holds."
    names = [name for (name, _), fits in zip(RULES, plausible, strict=True) if fits]
    if len(names) == 2:
        return f"{told}: neither linear nor square root can be ruled out."
    if not names:
        return f"{told}: neither linear nor square root fits."
    other = next(name for name, _ in RULES if name != names[0])
    return f"{told}: {names[0]} is plausible, {other} is not."
