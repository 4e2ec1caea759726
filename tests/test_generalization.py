"""Does the batch size matter for test accuracy: false alarms are rare, real differences found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests import rows
from tune_jobs.judging.generalization import (
    difference_p,
    estimates,
    generalization,
    holm,
    observed,
    quantities,
)
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Generalization

SIZES = (32, 64, 128, 256)


def simulated(
    rng: np.random.Generator,
    *,
    means: Mapping[int, float] | None = None,
    seeds: int = 3,
    by_seed: float = 0.002,
    deviations: Sequence[float] = (0.001,) * len(SIZES),
) -> list[TargetRun]:
    """Runs whose test accuracy is of its batch size, of its seed, and noise."""
    common = rng.normal(0, by_seed, seeds)
    return [
        run(size, k, (means or {}).get(size, 0.98) + common[k] + rng.normal(0, spread), rng)
        for size, spread in zip(SIZES, deviations, strict=True)
        for k in range(seeds)
    ]


def run(size: int, seed: int | None, accuracy: float, rng: np.random.Generator) -> TargetRun:
    return rows.target_run(
        batch_size=size,
        seed=seed,
        test_accuracy=accuracy,
        train_accuracy=accuracy + 0.01 + rng.normal(0, 0.001),
        test_accuracy_at_equal_updates=accuracy - 0.02 + rng.normal(0, 0.001),
    )


def judged(runs: Sequence[TargetRun]) -> Generalization:
    found = generalization(runs, 0.95)
    assert found is not None
    return found


def corrected(runs: Sequence[TargetRun]) -> list[float | None]:
    """The p values alone, without the intervals, which take a hundred times as long."""
    return holm([difference_p(observed(runs, of)) for of in quantities("accuracy").values()])


def false_alarms(times: int, **kind: Any) -> float:
    rng = np.random.default_rng(0)
    found = (corrected(simulated(rng, **kind)) for _ in range(times))
    return float(np.mean([min(p for p in of if p is not None) <= 0.05 for of in found]))


def test_an_alarm_is_the_least_corrected_p_value_of_the_three() -> None:
    rng = np.random.default_rng(8)
    for spread in (0.0, 0.002, 0.01):
        means = dict(zip(SIZES, 0.98 + spread * np.arange(4), strict=True))
        runs = simulated(rng, means=means)
        found, chances = judged(runs), corrected(runs)
        told = [found.test_accuracy_p, found.train_to_test_gap_p,
                found.test_accuracy_at_equal_updates_p]  # fmt: skip
        assert told == chances
        assert found.distinguishable == (min(p for p in chances if p is not None) <= 0.05)


@pytest.mark.parametrize("seeds", [3, 5])
def test_without_a_difference_an_alarm_comes_in_five_percent_at_most(seeds: int) -> None:
    assert false_alarms(500, seeds=seeds) <= 0.07


def test_batch_sizes_of_unequal_noise_are_no_alarm_by_themselves() -> None:
    assert false_alarms(500, deviations=(0.0005, 0.001, 0.001, 0.002)) <= 0.09


def test_one_test_alone_is_false_in_five_percent() -> None:
    rng = np.random.default_rng(1)
    chances = [
        difference_p(observed(simulated(rng), lambda run: run.test_accuracy)) for _ in range(1000)
    ]
    assert np.mean([p is not None and p < 0.05 for p in chances]) == pytest.approx(0.05, abs=0.02)


def test_a_real_difference_is_found_although_seeds_differ_more() -> None:
    rng = np.random.default_rng(2)
    means = {32: 0.988, 64: 0.984, 128: 0.980, 256: 0.974}
    found = judged(simulated(rng, means=means, by_seed=0.01))
    assert found.distinguishable is True
    assert found.test_accuracy_p is not None and found.test_accuracy_p < 0.01
    assert "differ by more than noise in test accuracy" in found.sentence
    assert "at 256" in found.sentence and "at 32" in found.sentence


def test_an_indistinguishable_difference_is_called_so() -> None:
    found = judged(simulated(np.random.default_rng(0)))
    assert found.distinguishable is False
    assert "cannot be told from the noise between seeds" in found.sentence


def test_for_two_batch_sizes_the_test_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    runs = [r for r in simulated(rng, seeds=4) if r.batch_size in (32, 64)]
    one, other = ([r.test_accuracy for r in runs if r.batch_size == b] for b in (32, 64))
    expected = float(stats.ttest_rel(one, other).pvalue)
    assert difference_p(observed(runs, lambda run: run.test_accuracy)) == pytest.approx(expected)


def test_unknown_seeds_are_compared_without_pairs() -> None:
    rng = np.random.default_rng(4)
    runs = [run(size, None, rng.normal(0.98, 0.001), rng) for size in SIZES for _ in range(3)]
    groups = [[r.test_accuracy for r in runs if r.batch_size == size] for size in SIZES]
    expected = float(stats.f_oneway(*groups).pvalue)
    assert difference_p(observed(runs, lambda run: run.test_accuracy)) == pytest.approx(expected)


def test_a_missing_run_is_no_obstacle() -> None:
    rng = np.random.default_rng(5)
    means = {32: 0.99, 64: 0.98, 128: 0.97, 256: 0.96}
    runs = simulated(rng, means=means)[1:]
    found = judged(runs)
    assert found.distinguishable is True
    assert [row.batch_size for row in found.rows] == list(SIZES)


def test_the_intervals_hold_the_mean_in_95_percent() -> None:
    rng = np.random.default_rng(6)
    inside = [
        row.low <= 0.98 <= row.high
        for _ in range(60)
        for row in estimates(
            observed(simulated(rng, by_seed=0.0), lambda run: run.test_accuracy), 0.95
        ).values()
        if row.low is not None and row.high is not None
    ]
    assert len(inside) == 240 and 0.92 <= np.mean(inside) <= 0.99


def test_a_single_seed_gives_values_without_intervals_and_no_claim() -> None:
    found = judged(simulated(np.random.default_rng(7), seeds=1))
    assert found.distinguishable is None and "cannot be told" in found.sentence
    assert all(row.test_accuracy.value is not None for row in found.rows)
    assert all(row.test_accuracy.low is None for row in found.rows)


def test_without_test_accuracy_there_is_nothing_to_say() -> None:
    assert generalization([rows.target_run(batch_size=size) for size in SIZES], 0.95) is None
    assert generalization([], 0.95) is None


def test_what_was_not_measured_is_left_out_and_not_corrected_for() -> None:
    runs = [
        rows.target_run(batch_size=size, seed=k, test_accuracy=0.9 + 0.001 * k * (size == 32))
        for size in SIZES
        for k in range(3)
    ]
    found = judged(runs)
    assert found.train_to_test_gap_p is None and found.test_accuracy_at_equal_updates_p is None
    assert found.test_accuracy_p == difference_p(observed(runs, lambda run: run.test_accuracy))
    assert all(row.train_to_test_gap.value is None for row in found.rows)


def test_equal_accuracies_are_no_difference() -> None:
    runs = [rows.target_run(batch_size=b, seed=k, test_accuracy=0.9) for b in SIZES for k in (0, 1)]
    assert judged(runs).test_accuracy_p == 1.0


def test_holm_multiplies_the_least_by_all_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([None, 0.04, None]) == [None, 0.04, None]
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
