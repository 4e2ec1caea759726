"""What a cell of a table may say: one rule for each kind of number.

A rule takes what `number` found and returns the value, None where it is unknown. It raises
ValueError with the rule and the remedy; who calls it adds place, column and cell. `amount` finds
the number in a cell that may also be a duration, a percentage or the word for "it never got there".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

MISSING = frozenset({"", "none", "null", "na", "n/a", "<na>"})
BLANK = frozenset({"-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "?", "/", "n.a.", "nat"})
NOT_FINITE = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
POWER = re.compile(r"(\d{1,3})\s*(?:\^|\*\*)\s*(\d{1,2})", re.ASCII)  # 2^5, as of a batch size
# 8x32, as of devices and the batch size of each.
PRODUCT = re.compile(r"([1-9]\d{0,6})\s*[xX*\N{MULTIPLICATION SIGN}]\s*([1-9]\d{0,6})", re.ASCII)
# 8k, 0.5M: of a batch size 1024 and its square, of other things perhaps 1000.
SUFFIXED = re.compile(r"(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})\s*([kKM])", re.ASCII)
FACTORS = {"k": 2**10, "K": 2**10, "M": 2**20}
MARKS = r"*\N{DAGGER}\N{DOUBLE DAGGER}\N{SECTION SIGN}\N{PILCROW SIGN}"  # of footnotes
FOOTNOTE = re.compile(rf"(?<=[\d%])\s*[{MARKS}]+$")
LARGEST = 1e300  # MLflow keeps an infinity as 1.8e308

# A word of a run that did not get there, and how far it went where the cell says so.
NEVER = re.compile(
    r"(?:did|does|do|has|have|could)\s*(?:not|n.t)\b.*|never\b.*|not?\b.*(?:converge|reach|finish).*"
    r"|dn[fcr]|fail(?:ed|ure)?\b.*|diverge[ds]?\b.*|div\.?|oom\b.*|out[ _-]?of[ _-]?memory\b.*"
    r"|time[ _-]?d?[ _-]?out\b.*|abort(?:ed)?\b.*|crash(?:ed)?\b.*|x"
    "|[\N{BALLOT X}\N{HEAVY BALLOT X}\N{MULTIPLICATION SIGN}\N{INFINITY}]",
    re.IGNORECASE,
)  # fmt: skip
BEYOND = re.compile(r"(?:>=?|≥|over|more than|at least)\s*(?P<limit>\S.*)|(?P<plus>\d[\d.]*)\s*\+",
                    re.IGNORECASE)  # fmt: skip
WITHIN = re.compile(r"\b(?:within|in|after|by|until)\s+(?P<limit>\d.*)$", re.IGNORECASE)

SECONDS = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "msec": 1e-3, "msecs": 1e-3, "millis": 1e-3,
    "millisecond": 1e-3, "milliseconds": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0,
    "seconds": 1.0, "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0,
    "day": 86400.0, "days": 86400.0,
}  # fmt: skip
MIB = {
    "b": 2.0**-20, "bytes": 2.0**-20, "kb": 1e3 / 2**20, "kib": 2.0**-10, "mb": 1e6 / 2**20,
    "mib": 1.0, "gb": 1e9 / 2**20, "gib": 1024.0, "tb": 1e12 / 2**20, "tib": 2.0**20,
}  # fmt: skip
JOULES = {
    "j": 1.0, "joule": 1.0, "joules": 1.0, "kj": 1e3, "mj": 1e6, "wh": 3600.0, "kwh": 3.6e6,
}  # fmt: skip
COUNTED = (
    "epoch", "epochs", "ep", "step", "steps", "update", "updates", "it", "its", "iter", "iters",
    "iterations", "example", "examples", "samples", "images",
)  # fmt: skip
COUNTS = dict.fromkeys(COUNTED, 1.0)
PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*,?\s*", re.IGNORECASE | re.ASCII)
CLOCK = re.compile(
    r"(?:(\d+)\s*days?,?\s*\+?)?(?:(\d+):)?(\d{1,2}|\d+(?=:\d\d(?:\.\d*)?$)):(\d\d(?:\.\d*)?)",
    re.IGNORECASE | re.ASCII,
)
ISO = re.compile(r"PT(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?", re.ASCII)
SPREAD = re.compile(r"\s*(?:±|\+/-|\+-)\s*[\d.]+\s*(?=%?$)")


@dataclass(frozen=True)
class Never:
    """The word of a run that did not get there; `limit` is how far it went, in the cell's unit."""

    word: str
    limit: float | None = None


def printable(text: str) -> str:
    """`text` without what would steer a terminal: escapes, controls, marks of direction."""
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING)


def blank(cell: object) -> bool:
    """Missing, or a dash in the place of a value."""
    return missing(cell) or (isinstance(cell, str) and cell.strip().lower() in BLANK)


def numeric(cell: object) -> bool:
    try:
        return number(cell) is not None
    except ValueError:
        return False


def number(cell: object) -> int | float | None:
    """The number that a cell says, infinities and NaN included; None where it is empty."""
    if missing(cell):
        return None
    if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool):
        return cell if isinstance(cell, int) else float(cell)
    text = FOOTNOTE.sub("", cell.strip()) if isinstance(cell, str) else ""
    if power := POWER.fullmatch(text):
        return math.prod([int(power[1])] * int(power[2]))
    if product := PRODUCT.fullmatch(text):
        return int(product[1]) * int(product[2])
    if SUFFIXED.fullmatch(text):
        raise ValueError("may count in 1000s or in 1024s; write the number in full")
    if text.lower() in NOT_FINITE:
        return float(text)
    if not NUMBER.fullmatch(text) or len(text) > 400:
        raise ValueError("is not a number; write a number with a decimal point, or leave it empty")
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def amount(cell: object, factor: float = 1.0, units: dict[str, float] | None = None) -> Amount:
    """A number in base units, or the word for never.

    `factor` is the column's unit in base units; a unit in the cell itself (`12 min`) goes before it
    and must be one of `units`. A per cent sign makes a part of one.
    """
    if not isinstance(cell, str):
        return _times(number(cell), factor)
    text = FOOTNOTE.sub("", SPREAD.sub("", " ".join(cell.split())))
    if NUMBER.fullmatch(text) or missing(text) or text.lower() in NOT_FINITE:
        return _times(number(text), factor)
    if units is SECONDS and (spoken := duration(text)) is not None:
        return spoken
    if text.endswith("%") and NUMBER.fullmatch(text[:-1].strip()):
        return float(text[:-1]) / 100
    if units and (part := PART.fullmatch(text)) and part[2].lower() in units:
        return float(part[1]) * units[part[2].lower()]
    return _never(text, factor, units) or _times(number(cell), factor)


Amount = int | float | Never | None


def _times(value: int | float | None, factor: float) -> int | float | None:
    return value if value is None or factor == 1 else value * factor


def _never(text: str, factor: float, units: dict[str, float] | None) -> Never | None:
    """`OOM`, `-`, `did not converge within 30`, `> 30`; None for any other text."""
    if text.lower() in BLANK:
        return Never(text)
    beyond = BEYOND.fullmatch(text)
    if beyond is None and not NEVER.fullmatch(text):
        return None
    found = WITHIN.search(text) if beyond is None else beyond
    limit = found and (found["limit"] if beyond is None else beyond["limit"] or beyond["plus"])
    if not limit:
        return Never(text)
    try:
        value = amount(limit, factor, units)
    except ValueError:
        return None if beyond else Never(text)
    usable = isinstance(value, int | float) and 0 < value < LARGEST
    return Never(text, value if usable and isinstance(value, int | float) else None)


def duration(text: str) -> float | None:
    """Seconds of `1h17m`, `0:12:30`, `44m 38s`, `0 days 00:12:30`, `PT1H`; None for other text."""
    if clock := CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    text = text[2:] if ISO.fullmatch(text) and len(text) > 2 else text
    total, at = 0.0, 0
    for part in PART.finditer(text):
        if part.start() != at or part[2].lower() not in SECONDS:
            return None
        total, at = total + float(part[1]) * SECONDS[part[2].lower()], part.end()
    return total if at and at == len(text) else None


def date(cell: object) -> float | None:
    """Seconds since any fixed time, of a date or of such seconds; None where it is empty."""
    if isinstance(cell, datetime):
        return cell.timestamp()
    if blank(cell):
        return None
    if isinstance(cell, str) and not numeric(cell):
        try:
            return datetime.fromisoformat(cell.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            raise ValueError("is neither a date nor seconds; write 2026-01-31 12:00:00") from None
    value = finite(number(cell))
    return None if value is None else float(value)


def is_date(cell: object) -> bool:
    """Whether `date` reads it, or it is empty."""
    try:
        date(cell)
    except ValueError:
        return False
    return True


def finite(value: float | None) -> float | None:
    if value is not None and not abs(value) < LARGEST:
        raise ValueError("is not a finite number; leave the cell empty where it is unknown")
    return value


def positive(value: float | None) -> float | None:
    if finite(value) is not None and value <= 0:  # type: ignore[operator]
        raise ValueError("must be greater than 0; leave the cell empty where it is unknown")
    return value


def not_negative(value: float | None) -> float | None:
    if finite(value) is not None and value < 0:  # type: ignore[operator]
        raise ValueError("must not be negative; leave the cell empty where it is unknown")
    return value


def to_target(value: float | None) -> float | None:
    if value is None or math.isnan(value) or value >= LARGEST:
        return None
    if value <= 0:
        raise ValueError(
            "must be greater than 0; leave the cell empty where the target was not reached"
        )
    return value


def measured(value: float | None) -> float | None:
    """A metric: NaN and infinities are those of a run that diverged, and no value."""
    return value if value is not None and abs(value) < LARGEST else None


def accuracy(value: float | None) -> float | None:
    if finite(value) is not None and not 0 <= value <= 100:  # type: ignore[operator]
        raise ValueError("must be an accuracy: a fraction in [0, 1], or per cent up to 100")
    return value


def batch_size(value: float | None) -> int:
    if value is None or not abs(value) < LARGEST or value != int(value) or value < 1:
        hint = " (is it the index of a choice, not its value?)" if value == 0 else ""
        raise ValueError(
            f"must be a positive integer: the examples of one update{hint}; correct it"
        )
    return int(value)


def seed(value: float | None) -> int | None:
    if value is None:
        return None
    if not abs(value) < LARGEST or value != int(value):
        raise ValueError("must be an integer, or empty where the seed is unknown; correct it")
    return int(value)
