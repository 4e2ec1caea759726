"""What the measure stage promises, with real processes, real models and a real memory limit.

Invariants:
  1. whatever ends a probe (an exception, the allocator, a signal, its time) is an outcome;
  2. a probe that ran out of memory leaves nothing behind: the next one in the same job runs;
  3. a batch size is never silently another one;
  4. train seconds come from the profile alone, so that neighbours cannot bend them.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import rows
from tune_jobs.config import resolve
from tune_jobs.errors import SweepError, UserError
from tune_jobs.judging.speed import variance_of_seconds
from tune_jobs.measure import cost_model
from tune_jobs.measure.clock import ProfiledClock, feasible
from tune_jobs.measure.fresh import FreshProcesses, Outcome
from tune_jobs.measure.probe import (
    ProbeReading,
    ProbeRequest,
    Subject,
    measure_round,
    measure_update,
)
from tune_jobs.measure.profiling import (
    DeviceProfiler,
    ProfilePlan,
    Variants,
    balanced,
    threads_per_trial,
    to_profiles,
)
from tune_jobs.records import BatchSizeProfile
from tune_jobs.training.out_of_memory import is_out_of_memory, requested_mib
from tune_jobs.tuning.requests import gpu_fraction, host_memory_mib, trial_requests
from tune_jobs.workload_source import WorkloadSource


def give_back(value: Any) -> Any:
    return value


def fail(text: str) -> None:
    raise RuntimeError(text)


def end_self(number: int) -> None:
    os.kill(os.getpid(), number)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def broken_model(input_shape: tuple[int, int, int], classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, classes))


def normalised_model(input_shape: tuple[int, int, int], classes: int) -> torch.nn.Module:
    pixels = math.prod(input_shape)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(pixels, 32),
        torch.nn.BatchNorm1d(32),
        torch.nn.Linear(32, classes),
        torch.nn.LogSoftmax(1),
    )


def sleep_noted(note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.slow
def test_what_a_probe_does_ends_with_those_that_asked(tmp_path: Path) -> None:
    """Interrupted in the middle of a call, the parent closes; nothing waits for the probe."""
    note = tmp_path / "process"
    processes = FreshProcesses(shows=False)
    ended: list[SweepError] = []

    def ask() -> None:
        try:
            processes.call(sleep_noted, str(note), 60.0)
        except SweepError as error:
            ended.append(error)

    asked = threading.Thread(target=ask)
    asked.start()
    while not (note.exists() and note.read_text()):
        time.sleep(0.05)
    began = time.monotonic()
    processes.close()
    asked.join(20)
    assert ended and time.monotonic() - began < 20
    with suppress(psutil.NoSuchProcess):
        probe = psutil.Process(int(note.read_text()))
        while probe.status() != psutil.STATUS_ZOMBIE:  # a busy machine ends it a moment later
            assert time.monotonic() - began < 20
            time.sleep(0.05)


def test_a_value_comes_back_from_every_copy(fresh: FreshProcesses) -> None:
    outcomes = fresh.call(give_back, {"a": 1}, 20, copies=2)
    assert [o.value for o in outcomes] == [{"a": 1}] * 2


@pytest.mark.parametrize(
    ("function", "argument", "ended", "out_of_memory"),
    [
        (fail, "no such layer", "raised", False),
        (fail, "CUDA out of memory. Tried to allocate 2.00 GiB.", "raised", True),
        (end_self, signal.SIGKILL, "killed", True),
        (end_self, signal.SIGSEGV, "killed", False),
        (sleep, 60.0, "timed_out", False),
    ],
)
def test_whatever_ends_a_probe_is_an_outcome_and_the_next_one_runs(
    fresh: FreshProcesses,
    function: Callable[[Any], None],
    argument: Any,
    ended: str,
    out_of_memory: bool,
) -> None:  # 1, 2
    outcome = fresh.call(function, argument, 3.0)[0]
    assert (outcome.ended, outcome.out_of_memory) == (ended, out_of_memory), outcome
    assert outcome.reason
    assert fresh.call(give_back, 7, 20)[0].value == 7


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1048576 bytes.",
        "std::bad_alloc",
    ],
)
def test_every_allocator_is_understood(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(MemoryError())


def test_the_bytes_that_were_asked_for_are_read() -> None:
    assert requested_mib(RuntimeError("you tried to allocate 1048576 bytes.")) == 1.0
    assert requested_mib(RuntimeError("Tried to allocate 2.50 GiB. GPU 0")) == 2560.0
    assert requested_mib(RuntimeError("std::bad_alloc")) is None


def plan(*sizes: int, micro_batch: str = "auto") -> ProfilePlan:
    return ProfilePlan(sizes, micro_batch, cap_seconds=5.0, margin=0.1)


def profiled(
    fresh: FreshProcesses, subject: Subject, what: ProfilePlan
) -> list[rows.BatchSizeProfile]:
    seen = DeviceProfiler(fresh, subject, what, lambda line: None).run()
    return to_profiles(seen, subject, what.batch_sizes, "here", 0.0)


def test_a_profile_has_a_chosen_row_for_every_batch_size(
    fresh: FreshProcesses, digits: Subject
) -> None:
    found = profiled(fresh, digits, replace(plan(8, 64), cap_seconds=20.0))
    assert feasible(found) == (8, 64)
    for row in found:
        if row.chosen:
            assert row.rounds >= 2 and row.step_seconds_min <= row.step_seconds
            assert row.examples_per_second == row.batch_size / row.step_seconds
            assert row.peak_memory_mib >= row.training_memory_mib > 100


def test_under_a_limit_the_largest_feasible_batch_is_named_and_trains(
    fresh: FreshProcesses, mnist_dir: Path
) -> None:  # 1, 2, 3
    subject = Subject(
        WorkloadSource("simple_cnn", "mnist", str(mnist_dir / "mnist.arrow")),
        "adam",
        3e-3,
        2500,
        0,
        1,
        0.0,
        900.0,
    )
    found = profiled(fresh, subject, plan(64, 1024, micro_batch="whole"))
    refused = next(r for r in found if r.batch_size == 1024)
    assert refused.outcome == "out_of_memory" and not refused.chosen
    assert feasible(found) == (64,)
    limits = cost_model.limits([r for r in found if r.outcome == "finished"], 0.1, 57_500)
    assert 64 <= (limits.largest_batch_size or 0) < 1024
    request = ProbeRequest(
        subject, limits.largest_batch_size or 0, limits.largest_batch_size or 0, 0
    )
    assert fresh.call(measure_update, request, 60)[0].ended == "returned"


def test_a_batch_that_does_not_fit_whole_is_accumulated(
    fresh: FreshProcesses, mnist_dir: Path
) -> None:
    subject = Subject(
        WorkloadSource("simple_cnn", "mnist", str(mnist_dir / "mnist.arrow")),
        "adam",
        3e-3,
        2500,
        0,
        1,
        0.0,
        900.0,
    )
    found = profiled(fresh, subject, plan(64, 1024))
    chosen = next(r for r in found if r.batch_size == 1024 and r.chosen)
    assert chosen.micro_batch_size < 1024 and chosen.outcome == "finished"
    whole = next(r for r in found if r.micro_batch_size == 1024)
    assert whole.outcome == "out_of_memory" and whole.requested_mib


def test_a_model_that_fails_is_told_as_such_with_its_traceback(
    fresh: FreshProcesses, digits: Subject
) -> None:
    subject = replace(
        digits, source=replace(digits.source, model="tests.test_measure:broken_model")
    )
    with pytest.raises(UserError, match=r"(?s)not for want of memory.*Traceback"):
        profiled(fresh, subject, plan(8, 16))


def test_batch_normalisation_refuses_one_example_and_is_not_accumulated(
    fresh: FreshProcesses, digits: Subject
) -> None:
    subject = replace(
        digits, source=replace(digits.source, model="tests.test_measure:normalised_model")
    )
    with pytest.raises(UserError, match="leave 1 out of --batch-sizes"):
        profiled(fresh, subject, plan(1, 16))
    found = profiled(fresh, subject, plan(8, 512))
    assert all(row.micro_batch_size == row.batch_size for row in found)


class Scripted:
    """A device whose costs are known: seconds = a + b B, memory = m0 + m1 B, up to a limit."""

    def __init__(self, limit_mib: float) -> None:
        self.limit_mib = limit_mib
        self.probed: list[tuple[int, int]] = []

    def call(self, function: Any, argument: Any, timeout_seconds: float, copies: int = 1) -> Any:
        if function is measure_round:
            steps = [(self.step(a.batch_size, a.micro_batch_size),) * 3 for a in argument]
            return [Outcome(steps, "returned")]
        size, micro = argument.batch_size, argument.micro_batch_size
        self.probed.append((size, micro))
        peak = 100 + 2.0 * micro
        if peak > self.limit_mib:
            return [Outcome(None, "raised", "out of memory", None, True)]
        return [Outcome(reading(self.step(size, micro), peak, self.limit_mib), "returned")]

    @staticmethod
    def step(size: int, micro: int) -> float:
        return math.ceil(size / micro) * 0.004 + 0.001 * size + 0.001


def reading(step: float, peak: float, limit: float) -> ProbeReading:
    return ProbeReading(
        (step,) * 3, 0.001, 1e4, 50.0, peak, peak, None, limit, None, False, 10_000, "cpu"
    )


def test_known_costs_are_found_again_and_the_prediction_is_verified(digits: Subject) -> None:
    device = Scripted(limit_mib=2000.0)
    seen = DeviceProfiler(device, digits, plan(16, 64, 256), lambda line: None).run()
    found = to_profiles(seen, digits, (16, 64, 256), None, 0.0)
    limits = cost_model.limits(found, 0.1, 10_000)
    assert limits.step_seconds is not None and limits.memory_mib is not None
    assert limits.step_seconds.intercept == pytest.approx(0.005)
    assert limits.step_seconds.slope == pytest.approx(0.001)
    assert limits.plateau_batch_size == pytest.approx(45)
    assert limits.predicted_largest == 850 and limits.verified
    assert (850, 850) in device.probed
    assert feasible(found) == (16, 64, 256)


class Threaded:
    """Examples per second in all, with so many threads for each of the copies, are known; a
    neighbour halves what the first probe sees, if it is `slowed`."""

    def __init__(self, totals: Sequence[float], slowed: bool) -> None:
        self.totals = dict(zip((1, 2, 4), totals, strict=True))
        self.slowed = slowed

    def call(self, function: Any, argument: Any, timeout_seconds: float, copies: int = 1) -> Any:
        step = copies * argument.batch_size / self.totals[argument.subject.threads]
        step, self.slowed = step * (2 if self.slowed else 1), False
        return [Outcome(reading(step, 100.0, 2000.0), "returned")] * copies


def test_a_trial_has_more_threads_where_that_is_clearly_faster_alone(digits: Subject) -> None:
    told = [(1244, 1248, 1240), (1000, 1300, 1310), (1000, 1080, 1180), (900, 700, 500)]
    for slowed in (False, True):
        found = [threads_per_trial(Threaded(of, slowed), digits, 64, 4)[0] for of in told]
        assert found == [1, 2, 2, 1]


def rounds_of(paces: Sequence[float], noise: float, digits: Subject) -> list[BatchSizeProfile]:
    """Profiled at costs that are known, each round at its own pace of the machine."""
    chance = np.random.default_rng(0)
    seen = Variants()
    for size in (16, 64, 256):
        luck = np.exp(noise * chance.standard_normal(len(paces)))
        steps = Scripted.step(size, size) * np.array(paces) * luck
        seen.readings[size, size] = [reading(float(s), 100.0, 2000.0) for s in steps]
    return to_profiles(seen, digits, (16, 64, 256), None, 0.0)


def test_what_slows_all_batch_sizes_of_a_round_tells_none_of_them_apart(digits: Subject) -> None:
    steady, drifting = (rounds_of(p, 0.01, digits) for p in ((1, 1, 1), (1.0, 2.1, 1.4)))
    for row, still in zip(drifting, steady, strict=True):
        assert row.step_deviation == pytest.approx(still.step_deviation)
        assert row.step_deviation is not None and row.step_deviation < 0.02
        assert row.step_seconds_low is not None and row.step_seconds_high is not None
        assert row.step_seconds_high > 2 * row.step_seconds_low  # in seconds it is not known
        assert row.step_seconds is not None and still.step_seconds is not None
        pace = row.step_seconds / still.step_seconds
        assert pace == pytest.approx((2.1 * 1.4) ** (1 / 3))
    assert variance_of_seconds(drifting)[64] == pytest.approx(0, abs=4e-4)


def test_of_one_batch_size_alone_all_noise_is_its_own(digits: Subject) -> None:
    seen = Variants({(16, 16): [reading(s, 100.0, 2000.0) for s in (0.1, 0.11, 0.13)]})
    (row,) = to_profiles(seen, digits, (16,), None, 0.0)
    assert row.step_deviation is not None and row.step_deviation > 0.1
    assert row.step_seconds == pytest.approx(0.11)
    seen.readings[16, 16] = seen.readings[16, 16][:2]  # two rounds, 10 % apart
    (twice,) = to_profiles(seen, digits, (16,), None, 0.0)
    assert twice.step_deviation is not None and 0.05 < twice.step_deviation < 0.2
    (once,) = to_profiles(
        Variants({(16, 16): [reading(0.1, 100.0, 2000.0)]}), digits, (16,), None, 0.0
    )
    assert once.step_deviation is None and once.step_seconds == pytest.approx(0.1)


def test_what_was_refused_once_is_not_tried_larger(digits: Subject) -> None:
    device = Scripted(limit_mib=300.0)
    seen = DeviceProfiler(device, digits, plan(64, 128, 256), lambda line: None).run()
    found = to_profiles(seen, digits, (64, 128, 256), None, 0.0)
    assert (256, 256) not in device.probed
    told = next(r for r in found if (r.batch_size, r.micro_batch_size) == (256, 256))
    assert told.outcome == "out_of_memory" and "not tried" in str(told.reason)
    assert next(r for r in found if r.batch_size == 256 and r.chosen).micro_batch_size == 64


@pytest.mark.parametrize("limit", [260.0, 150.0, 102.0])
def test_where_nothing_fits_whole_smaller_passes_are_tried(limit: float, digits: Subject) -> None:
    device = Scripted(limit_mib=limit)
    seen = DeviceProfiler(device, digits, plan(90, 180), lambda line: None).run()
    found = to_profiles(seen, digits, (90, 180), None, 0.0)
    assert feasible(found) == (90, 180)
    assert all(100 + 2 * r.micro_batch_size <= limit for r in found if r.chosen)


@pytest.mark.parametrize(
    ("limit", "micro_batch", "says"),
    [(101.0, "auto", "out of memory; give smaller"), (260.0, "whole", "180 examples in one pass")],
)
def test_where_nothing_fits_at_all_it_is_told(
    limit: float, micro_batch: str, says: str, digits: Subject
) -> None:
    way = plan(180, 360, micro_batch=micro_batch)
    with pytest.raises(UserError, match=rf"none of the batch sizes 180, 360 fits: .*{says}"):
        DeviceProfiler(Scripted(limit), digits, way, lambda line: None).run()


def test_a_limit_below_what_the_process_holds_is_refused(
    fresh: FreshProcesses, digits: Subject
) -> None:
    with pytest.raises(UserError, match=r"^--memory-limit-mib 90: the process holds \d{3,} MiB"):
        profiled(fresh, replace(digits, memory_limit_mib=90.0), plan(8, 24))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_passes_are_cut_evenly(size: int, micro: int) -> None:
    each = balanced(size, min(micro, size))
    assert each <= min(micro, size)
    assert math.ceil(size / each) == math.ceil(size / min(micro, size))


def test_a_bad_fit_is_called_bad() -> None:
    fit = cost_model.fit_line([16, 32, 64, 128], [1.0, 5.0, 2.0, 9.0])
    assert fit is not None and not fit.good
    assert cost_model.plateau_batch_size(fit) is None
    assert cost_model.fit_line([16, 16], [1.0, 2.0]) is None


def test_train_seconds_are_updates_through_the_profile() -> None:  # 4
    clock = ProfiledClock(
        [rows.profile(step_seconds=0.05), rows.profile(chosen=False, step_seconds=9)]
    )
    assert clock.seconds("cpu", 32, 100) == pytest.approx(5.0)
    assert clock.seconds("cpu", 64, 100) is None
    assert clock.seconds("NVIDIA", 32, 100) is None
    assert clock.seconds("cpu", 32, None) is None


def test_requests_follow_the_measured_memory() -> None:
    config = resolve(None, {"batch_sizes": (32, 64), "trials": 2})
    small = rows.profile(peak_memory_mib=700.0)
    large = rows.profile(batch_size=64, micro_batch_size=64, peak_memory_mib=2000.0)
    asked = trial_requests(config, [small, large], 0)
    assert asked[32].memory_mib == host_memory_mib(700.0) == 2048
    assert asked[64].memory_mib == 3072 and asked[64].cpus == 1.0


@pytest.mark.parametrize(
    ("reserved", "fraction"), [(1_000.0, 0.25), (20_000.0, 0.5), (60_000.0, 1.0), (None, 0.25)]
)
def test_the_fraction_of_a_gpu_follows_the_reserved_memory(
    reserved: float | None, fraction: float
) -> None:
    row = rows.profile(reserved_memory_mib=reserved, memory_limit_mib=80_000.0, gpus=1.0)
    assert gpu_fraction(row, resolve(None, {})) == fraction
