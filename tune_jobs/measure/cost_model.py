"""What an update costs as a function of its batch size: two lines, with intervals and residuals.

    step seconds = a + b B        memory = m0 + m1 b, b the examples of one pass

Pure functions over profile rows; numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.records import BatchSizeProfile

PLATEAU = 0.9
BAD_RESIDUAL = 0.15
VERIFIED = 0.95


@dataclass(frozen=True)
class LineFit:
    """`y = intercept + slope x` by least squares on relative errors, since noise scales with cost.

    Attributes:
        intercept_low, intercept_high, slope_low, slope_high: 95 % t-intervals; None for two points.
        largest_residual: the largest |y - fit| / y: how far a prediction within the range was off.
        good: false when some point lies more than 15 % off the line, or the slope is not positive.
    """

    intercept: float
    slope: float
    intercept_low: float | None
    intercept_high: float | None
    slope_low: float | None
    slope_high: float | None
    largest_residual: float
    n: int
    good: bool

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x


def fit_line(x: Sequence[float], y: Sequence[float], *, relative: bool = True) -> LineFit | None:
    """The line through (x, y), n points each; None with fewer than two distinct x.

    `relative` weighs each point by 1/y^2 (constant relative error), otherwise all alike.
    """
    if len(set(x)) < 2:
        return None
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    weights = 1 / ys**2 if relative else np.ones_like(ys)
    design = np.column_stack([np.ones_like(xs), xs]) * np.sqrt(weights)[:, None]
    inverse = np.linalg.pinv(design.T @ design)  # step times may differ by many decades
    intercept, slope = (float(v) for v in inverse @ design.T @ (ys * np.sqrt(weights)))
    residuals = ys - intercept - slope * xs
    free = len(xs) - 2
    half: tuple[float, float] | None = None
    if free > 0:
        variance = float((weights * residuals**2).sum()) / free
        width = special.stdtrit(free, 0.975) * np.sqrt(variance * np.diag(inverse))
        half = float(width[0]), float(width[1])
    largest = float(np.max(np.abs(residuals) / ys))
    return LineFit(
        intercept=intercept,
        slope=slope,
        intercept_low=intercept - half[0] if half else None,
        intercept_high=intercept + half[0] if half else None,
        slope_low=slope - half[1] if half else None,
        slope_high=slope + half[1] if half else None,
        largest_residual=largest,
        n=len(xs),
        good=largest <= BAD_RESIDUAL and slope > 0,
    )


def whole(profiles: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    """Rows of batch sizes that ran in one pass, ascending."""
    rows = [p for p in profiles if p.outcome == "finished" and p.micro_batch_size == p.batch_size]
    return sorted(rows, key=lambda p: p.batch_size)


def step_seconds_fit(profiles: Sequence[BatchSizeProfile]) -> LineFit | None:
    """`a + b B` over whole batches of one device type."""
    rows = [(p.batch_size, p.step_seconds) for p in whole(profiles) if p.step_seconds]
    return fit_line([b for b, _ in rows], [s for _, s in rows])


def memory_fit(profiles: Sequence[BatchSizeProfile]) -> LineFit | None:
    """`m0 + m1 B` over the training peaks of whole batches of one device type, in MiB."""
    rows = [(p.batch_size, p.training_memory_mib) for p in whole(profiles) if p.training_memory_mib]
    return fit_line([b for b, _ in rows], [m for _, m in rows], relative=False)


def plateau_batch_size(fit: LineFit | None) -> float | None:
    """The batch that gives 90 % of the fitted limit 1/b: B = 9 a / b. None without a good fit.

    0 when the cost of an update is all in its examples: every batch size is on the plateau.
    """
    if fit is None or not fit.good:
        return None
    return max(0.0, PLATEAU / (1 - PLATEAU) * fit.intercept / fit.slope)


def predicted_largest_batch(
    fit: LineFit | None, limit_mib: float, margin: float, train_examples: int
) -> int | None:
    """The largest batch whose fitted training peak leaves `margin` of the limit free.

    Not more than the training split holds. None without a good fit, 0 when nothing fits.
    """
    if fit is None or not fit.good:
        return None
    room = limit_mib * (1 - margin) - fit.intercept
    # A whole number is one on every machine, to the last digit of its arithmetic or not.
    return max(0, min(train_examples, math.floor(room / fit.slope * (1 + 1e-9))))


@dataclass(frozen=True)
class DeviceLimits:
    """Where speed stops growing and memory ends, for one device type.

    Attributes:
        plateau_batch_size: as `plateau_batch_size`.
        fastest_batch_size: the measured batch size with the most examples per second.
        largest_batch_size: the largest batch that ran whole: measured, not extrapolated.
        predicted_largest: what the memory line says, `margin` kept free.
        verified: whether a real probe within 5 % of `predicted_largest` (or above it) fitted.
        limited_by: `memory` when a larger batch was refused or is predicted to be, else `data`.
    """

    device: str
    step_seconds: LineFit | None
    memory_mib: LineFit | None
    memory_limit_mib: float | None
    plateau_batch_size: float | None
    fastest_batch_size: int | None
    largest_batch_size: int | None
    predicted_largest: int | None
    verified: bool
    limited_by: str | None


def limits(
    profiles: Sequence[BatchSizeProfile], margin: float, train_examples: int
) -> DeviceLimits:
    """What the rows of one device type say together."""
    assert len({p.device for p in profiles}) == 1, "one device type at a time"
    ran = whole(profiles)
    seconds, memory = step_seconds_fit(profiles), memory_fit(profiles)
    limit = next((p.memory_limit_mib for p in profiles if p.memory_limit_mib), None)
    predicted = predicted_largest_batch(memory, limit, margin, train_examples) if limit else None
    largest = max((p.batch_size for p in ran), default=None)
    fastest = max(ran, key=lambda p: p.examples_per_second or 0.0, default=None)
    refused = any(
        p.outcome == "out_of_memory" and p.micro_batch_size == p.batch_size for p in profiles
    )
    by_memory = refused or (predicted is not None and predicted < train_examples)
    return DeviceLimits(
        device=profiles[0].device,
        step_seconds=seconds,
        memory_mib=memory,
        memory_limit_mib=limit,
        plateau_batch_size=plateau_batch_size(seconds),
        fastest_batch_size=fastest.batch_size if fastest else None,
        largest_batch_size=largest,
        predicted_largest=predicted,
        verified=predicted is not None and largest is not None and largest >= VERIFIED * predicted,
        limited_by=("memory" if by_memory else "data") if limit else None,
    )
