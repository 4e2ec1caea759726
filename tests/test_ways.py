"""Every way to search, on one contract; then what each does by itself.

A way (planning/ways.py)
1. proposes the same for the same rows,
2. keeps to the range and to the batch sizes that fit,
3. makes as many trials as were asked for at the most, none twice, also with several under way and
   where those were lost with the driver,
4. leaves no batch size that it tries without a finisher,
5. does not propose again what diverged or was out of memory,
6. works for a metric to be minimised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests import rows
from tests.judged import timed, verdict_of
from tune_jobs import preparing
from tune_jobs.config import SEARCHES, SweepConfig, resolve
from tune_jobs.errors import UserError
from tune_jobs.judging.search_cost import search_cost
from tune_jobs.planning import evolution, rules, theory
from tune_jobs.planning.known import Known, Proposal
from tune_jobs.planning.search_plan import shares
from tune_jobs.planning.ways import WAYS
from tune_jobs.records import RangePoint, TrialResult
from tune_jobs.reporting.answer import with_search_cost
from tune_jobs.reporting.summary import note_of, tags_of
from tune_jobs.reporting.terminal import lines

SIZES = (16, 32, 64, 128, 256)
BUDGET = 100_000
BEST = 2.5e-3
COST = {size: 0.01 / size + 0.0002 for size in SIZES}
PROFILES = [
    rows.profile(batch_size=s, step_seconds=COST[s] * s, examples_per_second=1 / COST[s])
    for s in SIZES
]
NOISE = [rows.noise_scale(kind=kind, noise_scale=60.0) for kind in ("raw", "raw_average")]
RANGE_TEST = [
    RangePoint(64, 64 * k, 1e-5 * 1.1**k, 0.3 + abs(k - 60) / 30 + (k == 60) * -0.1)
    for k in range(1, 100)
]


def config_of(search: str, **changes: Any) -> SweepConfig:
    config = SweepConfig(search=search, batch_sizes=SIZES, trials=20, budget_examples=BUDGET)
    return replace(config, **changes)


def known_of(trials: list[TrialResult], pending: Any = ()) -> Known:
    return Known(trials, {}, pending, COST, PROFILES, NOISE, RANGE_TEST)


def ended(name: str, asked: Proposal, config: SweepConfig, stops: int = 3) -> TrialResult:
    """What such a trial comes to. Of those that race the first is stopped, and one in `stops`."""
    off = math.log(asked.base_learning_rate / BEST)
    rise = math.hypot(0.5, off) - 0.5
    needed = round(2000 * (1 + asked.batch_size / 60) * math.exp(2 * rise if off > 0 else rise))
    stopped = asked.races and int(name) % stops == stops // 3 and not config.structured
    seen = min(asked.most_examples, 500 if stopped else needed)
    return rows.result(
        trial_id=name, batch_size=asked.batch_size, budget_examples=BUDGET, mode=config.mode,
        base_learning_rate=asked.base_learning_rate, examples_seen=seen,
        learning_rate=asked.base_learning_rate * math.sqrt(asked.batch_size / 256),
        examples_to_target=needed if seen == needed else None,
        outcome="stopped" if stopped else "finished", val_accuracy=1 / (1 + rise),
    )  # fmt: skip


def search(
    config: SweepConfig,
    made: list[TrialResult] | None = None,
    at_once: int = 1,
    ends: Callable[..., TrialResult] = ended,
) -> list[TrialResult]:
    """The whole search, `at_once` trials under way; the first of them ends first."""
    made, under_way = list(made or []), []
    while True:
        pending = [(p.batch_size, p.base_learning_rate) for p in under_way]
        asked = WAYS[config.search].propose(config, SIZES, known_of(made, pending))
        if asked is not None:
            under_way.append(asked)
        if under_way and (asked is None or len(under_way) == at_once):
            made.append(ends(str(len(made)), under_way.pop(0), config))
        elif asked is None:
            return made


def of(trials: list[TrialResult]) -> list[tuple[int, float, int]]:
    return [(t.batch_size, t.base_learning_rate, t.examples_seen) for t in trials]


every_way = pytest.mark.parametrize("name", sorted(WAYS))


def test_the_names_are_those_that_the_command_line_knows() -> None:
    assert set(WAYS) == set(SEARCHES)


@every_way
def test_1_2_3_the_same_rows_give_the_same_trials_in_range_and_no_more(name: str) -> None:
    config = config_of(name)
    made = search(config)
    assert of(made) == of(search(config))
    assert 3 <= len(made) <= config.trials
    assert {t.batch_size for t in made} <= set(SIZES)
    assert all(3e-4 / 11 <= t.base_learning_rate <= 3e-2 * 11 for t in made)


@every_way
@pytest.mark.parametrize("at_once", [2, 5])
def test_3_with_several_under_way_none_is_made_twice(name: str, at_once: int) -> None:
    config = config_of(name)
    made = search(config, at_once=at_once)
    assert len(made) <= config.trials
    finished = [(t.batch_size, t.base_learning_rate) for t in made if t.outcome == "finished"]
    assert len(set(finished)) == len(finished)


@every_way
@pytest.mark.parametrize("killed_after", [1, 7, 12])
def test_3_a_driver_that_was_killed_goes_on_from_the_rows(name: str, killed_after: int) -> None:
    config = config_of(name)
    whole = search(config)
    assert of(search(config, made=whole[:killed_after])) == of(whole)
    several = search(config, at_once=4)
    lost = several[:killed_after] + several[killed_after + 1 :][: killed_after // 4]
    again = search(config, made=lost, at_once=4)
    assert len(again) <= config.trials
    finished = [(t.batch_size, t.base_learning_rate) for t in again if t.outcome == "finished"]
    assert len(set(finished)) == len(finished)


@every_way
def test_4_no_batch_size_that_was_tried_ends_without_a_finisher(name: str) -> None:
    def all_stopped(number: str, asked: Proposal, config: SweepConfig) -> TrialResult:
        return (
            ended(number, asked, config, stops=1) if asked.races else ended(number, asked, config)
        )

    for ends in (ended, all_stopped):
        made = search(config_of(name), ends=ends)
        tried = {t.batch_size for t in made}
        assert tried == {t.batch_size for t in made if t.outcome == "finished"}


@every_way
def test_5_what_diverged_or_did_not_fit_is_not_proposed_again(name: str) -> None:
    def fails(number: str, asked: Proposal, config: SweepConfig) -> TrialResult:
        outcome = "diverged" if asked.base_learning_rate > 2e-3 else "finished"
        outcome = "out_of_memory" if asked.batch_size == 256 else outcome
        short = {"outcome": outcome, "examples_to_target": None, "examples_seen": 100}
        row = ended(number, asked, config)
        return replace(row, **short) if outcome != "finished" else row

    made = search(config_of(name), ends=fails)
    bad = [(t.batch_size, t.base_learning_rate) for t in made if t.outcome != "finished"]
    assert len(set(bad)) == len(bad)


@every_way
def test_6_a_metric_to_be_minimised(name: str) -> None:
    made = search(config_of(name, mode="min", metric="rmse", target=0.5))
    assert {t.batch_size for t in made if t.examples_to_target is not None}


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_shares_are_equal_in_turn_and_begin_with_the_rule(name: str) -> None:
    made = search(config_of(name))
    counts = shares(20, SIZES)
    assert {size: sum(t.batch_size == size for t in made) for size in SIZES} == counts
    assert [t.batch_size for t in made[:5]] == list(SIZES)
    assert name == "grid" or made[0].base_learning_rate == pytest.approx(3e-3)


def test_every_batch_size_gets_its_share() -> None:
    assert shares(20, (16, 32, 64)) == {16: 7, 32: 7, 64: 6}


def test_a_best_rate_at_the_end_of_those_tried_is_searched_beyond() -> None:
    config = config_of("tpe", base_learning_rate=1e-4, learning_rate_span=4.0, trials=25)
    assert max(t.base_learning_rate for t in search(config)) > 4e-4


def test_a_grid_tries_the_rates_that_were_given_and_no_others() -> None:
    rates = (1e-3, 2e-3, 4e-3)
    made = search(config_of("grid", base_learning_rates=rates, trials=15))
    tried = {(t.batch_size, t.base_learning_rate) for t in made}
    assert tried == {(size, rate) for size in SIZES for rate in rates}


def test_rules_carry_one_reference_by_every_rule_the_optimizers_own_first() -> None:
    config = config_of("rules", base_learning_rate=BEST)
    made = search(config)
    assert [t.base_learning_rate for t in made[:5]] == pytest.approx([BEST] * 5)
    at_16 = sorted(t.base_learning_rate for t in made if t.batch_size == 16)
    # Linear takes 16 times less than at 256, the square root 4 times, none as much; of base rates.
    assert at_16 == pytest.approx([BEST / 4, BEST, 4 * BEST], rel=1e-3)
    assert sum(t.batch_size == 256 for t in made) == 1
    assert len(made) == 13


def test_rules_take_their_reference_from_a_range_test_where_none_is_given() -> None:
    reference = rules.reference_of(config_of("rules"), known_of([]))
    assert reference is not None and reference[0] == 64
    least = RANGE_TEST[59].learning_rate
    assert least / 8 < reference[1] < least
    with pytest.raises(UserError, match="give base_learning_rate"):
        rules.told(config_of("rules"), SIZES, replace(known_of([]), range_test=RANGE_TEST[:20]))


def test_theory_tries_the_batch_sizes_about_its_prediction_alone() -> None:
    found = theory.predicted(PROFILES, NOISE)
    assert found.batch_size == pytest.approx(math.sqrt(0.01 * 60 / 0.0002), rel=0.01)  # 55
    assert {t.batch_size for t in search(config_of("theory"))} == {32, 64, 128}
    assert "predicted to be 54.8" in theory.told(config_of("theory"), SIZES, known_of([]))[0]
    with pytest.raises(UserError, match="not measured; give --search structured"):
        theory.told(config_of("theory"), SIZES, replace(known_of([]), noise=()))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"search": "rules", "train": "mine.py:train"}, "has no range test to begin from"),
        ({"search": "rule"}, "Did you mean 'rules'"),
        ({"search": "grid", "base_learning_rates": (1e-3, 1e-2, 1e-1, 1.0)}, "give --trials 24"),
        ({"base_learning_rates": (1e-3,)}, "they are of a grid"),
        ({"search": "grid", "base_learning_rates": (0.0,)}, "base_learning_rates: 0.0 must be"),
        ({"search": "rules", "scaling_rules": ("root",)}, "square root"),
        ({"search": "rules", "scaling_rules": ()}, "none is named"),
        (
            {"search": "theory", "noise_scale": False},
            "off; give --search structured",
        ),
    ],
)
def test_what_a_way_cannot_work_with_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(None, asked)


def test_what_each_rule_misses_is_told_once_an_answer_stands() -> None:
    config = config_of("rules", base_learning_rate=4 * BEST)
    made = [
        replace(t, time_to_target_seconds=t.examples_to_target * COST[t.batch_size])
        for t in search(config)
        if t.examples_to_target
    ]
    (told,) = rules.after(config, known_of(made), 64)
    assert told.startswith("Trusting one rule: square root: 64, ")
    assert "linear: 32, 1 % over the best trial" in told


def test_theory_tells_how_far_it_was() -> None:
    (told,) = theory.after(config_of("theory"), known_of([]), 32)
    assert told == "Theory predicted 54.8: 1.7 times off 32, of the few it tried."


def test_the_search_tells_its_cost_and_what_trusting_its_best_trial_would_have_cost() -> None:
    trials = [
        rows.result(batch_size=size, time_to_target_seconds=t, examples_seen=900, train_seconds=9.0)
        for size, t in ((16, 5.0), (32, 4.0))
    ] + [rows.result(outcome="failed", time_to_target_seconds=None)]
    verdict = verdict_of(timed({16: [4.0, 4.1, 3.9], 32: [5.0, 5.1, 4.9]}))
    found = search_cost("tpe", "time", trials, verdict.per_batch_size)
    assert found is not None
    assert (found.trials, found.examples_seen, found.train_seconds) == (3, 1800, 18.0)
    assert found.blind_batch_size == 32 and found.blind_regret == pytest.approx(0.25, abs=0.08)
    assert "would have named 32" in found.sentence


def test_evolution_draws_near_the_best_and_a_generation_waits_for_the_one_before() -> None:
    config = config_of("evolution", trials=36)
    made = search(config)
    cost = [(t.examples_to_target or 2 * t.examples_seen) * COST[t.batch_size] for t in made]
    assert sum(cost[-6:]) < 0.8 * sum(cost[:6])
    first = [WAYS["evolution"].propose(config, SIZES, known_of(made[:k])) for k in range(6)]
    pending = [(p.batch_size, p.base_learning_rate) for p in first if p]
    assert WAYS["evolution"].propose(config, SIZES, known_of([], pending)) is None


def test_a_pair_of_goals_ends_in_the_trials_than_which_none_is_better_in_both() -> None:
    config = resolve(None, {"search": "evolution", "goal": "time,memory", "trials": 30})
    assert (config.goal, config.second_goal) == ("time", "memory")
    config = replace(config, batch_sizes=SIZES, budget_examples=BUDGET)
    made = search(config)
    assert len(made) == 30
    profiles = [replace(p, peak_memory_mib=100.0 + p.batch_size) for p in PROFILES]
    known = replace(known_of(made), profiles=profiles)
    (told,) = evolution.after(config, known, 64)
    assert told.startswith("Pareto set of time and memory, batch size at learning rate: 16 at ")
    judged = verdict_of(timed({16: [4.0, 4.1, 3.9], 32: [5.0, 5.1, 4.9]}))
    verdict = with_search_cost(judged, config, known)
    assert lines(verdict)[0].startswith("Pareto set of time and memory")  # below the answer
    assert note_of(verdict).split("\n\n")[1] == verdict.front == tags_of(verdict)["front"] == told
    assert verdict.search_cost is not None and told not in verdict.search_cost.sentence


def test_a_package_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install .* cmaes optuna"):
        preparing.check_names(config_of("evolution"), importing=False)
