"""Is the judge right? Small seeded simulations with a known truth; the record has many more."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench.calibration import POLICY, Scenario, Scores, problem, run, simulate
from tests.judged import timed, verdict_of
from tune_jobs.judging import regret as regrets

EACH = 30
KINDS = [
    Scenario((3,), 0.05, batch_sizes=4),
    Scenario((2,), 0.1, batch_sizes=3),
    Scenario((3,), 0.2, batch_sizes=4, uneven=0.5),
    Scenario((5,), shared=0.8, batch_sizes=4),
    Scenario((3,), cut=0.3, batch_sizes=4),
    Scenario((3,), slow=True, batch_sizes=4),
    Scenario((5,), tails="t3", batch_sizes=3),
    Scenario((3,), 0.05, batch_sizes=4, step=0.1),
    Scenario((3,), shortfall=0.3, batch_sizes=4),
]


@pytest.fixture(scope="module")
def mixed() -> list[Scores]:
    """What sweeps may be: uneven, cut, paired, rounded, at rates short of the best."""
    return [run(scenario, EACH, seed) for seed, scenario in enumerate(KINDS)]


def test_the_bound_of_the_regret_holds_in_95_of_100_within_two(mixed: list[Scores]) -> None:
    held = np.concatenate([(of.told_loss <= of.bound + 1e-9)[of.judged] for of in mixed])
    assert len(held) > 240
    assert held.mean() >= 0.93


def test_few_sweeps_end_with_an_answer_that_is_wrong(mixed: list[Scores]) -> None:
    wrong = [of.answered & (of.loss > POLICY.log_tolerance + 1e-9) for of in mixed]
    assert np.concatenate(wrong).mean() <= 0.03
    assert max(of.mean() for of in wrong) <= 0.075


def test_what_is_to_be_used_loses_little_whatever_the_status(mixed: list[Scores]) -> None:
    assert np.mean([of.first_loss[of.judged].mean() for of in mixed]) <= 0.03


def test_intervals_of_typical_runs_hold_the_truth_in_95_of_100_within_three(
    mixed: list[Scores],
) -> None:
    """Where the truth is that of the runs: rounding up and short rates move all of them."""
    plain = [of for of, s in zip(mixed, KINDS, strict=True) if not (s.step or s.shortfall)]
    assert 0.92 <= np.mean([of.covered[of.judged].mean() for of in plain]) <= 0.98


def test_there_is_an_answer_when_noise_hides_nothing() -> None:
    of = run(Scenario((5,), 0.02, batch_sizes=4), EACH, seed=1)
    assert of.answered.mean() >= 0.85
    assert of.loss[of.answered].max() <= 0.06


def test_there_is_seldom_one_when_noise_hides_the_differences() -> None:
    assert run(Scenario((3,), 0.4, batch_sizes=4), EACH, seed=2).answered.mean() <= 0.25


def test_the_same_simulations_give_the_same_scores() -> None:
    one, again = (run(KINDS[1], 5, seed=3) for _ in range(2))
    assert (one.bound == again.bound).all() and (one.loss == again.loss).all()


@pytest.mark.parametrize("cut", [0.0, 0.3])
def test_a_single_seed_never_gives_an_answer(cut: float) -> None:
    scenario = Scenario((1,), 0.02, batch_sizes=3, cut=cut)
    of = simulate(scenario, 12, np.random.default_rng(3))
    assert not problem(scenario, of, 1, np.ones(12, dtype=bool)).candidates.any()
    for values, ended in zip(np.exp(of.value), of.censored, strict=True):
        reached = {16 * 2**i: v[~c] for i, (v, c) in enumerate(zip(values, ended, strict=True))}
        missed = {16 * 2**i: v[c] for i, (v, c) in enumerate(zip(values, ended, strict=True))}
        verdict = verdict_of(timed(reached, missed))
        assert verdict.status in ("unproven", "unreached")
        assert verdict.use is None or verdict.use.regret_bound is None
        assert all(row.low is None and row.high is None for row in verdict.per_batch_size)


def test_what_is_judged_at_once_is_judged_as_each_by_itself() -> None:
    """A problem's draws do not depend on those beside it, but for the sampler's luck."""
    scenario = Scenario((4,), 0.1, batch_sizes=3)
    of = simulate(scenario, 6, np.random.default_rng(4))
    every = np.ones(6, dtype=bool)
    together = regrets.judged(problem(scenario, of, 4, every))
    for p in range(6):
        alone = regrets.judged(problem(scenario, of, 4, np.arange(6) == p))
        found = [np.median(r.second, axis=1) for r in (together, alone)]
        assert found[0][p] == pytest.approx(found[1][0], abs=0.02)
