"""The noise scale along a training run, and its average over the training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from tune_jobs.data.batches import Indices
from tune_jobs.measure.gradient_draws import points_here
from tune_jobs.measure.noise_scale import Point, Sampling, average, fitted, summarize
from tune_jobs.measure.pace import Pace
from tune_jobs.records import NoiseScale
from tune_jobs.training import device as devices
from tune_jobs.training.loop import TrainingRun

GRACE = 0.25  # part of the cap by which FEWEST_DRAWS may overrun it


def default_points(budget_examples: int) -> tuple[int, ...]:
    """Examples seen at which to measure: a sixteenth to half of the budget, doubling.

    The last octave before the budget would cost as much training as all before it, and a target
    worth racing for is usually reached before it.
    """
    return tuple(max(1, budget_examples // part) for part in (16, 8, 4, 2))


def noise_along_training(
    run: TrainingRun,
    train_indices: Indices,
    at_examples: Sequence[int],
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    cap_seconds: float = 20.0,
    report: Callable[[NoiseScale], None] = lambda _: None,
) -> list[NoiseScale]:
    """Train `run`, estimate the noise scale at each of `at_examples`, average over the training.

    The run goes on as if nothing had been measured: random state, batch-norm buffers and gradients
    are its own again after every estimate. `train_indices` (n,) is the split that the run draws
    from. Where the cap is too short for all points, later points are given up rather than draws:
    every point made has FEWEST_DRAWS or more (see `planned_draws`), and the last one may stand
    where time ended the training. Only where not even one point has that time are draws fewer. The
    cap is overrun by a quarter at most (or one draw, or one update). A run that diverges ends
    there, with a row that says so.

    Returns:
        Per point one row of kind `raw` and, where the optimizer has a second moment, one of kind
        `preconditioned`; then their averages over training, `raw_average` and so on. `report` gets
        each row as soon as it is known.

    Errors:
        UserError: the split is too small for a draw.
    """
    sampling = fitted(sampling or Sampling(), len(train_indices))
    pace = Pace(time.perf_counter() + cap_seconds, cap_seconds * GRACE)
    points: list[Point] = []
    rows: list[NoiseScale] = []
    stops = sorted({math.ceil(e / run.settings.batch_size) for e in at_examples})
    for place, stop in enumerate(stops):
        if points and not pace.time_for_a_point():
            break
        in_time = _train_until(run, stop, pace)
        ahead = [later - run.progress.updates for later in stops[place + 1 :]] if in_time else []
        found = points_here(run, train_indices, sampling, seed, pace, ahead)
        points += found
        rows += [_tell(summarize(point), report) for point in found]
        if not in_time or not found[0].finite:
            break
    kinds = dict.fromkeys(point.kind for point in points if point.finite)
    return rows + [_tell(average(points, kind), report) for kind in kinds]


def _tell(row: NoiseScale, report: Callable[[NoiseScale], None]) -> NoiseScale:
    report(row)
    return row


def _train_until(run: TrainingRun, updates: int, pace: Pace) -> bool:
    """Train without evaluation; False if time for the draws would else be too short. One update is
    always made."""
    run.model.train()
    first, began = run.progress.updates, time.perf_counter()
    ends = pace.deadline - pace.reserve()
    while run.progress.updates < updates:
        run.update(run.next_batch())
        run.progress.updates += 1
        if time.perf_counter() > ends:
            break
    made = run.progress.updates - first
    if made:
        devices.synchronize(run.device)
        pace.update_seconds = (time.perf_counter() - began) / made
    return run.progress.updates == updates
