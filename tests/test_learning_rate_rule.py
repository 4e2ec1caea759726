"""How the best learning rate grows with the batch size: a known exponent, and what rules cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tests import rows
from tune_jobs.judging.learning_rate_rule import learning_rate_rule, valley_rate
from tune_jobs.records import TrialResult
from tune_jobs.verdicts import LearningRateRule, RuleCost

SIZES = (16, 32, 64, 128, 256, 512)


def searched(
    rng: np.random.Generator,
    exponent: float,
    *,
    sizes: Sequence[int] = SIZES,
    trials: int = 12,
    noise: float = 0.05,
) -> list[TrialResult]:
    """Trials about a parabola of log examples in log rate, half of them wide, half near the best;
    far from it they do not reach the target."""
    found = []
    for size in sizes:
        best = math.log(1e-3 * (size / 16) ** exponent) + rng.normal(0, 0.1)
        wide = rng.uniform(best - 2.5, best + 2.5, trials // 2)
        for log_rate in np.concatenate([wide, rng.normal(best, 0.7, trials - trials // 2)]):
            excess = 0.25 * (log_rate - best) ** 2 + rng.normal(0, noise)
            found.append(trial(size, math.exp(log_rate), 2000 * math.exp(excess), 8000))
    return found


def trial(
    size: int, rate: float, examples: float, budget: int = 9000, outcome: str = "finished"
) -> TrialResult:
    to_target = round(examples) if examples < budget else None
    return rows.result(
        batch_size=size,
        learning_rate=rate,
        examples_to_target=to_target,
        examples_seen=to_target or budget,
        outcome=outcome,
    )


def told(trials: Sequence[TrialResult]) -> LearningRateRule:
    found = learning_rate_rule(trials, 0.95)
    assert found is not None
    return found


def cost(found: LearningRateRule, rule: str, size: int) -> RuleCost:
    return next(c for c in found.costs if c.rule == rule and c.batch_size == size)


def test_a_square_root_is_recovered_and_linear_refuted() -> None:
    rng = np.random.default_rng(0)
    found = [told(searched(rng, 0.5)) for _ in range(200)]
    values = [f.exponent.value for f in found if f.exponent.value is not None]
    assert np.mean(values) == pytest.approx(0.5, abs=0.02) and np.std(values) < 0.09
    assert 0.91 <= np.mean([f.square_root_plausible for f in found]) <= 0.99
    assert np.mean([f.linear_plausible for f in found]) < 0.05


def test_a_linear_exponent_is_recovered_and_the_square_root_refuted() -> None:
    found = told(searched(np.random.default_rng(1), 1.0))
    assert found.exponent.value == pytest.approx(1.0, abs=0.15)
    assert found.linear_plausible and found.square_root_plausible is False
    assert "linear is plausible, square root is not" in found.sentence


def test_neither_rule_fits_an_exponent_of_zero() -> None:
    found = told(searched(np.random.default_rng(2), 0.0))
    assert "neither linear nor square root fits" in found.sentence


def test_three_noisy_batch_sizes_rule_out_nothing() -> None:
    found = told(searched(np.random.default_rng(0), 0.75, sizes=(16, 32, 64), noise=0.2))
    assert found.linear_plausible and found.square_root_plausible
    assert "neither linear nor square root can be ruled out" in found.sentence


def test_two_batch_sizes_give_an_exponent_without_an_interval() -> None:
    found = told([trial(16, 1e-3, 500), trial(64, 2e-3, 500)])
    assert found.exponent.value == pytest.approx(0.5)
    assert found.exponent.low is None and found.linear_plausible is None
    assert "too few to tell" in found.sentence


def test_fewer_than_two_batch_sizes_that_reached_the_target_give_nothing() -> None:
    assert learning_rate_rule([], 0.95) is None
    assert learning_rate_rule([trial(16, 1e-3, 500), trial(64, 2e-3, math.inf)], 0.95) is None


def test_confirm_runs_do_not_count_as_searched() -> None:
    trials = searched(np.random.default_rng(3), 0.5)
    confirmed = [rows.result(stage="confirm", batch_size=1024, learning_rate=9.0)]
    assert told(trials + confirmed) == told(trials)


def test_the_valley_lies_between_equally_good_rates() -> None:
    assert valley_rate([trial(16, 1e-3, 500), trial(16, 4e-3, 500)]) == pytest.approx(2e-3)
    slow = [trial(16, 1e-3, 500), trial(16, 1e-1, 2000), trial(16, 1.0, math.inf)]
    assert valley_rate(slow) == pytest.approx(1e-3, rel=0.01)


def test_the_cost_of_a_rule_is_that_of_the_tried_rate_nearest_to_it() -> None:
    found = told([trial(16, 1e-3, 500), trial(64, 2.1e-3, 600), trial(64, 4.2e-3, 900)])
    root, linear = cost(found, "square root", 64), cost(found, "linear", 64)
    assert root.learning_rate == pytest.approx(2e-3) and root.examples_ratio == 1.0
    assert linear.learning_rate == pytest.approx(4e-3)
    assert linear.nearest_learning_rate == 4.2e-3 and linear.examples_ratio == 1.5
    assert (linear.anchor_batch_size, linear.exponent, linear.reason) == (16, 1.0, None)


def test_a_rate_that_nobody_tried_or_that_failed_has_a_reason_instead_of_a_cost() -> None:
    diverged = trial(256, 1.6e-2, math.inf, outcome="diverged")
    found = told([trial(16, 1e-3, 500), trial(64, 2e-3, 600), trial(256, 2e-3, 800), diverged])
    missing, failed = cost(found, "linear", 64), cost(found, "linear", 256)
    assert missing.examples_ratio is None and missing.nearest_learning_rate is None
    assert missing.reason == "no rate within a factor of 1.5 was tried"
    assert failed.examples_ratio is None and failed.nearest_learning_rate == 1.6e-2
    assert failed.reason == "diverged after 9,000 examples, the target not reached"


def test_a_batch_size_that_never_reached_the_target_still_shows_what_a_rule_would_have_done() -> (
    None
):
    found = told([trial(16, 1e-3, 500), trial(32, 1.4e-3, 500), trial(64, 2e-3, math.inf)])
    assert cost(found, "square root", 64).reason is not None
    assert found.batch_sizes == 2
