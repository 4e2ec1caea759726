"""What a reader is told: the first line, what could change it, what to beware of, valid JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import rows
from tests.judged import row_of, run_of, runs_of, used, verdict_of
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.records import TargetRun
from tune_jobs.reporting.answer import as_json, learning_rate_range
from tune_jobs.verdicts import BINDING_LIMITS, STANDINGS, STATUSES, Verdict

RESUME = {"resume": "./scripts/sweep --resume --name x"}
NOT_COUNTED = "learning rate is from its best one is not known"
BATCH_SIZES = (16, 32, 64, 128, 256)


# The first line


def test_the_first_line_says_what_to_use_and_what_that_can_cost() -> None:
    verdict = verdict_of(runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15))
    assert verdict.use is not None and verdict.use.regret_bound is not None
    at_most = math.ceil(100 * verdict.use.regret_bound)
    assert verdict.answer == (
        "Use batch size 128, learning rate 0.001: expected within 2 % of the fastest, at 95 % "
        f"within {at_most} %."
    )


def test_a_clear_first_line_calls_it_the_best() -> None:
    assert verdict_of(runs_of({32: 20.0, 64: 10.0})).answer == (
        "Use batch size 64, learning rate 0.001: expected to be the fastest, at 95 % within 1 %."
    )


def test_without_a_known_rate_none_is_named() -> None:
    runs = [replace(r, learning_rate=None) for r in runs_of({32: 20.0, 64: 10.0})]
    assert verdict_of(runs).answer.startswith("Use batch size 64: expected")


@pytest.mark.parametrize(
    ("goal", "best"),
    [
        ("examples", "the fewest examples"),
        ("energy", "the least energy"),
        ("cost", "the cheapest"),
        ("memory", "the least memory"),
        ("accuracy", "the lowest error"),
    ],
)
def test_every_goal_has_words_of_its_own(goal: str, best: str) -> None:
    runs = [
        replace(r, energy_joules=50.0 + r.batch_size, val_accuracy=0.9 + 1e-3 * (r.seed or 0))
        for r in runs_of({32: 10.0, 64: 20.0}, seeds=3)
    ]
    assert best in verdict_of(runs, goal, policy={"price_per_device_hour": 1.0}).answer


def test_single_runs_are_called_unproven_with_what_the_numbers_alone_say() -> None:
    verdict = verdict_of([run_of(32, 0, 14.0), run_of(64, 0, 10.0)])
    assert verdict.answer == (
        "Use batch size 64, learning rate 0.001: unproven, one run each; 10.0 s, the next best, "
        "32, 14.0 s (1.40 times)."
    )
    assert verdict.change == "Settling it takes about 48 s more (2 more runs of 32 and 64)."


def test_a_bound_over_ten_times_is_not_given_as_a_number() -> None:
    verdict = verdict_of([*runs_of({32: 20.0, 128: 30.0}), run_of(64, 0, 1.0)])
    assert "how much worse at the most cannot be told" in verdict.answer


# The second line, and what to do


def test_what_is_open_is_named_with_what_settling_it_costs() -> None:
    verdict = verdict_of(
        runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15),
        policy={**RESUME, "trainings_to_come": 10**6},
    )
    settling = verdict.settling
    assert settling is not None and settling.seeds is not None and settling.trainings is not None
    assert (verdict.change or "").startswith("64 may be as fast. Settling it takes about 6.2 min")
    assert f"({settling.seeds - 3} more runs of 64 and 128)" in (verdict.change or "")
    assert f"worth it for more than {settling.trainings:,} trainings." in (verdict.change or "")
    assert verdict.advice == f"{RESUME['resume']} --seeds {settling.seeds}"


def test_a_price_that_no_training_to_come_pays_is_not_advised() -> None:
    runs = runs_of({64: 10.0, 128: 11.0, 256: 40.0}, seeds=3, noise=0.15)
    verdict = verdict_of(runs, policy={**RESUME, "trainings_to_come": 1})
    assert verdict.settling is not None and verdict.settling.worth_it is False
    assert verdict.advice is None


def test_runs_made_elsewhere_have_no_command() -> None:
    assert verdict_of([run_of(32, 0, 14.0), run_of(64, 0, 10.0)]).advice is None


def test_an_open_one_that_cannot_matter_is_told_to_be_ruled_out() -> None:
    verdict = verdict_of(runs_of({32: 10.0, 64: 10.4}, noise=0.03))
    assert (verdict.status, used(verdict), verdict.open_batch_sizes) == ("decided", 32, (64,))
    assert verdict.change == (
        "64 may be as fast; that any is over 5 % better is ruled out at 97 %."
    )


# Warnings


def test_few_seeds_and_interpolated_targets_are_told() -> None:
    warnings = verdict_of(runs_of({32: 20.0, 64: 10.0}, seeds=2, interpolated=True)).warnings
    assert any("Only 2 seeds of 32 and 64" in told for told in warnings)
    assert any("Read from the learning curves" in told for told in warnings)


def test_a_plain_table_is_told_one_thing_alone_that_its_rates_are_not_counted() -> None:
    (told,) = verdict_of(runs_of({32: 20.0, 64: 10.0})).warnings
    assert NOT_COUNTED in told


def test_runs_of_two_kinds_are_told() -> None:
    runs = runs_of({32: 20.0, 64: 10.0, 128: 15.0})
    odd = [
        replace(r, time_to_target_seconds=35.0) if (r.batch_size, r.seed) == (64, 0) else r
        for r in runs
    ]
    (told,) = [t for t in verdict_of(odd).warnings if "two kinds" in t]
    assert told.startswith("The runs of 64 lie up to 3.6 times apart")
    assert not [t for t in verdict_of(runs).warnings if "two kinds" in t]


def test_a_clock_that_contradicts_the_profile_is_told() -> None:
    runs = [
        replace(r, measured_time_to_target_seconds=(r.time_to_target_seconds or 0)
                * (1.3 if r.batch_size == 64 else 1.02))
        for r in runs_of({32: 20.0, 64: 10.0})
    ]  # fmt: skip
    verdict = verdict_of(runs)
    assert row_of(verdict, 64).measured_to_predicted == pytest.approx(1.3)
    (told,) = [t for t in verdict.warnings if "clock" in t]
    assert "1.30 times at 64" in told and "at 32" not in told


def test_a_best_learning_rate_on_the_edge_of_the_range_is_told() -> None:
    runs = [
        replace(r, learning_rate=0.03 if r.batch_size == 64 else 0.003)
        for r in runs_of({32: 20.0, 64: 10.0})
    ]
    search = [
        rows.result(batch_size=size, base_learning_rate=rate, learning_rate=rate)
        for size in (32, 64) for rate in (0.0004, 0.003, 0.03)
    ]  # fmt: skip
    policy = {"base_learning_rate_range": (0.0003, 0.03)}
    (told,) = [t for t in verdict_of(runs, search=search, policy=policy).warnings if "edge" in t]
    assert "of 64 (0.03)" in told
    beyond = [*search, rows.result(batch_size=64, base_learning_rate=0.09, learning_rate=0.09)]
    assert not [t for t in verdict_of(runs, search=beyond, policy=policy).warnings if "edge" in t]


def test_the_range_searched_is_the_users_or_the_optimizers_and_not_known_of_a_table() -> None:
    search = [rows.result(batch_size=32, base_learning_rate=0.004)]
    assert learning_rate_range(SweepConfig(), search) == pytest.approx((0.0003, 0.03))
    assert learning_rate_range(SweepConfig(base_learning_rate=0.1), search) == pytest.approx(
        (0.01, 1)
    )
    assert learning_rate_range(SweepConfig(base_learning_rate=0.1), []) is None


def test_several_learning_rates_for_one_batch_size_are_told() -> None:
    runs = [
        replace(r, learning_rate=0.001 * (1 + (r.seed or 0))) for r in runs_of({32: 9.0, 64: 5.0})
    ]
    assert any("several learning rates" in told for told in verdict_of(runs).warnings)


# Policy and JSON


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"goal": "speed"}, "'speed'"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"confidence": 0.2}, "confidence 0.2"),
        ({"goal": "cost"}, "--price-per-device-hour"),
        ({"trainings_to_come": 0}, "--trainings-to-come 0"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(
    given_settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Policy(**given_settings)


def test_a_time_of_zero_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match="batch size 64, seed 0: must be greater than 0"):
        verdict_of([*runs_of({32: 10.0}), run_of(64, 0, 0.0)])


def whole(verdict: Verdict) -> None:
    """Valid JSON, and every part in agreement with the others."""
    read = json.loads(as_json([verdict]), parse_constant=lambda c: pytest.fail(c))[0]
    assert read["schema_version"] == verdict.schema_version == 3
    assert verdict.status in STATUSES and verdict.binding_limit in (None, *BINDING_LIMITS)
    assert (verdict.use is None) == (verdict.status == "unreached") == (verdict.why_not is not None)
    for line in (verdict.answer, verdict.reason, *verdict.warnings):
        assert line.endswith(".") and not re.search(r"\b(nan|inf|None(?! of))\b", line), line
    assert not re.search(r"\b(nan|inf)\b|-\d+ more", verdict.change or ""), verdict.change
    if verdict.use is not None:
        assert verdict.answer.startswith(f"Use batch size {used(verdict)}")
    if verdict.status in ("decided", "tied"):
        assert verdict.risk is not None and verdict.risk <= verdict.risk_allowed
        assert verdict.settling is None and (verdict.status == "tied") == bool(
            verdict.tied_batch_sizes
        )
    if verdict.status == "undecided":
        assert verdict.risk is not None and verdict.risk > verdict.risk_allowed
        assert verdict.open_batch_sizes or verdict.tied_batch_sizes
        assert verdict.settling is not None
    by_standing = {s: [r.batch_size for r in verdict.per_batch_size if r.standing == s]
                   for s in STANDINGS}  # fmt: skip
    assert by_standing["used"] == ([used(verdict)] if verdict.use else [])
    assert tuple(by_standing["tied"]) == verdict.tied_batch_sizes
    assert tuple(by_standing["open"]) == verdict.open_batch_sizes
    for row in verdict.per_batch_size:
        assert row.standing in STANDINGS
        ends = [e for e in (row.low, row.median, row.high) if e is not None]
        assert ends == sorted(ends) and all(math.isfinite(end) for end in ends)


def hostile() -> list[list[TargetRun]]:
    return [
        runs_of({32: 10.0}, seeds=1),
        runs_of({32: 10.0, 64: 10.0}, noise=0.0),
        runs_of({32: 10.0, 64: 12.0}, ends=1.0),
        runs_of({32: 1e-6, 64: 1e9}, seeds=2),
        [*runs_of({32: 10.0}, seeds=7), run_of(64, 99, 5.0, ends=1.0)],
        [replace(r, time_to_target_seconds=None, train_seconds=None, examples_per_second=None)
         for r in runs_of({32: 10.0, 64: 20.0})],
        [replace(r, seed=r.batch_size + (r.seed or 0)) for r in runs_of({32: 5.0, 9: 1.0})],
        runs_of({2**k: 5.0 + k for k in range(12)}, seeds=2, noise=0.5, ends=8.0),
        [replace(r, val_accuracy=1.0) for r in runs_of({32: 10.0, 64: 20.0})],
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(len(hostile())))
@pytest.mark.parametrize("goal", ["time", "accuracy"])
def test_whatever_the_runs_the_verdict_is_whole_and_valid_json(case: int, goal: str) -> None:
    whole(verdict_of(hostile()[case], goal))


SECONDS = (
    st.sampled_from([5e-324, 2.3e-308, 1e-300, 1e-3, 1.0, math.nextafter(1, 2), 1.05, 1e12, 1e300])
    | st.floats(0.5, 2.0)
    | st.floats(5e-324, 1e300)
)


@st.composite
def any_runs(draw: st.DrawFn) -> list[TargetRun]:
    """One to five batch sizes of one to five runs: equal, near or far apart, cut beside equals."""
    shared = draw(SECONDS)
    found = []
    for size in draw(st.lists(st.sampled_from(BATCH_SIZES), min_size=1, max_size=5, unique=True)):
        for seed in range(draw(st.integers(1, 5))):
            took = draw(st.just(shared) | SECONDS)
            cut = draw(st.sampled_from([False, False, True]))
            known = draw(st.booleans())
            found.append(only_seconds(size, seed if known else None, took, cut))
    return found


def only_seconds(size: int, seed: int | None, took: float, cut: bool) -> TargetRun:
    return rows.target_run(
        batch_size=size, seed=seed, time_to_target_seconds=None if cut else took,
        examples_to_target=None, updates_to_target=None, examples_seen=None, updates=None,
        train_seconds=took, examples_per_second=None,
    )  # fmt: skip


def pair(ends: Sequence[float], cut: float) -> list[TargetRun]:
    return [
        *(only_seconds(16, n, end, False) for n, end in enumerate(ends)),
        *(only_seconds(32, n, end, False) for n, end in enumerate(ends)),
        only_seconds(32, 9, cut, True),
    ]


@settings(max_examples=12)
@given(any_runs())
@example(pair([1.0, 1.0], 1.0))
@example(pair([5e-324, 1e300], 5e-324))
@example(pair([1e-300, 1e-300], 1e300))
def test_no_set_of_runs_breaks_the_judge(runs: list[TargetRun]) -> None:
    for verdict in judge_runs(runs, Policy()):
        whole(verdict)
