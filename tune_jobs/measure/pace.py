"""How the time given to the noise scale is shared between training and draws, along a run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.measure.noise_scale import FEWEST_DRAWS


@dataclass
class Pace:
    """The time left, and what an update and a draw took when last made; None before.

    `deadline` is by time.perf_counter; FEWEST_DRAWS may overrun it by `grace` seconds.
    """

    deadline: float = math.inf
    grace: float = 0.0
    update_seconds: float | None = None
    draw_seconds: float | None = None

    @property
    def left(self) -> float:
        return self.deadline - time.perf_counter()

    def reserve(self) -> float:
        """Seconds to keep for the draws of a point: half of what is left, while unknown."""
        if math.isinf(self.deadline):
            return 0.0
        if self.draw_seconds is None:
            return self.left / 2
        return FEWEST_DRAWS * self.draw_seconds

    def time_for_a_point(self) -> bool:
        return self.left > self.reserve() + (self.update_seconds or 0.0)

    def draws(self, made: int, seconds: float, ahead: Sequence[int], most: int) -> int:
        """How many draws to make at this point in all, after `made` of them in `seconds`."""
        if made == 0 or math.isinf(self.deadline):
            return most
        self.draw_seconds = seconds / made
        over = -self.left
        if over > self.grace or (over > 0 and made >= FEWEST_DRAWS):
            return made
        legs = [updates * (self.update_seconds or 0.0) for updates in ahead]
        return planned_draws(self.left + seconds, self.draw_seconds, legs, most)


def planned_draws(
    left_seconds: float, draw_seconds: float, training_seconds: Sequence[float], most: int
) -> int:
    """Draws at a point, when `left_seconds` are left for it and for all later points.

    `training_seconds` are those from here to each later point, ascending. As many of these are
    reckoned with as can have FEWEST_DRAWS each; the time left beside training is shared evenly.
    """
    for kept in range(len(training_seconds), -1, -1):
        free = left_seconds - (training_seconds[kept - 1] if kept else 0.0)
        draws = math.floor(free / (draw_seconds * (kept + 1)))
        if draws >= FEWEST_DRAWS:
            return min(draws, most)
    return min(FEWEST_DRAWS, most)
