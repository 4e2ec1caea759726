"""A training loop of the user's own: reports, leave to go on, its end, and what is told early.

1. Between two reports the function trains, and at no other time.
2. It ends when it is told to, and a process in which it does not is given up.
3. What was reported before an interruption is not reported again.
4. What cannot be swept is told before anything starts.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.trained import CPU
from tune_jobs.errors import UserError
from tune_jobs.measure.own_probe import measure_own
from tune_jobs.measure.probe import ProbeRequest, Subject
from tune_jobs.measure.profiling import Variants, to_profiles
from tune_jobs.own_loop import OwnLoop, Settings, Told, own_loop
from tune_jobs.training.loop import Report, RunSettings
from tune_jobs.training.own_facts import facts
from tune_jobs.training.own_run import OwnRun, Returned
from tune_jobs.workload_source import WorkloadSource, users_loop

EXAMPLE = Path(__file__).resolve().parents[1] / "models" / "examples" / "own_loop.py"


@own_loop(metric="loss", mode="min", target=0.3, budget_examples=1000)
def halving(settings: Settings, report: Told) -> None:
    """Reports every 100 examples; keeps where it stands in its folder."""
    kept = settings.checkpoint_folder / "seen"
    seen = int(kept.read_text()) if kept.exists() else 0
    while seen < settings.budget_examples:
        seen += 100
        kept.write_text(str(seen))
        if not report(examples_seen=seen, val_metric=(1000 - seen) / 1000, updates=seen // 10):
            return


def loop_of(function: Any) -> OwnLoop:
    return own_loop(metric="loss", mode="min", target=0.3, budget_examples=1000)(function)


def run_of(loop: OwnLoop, folder: Path, **changes: Any) -> OwnRun:
    settings: dict[str, Any] = {
        "batch_size": 10, "micro_batch_size": 10, "learning_rate": 0.1, "optimizer": "adam",
        "seed": 0, "budget_examples": 1000, "target": 0.3, "rungs": (250,),
    }  # fmt: skip
    return OwnRun(RunSettings(**{**settings, **changes}), loop, CPU, folder)


def to_end(run: OwnRun) -> list[Report]:
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    assert run.stop()
    return reports


def test_a_run_reports_its_metric_its_rung_and_its_target(tmp_path: Path) -> None:
    reports = to_end(run_of(halving, tmp_path))
    assert [r.examples_seen for r in reports] == list(range(100, 1001, 100))
    assert [r.rung for r in reports][:4] == [None, None, 0, None]
    assert reports[-1].examples_to_target == 700 and reports[-1].updates_to_target == 70
    assert reports[5].examples_to_target is None


def test_a_run_that_stops_at_its_target_ends_there(tmp_path: Path) -> None:
    assert to_end(run_of(halving, tmp_path, stops_at_target=True))[-1].examples_seen == 700
    early = to_end(run_of(halving, tmp_path / "other", most_examples=300))
    assert early[-1].examples_seen == 300 and early[-1].done


def test_the_function_trains_between_its_reports_alone(tmp_path: Path) -> None:  # 1
    def slow(settings: Settings, report: Told) -> None:
        for seen in range(100, 1001, 100):
            time.sleep(0.05)
            report(examples_seen=seen, val_metric=1.0)

    run = run_of(loop_of(slow), tmp_path)
    run.advance()
    time.sleep(0.4)  # as a scheduler that thinks
    assert run.told.empty()
    second = run.advance()
    assert second.examples_seen == 200 and 0.1 <= second.train_seconds < 0.3
    assert run.stop()


def test_a_function_that_goes_on_regardless_is_told_of(tmp_path: Path) -> None:  # 2
    def deaf(settings: Settings, report: Told) -> None:
        report(examples_seen=100, val_metric=1.0)
        time.sleep(60)

    run = run_of(loop_of(deaf), tmp_path)
    run.advance()
    assert not run.stop()


def test_an_interrupted_run_goes_on_from_the_files_it_kept(tmp_path: Path) -> None:  # 3
    first = run_of(halving, tmp_path / "one")
    for _ in range(4):
        first.advance()
    second = run_of(halving, tmp_path / "two")
    second.load_state(first.state())
    first.stop()
    assert [r.examples_seen for r in to_end(second)] == [500, 600, 700, 800, 900, 1000]


def test_one_that_keeps_no_files_begins_anew_and_repeats_nothing(tmp_path: Path) -> None:  # 3
    def forgetful(settings: Settings, report: Told) -> None:
        for seen in range(100, 1001, 100):
            report(examples_seen=seen, val_metric=1.0)

    second = run_of(loop_of(forgetful), tmp_path)
    second.load_state({"progress": {}, "seen": 400, "examples_to_target": 0, "files": {}})
    assert second.advance().examples_seen == 500
    assert second.stop()


def test_one_that_returns_early_ends_with_what_it_said_last(tmp_path: Path) -> None:
    def short(settings: Settings, report: Told) -> None:
        report(examples_seen=100, val_metric=0.9)

    last = to_end(run_of(loop_of(short), tmp_path))[-1]
    assert (last.examples_seen, last.val_metric, last.done) == (100, 0.9, True)


def raises(settings: Settings, report: Told) -> None:
    raise ValueError("no such column")


def exits(settings: Settings, report: Told) -> None:
    sys.exit(4)


def silent(settings: Settings, report: Told) -> None:
    return None


def says_text(settings: Settings, report: Any) -> None:
    report(examples_seen=10, val_metric="good")


def says_nothing_seen(settings: Settings, report: Any) -> None:
    report(examples_seen=0, val_metric=1.0)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (raises, ValueError, "no such column"), (exits, Returned, r"sys.exit\(4\)"),
        (silent, UserError, "without a report"), (says_text, UserError, "must be a number; give"),
        (says_nothing_seen, UserError, "1 or more"),
    ],
)  # fmt: skip
def test_what_a_function_does_wrong_reaches_whoever_waits(
    tmp_path: Path, function: Any, error: Any, words: str
) -> None:  # 4
    with pytest.raises(error, match=words):
        run_of(loop_of(function), tmp_path).advance()


def test_a_function_of_which_nothing_is_known_is_told() -> None:  # 4
    with pytest.raises(UserError, match="put @own_loop"):
        users_loop("tests.test_own_loop:raises")
    with pytest.raises(UserError, match="neither 'max' nor 'min'"):
        own_loop(metric="loss", mode="least", budget_examples=10)
    with pytest.raises(UserError, match="budget_examples 0"):
        own_loop(metric="loss", budget_examples=0)


def test_what_the_example_says_of_itself_is_the_sweeps_default() -> None:
    found = facts({"train": f"{EXAMPLE}:train"})
    assert (found["metric"], found["mode"], found["target"]) == ("accuracy", "max", 0.92)
    assert found["model"] == "train" and not found["noise_scale"]


def test_lightning_trains_what_a_function_gives(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="the extra lightning is not installed")
    loop = users_loop(f"{EXAMPLE.with_name('lightning_digits.py')}:make", lightning=True)
    run = run_of(
        loop, tmp_path, batch_size=32, budget_examples=5000, learning_rate=0.01, target=0.8
    )
    reports = to_end(run)
    assert reports[0].examples_seen == 1400 // 32 * 32  # an epoch, its last batch left out
    assert reports[-1].done and reports[-1].examples_to_target is not None


@pytest.mark.skipif(find_spec("lightning") is not None, reason="lightning is installed")
def test_without_lightning_the_command_that_installs_it_is_told() -> None:
    with pytest.raises(UserError, match="needs the package lightning"):
        users_loop("tests.test_own_loop:halving", lightning=True)


def test_every_trial_trains_to_the_same_schedule_wherever_it_is_to_end(tmp_path: Path) -> None:
    def tells_its_budget(settings: Settings, report: Told) -> None:
        report(examples_seen=100, val_metric=float(settings.budget_examples))

    planned = run_of(loop_of(tells_its_budget), tmp_path, most_examples=300)
    assert planned.advance().val_metric == 1000.0
    assert planned.stop()


def test_what_cannot_be_known_of_a_function_is_missing_in_its_profile() -> None:
    source = WorkloadSource("train", "mine", None, train=f"{EXAMPLE}:train")
    subject = Subject(source, "adam", 1e-3, 0, 0, 1, 0.0, None)
    reading = measure_own(ProbeRequest(subject, 64, 64, 0.0))
    (row,) = to_profiles(Variants({(64, 64): [reading]}), subject, [64], None, 0.0)
    assert row.chosen and row.step_seconds
    assert row.optimizer_seconds is row.evaluation_examples_per_second is None
    assert row.base_memory_mib is None
