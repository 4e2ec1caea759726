"""What the search will try, told before it begins: rates, shares, and where races decide. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_jobs.config import SweepConfig
from tune_jobs.training.scaling import scaling_of
from tune_jobs.training.schedule import rung_budgets


@dataclass(frozen=True)
class Range:
    """Base learning rates from `low` to `high`; `centre` is the scaling rule's own value."""

    centre: float
    span: float

    @property
    def low(self) -> float:
        return self.centre / self.span

    @property
    def high(self) -> float:
        return self.centre * self.span

    def first_points(self, count: int) -> list[float]:
        """The centre, then half the span (on a log scale) to either side of it."""
        half = math.sqrt(self.span)
        return [self.centre, self.centre * half, self.centre / half][:count]


def learning_rate_range(config: SweepConfig) -> Range:
    """The range of base learning rates: the user's centre, or the optimizer's own."""
    return Range(base_learning_rate(config), config.learning_rate_span)


def base_learning_rate(config: SweepConfig) -> float:
    """The user's, or the optimizer's own."""
    return config.base_learning_rate or scaling_of(config.optimizer).base_learning_rate


def rungs_of(config: SweepConfig) -> tuple[int, ...]:
    """Budgets at which the races of this sweep decide."""
    return rung_budgets(config.budget_examples, config.first_rung_fraction, config.reduction_factor)


def shares(trials: int, batch_sizes: tuple[int, ...]) -> dict[int, int]:
    """Trials for each batch size: equal, the remainder to the first ones."""
    each, rest = divmod(trials, len(batch_sizes))
    return {size: each + (k < rest) for k, size in enumerate(batch_sizes)}
