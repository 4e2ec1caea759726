"""A learning-rate range test: one run whose rate rises with every update (Smith 2017).

It ends at the edge of divergence, where the loss has risen to a multiple of its least. What that
says of the rate to train with is read off the rows (planning/rules.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tune_jobs.measure.probe import Subject, training_run
from tune_jobs.records import RangePoint
from tune_jobs.training import allocator
from tune_jobs.training import device as devices

UPDATES = 100
SPAN = 100.0  # the rate rises from the centre over so much to the centre times it
EDGE = 4.0  # times the least smoothed loss: divergence
SMOOTH = 0.9  # of each loss, what the ones before it weigh


@dataclass(frozen=True)
class RangeRequest:
    """A run at one batch size, the rate rising from `centre / SPAN` to `centre * SPAN`."""

    subject: Subject
    batch_size: int
    micro_batch_size: int
    centre: float


def measure_range(request: RangeRequest) -> list[RangePoint]:
    """The loss of every update with its learning rate, up to the edge of divergence."""
    allocator.keep_pages()
    torch.set_num_threads(request.subject.threads)
    device = devices.pick(request.subject.gpus)
    run = training_run(request.subject, request.batch_size, request.micro_batch_size, device)
    run.model.train()
    points: list[RangePoint] = []
    smoothed, least = 0.0, math.inf
    for k in range(UPDATES):
        rate = request.centre * SPAN ** (2 * k / (UPDATES - 1) - 1)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        loss = float(run.update(run.next_batch()))
        run.progress.updates += 1
        if not math.isfinite(loss):
            break
        seen = run.progress.updates * request.batch_size
        points.append(RangePoint(request.batch_size, seen, rate, loss))
        smoothed = SMOOTH * smoothed + (1 - SMOOTH) * loss
        now = smoothed / (1 - SMOOTH ** (k + 1))
        least = min(least, now)
        if now > EDGE * least:
            break
    return points
