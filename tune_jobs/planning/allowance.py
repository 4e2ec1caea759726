"""The minutes that a sweep was given, and what each stage may use of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

FIXED = 0.7  # of the whole, for fixed batch sizes where a batch schedule is run after them
MEASURE, SEARCH, FURTHER = 0.25, 0.6, 0.8  # parts of the whole by whose ends these stages end
TIMING = 0.1  # of the whole, for timing again what may win


@dataclass(frozen=True)
class Allowance:
    """`minutes` of wall time from when it is made, or no end where None; a sweep taken up again has
    them anew.

    A stage begins no run after its part of them; runs under way go on.
    """

    minutes: float | None
    began: float = field(default_factory=time.monotonic)

    def is_over(self, part: float = 1.0) -> bool:
        """Whether so much of the minutes is used."""
        return self.minutes is not None and self.used() >= part * 60 * self.minutes

    def for_fixed(self) -> Allowance:
        """What fixed batch sizes may use of it where a batch schedule is to follow."""
        return replace(self, minutes=self.minutes and FIXED * self.minutes)

    def left_to_measure(self, at_most: float) -> float:
        """Seconds that profiling may take, of the most that it would."""
        if self.minutes is None:
            return at_most
        return max(1.0, min(at_most, MEASURE * 60 * self.minutes - self.used()))

    def left_to_time(self, at_most: float) -> float:
        """Seconds that timing again may take, of the most that it would."""
        return at_most if self.minutes is None else min(at_most, TIMING * 60 * self.minutes)

    def used(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.began
