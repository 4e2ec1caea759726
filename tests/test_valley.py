"""Where the best learning rate lies, by the rates tried."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune_jobs.judging.valley import NOTHING, STEEPER, Tried, rise, valleys

BEST, WIDTH, NOISE = math.log(1e-3), 0.5, 0.1


def tried(*factors: float, short: tuple[int, ...] = (), best: float = BEST) -> Tried:
    rate = best + np.log(np.array(factors))
    needed = 8.0 + rise(rate - best, np.array(WIDTH))
    is_short = np.isin(np.arange(len(factors)), short)
    return Tried(rate, np.where(is_short, 8.5, needed), is_short, np.full(len(factors), NOISE))


def test_far_below_its_bottom_half_the_rate_needs_twice_the_examples_and_above_it_more() -> None:
    width = np.array(WIDTH)
    below = rise(np.array(-5.0), width) - rise(np.array(-5.0 + math.log(2)), width)
    assert below == pytest.approx(math.log(2), rel=0.02)
    assert rise(np.array(1.0), width) == pytest.approx(STEEPER * rise(np.array(-1.0), width))
    assert rise(np.array(0.0), width) == 0.0


def test_the_bottom_is_found_between_three_rates_far_apart() -> None:
    found = valleys({32: tried(0.2, 0.7, 3.0)})[32]
    mean, deviation = found.bottom
    assert mean == pytest.approx(BEST, abs=0.35) and deviation < 0.5
    best, short = found.best()
    assert best == pytest.approx(BEST, abs=0.4) and 0 <= short < 0.15
    least, sure = found.needs()
    assert least == pytest.approx(8.0, abs=0.15) and sure > 0


def test_more_rates_about_the_bottom_leave_less_to_luck() -> None:
    few = valleys({32: tried(0.3, 1.0, 3.0)})[32].shortfall(BEST)
    many = valleys({32: tried(*np.geomspace(0.3, 3.0, 9))})[32].shortfall(BEST)
    assert many[0] < few[0] and many[1] < few[1]


def test_a_batch_size_without_a_trial_is_told_by_the_others_and_the_expected_slope() -> None:
    others = {size: tried(0.3, 0.8, 1.5, 3.0) for size in (16, 64)}
    span = (BEST - 2, BEST + 2)
    found = valleys({**others, 32: NOTHING}, span, slope=0.0)
    mean, deviation = found[32].bottom
    assert mean == pytest.approx(BEST, abs=0.3) and 0.1 < deviation < 1.0
    assert math.isnan(found[32].needs()[0])


def test_trials_that_were_short_of_the_target_push_the_bottom_away() -> None:
    span = (BEST - 2, BEST + 2)
    high = valleys({32: tried(1.0, 4.0, short=(1,))}, span)[32].bottom[0]
    low = valleys({32: tried(1.0, 0.25, short=(1,))}, span)[32].bottom[0]
    assert high < low


@pytest.mark.parametrize("short", [(), (0,), (0, 1, 2)])
def test_chances_are_chances_whatever_was_tried(short: tuple[int, ...]) -> None:
    found = valleys({32: tried(1.0, 1.0, 50.0, short=short), 64: tried(0.01)}, slope=0.5)
    for valley in found.values():
        assert valley.chance.sum() == pytest.approx(1.0)
        assert all(math.isfinite(part) for part in valley.shortfall(BEST))
