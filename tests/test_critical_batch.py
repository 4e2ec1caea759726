"""The critical batch size: known truths recovered, intervals that hold what they promise."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tests import rows
from tune_jobs.judging.critical_batch import closed_form, fit_critical_batch, noise_summaries
from tune_jobs.measure.cost_model import LineFit, fit_line
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import CriticalBatchSize

SIZES = (16, 32, 64, 128, 256, 512)
CRITICAL, LEAST = 80.0, 100.0


def simulated(
    rng: np.random.Generator,
    *,
    sizes: Sequence[int] = SIZES,
    seeds: int = 3,
    deviation: float = 0.1,
    budget_examples: float = math.inf,
    off_curve: float = 0.0,
    critical: float = CRITICAL,
) -> list[TargetRun]:
    """Runs about the hyperbola, log-normal; those over the budget do not reach the target."""
    found = []
    for size in sizes:
        typical = LEAST * (1 + critical / size) * math.exp(rng.normal(0, off_curve))
        for seed in range(seeds):
            updates = typical * math.exp(rng.normal(0, deviation))
            found.append(a_run(size, seed, updates, budget_examples / size))
    return found


def a_run(size: int, seed: int | None, updates: float, limit: float = math.inf) -> TargetRun:
    if updates > limit:
        seen = {"updates": round(limit), "examples_seen": round(limit) * size}
        missed = dict.fromkeys(
            ("updates_to_target", "examples_to_target", "time_to_target_seconds")
        )
        return rows.target_run(batch_size=size, seed=seed, **seen, **missed)
    reached = {"updates_to_target": updates, "examples_to_target": updates * size}
    return rows.target_run(batch_size=size, seed=seed, updates=None, examples_seen=None, **reached)


def fitted(runs: Sequence[TargetRun], confidence: float = 0.95) -> CriticalBatchSize:
    found, reason = fit_critical_batch(runs, confidence)
    assert found is not None and reason is None, reason
    return found


def fits(times: int, seed: int = 0, **kind: Any) -> list[CriticalBatchSize]:
    rng = np.random.default_rng(seed)
    found = (fit_critical_batch(simulated(rng, **kind), 0.95)[0] for _ in range(times))
    return [fit for fit in found if fit is not None]


def holds(fit: CriticalBatchSize) -> bool:
    return fit.low is not None and fit.low <= CRITICAL <= (fit.high or math.inf)


def width(fit: CriticalBatchSize) -> float:
    """On the log scale."""
    assert fit.low is not None and fit.high is not None
    return math.log(fit.high / fit.low)


def test_runs_on_the_curve_give_its_numbers() -> None:
    found = fitted(simulated(np.random.default_rng(0), deviation=1e-6))
    assert found.value == pytest.approx(CRITICAL, rel=1e-3)
    assert found.s_min_updates == pytest.approx(LEAST, rel=1e-3)
    assert found.r_squared > 0.9999 and found.residual < 1e-3
    assert width(found) < 0.05
    assert (found.batch_sizes, found.runs) == (6, 18)


@pytest.mark.parametrize(
    "kind",
    [
        {"seeds": 5, "deviation": 0.3},
        {"sizes": (32, 128, 512)},
        {"budget_examples": 50_000.0},
    ],
)
def test_the_interval_holds_the_truth_in_95_percent_of_the_curves_that_fit(
    kind: dict[str, Any],
) -> None:
    found = fits(50, **kind)
    told = [fit for fit in found if fit.low is not None]
    assert len(told) >= 0.85 * len(found)
    assert np.mean([holds(fit) for fit in told]) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 50)


def test_of_one_seed_each_the_interval_holds_the_truth_in_95_percent() -> None:
    assert 0.92 <= np.mean([holds(fit) for fit in fits(600, seeds=1)]) <= 0.98


@pytest.fixture(scope="module")
def true_curves() -> list[CriticalBatchSize]:
    return fits(100, seed=5, deviation=0.05)


def test_a_curve_that_is_true_is_rejected_in_about_five_percent(
    true_curves: list[CriticalBatchSize],
) -> None:
    chances = [fit.lack_of_fit_p for fit in true_curves]
    known = [p for p in chances if p is not None]
    assert len(known) == len(chances)
    assert np.mean(known) == pytest.approx(0.5, abs=0.07)
    assert np.mean([p < 0.05 for p in known]) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 100)


def test_seeds_that_batch_sizes_share_are_no_reason_to_reject_a_curve() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(30):
        luck = np.exp(rng.normal(0, 0.1, 3))
        runs = simulated(rng, deviation=0.03)
        moved = [a_run(r.batch_size, r.seed, (r.updates_to_target or 0) * luck[r.seed or 0])
                 for r in runs]  # fmt: skip
        found.append(fitted(moved).low is None)
    assert np.mean(found) <= 0.1


def test_batch_sizes_off_the_curve_by_more_than_seeds_explain_leave_no_interval() -> None:
    bent = fits(20, seed=3, off_curve=0.2, deviation=0.02)
    for fit in bent:
        assert fit.lack_of_fit_p is not None and fit.lack_of_fit_p < 0.001
        assert (fit.low, fit.high) == (None, None) and fit.value > 0


def test_what_the_curve_fits_badly_without_being_rejected_has_a_wider_interval(
    true_curves: list[CriticalBatchSize],
) -> None:
    found = [fit for fit in true_curves if (fit.lack_of_fit_p or 0) >= 0.05]
    bad = [width(fit) for fit in found if (fit.lack_of_fit_p or 0) < 0.2]
    good = [width(fit) for fit in found if (fit.lack_of_fit_p or 0) > 0.5]
    assert np.median(bad) > 1.3 * np.median(good)


def test_runs_that_never_reached_bend_the_curve_up_and_leaving_them_out_would_not() -> None:
    rng = np.random.default_rng(1)
    every, reached_only = [], []
    for _ in range(40):
        # 512 examples by 110 updates: about half of the runs of 512 end before the target.
        runs = simulated(rng, deviation=0.2, budget_examples=512 * 116.0, sizes=SIZES[1:])
        every.append(fitted(runs).value)
        kept = [run for run in runs if run.updates_to_target is not None]
        reached_only.append(fitted(kept).value)
    assert np.median(every) == pytest.approx(CRITICAL, rel=0.12)
    assert np.median(reached_only) > 1.1 * np.median(every)


def test_a_batch_size_that_never_reached_the_target_still_counts() -> None:
    rng = np.random.default_rng(2)
    runs = simulated(rng, sizes=(16, 32, 64))
    missed = [a_run(512, seed, 400.0, 350.0) for seed in range(3)]
    with_it, without = fitted(runs + missed), fitted(runs)
    assert with_it.batch_sizes == without.batch_sizes == 3
    assert with_it.runs == without.runs + 3
    assert with_it.s_min_updates > 1.5 * without.s_min_updates


def test_fewer_than_three_batch_sizes_give_a_reason() -> None:
    found, reason = fit_critical_batch(simulated(np.random.default_rng(0), sizes=(16, 64)), 0.95)
    assert found is None and reason is not None and reason.startswith("2 batch sizes reached")
    found, reason = fit_critical_batch([], 0.95)
    assert found is None and reason is not None and reason.startswith("0 batch sizes reached")
    unknown = [rows.target_run(batch_size=size, updates_to_target=None) for size in SIZES]
    assert fit_critical_batch(unknown, 0.95)[0] is None


def test_one_seed_each_gives_a_fit_whose_noise_is_its_residuals() -> None:
    found = fitted(simulated(np.random.default_rng(0), seeds=1))
    assert found.lack_of_fit_p is None
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high


def test_seeds_that_are_not_known_change_nothing() -> None:
    runs = simulated(np.random.default_rng(0))
    unnamed = [a_run(run.batch_size, None, run.updates_to_target or 0.0) for run in runs]
    assert fitted(unnamed) == fitted(runs)


def test_updates_that_do_not_depend_on_the_batch_size_say_that_it_lies_below() -> None:
    runs = [a_run(size, k, 100.0 * (1 + 0.01 * k)) for size in SIZES for k in range(3)]
    found, reason = fit_critical_batch(runs, 0.95)
    assert found is None and reason is not None
    assert "saves no updates" in reason and "below" in reason


def test_perfect_scaling_says_that_it_lies_beyond() -> None:
    runs = [
        a_run(size, k, 1e5 / size * (1 + 0.01 * (k + 0.1 * math.log2(size))) * size**-0.01)
        for size in SIZES
        for k in range(3)
    ]
    found, reason = fit_critical_batch(runs, 0.95)
    assert found is None and reason is not None
    assert "in proportion" in reason and "above" in reason


def test_an_open_end_is_none_and_goes_into_json() -> None:
    rng = np.random.default_rng(4)
    fits = [fit_critical_batch(simulated(rng, critical=3000.0, deviation=0.3), 0.95)[0]
            for _ in range(20)]  # fmt: skip
    open_ended = [fit for fit in fits if fit is not None and fit.high is None]
    assert open_ended
    json.dumps([asdict(fit) for fit in open_ended], allow_nan=False)


def test_a_lower_confidence_gives_a_narrower_interval_about_the_same_value() -> None:
    runs = simulated(np.random.default_rng(1))
    wide, narrow = fitted(runs), fitted(runs, 0.8)
    assert wide.value == narrow.value
    assert None not in (wide.low, wide.high, narrow.low, narrow.high)
    assert width(narrow) < width(wide)


# The closed form


def line(fixed: float = 0.02, per_example: float = 0.001, noise: float = 0.0) -> LineFit:
    rng = np.random.default_rng(0)
    seconds = [(fixed + per_example * b) * math.exp(rng.normal(0, noise)) for b in SIZES]
    found = fit_line(SIZES, seconds)
    assert found is not None
    return found


def critical(value: float = CRITICAL) -> CriticalBatchSize:
    return CriticalBatchSize(value, value / 1.2, value * 1.2, LEAST, 0.99, 0.02, 0.5, 6, 18)


def test_the_closed_form_is_where_the_product_of_both_fits_is_least() -> None:
    found = closed_form(line(), critical(), 32, (32, 64), SIZES)
    assert found is not None
    sizes = np.geomspace(1, 1000, 5001)
    seconds = (0.02 + 0.001 * sizes) * LEAST * (1 + CRITICAL / sizes)
    assert found.batch_size == pytest.approx(sizes[np.argmin(seconds)], rel=2e-3)
    assert found.agrees and "agrees with 32 and 64" in found.sentence


def test_its_interval_comes_from_the_line_and_from_the_critical_batch_size() -> None:
    sharp = closed_form(line(), critical(), 32, (), SIZES)
    blurred = closed_form(line(noise=0.02), critical(), 32, (), SIZES)
    assert sharp is not None and sharp.high is not None
    assert sharp.high / sharp.batch_size == pytest.approx(math.sqrt(1.2), rel=1e-3)
    assert blurred is not None and blurred.high is not None
    assert blurred.low < sharp.low and blurred.high > sharp.high


def test_a_winner_far_from_the_closed_form_is_told_as_a_disagreement() -> None:
    found = closed_form(line(), critical(), 512, (512,), SIZES)
    assert found is not None and found.agrees is False
    assert "disagrees with 512" in found.sentence


def test_a_tied_batch_size_within_a_step_is_agreement() -> None:
    found = closed_form(line(), critical(), 512, (64, 512), SIZES)
    assert found is not None and found.agrees


def test_without_a_winner_nothing_is_checked() -> None:
    found = closed_form(line(), critical(), None, (), SIZES)
    assert found is not None and found.agrees is None
    assert "agree" not in found.sentence


def test_there_is_no_closed_form_without_both_fits_or_without_a_fixed_cost() -> None:
    assert closed_form(None, critical(), 32, (), SIZES) is None
    assert closed_form(line(), None, 32, (), SIZES) is None
    assert closed_form(line(fixed=-0.001), critical(), 32, (), SIZES) is None


def test_open_ends_of_the_critical_batch_size_stay_open() -> None:
    loose = CriticalBatchSize(CRITICAL, 0.0, None, LEAST, 0.9, 0.1, None, 3, 3)
    found = closed_form(line(), loose, 32, (), SIZES)
    assert found is not None and found.low == 0.0 and found.high is None


# The noise scale's summary


def test_a_useful_average_is_the_value_and_points_give_first_and_last() -> None:
    noise = [
        rows.noise_scale(examples_seen=1000, noise_scale=50.0),
        rows.noise_scale(examples_seen=2000, noise_scale=90.0, kind="raw"),
        rows.noise_scale(examples_seen=4000, noise_scale=None, useful=False, reason="too few"),
        rows.noise_scale(kind="raw_average", noise_scale=70.0, low=60.0, high=85.0),
        rows.noise_scale(kind="preconditioned", noise_scale=20.0, low=15.0, high=30.0),
    ]
    raw, scaled = noise_summaries(noise)
    assert (raw.kind, raw.value, raw.low, raw.high) == ("raw", 70.0, 60.0, 85.0)
    assert (raw.first, raw.last, raw.points, raw.reason) == (50.0, 90.0, 3, None)
    assert (scaled.kind, scaled.value, scaled.points) == ("preconditioned", 20.0, 1)


def test_a_useless_average_has_no_value_and_says_why() -> None:
    noise = [
        rows.noise_scale(noise_scale=50.0),
        rows.noise_scale(
            kind="raw_average", noise_scale=9e9, high=None, useful=False, reason="why"
        ),
    ]
    (raw,) = noise_summaries(noise)
    assert raw.value is None and raw.low is None and raw.reason == "why" and raw.first == 50.0
    assert noise_summaries([]) == ()
