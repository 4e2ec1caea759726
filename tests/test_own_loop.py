"""A training loop of the user's own: a process for each run, reports, and what is told early.

1. Between two reports the function trains, and at no other time.
2. A run leaves nothing behind: no process, no files, no state in the next one.
3. What was reported before an interruption is not reported again.
4. What cannot be swept is told before anything starts, with the user's own line.
5. What cannot be known of the function is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.tracked import profile, result
from tune_jobs.config import SweepConfig, probe_seconds
from tune_jobs.errors import LoopFailed, LoopSilent, UserError
from tune_jobs.measure.fresh import Outcome
from tune_jobs.measure.own_probe import measure_own
from tune_jobs.measure.probe import ProbeRequest, Subject
from tune_jobs.measure.profiling import DeviceProfiler, ProfilePlan, Variants, to_profiles
from tune_jobs.own_loop import own_loop
from tune_jobs.reporting.answer import of_own_loop
from tune_jobs.training import own_facts
from tune_jobs.training.loop import Report, RunSettings
from tune_jobs.training.own_facts import facts
from tune_jobs.training.own_process import OwnProcess, Room
from tune_jobs.training.own_run import OwnRun
from tune_jobs.tuning.failures import reason_of
from tune_jobs.tuning.guard import guarded
from tune_jobs.tuning.requests import Requests, TrialRequest
from tune_jobs.tuning.stages import report_seconds
from tune_jobs.tuning.trial import BatchSizeTrial, SharedByTrials
from tune_jobs.workload_source import WorkloadSource, users_loop

EXAMPLE = Path(__file__).resolve().parents[1] / "models" / "examples" / "own_loop.py"
Runs = Callable[..., OwnRun]


def source_of(name: str) -> WorkloadSource:
    named = name if ":" in name else f"tests.own_loops:{name}"
    return WorkloadSource(name, "mine", None, train=named)


@pytest.fixture
def run_of() -> Iterator[Runs]:
    """Makes a run of a function of `tests/own_loops.py`; all are ended after the test."""
    runs: list[OwnRun] = []

    def make(name: str, room: Room = Room(), **changes: Any) -> OwnRun:  # noqa: B008
        settings: dict[str, Any] = {
            "batch_size": 10, "micro_batch_size": 10, "learning_rate": 0.1, "optimizer": "adam",
            "seed": 0, "budget_examples": 1000, "target": 0.3, "rungs": (250,),
        }  # fmt: skip
        run = OwnRun(RunSettings(**{**settings, **changes}), OwnProcess(source_of(name), room))
        runs.append(run)
        return run

    yield make
    for run in runs:
        run.close()


def to_end(run: OwnRun) -> list[Report]:
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    run.stop()
    return reports


def test_a_run_reports_its_metric_its_rung_and_its_target(run_of: Runs) -> None:
    reports = to_end(run_of("halving"))
    assert [r.examples_seen for r in reports] == list(range(100, 1001, 100))
    assert [r.rung for r in reports][:4] == [None, None, 0, None]
    assert reports[-1].examples_to_target == 700 and reports[-1].updates_to_target == 70
    assert reports[5].examples_to_target is None


def test_a_run_that_stops_at_its_target_ends_there(run_of: Runs) -> None:
    assert to_end(run_of("halving", stops_at_target=True))[-1].examples_seen == 700
    early = to_end(run_of("halving", most_examples=300))
    assert early[-1].examples_seen == 300 and early[-1].done


def test_every_trial_trains_to_the_same_schedule_wherever_it_is_to_end(run_of: Runs) -> None:
    assert run_of("tells_its_budget", most_examples=300).advance().val_metric == 1000.0


def test_the_function_trains_between_its_reports_alone(run_of: Runs) -> None:  # 1
    run = run_of("slow")
    run.advance()
    time.sleep(0.5)  # as a scheduler that thinks
    assert not run.process.connection.poll()
    second = run.advance()
    assert second.examples_seen == 200
    assert 0.1 <= second.train_seconds < 0.3 <= second.wall_time_seconds


def test_train_seconds_leave_out_what_the_function_says_was_evaluation(run_of: Runs) -> None:
    third = [r for r, _ in zip(iter(run_of("slow").advance, None), range(3), strict=False)][-1]
    assert third.evaluation_seconds is not None and third.evaluation_seconds >= 0.3
    assert third.train_seconds + third.evaluation_seconds == pytest.approx(third.wall_time_seconds)
    untold = run_of("halving").advance()  # 5
    assert untold.evaluation_seconds is None
    assert untold.train_seconds == untold.wall_time_seconds


def test_nothing_of_a_run_is_there_in_the_next(run_of: Runs) -> None:  # 2
    first, second = (to_end(run_of("counts_trials", seed=seed))[-1] for seed in (0, 1))
    assert first.val_metric == second.val_metric == 1.0
    assert first.peak_memory_mib and second.peak_memory_mib
    assert first.peak_memory_mib > 300 > second.peak_memory_mib


def test_a_function_that_uses_no_torch_does_not_pay_its_import() -> None:  # 2
    imports = "import sys, tune_jobs.training.own_child; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True)
    assert told.stdout.strip() == "False", told.stderr


def test_a_function_that_does_not_end_is_ended_with_all_that_it_began(
    run_of: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:  # 2
    monkeypatch.setattr("tune_jobs.training.own_process.SECONDS_TO_END", 0.1)
    run = run_of("deaf")
    helper = psutil.Process(int(run.advance().val_metric or 0))
    run.close()
    assert not run.folder.exists() and run.process.child.returncode is not None
    assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE


def test_a_function_ends_when_the_process_that_waits_for_it_does(tmp_path: Path) -> None:  # 2
    code = (
        "import os\n"
        "from tune_jobs.training.own_process import OwnProcess, WorkloadSource\n"
        "source = WorkloadSource('m', 'd', None, train='tests.own_loops:hangs')\n"
        "process = OwnProcess(source)\n"
        "print(process.child.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    psutil.wait_procs([psutil.Process(pid) for pid in map(int, told.stdout.split())
                       if psutil.pid_exists(pid)], timeout=20)  # fmt: skip
    assert not psutil.pid_exists(int(told.stdout))


def test_one_that_reports_again_after_its_end_is_ended_there(run_of: Runs) -> None:  # 2
    run = run_of("reports_again")
    run.advance()
    run.stop()
    assert run.process.child.returncode == 0


def test_an_interrupted_run_goes_on_from_the_files_it_kept(run_of: Runs) -> None:  # 3
    first = run_of("halving")
    for _ in range(4):
        first.advance()
    second = run_of("halving")
    second.load_state(first.state())
    first.close()
    assert [r.examples_seen for r in to_end(second)] == [500, 600, 700, 800, 900, 1000]


def test_one_that_keeps_no_files_begins_anew_and_repeats_nothing(run_of: Runs) -> None:  # 3
    first = run_of("forgetful")
    fourth = [first.advance() for _ in range(4)][-1]
    second = run_of("forgetful")
    second.load_state({**first.state(), "files": {}})
    fifth = second.advance()
    assert fifth.examples_seen == 500
    assert fifth.train_seconds < fifth.wall_time_seconds > fourth.wall_time_seconds


def test_one_that_returns_before_its_budget_is_finished_there_and_told(run_of: Runs) -> None:
    run = run_of("returns_early")
    last = to_end(run)[-1]
    assert (last.examples_seen, last.val_metric, last.done) == (100, 0.9, True)
    assert run.reason == "the function returned by itself after 100 of 1,000 examples"
    no_room_for_another = run_of("leaves_a_part_out")
    assert to_end(no_room_for_another)[-1].examples_seen == 900
    assert no_room_for_another.reason is None


WRONG = [
    ("raises", r"ValueError: no such column \(.*own_loops.py, line \d+\)"),
    ("exits", r"called sys.exit\(4\) \(.*own_loops.py, line \d+\)"),
    ("exits_at_once", "process exited with status 4; it printed last: the licence is missing"),
    ("crashes", "process ended by SIGSEGV"),
    ("silent", "without a report"),
    ("says_text", "val_metric='good'.*must be a number; give"),
    ("says_nothing_seen", "examples_seen=0.*1 or more"),
    ("says_another_word", "unexpected keyword argument 'accuracy'"),
    ("evaluates_longer_than_it_ran", "evaluation_seconds=60.*since the last report"),
]


@pytest.mark.parametrize(("name", "words"), WRONG)
def test_what_a_function_does_wrong_is_told_once_before_anything_starts(
    name: str, words: str
) -> None:  # 4
    with pytest.raises(UserError, match=rf"--train tests.own_loops:{name}: .*{words}.*correct it"):
        facts({"train": f"tests.own_loops:{name}"})


def test_a_function_that_hangs_is_told_with_the_line_where_it_stands(
    run_of: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:  # 4
    monkeypatch.setattr(own_facts, "probe_seconds", lambda _: 3.0)
    stands = r"it stood in .*own_loops.py, line \d+\)"
    with pytest.raises(UserError, match=rf"no report within 3 s \({stands}; .*profile_seconds"):
        facts({"train": "tests.own_loops:hangs"})
    run = run_of("hangs")
    with pytest.raises(LoopSilent, match=stands) as silent, guarded(0.5):
        run.advance()
    assert "time.sleep(600)" in silent.value.trace
    assert run.process.child.returncode is not None


def test_what_memory_ends_is_said_to_be_so(run_of: Runs) -> None:
    with pytest.raises(MemoryError, match="1 TiB"):
        run_of("wants_too_much").advance()
    with pytest.raises(MemoryError, match="SIGKILL"):
        run_of("is_killed").advance()


def test_a_limit_of_memory_holds_in_the_functions_process(run_of: Runs) -> None:
    with pytest.raises(MemoryError):
        run_of("counts_trials", Room(memory_limit_mib=200.0)).advance()


def test_a_flood_of_output_goes_to_the_log_up_to_a_limit(run_of: Runs, tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    run = run_of("floods", Room(log=log))
    run.advance()
    with pytest.raises(LoopFailed, match="exited with status 1; it printed last: the last line"):
        run.advance()
    os.close(log)
    assert 1_000_000 < (tmp_path / "log").stat().st_size < 1_100_000


def test_a_record_keeps_the_traceback_of_the_functions_own_process(run_of: Runs) -> None:
    with pytest.raises(LoopFailed) as raised:
        run_of("raises").advance()
    first, *trace = reason_of_trial(raised.value).splitlines()
    assert re.fullmatch(r"ValueError: no such column \(.*own_loops.py, line \d+\)", first)
    assert any("in raises" in line for line in trace)


def reason_of_trial(error: LoopFailed) -> str:
    from ray.exceptions import RayTaskError

    return reason_of(RayTaskError("step", "of Ray", error).as_instanceof_cause())


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchSizeTrial]:
    """A trial as an actor has it, without Ray."""
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "here")
    monkeypatch.setattr("ray._raylet.setproctitle", lambda title: None)
    monkeypatch.setattr("tune_jobs.tuning.trial.on_a_leaving_node", lambda: False)
    it = object.__new__(BatchSizeTrial)
    it._trial_info = None
    yield it
    it.cleanup()


def begin(trial: BatchSizeTrial, name: str, log: Path) -> None:
    threads = torch.get_num_threads()
    shared = SharedByTrials(
        source_of(name), "adam", 0.3, 1000, (), 0, 0, [], {},
        Requests({10: TrialRequest(1.0, 0.0, None)}, {}), {10: threads}, None, 60.0, {10: 60.0},
        stops_at_target=True,
    )  # fmt: skip
    with log.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        trial.setup({"batch_size": 10, "learning_rate": 0.1, "seed": 0}, shared)


def run_in(trial: BatchSizeTrial) -> OwnRun:
    assert isinstance(trial.run, OwnRun)
    return trial.run


def test_a_trial_ends_its_functions_process_when_it_is_done(
    trial: BatchSizeTrial, tmp_path: Path
) -> None:  # 2
    begin(trial, "halving", tmp_path / "log")
    first = run_in(trial)
    results = [trial.step() for _ in range(7)]
    assert results[-1]["done"] and results[-1]["outcome"] == "finished"
    assert first.process.child.returncode is not None and (first.folder / "seen").exists()
    assert trial.reset_config({"batch_size": 10, "learning_rate": 0.2, "seed": 1})
    second = run_in(trial)
    assert not first.folder.exists() and second.process.child.poll() is None
    trial.cleanup()
    assert second.process.child.returncode is not None and not second.folder.exists()


def test_a_trial_whose_function_fails_leaves_no_process_and_no_file(
    trial: BatchSizeTrial, tmp_path: Path
) -> None:  # 2
    begin(trial, "raises", tmp_path / "log")
    run = run_in(trial)
    with pytest.raises(LoopFailed, match="no such column"):
        trial.step()
    assert run.process.child.returncode is not None and not run.folder.exists()


def test_a_trial_tells_why_its_function_returned_and_that_memory_ended_it(
    trial: BatchSizeTrial, tmp_path: Path
) -> None:
    begin(trial, "returns_early", tmp_path / "log")
    trial.step()
    result = trial.step()
    assert result["done"] and result["outcome"] == "finished"
    assert "returned by itself after 100 of 1,000" in result["reason"]
    begin(trial, "wants_too_much", tmp_path / "log")
    starved = trial.step()
    assert (starved["outcome"], starved["done"]) == ("out_of_memory", True)


def test_a_function_of_which_nothing_is_known_is_told() -> None:  # 4
    with pytest.raises(UserError, match="put @own_loop"):
        facts({"train": "tests.own_loops:undecorated"})
    with pytest.raises(UserError, match="neither 'max' nor 'min'"):
        own_loop(metric="loss", mode="least", budget_examples=10)
    with pytest.raises(UserError, match="budget_examples 0"):
        own_loop(metric="loss", budget_examples=0)
    with pytest.raises(UserError, match=r"--micro-batch 32: .*whole batches"):
        facts({"train": "tests.own_loops:halving", "micro_batch": "32"})


def test_what_the_example_says_of_itself_is_the_sweeps_default() -> None:
    found = facts({"train": f"{EXAMPLE}:train"})
    assert (found["metric"], found["mode"], found["target"]) == ("accuracy", "max", 0.92)
    assert found["model"] == "train" and not found["noise_scale"]


def test_what_cannot_be_known_of_a_function_is_missing_in_its_profile() -> None:  # 5
    subject = Subject(source_of("slow"), "adam", 1e-3, 0, 0, 1, 0.0, None)
    reading = measure_own(ProbeRequest(subject, 10, 10, 0.0))
    (row,) = to_profiles(Variants({(10, 10): [reading]}), subject, [10], None, 0.0)
    assert row.chosen and row.step_seconds == pytest.approx(0.005, rel=0.5)
    assert row.optimizer_seconds is row.evaluation_examples_per_second is None
    assert row.base_memory_mib is None


def test_what_the_function_does_not_tell_and_where_it_ended_stands_beside_the_answer() -> None:
    config = SweepConfig(train="mine.py:train")
    early = result("a", 1, evaluation_seconds=None, outcome="finished", reason="returned by itself")
    whole = result("b", 1, evaluation_seconds=2.0, outcome="finished", reason=None)
    assert of_own_loop(config, [early, whole]) == [
        "The function does not tell its evaluation_seconds, so its train seconds hold them.",
        "1 of 2 runs returned by themselves before their budget; they count as finished where "
        "they ended.",
    ]
    assert of_own_loop(config, [whole]) == of_own_loop(SweepConfig(), [early]) == []


def test_a_function_too_slow_to_be_timed_is_told_so() -> None:  # 4
    class Late:
        def call(self, *asked: Any, **more: Any) -> list[Outcome]:
            return [Outcome(None, "timed_out", "took longer than its time limit and was ended")]

    subject = Subject(source_of("slow"), "adam", 1e-3, 0, 0, 1, 0.0, None)
    with pytest.raises(UserError, match=r"batch size 10: .*longer than its time limit.*raise p"):
        DeviceProfiler(Late(), subject, ProfilePlan((10, 20), "auto", 1.0, 0.1), print).run()


def test_a_trial_may_take_the_time_that_its_imports_need() -> None:
    row = profile(10, 10, outcome="finished", step_seconds=0.01)
    config = SweepConfig(validation_examples=0, budget_examples=1000)
    allowed = report_seconds(config, [row])[10]
    own = report_seconds(replace(config, train="mine.py:train"), [row])[10]
    assert own == allowed + probe_seconds(config.profile_seconds)


def test_lightning_trains_what_a_function_gives(run_of: Runs) -> None:
    pytest.importorskip("lightning", reason="the extra lightning is not installed")
    source = WorkloadSource(
        "make", "mine", None, train=f"{EXAMPLE.with_name('lightning_digits.py')}:make",
        lightning=True,
    )  # fmt: skip
    settings = RunSettings(32, 32, 0.01, "adam", 0, 5000, 0.8)
    run = OwnRun(settings, OwnProcess(source))
    reports = to_end(run)
    run.close()
    epoch = 1400 // 32 * 32  # its last batch left out
    assert [r.examples_seen for r in reports] == [epoch, 2 * epoch, 3 * epoch, 5024]
    assert reports[-1].done and reports[-1].examples_to_target is not None
    assert reports[0].evaluation_seconds


@pytest.mark.skipif(find_spec("lightning") is not None, reason="lightning is installed")
def test_without_lightning_the_command_that_installs_it_is_told() -> None:
    with pytest.raises(UserError, match="needs the package lightning"):
        users_loop("tests.own_loops:halving", lightning=True)
