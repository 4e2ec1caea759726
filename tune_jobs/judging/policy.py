"""What the judge is asked for: the goal, and how sure and how exact an answer has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_jobs.errors import UserError, unknown_name

GOALS = ("time", "examples", "energy", "cost", "accuracy", "memory")


@dataclass(frozen=True)
class Policy:
    """How runs are judged. Raises UserError for a value that cannot be meant.

    Attributes:
        tolerance: batch sizes this close to the best count as equal, as a part of its quantity.
        confidence: of every interval and comparison.
        price_per_device_hour: in any currency; goal `cost` needs it.
        base_learning_rate_range: the range searched at batch 256, to tell a best rate on its edge.
    """

    goal: str = "time"
    tolerance: float = 0.05
    confidence: float = 0.95
    price_per_device_hour: float | None = None
    base_learning_rate_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise unknown_name("--goal", self.goal, GOALS)
        if not 0 <= self.tolerance < 1:
            raise UserError(f"tolerance {self.tolerance}: must be in [0, 1), such as 0.05")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"confidence {self.confidence}: must be in [0.5, 1), such as 0.95")
        if self.goal == "cost" and self.price_per_device_hour is None:
            raise UserError("--goal cost needs a price: give --price-per-device-hour")

    @property
    def log_tolerance(self) -> float:
        """The tolerance on the log scale that comparisons are made on."""
        return math.log1p(self.tolerance)

    @property
    def error(self) -> float:
        """The chance of being wrong that is allowed."""
        return 1 - self.confidence
