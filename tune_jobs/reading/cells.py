"""What a cell of a table may say: one rule for each kind of number.

A rule takes what `number` found and returns the value, None where it is unknown. It raises
ValueError with the rule and the remedy; who calls it adds place, column and cell.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

MISSING = frozenset({"", "none", "null", "na", "n/a", "<na>"})
NOT_FINITE = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 1e300  # MLflow keeps an infinity as 1.8e308


def missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING)


def number(cell: object) -> int | float | None:
    """The number that a cell says, infinities and NaN included; None where it is empty."""
    if missing(cell):
        return None
    if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool):
        return cell if isinstance(cell, int) else float(cell)
    text = cell.strip() if isinstance(cell, str) else ""
    if text.lower() in NOT_FINITE:
        return float(text)
    if not NUMBER.fullmatch(text) or len(text) > 400:
        raise ValueError("is not a number; write a number with a decimal point, or leave it empty")
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def finite(value: float | None) -> float | None:
    if value is not None and not abs(value) < LARGEST:
        raise ValueError("is not a finite number; leave the cell empty where it is unknown")
    return value


def positive(value: float | None) -> float | None:
    if finite(value) is not None and value <= 0:  # type: ignore[operator]
        raise ValueError("must be greater than 0; leave the cell empty where it is unknown")
    return value


def to_target(value: float | None) -> float | None:
    if value is None or math.isnan(value) or value >= LARGEST:
        return None
    if value <= 0:
        raise ValueError(
            "must be greater than 0; leave the cell empty where the target was not reached"
        )
    return value


def accuracy(value: float | None) -> float | None:
    if finite(value) is not None and not 0 <= value <= 100:  # type: ignore[operator]
        raise ValueError("must be an accuracy: a fraction in [0, 1], or per cent up to 100")
    return value


def batch_size(value: float | None) -> int:
    if value is None or not abs(value) < LARGEST or value != int(value) or value < 1:
        raise ValueError("must be a positive integer: the examples of one update; correct it")
    return int(value)


def seed(value: float | None) -> int | None:
    if value is None:
        return None
    if not abs(value) < LARGEST or value != int(value):
        raise ValueError("must be an integer, or empty where the seed is unknown; correct it")
    return int(value)
