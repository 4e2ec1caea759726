"""The gradient noise scale: known answers, intervals that hold, plain words where they do not.

The known problem is linear regression: y = x w + noise, loss (x theta - y)^2 / 2 at theta = 0. The
gradient of an example is a vector in closed form, so that G and tr(Sigma) of a population are sums.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import trained
from tune_jobs.data.batches import Indices
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.errors import UserError
from tune_jobs.measure import gradient_draws
from tune_jobs.measure.gradient_draws import (
    draw,
    norms_of,
    points_here,
    preconditioned_norm,
    squared_norm,
)
from tune_jobs.measure.noise_along_training import default_points, noise_along_training
from tune_jobs.measure.noise_scale import (
    FEWEST_DRAWS,
    Point,
    Sampling,
    average,
    fitted,
    summarize,
    unbiased,
)
from tune_jobs.measure.pace import planned_draws
from tune_jobs.records import NoiseScale
from tune_jobs.training.loop import TrainingRun

RAW = {"raw": squared_norm}
make = partial(trained.make, target=0.99, rungs=())


class Regression:
    """A population of n examples of linear regression, with its exact |G|^2 and tr(Sigma)."""

    def __init__(self, examples: int, signal: float, noise: float, width: int = 6) -> None:
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(examples, width))
        truth = np.full(width, signal)
        targets = inputs @ truth + rng.normal(0, noise, examples)
        self.gradients = torch.from_numpy(-inputs * targets[:, None])
        self.population: Indices = np.arange(examples)
        self.gradient_squared = float(self.gradients.mean(0).square().sum())
        self.gradient_variance = float(self.gradients.var(0).sum())

    def mean_gradient(self, indices: Indices) -> list[torch.Tensor | None]:
        mean = self.gradients[torch.from_numpy(indices)].mean(0)
        return [mean[:2].clone(), None, mean[2:].clone()]

    @property
    def noise_scale(self) -> float:
        return self.gradient_variance / self.gradient_squared

    def draws(self, count: int, sampling: Sampling, seed: int = 0) -> np.ndarray[Any, Any]:
        """|G|^2 and tr(Sigma) of `count` draws, shape (count, 2)."""
        rng = np.random.default_rng(seed)
        of = [draw(self.mean_gradient, self.population, sampling, rng, RAW) for _ in range(count)]
        return np.array([one["raw"] for one in of])

    def point(self, sampling: Sampling, seed: int = 0, **changes: Any) -> Point:
        squared, variance = self.draws(sampling.draws, sampling, seed).T
        return point(squared, variance, **changes)


def point(squared: Any, variance: Any, **changes: Any) -> Point:
    fields: dict[str, Any] = {
        "examples_seen": 1024, "updates": 16, "batch_size": 64, "learning_rate": 1e-3,
        "kind": "raw", "small_batch": 16, "large_batch": 128,
        "gradient_squared": tuple(squared), "gradient_variance": tuple(variance),
    }  # fmt: skip
    return Point(**(fields | changes))


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Dataset:
    return open_dataset(prepare("digits", data_dir))


def along(run: TrainingRun, at: tuple[int, ...], **changes: Any) -> list[NoiseScale]:
    return noise_along_training(run, run.stream.indices, at, **changes)


# Known answers


def test_linear_regression_gives_its_own_signal_and_noise() -> None:
    problem = Regression(20_000, signal=0.3, noise=1.0)
    found = summarize(problem.point(Sampling(16, 8, 400)))
    assert found.gradient_variance == pytest.approx(problem.gradient_variance, rel=0.05)
    assert found.gradient_squared == pytest.approx(problem.gradient_squared, rel=0.1)
    assert found.noise_scale == pytest.approx(problem.noise_scale, rel=0.12)
    # In the limit: G = -signal, Sigma = (noise^2 + |w|^2) I + w w', of width 6.
    expected = 6 * (1 + 6 * 0.3**2) + 6 * 0.3**2
    assert problem.gradient_variance == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("examples", [128, 150, 20_000])
def test_both_estimates_are_unbiased_also_where_a_draw_takes_most_of_the_population(
    examples: int,
) -> None:
    problem = Regression(examples, signal=0.2, noise=1.0)
    found = problem.draws(3000, Sampling(16, 8))
    truth = np.array([problem.gradient_squared, problem.gradient_variance])
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    assert np.abs(found.mean(0) - truth).max() < 4 * error.max()
    assert (np.abs(found.mean(0) - truth) < 4 * error + 1e-9).all()


def test_without_the_finite_population_term_a_small_split_would_be_biased() -> None:
    problem = Regression(160, signal=0.2, noise=1.0)
    squared, variance = problem.draws(3000, Sampling(16, 8)).mean(0)
    assert squared == pytest.approx(problem.gradient_squared, rel=0.1)
    assert squared - variance / 160 < 0.9 * problem.gradient_squared


def test_two_squared_norms_solve_for_signal_and_noise() -> None:
    sampling, n = Sampling(10, 4), 1000
    small, large = (2.0 + 300.0 * (1 / b - 1 / n) for b in (10, 40))
    assert unbiased(small, large, sampling, n) == pytest.approx((2.0, 300.0))


def test_a_draw_takes_disjoint_examples() -> None:
    seen: list[int] = []

    def watched(indices: Indices) -> list[torch.Tensor | None]:
        seen.extend(int(i) for i in indices)
        return [torch.zeros(1)]

    draw(watched, np.arange(200), Sampling(16, 8), np.random.default_rng(0), RAW)
    assert len(seen) == len(set(seen)) == 128


# The interval


@pytest.mark.parametrize("draws", [8, 16])
def test_the_interval_holds_the_truth_in_95_percent(draws: int) -> None:
    problem = Regression(5000, signal=0.3, noise=1.0)
    rows = [summarize(problem.point(Sampling(16, 8, draws), seed)) for seed in range(300)]
    inside = [
        (row.low or 0.0) <= problem.noise_scale <= (math.inf if row.high is None else row.high)
        for row in rows
    ]
    assert 0.90 <= np.mean(inside) <= 0.99


def test_more_draws_narrow_the_interval() -> None:
    problem = Regression(5000, signal=0.4, noise=1.0)
    few, many = (summarize(problem.point(Sampling(16, 8, n))) for n in (16, 256))
    assert few.low and few.high and many.low and many.high
    assert many.high / many.low < few.high / few.low
    assert many.low < problem.noise_scale < many.high


def test_a_negative_estimate_of_the_signal_is_said_and_gives_no_scale() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.05, 16)
    found = summarize(point(values - values.mean() - 0.01, rng.normal(10, 1, 16)))
    assert found.gradient_squared < 0 and found.noise_scale is None and not found.useful
    assert found.reason is not None and "not above zero" in found.reason
    assert found.high is None and found.low is not None and found.low > 0
    assert f"likely above {found.low:.0f} examples" in found.reason


def test_a_signal_that_may_be_zero_has_no_upper_end_and_is_said() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.05, 16)
    found = summarize(point(values - values.mean() + 0.01, rng.normal(10, 1, 16)))
    assert found.noise_scale is not None and found.high is None and not found.useful
    assert found.reason is not None and "cannot be told from zero" in found.reason


def test_an_interval_over_a_factor_of_ten_is_useless_and_said() -> None:
    values = np.tile([0.004, 0.1], 8)
    narrowed = next(
        row
        for scale in np.linspace(0.5, 1.5, 101)
        if (row := summarize(point(values + 0.02 * scale - 0.03, np.full(16, 10.0)))).high
        and row.low
        and row.high / row.low > 10
    )
    assert not narrowed.useful and narrowed.reason and "spans a factor" in narrowed.reason


def test_too_few_draws_give_no_interval_and_say_so() -> None:
    found = summarize(point([1.0] * 7, [10.0] * 7))
    assert found.low is None and found.high is None and not found.useful
    assert found.reason == "7 draws only, in the time given; an interval needs 8"


def test_gradients_that_do_not_vary_or_are_not_finite_are_said() -> None:
    still = summarize(point([1.0] * 8, [0.0] * 8))
    assert not still.useful and still.reason and "do not vary" in still.reason
    broken = summarize(point([math.nan] * 8, [1.0] * 8))
    assert not broken.useful and broken.reason and "diverged" in broken.reason


# The average over training


def test_the_average_is_the_ratio_of_averages_weighted_by_the_training_between_points() -> None:
    rng = np.random.default_rng(0)
    jitter = rng.normal(0, 0.01, 16)
    early = point(1.0 + jitter, np.full(16, 10.0), examples_seen=100)
    late = point(0.1 + 0.1 * jitter, np.full(16, 20.0), examples_seen=300)
    found = average([late, early], "raw")
    # 0 to 200 is the first point's, 200 to 300 the second's.
    signal, noise = (2 * 1.0 + 0.1) / 3, (2 * 10 + 20) / 3
    assert found.noise_scale == pytest.approx(noise / signal, rel=0.01)
    assert found.noise_scale < (2 * 10 + 200) / 3 / 2  # far from the mean of the ratios
    assert found.kind == "raw_average" and found.examples_seen == 300 and found.draws == 32


def test_points_of_too_few_draws_are_left_out_of_the_average() -> None:
    rng = np.random.default_rng(0)
    whole = point(rng.normal(1, 0.05, 16), rng.normal(10, 1, 16))
    cut = point([5.0, 6.0], [1.0, 2.0], examples_seen=2048)
    found = average([whole, cut], "raw")
    assert found.useful and found.draws == 16 and found.examples_seen == 1024
    assert not average([cut], "raw").useful


# Preconditioned


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_preconditioned_is_the_norm_scaled_by_hand(digits: Dataset, optimizer: str) -> None:
    run = make(digits, optimizer=optimizer)
    for _ in range(5):
        run.update(run.next_batch())
        run.progress.updates += 1
    seconds = [second_moment(run, p) for p in run.model.parameters()]
    typical = torch.cat([v.flatten() for v in seconds]).mean().sqrt()
    gradient = [torch.randn_like(v) for v in seconds]
    expected = sum(
        float((g * typical / (v.sqrt() + 1e-8).clamp(min=0.01 * typical)).double().square().sum())
        for g, v in zip(gradient, seconds, strict=True)
    )
    assert float(preconditioned_norm(run.optimizer)(gradient)) == pytest.approx(expected, rel=1e-4)


def second_moment(run: TrainingRun, parameter: torch.Tensor) -> torch.Tensor:
    """v_hat after five updates."""
    state: dict[str, torch.Tensor] = run.optimizer.state[parameter]
    if "square_avg" in state:
        return state["square_avg"]
    return state["exp_avg_sq"] / (1 - 0.999**5)


def test_a_weight_whose_input_was_never_seen_does_not_make_the_preconditioned_scale(
    digits: Dataset,
) -> None:
    run = make(digits)
    rows = along(run, (64,), cap_seconds=60.0)
    raw, scaled = rows[0], rows[1]
    assert any((second_moment(run, p) == 0).any() for p in run.model.parameters())
    assert raw.noise_scale is not None and scaled.noise_scale is not None
    assert 0.5 < scaled.noise_scale / raw.noise_scale < 3


def test_sgd_and_a_run_that_has_not_begun_have_the_raw_kind_only(digits: Dataset) -> None:
    run = make(digits, optimizer="sgd")
    run.update(run.next_batch())
    assert list(norms_of(run.optimizer)) == ["raw"]
    assert list(norms_of(make(digits).optimizer)) == ["raw"]


# Along a run


def test_a_measured_run_is_bit_identical_to_one_that_was_not(digits: Dataset) -> None:
    measured, plain = make(digits), make(digits)
    along(measured, (320, 960), cap_seconds=60.0, sampling=Sampling(16, 4, 8))
    for _ in range(30):
        plain.update(plain.next_batch())
        plain.progress.updates += 1
    assert measured.progress.updates == 30
    for one, other in zip(measured.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(measured.update(measured.next_batch()), plain.update(plain.next_batch()))


def test_drawing_leaves_random_state_buffers_gradients_and_mode_alone(digits: Dataset) -> None:
    run = make(digits)
    run.model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Dropout(), torch.nn.Linear(64, 10)
    )
    run.optimizer = torch.optim.SGD(run.model.parameters(), 0.1)
    run.model.eval()
    buffers = {name: b.clone() for name, b in run.model.named_buffers()}
    state = torch.get_rng_state()
    (found,) = points_here(run, run.stream.indices, Sampling(16, 2, 2), 0)
    assert torch.equal(state, torch.get_rng_state()) and not run.model.training
    assert all(torch.equal(b, buffers[name]) for name, b in run.model.named_buffers())
    assert all(p.grad is None for p in run.model.parameters())
    assert found.note is not None and "batch normalisation" in found.note


def test_a_digits_run_gives_both_kinds_at_every_point_and_their_averages(digits: Dataset) -> None:
    told: list[NoiseScale] = []
    rows = along(make(digits), (320, 640), cap_seconds=60.0, report=told.append)
    kinds = ["raw", "preconditioned"]
    assert [row.kind for row in rows] == kinds * 2 + [f"{kind}_average" for kind in kinds]
    assert [row.examples_seen for row in rows] == [320, 320, 640, 640, 640, 640]
    assert told == rows
    early = rows[0]
    assert early.useful and early.noise_scale is not None and 1 < early.noise_scale < 500
    assert early.gradient_variance > 0 and early.draws == 16


def test_the_noise_scale_grows_along_a_run(digits: Dataset) -> None:
    rows = along(make(digits), (64, 3200), cap_seconds=60.0)
    first, last = (row for row in rows if row.kind == "raw")
    assert first.noise_scale is not None and first.noise_scale < 100
    assert last.low is not None and first.high is not None and last.low > first.high


def test_the_same_seed_measures_the_same(digits: Dataset) -> None:
    kind: dict[str, Any] = {"cap_seconds": 60.0, "sampling": Sampling(16, 4, 8)}
    assert along(make(digits), (320,), **kind) == along(make(digits), (320,), **kind)
    assert along(make(digits), (320,), **kind) != along(make(digits), (320,), seed=1, **kind)


def test_a_run_that_diverges_ends_with_a_row_that_says_so(digits: Dataset) -> None:
    run = make(digits, optimizer="sgd", learning_rate=1e30)
    rows = along(run, (320, 640), cap_seconds=60.0)
    assert len(rows) == 1 and not rows[0].useful
    assert rows[0].reason is not None and "diverged" in rows[0].reason


# Time


class Clock:
    """A clock that stands still unless work is done: `update` and `draw` take their seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def slow(self, work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slowed(*arguments: Any) -> Any:
            self.now += seconds
            return work(*arguments)

        return slowed


def timed(
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    cap_seconds: float,
    update_seconds: float,
    draw_seconds: float,
) -> tuple[list[NoiseScale], float]:
    """The raw rows of a run to 2000 examples (63 updates), and the seconds that it took."""
    clock, run = Clock(), make(digits)
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(gradient_draws, "draw", clock.slow(draw, draw_seconds))
    monkeypatch.setattr(run, "update", clock.slow(run.update, update_seconds))
    points = default_points(4000)
    rows = along(run, points, cap_seconds=cap_seconds, sampling=Sampling(16, 2, 16))
    return [row for row in rows if row.kind.startswith("raw")], clock.now


def test_with_time_every_point_has_all_its_draws(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = timed(digits, monkeypatch, 20.0, 0.01, 0.1)
    assert [row.draws for row in rows] == [16, 16, 16, 16, 64]


def test_without_a_cap_nothing_is_given_up(digits: Dataset) -> None:
    rows = along(make(digits), (64, 128), cap_seconds=math.inf, sampling=Sampling(16, 2, 8))
    assert [row.draws for row in rows if row.kind == "raw"] == [8, 8]


def test_with_less_time_draws_are_fewer_and_even(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, seconds = timed(digits, monkeypatch, 20.0, 0.1, 0.3)
    assert len(rows) == 5 and all(FEWEST_DRAWS <= row.draws <= 13 for row in rows[:4])
    assert seconds <= 20.3


def test_with_little_time_points_are_fewer_rather_than_draws(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, seconds = timed(digits, monkeypatch, 20.0, 0.3, 0.6)
    assert 2 <= len(rows) - 1 < 4
    assert all(row.draws >= FEWEST_DRAWS for row in rows)
    assert seconds <= 25.0


def test_a_cap_too_short_for_one_point_is_said(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, seconds = timed(digits, monkeypatch, 2.0, 0.1, 1.0)
    assert len(rows) == 2 and all(row.draws < FEWEST_DRAWS for row in rows)
    assert all(row.reason and "draws only" in row.reason for row in rows)
    assert seconds <= 4.0


def test_a_run_too_slow_for_its_next_point_is_measured_where_time_ends_it(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = timed(digits, monkeypatch, 20.0, 0.6, 0.2)
    assert rows[-1].examples_seen < 2000 and rows[-1].useful
    assert all(row.draws >= FEWEST_DRAWS for row in rows)


def test_planned_draws_keep_the_points_that_can_have_enough() -> None:
    assert planned_draws(100.0, 1.0, (10.0, 20.0), 64) == 26
    assert planned_draws(100.0, 1.0, (10.0, 20.0), 16) == 16
    assert planned_draws(40.0, 1.0, (10.0, 20.0), 64) == 15  # the last point is given up
    assert planned_draws(20.0, 1.0, (10.0, 20.0), 64) == 20  # both are
    assert planned_draws(3.0, 1.0, (10.0,), 64) == FEWEST_DRAWS


# Bad input


def test_pieces_shrink_to_a_small_split_and_a_tiny_one_is_refused() -> None:
    assert fitted(Sampling(16, 8), 100) == replace(Sampling(16, 8), pieces=6)
    with pytest.raises(UserError, match=r"has 31 examples.*noise_scale = false"):
        fitted(Sampling(16, 8), 31)


def test_the_points_are_fractions_of_the_budget_and_never_zero() -> None:
    assert default_points(16_000) == (1000, 2000, 4000, 8000)
    assert default_points(3) == (1, 1, 1, 1)
