"""Batch schedules planned from rows, and judged against the fixed batch size to use.

The contract of every schedule:
  1. its first segment is at the first example, the others follow in ascending order;
  2. its batch sizes are among those that were profiled and fit; one that it lacks is named;
  3. the same rows give the same schedule;
  4. one that changes nothing, or cannot, is none, and says why.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import rows
from tests.judged import run_of, runs_of, verdict_of
from tune_jobs.config import PBT, SCHEDULES, SweepConfig, resolve
from tune_jobs.errors import UserError
from tune_jobs.judging.judging import Scheduled
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import TIME
from tune_jobs.judging.schedules import judge_schedule
from tune_jobs.planning.batch_schedules import (
    WAYS,
    Given,
    schedule_of,
)
from tune_jobs.planning.confirm_plan import best_rates, next_runs
from tune_jobs.planning.looks import confirm_runs, searched
from tune_jobs.planning.schedule_runs import given_by, runs_missing, schedule_known
from tune_jobs.reading.sweep_runs import runs_of_sweep, scheduled_runs
from tune_jobs.records import NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.plan import plan_lines
from tune_jobs.training.segments import Segment, as_text, segments_of

CONFIG = SweepConfig(batch_sizes=(16, 32, 64, 128), search="grow", budget_examples=9000, target=0.9)


def noise_rising(first: float = 40.0, factor: float = 4.0) -> list[NoiseScale]:
    """The noise scale at four points of a run, each `factor` times the one before."""
    scales = [first * factor**k for k in range(4)]
    points = [
        rows.noise_scale(examples_seen=512 * 2**k, noise_scale=scale)
        for k, scale in enumerate(scales)
    ]
    middle = math.exp(sum(map(math.log, scales)) / 4)
    return [*points, rows.noise_scale(kind="raw_average", noise_scale=middle)]


KNOWN = Given(
    batch_size=32,
    learning_rate=0.0016,
    examples_to_target=3072.0,
    optimizer="adam",
    fitting=(16, 32, 64, 128),
    noise=noise_rising(),
)


def sizes(segments: Sequence[Segment]) -> list[int]:
    return [segment.batch_size for segment in segments]


@pytest.mark.parametrize("name", WAYS)
@given(
    at=st.integers(0, 3),
    needed=st.floats(1, 1e7),
    rising=st.floats(0.01, 100),
    fitting=st.sets(st.sampled_from((8, 16, 32, 64, 128, 256))),
)
def test_every_schedule_keeps_the_contract(
    name: str, at: int, needed: float, rising: float, fitting: set[int]
) -> None:
    size = (16, 32, 64, 128)[at]
    known = replace(
        KNOWN, batch_size=size, examples_to_target=needed, fitting=tuple(sorted({*fitting, size})),
        noise=noise_rising(factor=rising),
    )  # fmt: skip
    found = schedule_of(name, known)
    assert found == schedule_of(name, known)  # 3
    starts = [segment.from_examples for segment in found.segments]
    assert starts == sorted(set(starts)) and starts[:1] in ([], [0])  # 1
    assert set(sizes(found.segments)) <= set(known.fitting)  # 2
    assert all(known.lacks(size) for size in found.lacks)
    assert len(found.segments) > 1 or (not found.segments and found.told)  # 4
    assert segments_of(as_text(found.segments)) == found.segments


def test_every_schedule_that_can_be_asked_for_is_known() -> None:
    assert (*WAYS, PBT) == SCHEDULES


def test_grow_doubles_the_batch_at_the_cuts_of_a_step_schedule_and_keeps_the_rate() -> None:
    text = as_text(schedule_of("grow", KNOWN).segments)
    assert text == "0:32@0.0016 1536:64@0.0016 2304:128@0.0016"


def test_seesaw_divides_the_rate_by_the_root_of_two_where_it_doubles_the_batch() -> None:
    found = schedule_of("seesaw", KNOWN).segments
    assert sizes(found) == [32, 64, 128]
    rates = [segment.learning_rate for segment in found]
    assert rates == pytest.approx([0.0016, 0.0016 / math.sqrt(2), 0.0008])


def test_late_switch_stays_small_and_switches_once_near_the_end() -> None:
    assert as_text(schedule_of("late-switch", KNOWN).segments) == "0:32@0.0016 2304:128@0.0016"


def test_late_switch_tells_what_keeps_it_from_eight_times_the_batch() -> None:
    known = replace(KNOWN, refused={256: "out of memory"})
    found = schedule_of("late-switch", known)
    assert sizes(found.segments) == [32, 128]
    assert found.told == "late-switch goes to 128: batch size 256 does not fit (out of memory)"
    few = schedule_of("late-switch", replace(KNOWN, most=200))
    assert (
        few.told == "late-switch goes to 128: batch size 256 is more than the 200 training examples"
    )
    whole = replace(KNOWN, fitting=(16, 32, 64, 128, 256), refused={512: "out of memory"})
    assert schedule_of("late-switch", whole).told is None


def test_follow_grows_with_the_noise_scale_and_carries_the_rate_by_the_rule() -> None:
    found = schedule_of("follow", KNOWN).segments
    assert sizes(found) == sorted(set(sizes(found)))
    assert found[0].batch_size < 32 < found[-1].batch_size
    for segment in found:
        rate = 0.0016 * math.sqrt(segment.batch_size / 32)
        assert segment.learning_rate == pytest.approx(rate)


def test_follow_without_a_usable_noise_scale_says_what_to_do_instead() -> None:
    useless = [replace(n, useful=False, reason="too few draws") for n in KNOWN.noise]
    found = schedule_of("follow", replace(KNOWN, noise=useless))
    assert not found.segments and found.told is not None
    assert "0 points" in found.told and "too few draws" in found.told
    assert "noise_scale = true" in found.told and "--search grow" in found.told


def test_follow_of_a_noise_scale_that_does_not_move_is_the_fixed_batch_size() -> None:
    found = schedule_of("follow", replace(KNOWN, noise=noise_rising(factor=1.0)))
    assert not found.segments and "stays at batch size 32" in (found.told or "")


@pytest.mark.parametrize("name", ["grow", "seesaw", "late-switch"])
def test_a_schedule_whose_batch_does_not_fit_is_told_and_left_out(name: str) -> None:
    known = replace(KNOWN, fitting=(16, 32), refused={64: "out of memory"})
    found = schedule_of(name, known)
    assert not found.segments
    assert found.told == f"{name} is left out: batch size 64 does not fit (out of memory)"


def test_a_schedule_grows_as_far_as_was_profiled_and_names_what_it_lacks() -> None:
    found = schedule_of("grow", replace(KNOWN, fitting=(16, 32, 64)))
    assert sizes(found.segments) == [32, 64] and found.lacks == (128,)
    assert found.told == "grow stays at 64: batch size 128 was not profiled"


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("grow", (256, 512)), ("seesaw", (256, 512)), ("late-switch", (1024,)), ("follow", ())],
)
def test_a_schedule_of_the_largest_batch_size_lacks_those_beyond(
    name: str, lacks: tuple[int, ...]
) -> None:
    assert schedule_of(name, replace(KNOWN, batch_size=128)).lacks == lacks


@pytest.mark.parametrize("name", ["grow", "seesaw", "late-switch"])
def test_a_schedule_goes_no_further_than_the_data(name: str) -> None:
    found = schedule_of(name, replace(KNOWN, batch_size=128, most=200))
    assert not found.lacks and not found.segments
    assert (found.told or "").endswith("batch size 256 is more than the 200 training examples")
    assert schedule_of("late-switch", replace(KNOWN, batch_size=128, most=600)).lacks == (512,)


# --- runs -------------------------------------------------------------------------------------


def fixed(seed: int, **changes: Any) -> TrialResult:
    """A confirm run of batch size 32 at 0.0016."""
    return rows.result(
        trial_id=f"f{seed}", stage="confirm", seed=seed, batch_size=32, learning_rate=0.0016,
        base_learning_rate=0.0045, budget_examples=9000, examples_seen=3072,
        examples_to_target=3072, **changes,
    )  # fmt: skip


def of_schedule(seed: int, text: str, **changes: Any) -> TrialResult:
    return replace(fixed(seed, **changes), trial_id=f"s{seed}", stage="schedule", schedule=text)


PROFILES = [rows.profile(batch_size=size) for size in CONFIG.batch_sizes]


def test_the_runs_of_a_schedule_have_the_seeds_of_the_batch_size_to_use() -> None:
    trials = [fixed(seed) for seed in (1, 2, 3)]
    known = given_by(CONFIG, trials, 32, PROFILES)
    assert known is not None and known.fitting == CONFIG.batch_sizes
    schedule = schedule_known(CONFIG, known, trials)
    runs = runs_missing(CONFIG, schedule, trials, known)
    assert [(r.seed, r.batch_size, r.learning_rate) for r in runs] == [
        (seed, 32, 0.0016) for seed in (1, 2, 3)
    ]
    assert {r.most_examples for r in runs} == {6144} and not any(r.whole for r in runs)
    text = runs[0].schedule or ""
    made = [*trials, of_schedule(1, text), of_schedule(2, text, outcome="failed")]
    assert [r.seed for r in runs_missing(CONFIG, schedule, made, known)] == [2, 3]


def test_a_schedule_that_was_run_stays_as_it_is_when_further_seeds_come() -> None:
    text = "0:32@0.0016 1000:64@0.0016"
    trials = [fixed(1), replace(fixed(2), examples_to_target=5000), of_schedule(1, text)]
    known = given_by(CONFIG, trials, 32, PROFILES)
    assert known is not None
    assert as_text(schedule_known(CONFIG, known, trials).segments) == text


def test_without_a_batch_size_that_reaches_the_target_there_is_nothing_to_judge_against() -> None:
    missed = [replace(fixed(seed), examples_to_target=None) for seed in (1, 2)]
    assert given_by(CONFIG, missed, 32, PROFILES) is None
    assert given_by(CONFIG, [], None, PROFILES) is None


def test_rows_with_a_schedule_are_no_rows_of_a_fixed_batch_size() -> None:
    text = "0:32@0.0016 1000:64@0.0016"
    trials = [rows.result(trial_id="t", seed=0, batch_size=32), *map(fixed, (1, 2))]
    more = [*trials, *(of_schedule(seed, text) for seed in (1, 2, 3))]
    assert runs_of_sweep(CONFIG, more, []) == runs_of_sweep(CONFIG, trials, [])
    assert [r.seed for r in scheduled_runs(CONFIG, more, text)] == [1, 2, 3]
    assert confirm_runs(more) == confirm_runs(trials) and searched(more) == searched(trials)
    assert best_rates(CONFIG, more) == best_rates(CONFIG, trials)
    assert next_runs(CONFIG, more, []) == next_runs(CONFIG, trials, [])


def test_a_dry_run_tells_of_the_schedule() -> None:
    assert "then grow's batch schedule: runs with the seeds" in plan_lines(CONFIG)[-1]
    assert len(plan_lines(replace(CONFIG, search="structured"))) == len(plan_lines(CONFIG)) - 1


@pytest.mark.parametrize("goal", ["accuracy", "memory"])
def test_a_schedule_without_a_target_to_be_judged_by_is_refused(goal: str) -> None:
    with pytest.raises(UserError, match=r"--search grow with --goal .* give --goal time or"):
        resolve(None, {"search": "grow", "goal": goal})


# --- the judge --------------------------------------------------------------------------------


def judged(runs: Sequence[TargetRun], others: Sequence[TargetRun], **more: Any) -> Any:
    text = "0:32@0.0016 1536:64@0.0016"
    asked = Scheduled("grow", text, None, 32, tuple(runs))
    return verdict_of(others, scheduled=asked, **more).schedule


def pairs_of(ratio: float, seeds: int, chance: random.Random) -> tuple[list[Any], list[Any]]:
    """Runs of a fixed batch size and of a schedule that share half of their luck by seed."""
    runs, others = [], []
    for seed in range(seeds):
        luck = chance.gauss(0, 0.1)
        others.append(run_of(32, seed, 10 * math.exp(luck + chance.gauss(0, 0.1))))
        runs.append(run_of(32, seed, 10 * ratio * math.exp(luck + chance.gauss(0, 0.1))))
    return runs, others


def test_the_ratio_of_simulated_pairs_lies_in_its_interval_as_often_as_it_says() -> None:
    chance, held = random.Random(3), 0
    for _ in range(400):
        runs, others = pairs_of(0.84, 5, chance)
        found = judge_schedule("grow", None, None, runs, others, TIME, Policy()).ratio
        assert found.low is not None and found.high is not None
        held += found.low <= 0.84 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_a_schedule_that_takes_less_is_worth_a_loop_that_can_change_the_batch() -> None:
    runs, others = pairs_of(0.7, 8, random.Random(1))
    found = judged(runs, [*others, *runs_of({64: 12.0}, seeds=8)])
    assert found.better is True and found.pairs == found.reached == 8
    assert found.sentence.startswith("grow reaches 0.9 in 0.")
    assert found.sentence.endswith(
        "of what batch size 32 takes: use it where your loop can change the batch."
    )


def test_a_schedule_that_takes_more_is_told_to() -> None:
    runs, others = pairs_of(1.6, 8, random.Random(1))
    found = judged(runs, others)
    assert found.better is False and "stay with the fixed batch size" in found.sentence


def test_a_schedule_that_takes_about_the_same_is_not_told_apart() -> None:
    runs, others = pairs_of(1.0, 5, random.Random(1))
    found = judged(runs, others)
    assert found.better is None and "is not told apart from batch size 32" in found.sentence


def test_runs_that_were_cut_never_make_a_schedule_better() -> None:
    runs, others = pairs_of(0.5, 5, random.Random(1))
    cut = [run_of(32, 0, 100.0, ends=6.0), *runs[1:]]
    found = judged(cut, others)
    assert found.ratio.high is None and found.better is None and found.reached == 4
    assert "at least" in found.sentence and "1 of its 5 runs were cut" in found.sentence
    slow = [run_of(32, seed, 100.0, ends=30.0) for seed in range(5)]
    assert judged(slow, others).better is False


def test_one_pair_proves_nothing_and_says_so() -> None:
    runs, others = pairs_of(0.5, 1, random.Random(1))
    found = judged(runs, others)
    assert found.better is None and "from one pair of runs" in found.sentence


def test_the_error_of_profiled_seconds_widens_the_interval_of_time_and_no_other() -> None:
    runs, others = pairs_of(0.8, 5, random.Random(1))
    sure = [rows.profile(batch_size=s, step_seconds_low=0.05, step_seconds_high=0.05)
            for s in (32, 64)]  # fmt: skip
    unsure = [replace(p, step_seconds_low=0.04, step_seconds_high=0.06) for p in sure]
    widths = {}
    for goal in ("time", "examples"):
        for name, profiles in (("sure", sure), ("unsure", unsure)):
            ratio = judged(runs, others, goal=goal, profiles=profiles).ratio
            widths[goal, name] = ratio.high / ratio.low
    assert widths["time", "unsure"] > 1.2 * widths["time", "sure"]
    assert widths["examples", "unsure"] == widths["examples", "sure"]


def test_a_schedule_that_was_left_out_says_why_in_the_verdict() -> None:
    _, others = pairs_of(1.0, 3, random.Random(1))
    asked = Scheduled("grow", None, "grow is left out: batch size 64 does not fit", 32)
    found = verdict_of(others, scheduled=asked).schedule
    assert found is not None and found.ratio.value is None
    assert found.sentence == "Grow is left out: batch size 64 does not fit."
