"""The batch sizes of one workload at one target, compared by one quantity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune_jobs.judging.comparing import Comparison, compared, two_way
from tune_jobs.judging.deciding import Decision, Field, decide
from tune_jobs.judging.intervals import Typical, typical
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import MEMORY, Limits, Quantity, Sample, sample_of
from tune_jobs.judging.spread import Bools, Floats, Ints
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun


@dataclass(frozen=True)
class Contest:
    """Runs at one target, judged by one quantity; arrays are over `sample.batch_sizes`.

    Attributes:
        runs: those judged; `seeds` counts them and `reached` those that reached the target (K,).
    """

    quantity: Quantity
    runs: tuple[TargetRun, ...]
    seeds: Ints
    reached: Ints
    sample: Sample
    typical: Typical
    comparison: Comparison
    field: Field
    decision: Decision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return self.sample.batch_sizes

    def size(self, index: int | None) -> int | None:
        """The batch size at an index of the decision."""
        return None if index is None else self.sample.batch_sizes[index]


def hold(
    runs: Sequence[TargetRun], quantity: Quantity, limits: Limits, policy: Policy, extra: Limits
) -> Contest:
    """Compare the batch sizes of `runs`, all at one target.

    Args:
        limits: as `samples.sample_of` takes them.
        extra: variance that the runs of a batch size share, such as that of its profiled seconds.
    """
    sample = sample_of(runs, quantity, limits)
    shared = np.array([extra.get(size, 0.0) for size in sample.batch_sizes])
    layout = two_way(sample)
    of = typical(sample, policy.confidence, layout.correlation, shared)
    comparison = compared(sample, of, layout, shared)
    seeds, arrived = _counts(runs, sample)
    field = _field(runs, quantity, sample, seeds, arrived)
    decision = decide(comparison, field, policy)
    return Contest(quantity, tuple(runs), seeds, arrived, sample, of, comparison, field, decision)


def _counts(runs: Sequence[TargetRun], sample: Sample) -> tuple[Ints, Ints]:
    all_runs = Counter(run.batch_size for run in runs)
    arrived = Counter(run.batch_size for run in runs if reached(run))
    return (
        np.array([all_runs[size] for size in sample.batch_sizes], dtype=np.int64),
        np.array([arrived[size] for size in sample.batch_sizes], dtype=np.int64),
    )


def _field(
    runs: Sequence[TargetRun], quantity: Quantity, sample: Sample, seeds: Ints, arrived: Ints
) -> Field:
    """Candidates reached the target in most runs; an accuracy is had without reaching one."""
    most = (2 * arrived > seeds) | quantity.larger_is_better
    candidates = np.asarray(most & (sample.observed > 0))
    rivals = candidates | _cut_short(runs, quantity, sample)
    costs = _median_memory(runs, sample.batch_sizes)
    if np.isnan(costs[candidates]).any():
        costs = np.array(sample.batch_sizes, dtype=np.float64)
    return Field(candidates, rivals, seeds.astype(np.float64), costs)


def _cut_short(runs: Sequence[TargetRun], quantity: Quantity, sample: Sample) -> Bools:
    """Batch sizes of which each run either reached the target or is known to have been ended.

    Where they were ended is known, so that the comparison tells whether that was late enough. Runs
    that are merely said never to have reached it are taken at that word.
    """
    if not quantity.by_target:
        return np.zeros(len(sample), dtype=bool)
    silent = {r.batch_size for r in runs if not reached(r) and not quantity.limit(r)}
    known = np.array([size not in silent for size in sample.batch_sizes])
    return np.asarray(known & (sample.runs > 0))


def _median_memory(runs: Sequence[TargetRun], batch_sizes: Sequence[int]) -> Floats:
    memory = [
        [value for r in runs if r.batch_size == size and (value := MEMORY.of(r)) is not None]
        for size in batch_sizes
    ]
    return np.array([float(np.median(values)) if values else np.nan for values in memory])
