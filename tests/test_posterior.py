"""The sampler of typical runs against known answers: right, the same each time, never at a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tune_jobs.judging.posterior import Bools, Draws, Floats, Layout, posterior

FEW = 80  # draws a chain


def layout(sizes: int, seeds: int, shared: bool = True) -> Layout:
    """Batch sizes from 16 on with as many runs each."""
    cell = np.repeat(np.arange(sizes), seeds)
    seed = np.tile(np.arange(seeds), sizes) if shared else np.arange(sizes * seeds)
    return Layout(tuple(2 ** (4 + i) for i in range(sizes)), cell, seed)


def drawn(of: Layout, value: Floats, censored: Bools | None = None, **more: int) -> Draws:
    """Of P problems (P, N), or of one (N,)."""
    value = np.atleast_2d(value)
    cut = np.zeros(value.shape, dtype=bool) if censored is None else np.atleast_2d(censored)
    return posterior(of, value, cut, **more)


def coverage(of: Layout, truth: Floats, value: Floats) -> tuple[Floats, Floats]:
    """By batch size: how often the 95 % interval holds the truth, and how wide it is."""
    middle = drawn(of, value, kept=FEW).middle
    low, high = np.quantile(middle, [0.025, 0.975], axis=1)
    return ((low <= truth) & (truth <= high)).mean(axis=0), (high - low).mean(axis=0)


def noisy(of: Layout, number: int, shared: float, seed: int = 0) -> tuple[Floats, Floats]:
    """The truth (P, K) and values (P, N) of deviation 0.1, `shared` of its variance the seeds'."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(0, 0.3, (number, len(of.batch_sizes)))
    seeds = chance.normal(0, 0.1 * math.sqrt(shared), (number, int(of.seed.max()) + 1))
    alone = chance.normal(0, 0.1 * math.sqrt(1 - shared), (number, len(of.cell)))
    return truth, truth[:, of.cell] + seeds[:, of.seed] + alone


def test_of_even_runs_the_middle_is_near_their_mean_and_the_variance_near_the_true_one() -> None:
    of = layout(4, 20)
    _, value = noisy(of, 1, 0.0)
    draws = drawn(of, value)
    means = np.array([value[0, of.cell == k].mean() for k in range(4)])
    assert np.median(draws.middle[0], axis=0) == pytest.approx(means, abs=0.01)
    assert np.sqrt(np.median(draws.variance[0], axis=0)) == pytest.approx(0.1, rel=0.25)


def test_many_runs_give_the_interval_of_the_normal() -> None:
    of = layout(2, 200, shared=False)
    _, value = noisy(of, 1, 0.0)
    low, high = np.quantile(drawn(of, value).middle[0], [0.025, 0.975], axis=0)
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(200), rel=0.15)


def test_the_same_runs_give_the_same_draws() -> None:
    of = layout(3, 3)
    _, value = noisy(of, 1, 0.3)
    one, again, other = drawn(of, value), drawn(of, value), drawn(of, value, seed=1)
    assert (one.middle == again.middle).all() and (one.variance == again.variance).all()
    assert (one.middle != other.middle).any()


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_interval_holds_the_truth_in_95_percent(shared: float) -> None:
    of = layout(4, 3)
    held, _ = coverage(of, *noisy(of, 200, shared))
    assert 0.92 <= held.mean() <= 0.99


def test_seeds_that_one_batch_size_alone_has_are_no_less_known() -> None:
    """As after a further block of seeds: once the level ran off with the seeds' common part."""
    cell = np.repeat([0, 1, 2], [4, 4, 12])
    of = Layout((16, 32, 64), cell, np.concatenate([np.arange(4), np.arange(4), np.arange(12)]))
    held, wide = coverage(of, *noisy(of, 200, 0.0))
    assert held.min() >= 0.9
    assert wide[2] < 0.75 * wide[0]


def test_a_single_shared_seed_is_no_obstacle() -> None:
    """Once the noise ran off to infinity."""
    value = np.log(
        [1.9, 1.009, 1.898, 1.227, 0.627, 1.907, 1.907, 1.406, 1.907, 1.07, 1.907, 1.907]
    )
    censored = np.isin(np.arange(12), (3, 6, 8, 9, 11))
    cell = np.array([3, 0, 0, 0, 0, 0, 1, 1, 1, 2, 4, 4])
    seed = np.array([0, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 10])
    draws = drawn(Layout((16, 32, 64, 128, 256), cell, seed), value, censored)
    assert np.abs(draws.middle).max() < 60


def test_seeds_in_common_tell_apart_what_their_spread_hides() -> None:
    luck = np.log([0.6, 0.8, 1.0, 1.3, 1.7])
    value = np.concatenate([luck, luck + 0.1 + 0.002 * np.arange(5)])

    def wide(of: Layout) -> float:
        middle = drawn(of, value).middle[0]
        low, high = np.quantile(middle[:, 1] - middle[:, 0], [0.025, 0.975])
        return float(high - low)

    assert wide(layout(2, 5)) < 0.1 * wide(layout(2, 5, shared=False))


def test_a_run_that_was_cut_pushes_the_middle_up_and_the_later_the_further() -> None:
    of = layout(2, 4)
    value = np.array([0.0, 0.1, -0.1, 0.05, 0.5, 0.6, 0.45, 0.55])
    last = np.arange(8) == 7
    problems = np.stack([np.where(last, end, value) for end in (0.55, 0.55, 1.0)])
    censored = np.stack([np.zeros(8, dtype=bool), last, last])
    middle = np.median(drawn(of, problems, censored).middle, axis=1)
    assert middle[0, 1] < middle[1, 1] < middle[2, 1]
    assert np.ptp(middle[:2, 0]) < 0.05


def test_a_batch_size_with_a_single_run_borrows_its_noise() -> None:
    cell = np.array([0] * 6 + [1] * 6 + [2])
    of = Layout((16, 32, 64), cell, np.arange(13))
    chance = np.random.default_rng(0)
    noise = chance.normal(0, 1, 13)

    def wide(deviation: float) -> float:
        value = np.array([0.0, 0.2, 0.4])[cell] + deviation * noise
        low, high = np.quantile(drawn(of, value).middle[0, :, 2], [0.025, 0.975])
        return float(high - low)

    assert 0.03 < wide(0.02) < 0.25 and wide(0.02) < 0.5 * wide(0.1)


def test_runs_that_are_absent_change_nothing() -> None:
    of = layout(2, 4, shared=False)
    _, value = noisy(of, 1, 0.0)
    present = np.arange(8)[None] != 7
    wild = np.where(present, value, 1e9)
    cut = np.zeros((1, 8), dtype=bool)
    found = [posterior(of, v, cut, present, kept=FEW).middle for v in (value, wild)]
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize(
    ("sizes", "seeds", "logs"),
    [
        (2, 3, [math.log(1e-300)] * 3 + [math.log(1e300)] * 3),
        (3, 3, [0.0] * 9),
        (1, 2, [1.0, 1.0]),
        (2, 1, [0.0, 5.0]),
        (2, 2, [0.0, 600.0, -600.0, 0.0]),
        (12, 20, list(np.linspace(0, 3, 240))),
    ],
)
def test_whatever_the_runs_the_draws_are_numbers(
    sizes: int, seeds: int, logs: Sequence[float]
) -> None:
    of = layout(sizes, seeds)
    for cut in (np.zeros(len(logs), dtype=bool), np.arange(len(logs)) % 3 == 0):
        draws = drawn(of, np.array(logs), cut, kept=20)
        assert np.isfinite(draws.middle).all() and np.isfinite(draws.variance).all()
        assert (draws.variance > 0).all()
