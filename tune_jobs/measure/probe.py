"""What one update costs: measured in the process that calls this, which should be a fresh one.

One measurement:

    model, data | 2 updates | update update update ... | optimizer step x5 | evaluation
    ^ base memory   warm-up   ^ timed, synchronized                          ^             ^
                                                              training memory    peak memory
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from tune_jobs.data.examples import Split, splits_of
from tune_jobs.errors import UserError
from tune_jobs.measure.input_pipeline import InputPipeline, input_pipeline
from tune_jobs.measure.noise_along_training import default_points, noise_along_training
from tune_jobs.recipe import PLAIN, Recipe
from tune_jobs.records import NoiseScale
from tune_jobs.training import allocator
from tune_jobs.training import device as devices
from tune_jobs.training.batch_norm import has_batch_norm
from tune_jobs.training.loop import RunSettings, TrainingRun
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.workload_source import WorkloadSource

WARM_UPDATES = 2
OPTIMIZER_STEPS = 5
EVALUATION_SAMPLE = 250
ENOUGH_SPREAD = 0.03


@dataclass(frozen=True)
class Subject:
    """What is measured: everything that stays the same over batch sizes."""

    source: WorkloadSource
    optimizer: str
    base_learning_rate: float
    validation_examples: int
    split_seed: int
    threads: int
    gpus: float
    memory_limit_mib: float | None
    recipe: Recipe = PLAIN


@dataclass(frozen=True)
class ProbeRequest:
    """One batch size, cut into micro-batches, timed for at most `seconds` after warming up.

    Attributes:
        fewest_updates: timed updates to make even when the time is used up.
    """

    subject: Subject
    batch_size: int
    micro_batch_size: int
    seconds: float
    fewest_updates: int = 3


@dataclass(frozen=True)
class ProbeReading:
    """What was measured; fields as in `BatchSizeProfile`, seconds for each timed update.

    None is what cannot be known of a training function of the user's own. `begin_seconds` are those
    before it is timed, where it has a process of its own.
    """

    update_seconds: tuple[float, ...]
    optimizer_seconds: float | None
    evaluation_examples_per_second: float | None
    base_memory_mib: float | None
    training_memory_mib: float | None
    peak_memory_mib: float | None
    reserved_memory_mib: float | None
    memory_limit_mib: float
    allocator_retries: int | None
    batch_norm: bool
    train_examples: int
    device: str
    pipeline: InputPipeline | None = None
    begin_seconds: float | None = None


def measure_update(request: ProbeRequest) -> ProbeReading:
    """Train some updates of `request.batch_size` examples, then evaluate; tell time and memory."""
    if request.subject.source.train is not None:
        from tune_jobs.measure.own_probe import measure_own

        return measure_own(request)
    allocator.keep_pages()
    subject = request.subject
    torch.set_num_threads(subject.threads)
    device = devices.pick(subject.gpus)
    base = _base_memory_mib(subject, device)
    limit = subject.memory_limit_mib or devices.total_memory_mib(device)
    if limit <= base:
        raise UserError(
            f"--memory-limit-mib {limit:g}: the process holds {base:.0f} MiB before it trains, its "
            "libraries and the data; raise it above that, or leave it out"
        )
    if subject.memory_limit_mib is not None:
        devices.limit_memory(device, limit, base)
    run, seconds = _timed_updates(request, device)
    steps = _timed(lambda: run.optimizer.step(), device, _few(request))
    training_peak = devices.peak_memory_mib(device)
    pipeline = input_pipeline(run, request.seconds)
    if pipeline is not None and pipeline.workers:
        # Workers had batches in stock when the clock began; in the long run they are the limit.
        seconds = [max(s, pipeline.loading_seconds) for s in seconds]
    sample = Split(run.validation.examples, run.validation.indices[:EVALUATION_SAMPLE])
    run.evaluate(sample)
    began = time.perf_counter()
    run.evaluate(sample)
    devices.synchronize(device)
    return ProbeReading(
        update_seconds=tuple(seconds),
        optimizer_seconds=statistics.median(steps),
        evaluation_examples_per_second=len(sample.indices) / (time.perf_counter() - began),
        base_memory_mib=base,
        training_memory_mib=training_peak,
        peak_memory_mib=devices.peak_memory_mib(device),
        reserved_memory_mib=devices.reserved_memory_mib(device),
        memory_limit_mib=limit,
        allocator_retries=devices.allocator_retries(device),
        batch_norm=has_batch_norm(run.model),
        train_examples=len(run.stream.indices),
        device=devices.describe(device),
        pipeline=pipeline,
    )


def measure_round(requests: Sequence[ProbeRequest]) -> list[tuple[float, ...]]:
    """Seconds of updates of each request once more, in turn in one process, which spares each the
    beginning of one. Memory is not measured: what one leaves, the next holds."""
    allocator.keep_pages()
    found = []
    for request in requests:
        torch.set_num_threads(request.subject.threads)
        _, seconds = _timed_updates(request, devices.pick(request.subject.gpus))
        found.append(tuple(seconds))
    return found


@dataclass(frozen=True)
class RoundsRequest:
    """So many rounds of the requests in one process; two at the fewest, none is begun that would
    end after `cap_seconds`."""

    requests: tuple[ProbeRequest, ...]
    rounds: int
    cap_seconds: float


def measure_rounds(request: RoundsRequest) -> list[list[tuple[float, ...]]]:
    """Rounds as of `measure_round`: so close together, what a busy moment slows is slowed alike."""
    began, found = time.perf_counter(), [measure_round(request.requests)]
    while len(found) < request.rounds:
        each = (time.perf_counter() - began) / len(found)
        if len(found) > 1 and each * (len(found) + 1) > request.cap_seconds:
            break
        found.append(measure_round(request.requests))
    return found


@dataclass(frozen=True)
class NoiseRequest:
    """One training run along which the noise scale is measured, for at most `cap_seconds`."""

    subject: Subject
    batch_size: int
    micro_batch_size: int
    budget_examples: int
    cap_seconds: float


def measure_noise(request: NoiseRequest) -> list[NoiseScale]:
    """Train at the scaling rule's learning rate; the noise scale at a few points and on average."""
    allocator.keep_pages()
    torch.set_num_threads(request.subject.threads)
    device = devices.pick(request.subject.gpus)
    run = training_run(request.subject, request.batch_size, request.micro_batch_size, device)
    points = default_points(request.budget_examples)
    return noise_along_training(run, run.stream.indices, points, cap_seconds=request.cap_seconds)


def training_run(
    subject: Subject, batch_size: int, micro_batch_size: int, device: torch.device
) -> TrainingRun:
    """The run that a trial of this batch size would make."""
    workload = subject.source.open()
    splits = splits_of(workload, subject.validation_examples, subject.split_seed, device)
    settings = RunSettings(
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=scaled_learning_rate(
            subject.optimizer, subject.base_learning_rate, batch_size
        ),
        optimizer=subject.optimizer,
        seed=0,
        budget_examples=len(splits.train.indices),
        recipe=subject.recipe,
        target=math.inf if workload.metric.mode == "max" else -math.inf,
    )
    return TrainingRun(settings, workload, splits, device)


def _base_memory_mib(subject: Subject, device: torch.device) -> float:
    """What the process holds once its libraries' code has been read in; 0 on CUDA.

    An update of two examples reads it; else the first real update would seem to cost that too.
    """
    if device.type != "cpu":
        return 0.0
    _update(training_run(subject, 2, 2, device))
    allocator.give_pages_back()
    return devices.resident_memory_mib()


def median_spread(values: list[float]) -> float:
    """Half the width of a 95 % interval of the median, relative to it; infinite below 3 values.

    From the median absolute deviation, so that a neighbour's bursts do not widen it.
    """
    if len(values) < 3:
        return math.inf
    median = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(v - median) for v in values)
    return 1.96 * 1.2533 * deviation / math.sqrt(len(values)) / median


def _timed_updates(request: ProbeRequest, device: torch.device) -> tuple[TrainingRun, list[float]]:
    """A run of the request, and the seconds of its updates once it is warm."""
    run = training_run(request.subject, request.batch_size, request.micro_batch_size, device)
    for _ in range(WARM_UPDATES):
        _update(run)
    return run, _timed(lambda: _update(run), device, request)


def _update(run: TrainingRun) -> None:
    run.update(run.next_batch())
    run.progress.updates += 1


def _timed(
    action: Callable[[], object], device: torch.device, request: ProbeRequest
) -> list[float]:
    """Seconds of each call, until the median is known to 3 % or the time is used up."""
    seconds: list[float] = []
    ends = time.perf_counter() + request.seconds
    devices.synchronize(device)
    while len(seconds) < request.fewest_updates or (
        time.perf_counter() < ends
        and (len(seconds) < 2 * request.fewest_updates or median_spread(seconds) > ENOUGH_SPREAD)
    ):
        began = time.perf_counter()
        action()
        devices.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return seconds


def _few(request: ProbeRequest) -> ProbeRequest:
    return replace(request, seconds=0.0, fewest_updates=OPTIMIZER_STEPS)
