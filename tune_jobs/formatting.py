"""Numbers as a reader wants them: the digits that the interval supports, thousands, units.

    seconds(41.3, 38.2, 45.1)      41 s [38, 45]
    count(12288)                   12,288
    quantity(0.9712, 0.969, 0.974) 0.971 [0.969, 0.974]

An interval without an upper end (some runs never reached the target) is `[38, none)`. A missing
value is a dash.
"""

from __future__ import annotations

import math
import re

UNITS_OF_TIME = (("ms", 1e-3, 0.1), ("s", 1.0, 180.0), ("min", 60.0, 10_800.0), ("h", 3600.0, None))
PREFIXES = (("", 1.0, 1e6), ("M", 1e6, 1e9), ("G", 1e9, 1e12), ("T", 1e12, None))
DASH = "-"
ACCURACY = "accuracy"  # the metric that words take for granted
SPLITS = r"(?:^|[\W_])(?:val|valid|validation|dev|eval|test|train|training)(?:$|[\W_])"
MOST_DECIMALS = 9


def quantity(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    digits: int = 3,
) -> str:
    """`value unit [low, high]`, all to the same decimal place.

    The place is the finest of which the interval's width is at least four units, but no finer than
    `digits` + 1 significant digits of the value; without an interval `digits` significant digits.
    """
    if value is None or not math.isfinite(value):
        return DASH
    factor, prefix = _prefix(value)
    place = _decimals(value / factor, _scaled(low, factor), _scaled(high, factor), digits)
    return _text(value, low, high, factor, place, f"{prefix} {unit}".rstrip() if unit else prefix)


def seconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A duration in ms, s, min or h, whichever its size asks for."""
    if value is None or not math.isfinite(value):
        return DASH
    unit, factor, _ = next(u for u in UNITS_OF_TIME if u[2] is None or abs(value) < u[2])
    place = _decimals(value / factor, _scaled(low, factor), _scaled(high, factor), 3)
    return _text(value, low, high, factor, place, " " + unit)


def count(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Examples, updates, MiB: whole numbers, exact without an interval; from a million on `1.23M`.

    Below ten, where a mean is meant, one decimal place is kept unless the value is whole.
    """
    if value is None or not math.isfinite(value):
        return DASH
    factor, prefix = _prefix(value)
    place = _decimals(value / factor, _scaled(low, factor), _scaled(high, factor), 3)
    if factor == 1:
        finest = 1 if abs(value) < 10 and value != round(value) else 0
        place = min(place, finest) if _width(value, low, high) else finest
    return _text(value, low, high, factor, place, prefix)


def accuracy(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A part of one, to four places at the most: 10,000 test images give no more."""
    return quantity(value, low, high)


def learning_rate(value: float | None) -> str:
    """Two significant digits: a learning rate is never known better."""
    return DASH if value is None else format(value, ".2g")


def target_name(target: float | None, metric: str = ACCURACY, unit: str = "") -> str:
    """A target as short as it can be said: 0.95; of another metric with its name: rmse 0.8 kg."""
    if target is None:
        return "the target"
    return value_of_metric(format(target, ".6g"), metric, unit)


def value_of_metric(value: str, metric: str, unit: str = "") -> str:
    """`rmse 0.8 kg`; an accuracy stands for itself."""
    return value if metric == ACCURACY else f"{metric} {value} {unit}".rstrip()


def with_unit(metric: str, unit: str) -> str:
    """As axes and headings name it: `rmse, kg`."""
    return f"{metric}, {unit}" if unit else metric


def on_split(split: str, metric: str) -> str:
    """`validation rmse`; a name that tells its split, as a table's column may, stays as it is."""
    return metric if re.search(SPLITS, metric, re.IGNORECASE) else f"{split} {metric}"


def goal_name(goal: str, metric: str) -> str:
    """The goal `accuracy` is the metric at the end of the budget, whatever its name."""
    return metric if goal == ACCURACY else goal


def _prefix(value: float) -> tuple[float, str]:
    name, factor, _ = next(p for p in PREFIXES if p[2] is None or abs(value) < p[2])
    return factor, name


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value / factor


def _width(value: float, low: float | None, high: float | None) -> float:
    """The interval's width, 0 where there is none; twice the lower half where it has no end."""
    if low is None:
        return 0.0
    if high is None or not math.isfinite(high):
        return 2 * abs(value - low)
    return abs(high - low)


def _decimals(value: float, low: float | None, high: float | None, digits: int) -> int:
    """Decimal places worth showing; negative means tens, hundreds."""
    size = math.floor(math.log10(abs(value))) if value else 0
    width = _width(value, low, high)
    if width / 4 == 0:
        place = digits - 1 - size
    else:
        place = min(-math.floor(math.log10(width / 4)), digits - size)
        place = max(place, -size)  # a value never shrinks to nothing
    return min(place, MOST_DECIMALS)


def _text(
    value: float, low: float | None, high: float | None, factor: float, place: int, unit: str
) -> str:
    def shown(number: float) -> str:
        return f"{round(number / factor, place):,.{max(place, 0)}f}"

    text = shown(value) + unit
    if low is None and high is None:
        return text
    lower = DASH if low is None else shown(low)
    upper = "none)" if high is None or not math.isfinite(high) else shown(high) + "]"
    return f"{text} [{lower}, {upper}"
