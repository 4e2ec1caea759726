"""What the judge is asked for: the goal, and how sure and how exact an answer has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_jobs.errors import UserError, unknown_name

GOALS = ("time", "examples", "energy", "cost", "accuracy", "memory")
# The chance of a wrong answer that a first look at the runs may take, and each later one at more of
# them: several looks share one chance of error (decisions/0005-judging.md).
FIRST_LOOK, LATER_LOOK = 0.03, 0.01


@dataclass(frozen=True)
class Policy:
    """How runs are judged. Raises UserError for a value that cannot be meant.

    Attributes:
        tolerance: batch sizes this close to the best count as equal, as a part of its quantity.
        confidence: of every interval, bound and comparison.
        price_per_device_hour: in any currency; goal `cost` needs it.
        base_learning_rate_range: the range searched at batch 256, to tell a best rate on its edge.
        looks: how often fewer of these runs were looked at and left open.
        trainings_to_come: how many times the answer will be used.
        resume: the command that takes the sweep up again; None for runs made elsewhere.
    """

    goal: str = "time"
    tolerance: float = 0.05
    confidence: float = 0.95
    price_per_device_hour: float | None = None
    base_learning_rate_range: tuple[float, float] | None = None
    looks: int = 0
    trainings_to_come: int = 100
    resume: str | None = None

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise unknown_name("--goal", self.goal, GOALS)
        if not 0 <= self.tolerance < 1:
            raise UserError(f"tolerance {self.tolerance}: must be in [0, 1), such as 0.05")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"confidence {self.confidence}: must be in [0.5, 1), such as 0.95")
        if self.goal == "cost" and self.price_per_device_hour is None:
            raise UserError("--goal cost needs a price: give --price-per-device-hour")
        if self.trainings_to_come < 1:
            raise UserError(f"--trainings-to-come {self.trainings_to_come}: must be at least 1")

    @property
    def log_tolerance(self) -> float:
        """The tolerance on the log scale that comparisons are made on."""
        return math.log1p(self.tolerance)

    @property
    def risk_allowed(self) -> float:
        """The chance of a wrong answer that this look may take, in proportion to the confidence."""
        return (LATER_LOOK if self.looks else FIRST_LOOK) * (1 - self.confidence) / 0.05
