"""Numbers as a reader wants them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_jobs import formatting
from tune_jobs.formatting import DASH, count, quantity, seconds

SIZES = st.floats(min_value=1e-5, max_value=1e13)
PARTS = st.floats(min_value=0, max_value=1)
FACTORS = {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "": 1, "M": 1e6, "G": 1e9, "T": 1e12}
SHOWN = re.compile(r"(-?[\d,.]+) ?(ms|s|min|h|M|G|T|) \[(-?[\d,.]+), (-?[\d,.]+)\]")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((41.3, 38.2, 45.1), "41 s [38, 45]"),
        ((41.3, 38.2, None), "41 s [38, none)"),
        ((41.3, None, None), "41.3 s"),
        ((0.05, 0.049, 0.052), "50.0 ms [49.0, 52.0]"),
        ((200, 180, 230), "3.3 min [3.0, 3.8]"),
        ((1e5, 9e4, 1.2e5), "28 h [25, 33]"),
        ((None, None, None), "-"),
        ((math.inf, 3, None), "-"),
    ],
)
def test_durations_have_the_unit_and_the_digits_that_their_interval_asks_for(
    given: tuple[float | None, float | None, float | None], shown: str
) -> None:
    assert seconds(*given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((12288, None, None), "12,288"),
        ((12288, 11000, 13511), "12,300 [11,000, 13,500]"),
        ((1.23e6, 1.1e6, 1.4e6), "1.23M [1.10, 1.40]"),
        ((4.5, None, None), "4.5"),
        ((512, 512, 512), "512 [512, 512]"),
        ((0, None, None), "0"),
        ((None, None, None), "-"),
    ],
)
def test_counts_are_whole_with_thousands_and_shorter_from_a_million(
    given: tuple[float | None, float | None, float | None], shown: str
) -> None:
    assert count(*given) == shown


def test_other_quantities_carry_their_unit_and_digits() -> None:
    assert quantity(512.3, 490, 530, "MiB") == "510 MiB [490, 530]"
    assert quantity(0.97123, 0.9689, 0.9741, digits=4) == "0.971 [0.969, 0.974]"
    assert quantity(0.97123, digits=4) == "0.9712"
    assert formatting.learning_rate(0.0023456) == "0.0023"
    assert formatting.learning_rate(2e-05) == "2e-05"
    assert formatting.target_name(0.985) == "0.985"


@given(SIZES, PARTS, PARTS)
def test_value_and_interval_stay_in_order_and_near_what_they_stand_for(
    value: float, below: float, above: float
) -> None:
    """Nothing shown is further from the truth than an eighth of the width or three digits."""
    low, high = value * (1 - below), value * (1 + above)
    for show in (seconds, count, quantity):
        text = show(value, low, high)
        match = SHOWN.fullmatch(text)
        assert match, text
        factor = FACTORS[match[2]]
        middle, least, most = (float(match[k].replace(",", "")) * factor for k in (1, 3, 4))
        assert least <= middle <= most, text
        coarse = max((high - low) / 8, value / 150, 0.5 if show is count else 0)
        for said, meant in ((middle, value), (least, low), (most, high)):
            assert abs(said - meant) <= coarse * 1.001 + 1e-12, text


@given(st.floats(min_value=0, max_value=1e9), st.none() | PARTS, st.none() | PARTS)
def test_no_number_is_long_or_in_powers_of_ten(
    value: float, below: float | None, above: float | None
) -> None:
    low = None if below is None else value * (1 - below)
    high = None if above is None else value * (1 + above)
    for show in (seconds, count, quantity):
        text = show(value, low, high)
        assert "e" not in text.replace("none", ""), text
        assert len(text) <= 42, text


@given(st.floats())
def test_any_float_at_all_can_be_shown(value: float) -> None:
    for show in (seconds, count, quantity):
        assert show(value)
        if not math.isfinite(value):
            assert show(value) == DASH
