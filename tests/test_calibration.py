"""Is the judge right? Seeded simulations with a known truth; the record has many more."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pytest

from scripts.bench.calibration import Scenario, Scores, clustered, judged, scored, simulate

SIMULATIONS = 1000
KINDS = [
    Scenario(3, 0.05),
    Scenario(5, 0.15, 0.2),
    Scenario(10, 0.05, 0.2, uneven=0.3, fewer=4),
    Scenario(3, 0.1, 0.2, batch_sizes=4),
    Scenario(5, 0.05, 0.4, budget="examples"),
    Scenario(5, 0.05, 0.2, batch_sizes=5, fewer=2),
    Scenario(10, 0.15, shared=0.6),
    Scenario(3, 0.05, 0.1, batch_sizes=4, uneven=0.3),
]


def scores(kinds: list[Scenario], simulations: int, seed: int) -> list[Scores]:
    chance = np.random.default_rng(seed)
    found = []
    for scenario in islice(cycle(kinds), simulations):
        simulated = simulate(scenario, chance)
        found.append(scored(simulated, judged(simulated)))
    return found


@pytest.fixture(scope="module")
def mixed() -> list[Scores]:
    """Censored, uneven, with unequal seeds, paired and not: what sweeps may be."""
    return scores(KINDS, SIMULATIONS, seed=0)


def test_intervals_hold_the_truth_in_95_of_100_within_two(mixed: list[Scores]) -> None:
    coverage, _, _ = clustered([float(s.covered.mean()) for s in mixed if len(s.covered)])
    assert 0.93 <= coverage <= 0.97


def test_a_lower_bound_is_seldom_over_the_truth(mixed: list[Scores]) -> None:
    bounds = np.concatenate([s.bounded for s in mixed])
    assert len(bounds) > 300
    assert bounds.mean() >= 0.95


def test_what_is_recommended_is_within_five_percent_of_the_best(mixed: list[Scores]) -> None:
    losses = [s.loss for s in mixed if s.loss is not None]
    assert len(losses) > 400
    assert np.mean([loss <= 0.05 for loss in losses]) >= 0.95


def test_undecided_is_said_when_noise_hides_the_differences() -> None:
    found = scores([Scenario(3, 0.3), Scenario(3, 0.3, 0.2)], 60, seed=1)
    assert np.mean([s.status == "undecided" for s in found]) >= 0.95


def test_there_is_an_answer_when_noise_hides_nothing() -> None:
    found = scores([Scenario(5, 0.02), Scenario(3, 0.02)], 60, seed=2)
    assert np.mean([s.status in ("decided", "tied") for s in found]) >= 0.95
    assert max(s.loss for s in found if s.loss is not None) <= 0.06


@pytest.mark.parametrize("censored", [0.0, 0.3])
def test_a_single_seed_never_gives_an_answer(censored: float) -> None:
    found = scores([Scenario(1, 0.02, censored), Scenario(1, 0.3, censored)], 60, seed=3)
    assert {s.status for s in found} <= {"undecided", "unreached"}
    assert all(len(s.covered) == 0 for s in found)


def test_the_seeds_asked_for_settle_what_was_open() -> None:
    """About: of sweeps that ask for some seeds, most have an answer with twice as many."""
    chance = np.random.default_rng(4)
    settled = []
    while len(settled) < 25:
        scenario = Scenario(4, 0.08, batch_sizes=4)
        state = chance.bit_generator.state
        asked = judged(simulate(scenario, chance)).decision.more_seeds
        if asked is None or asked > 60:
            continue
        more = np.random.default_rng()
        more.bit_generator.state = state
        again = judged(simulate(replace(scenario, seeds=4 + 2 * asked), more)).decision
        settled.append(again.status != "undecided")
    assert np.mean(settled) >= 0.6
