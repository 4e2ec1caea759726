"""What a user's own loop costs: a short run of its own, timed between its reports.

What cannot be known of it (the optimizer's part, an evaluation apart from training, passes smaller
than a batch) is left out.
"""

from __future__ import annotations

import math
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from tune_jobs.measure.probe import ProbeReading, ProbeRequest
from tune_jobs.training import device as devices
from tune_jobs.training.loop import RunSettings
from tune_jobs.training.own_run import OwnRun
from tune_jobs.training.scaling import scaled_learning_rate

FEWEST_REPORTS = 2


def measure_own(request: ProbeRequest) -> ProbeReading:
    """Let the function train for about `request.seconds`, and at least to its second report; one
    that reports once is timed as a whole."""
    subject, size = request.subject, request.batch_size
    device = devices.pick(subject.gpus)
    loop = subject.source.own_loop()
    rate = scaled_learning_rate(subject.optimizer, subject.base_learning_rate, size)
    endless = math.inf if loop.mode == "max" else -math.inf
    settings = RunSettings(size, size, rate, subject.optimizer, 0, loop.budget_examples, endless)
    run = OwnRun(settings, loop, device, Path(tempfile.mkdtemp(prefix="own-loop-")))
    times, began = [0.0], time.perf_counter()
    examples = [0]
    while len(times) <= FEWEST_REPORTS or time.perf_counter() - began < request.seconds:
        report = run.advance()
        times.append(time.perf_counter() - began)
        examples.append(report.examples_seen)
        if report.done:
            break
    run.stop()
    first = 1 if len(times) > FEWEST_REPORTS else 0  # the first stretch begins with imports, data
    ends = list(zip(times, examples, strict=True))[first:]
    seconds = tuple((t - s) / (b - a) * size for (s, a), (t, b) in pairwise(ends) if b > a)
    peak, limit = devices.peak_memory_mib(device), subject.memory_limit_mib
    return ProbeReading(
        update_seconds=seconds,
        optimizer_seconds=None,
        evaluation_examples_per_second=None,
        base_memory_mib=None,
        training_memory_mib=peak,  # its evaluations' memory is not told apart
        peak_memory_mib=peak,
        reserved_memory_mib=devices.reserved_memory_mib(device),
        memory_limit_mib=limit or devices.total_memory_mib(device),
        allocator_retries=devices.allocator_retries(device),
        batch_norm=True,  # a batch is never cut into passes
        train_examples=size,  # what is larger is not predicted
        device=devices.describe(device),
    )
