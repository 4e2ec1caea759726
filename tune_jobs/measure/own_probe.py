"""What a user's own loop costs: a short run of its own, timed between its reports.

What cannot be known of it (the optimizer's part, an evaluation apart from training, passes smaller
than a batch) is left out.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from itertools import pairwise

from tune_jobs.measure.probe import ProbeReading, ProbeRequest
from tune_jobs.training import device as devices
from tune_jobs.training.loop import RunSettings
from tune_jobs.training.own_process import OwnProcess, Room
from tune_jobs.training.own_run import OwnRun
from tune_jobs.training.scaling import scaled_learning_rate

FEWEST_REPORTS = 2


def measure_own(request: ProbeRequest) -> ProbeReading:
    """Let the function train for about `request.seconds`, and at least to its second report; one
    that reports once is timed as a whole."""
    subject, size = request.subject, request.batch_size
    device = devices.pick(subject.gpus)
    limit = subject.memory_limit_mib or devices.total_memory_mib(device)
    room = Room(
        device="cpu" if device.type == "cpu" else "cuda:0",
        threads=subject.threads,
        memory_limit_mib=subject.memory_limit_mib,
        gpu_share=limit / devices.total_memory_mib(device),
        log=1,
    )
    asked_at = time.perf_counter()
    process = OwnProcess(subject.source, room)
    began = time.perf_counter()
    rate = scaled_learning_rate(subject.optimizer, subject.base_learning_rate, size)
    endless = math.inf if process.mode == "max" else -math.inf
    settings = RunSettings(size, size, rate, subject.optimizer, 0, process.budget_examples, endless)
    seconds, examples = [0.0], [0]
    with closing(OwnRun(settings, process)) as run:
        while len(seconds) <= FEWEST_REPORTS or time.perf_counter() - began < request.seconds:
            report = run.advance()
            seconds.append(report.train_seconds)
            examples.append(report.examples_seen)
            if report.done:
                break
    first = 1 if len(seconds) > FEWEST_REPORTS else 0  # the first stretch begins with imports, data
    pairs = pairwise(list(zip(seconds, examples, strict=True))[first:])
    peak = run.progress.peak_memory_mib
    return ProbeReading(
        update_seconds=tuple((t - s) / (b - a) * size for (s, a), (t, b) in pairs if b > a),
        optimizer_seconds=None,
        evaluation_examples_per_second=None,
        base_memory_mib=None,
        training_memory_mib=peak,  # its evaluations' memory is not told apart
        peak_memory_mib=peak,
        reserved_memory_mib=run.reserved_memory_mib,
        memory_limit_mib=limit,
        allocator_retries=run.allocator_retries,
        batch_norm=True,  # a batch is never cut into passes
        train_examples=size,  # what is larger is not predicted
        device=devices.describe(device),
        begin_seconds=began - asked_at + seconds[first],
    )
