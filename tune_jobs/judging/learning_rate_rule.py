"""How the best learning rate grows with the batch size, measured, beside the two usual rules.

Linear (exponent 1, Goyal et al. 2017) and square root (0.5, Malladi et al. 2022). From the search's
trials: the middle of each batch size's valley of learning rates, a straight line through their
logs, and what either rule would have cost had it been trusted from the smallest batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from tune_jobs.formatting import quantity
from tune_jobs.reading.choosing import best_trial, rank
from tune_jobs.records import TrialResult
from tune_jobs.verdicts import Estimate, LearningRateRule, RuleCost

RULES = (("linear", 1.0), ("square root", 0.5))
NEAR = 1.5  # a tried rate within this factor stands for the rule's
# A trial this much slower than the best of its batch size (a log ratio) counts 1/e of it. The best
# trial alone is the luckiest of those about a flat floor: its exponent is 1.4 times as far off.
DEPTH = 0.1


def learning_rate_rule(trials: Sequence[TrialResult], confidence: float) -> LearningRateRule | None:
    """The exponent over batch sizes of which some trial reached the target; None below two.

    Two batch sizes give an exponent without an interval.
    """
    searched = [t for t in trials if t.stage == "search"]
    best = best_rates(searched)
    if len(best) < 2:
        return None
    exponent = fitted_exponent(
        {size: valley_rate([t for t in searched if t.batch_size == size]) for size in best},
        confidence,
    )
    linear, root = (_inside(exponent, p) for _, p in RULES)
    costs = tuple(
        _cost(rule, p, best, size, [t for t in searched if t.batch_size == size])
        for rule, p in RULES
        for size in sorted({t.batch_size for t in searched} - {min(best)})
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


def valley_rate(trials: Sequence[TrialResult]) -> float:
    """The middle of one batch size's valley: the mean log rate of the trials that reached the
    target, those near the least examples to it counting most."""
    known = [(t.learning_rate, t.examples_to_target) for t in trials if t.examples_to_target]
    logs, examples = np.log(np.array(known, dtype=np.float64)).T
    return math.exp(np.average(logs, weights=np.exp((examples.min() - examples) / DEPTH)))


def fitted_exponent(rates: Mapping[int, float], confidence: float) -> Estimate:
    """Slope of log rate on log batch size with its t-interval; no ends from two points."""
    x = np.log(np.array(list(rates), dtype=np.float64))
    y = np.log(np.array(list(rates.values())))
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    free = len(x) - 2
    if free < 1:
        return Estimate(slope, None, None)
    left = y - y.mean() - slope * x
    error = math.sqrt(float(left @ left) / free / float(x @ x))
    half = float(special.stdtrit(free, (1 + confidence) / 2)) * error
    return Estimate(slope, slope - half, slope + half)


def _inside(exponent: Estimate, value: float) -> bool | None:
    if exponent.low is None or exponent.high is None:
        return None
    return exponent.low <= value <= exponent.high


def _cost(
    rule: str,
    exponent: float,
    best: Mapping[int, TrialResult],
    size: int,
    trials: Sequence[TrialResult],
) -> RuleCost:
    """The rule from the smallest batch size at `size`, by the nearest of the `trials` there."""
    anchor = min(best)
    rate = best[anchor].learning_rate * (size / anchor) ** exponent
    least = min(abs(math.log(t.learning_rate / rate)) for t in trials)
    if least > math.log(NEAR):
        reason = f"no rate within a factor of {NEAR:g} was tried"
        return RuleCost(rule, exponent, anchor, size, rate, None, None, reason)
    as_near = [t for t in trials if abs(math.log(t.learning_rate / rate)) <= least * (1 + 1e-9)]
    nearest = max(as_near, key=rank)
    ratio, ended = _ratio(nearest, best.get(size))
    return RuleCost(rule, exponent, anchor, size, rate, nearest.learning_rate, ratio, ended)


def _ratio(nearest: TrialResult, best: TrialResult | None) -> tuple[float | None, str | None]:
    """Examples to target over those of the best trial; or None and what became of the trial."""
    if nearest.examples_to_target is not None and best is not None and best.examples_to_target:
        return nearest.examples_to_target / best.examples_to_target, None
    ended = nearest.outcome.replace("_", " ")
    return None, f"{ended} after {nearest.examples_seen:,} examples, the target not reached"


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
