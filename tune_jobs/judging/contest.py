"""The batch sizes of one workload at one target, compared by one quantity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tune_jobs.judging import regret as regrets
from tune_jobs.judging.deciding import Decision, Field, decide, decide_unproven
from tune_jobs.judging.intervals import Typical, repeated, typical
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import KEPT, Floats, Ints
from tune_jobs.judging.rate_luck import Shortfall
from tune_jobs.judging.regret import Problem, Regret
from tune_jobs.judging.samples import MEMORY, Limits, Quantity, Sample, sample_of
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun

FEWEST_RUNS = 2  # of a batch size that an answer is made of


@dataclass(frozen=True)
class Contest:
    """Runs at one target, judged by one quantity; arrays are over `sample.batch_sizes`.

    Attributes:
        runs: those judged; `seeds` counts them and `reached` those that reached the target (K,).
        regret: draws; None where nothing was repeated. `shared` (K,) is the variance in it that no
            further run lessens.
    """

    quantity: Quantity
    runs: tuple[TargetRun, ...]
    seeds: Ints
    reached: Ints
    sample: Sample
    typical: Typical
    field: Field
    regret: Regret | None
    shared: Floats
    decision: Decision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return self.sample.batch_sizes

    def size(self, index: int | None) -> int | None:
        """The batch size at an index of the decision."""
        return None if index is None else self.sample.batch_sizes[index]

    def sizes(self, indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.sample.batch_sizes[index] for index in indices)


def hold(
    runs: Sequence[TargetRun],
    quantity: Quantity,
    limits: Limits,
    policy: Policy,
    shared: Mapping[int, float],
    short: Mapping[int, Shortfall] | None = None,
    equal_by: Sequence[Mapping[int, float]] = (),
    kept: int = KEPT,
    off: Mapping[int, float] | None = None,
) -> Contest:
    """Compare the batch sizes of `runs`, all at one target.

    Args:
        limits: as `samples.sample_of` takes them.
        shared: variance that the runs of a batch size share, such as that of its profiled seconds.
        short: what the choice of its learning rate leaves: of what the batch size could do, and not
            of its runs at that rate.
        equal_by: for each other goal that is known, its typical quantity by batch size, less being
            better: equals are told apart by memory only within the tolerance of all of them.
        kept: draws of each chain.
        off: by batch size, what its logs are to be moved by.
    """
    moves = off or {}
    sample = sample_of(runs, quantity, limits).moved(moves)
    seeds, arrived = _counts(runs, sample)
    field = _field(runs, quantity, sample, seeds, arrived, equal_by)
    clock = np.array([shared.get(size, 0.0) for size in sample.batch_sizes])
    known = [(short or {}).get(size, Shortfall(0.0, 0.0)) for size in sample.batch_sizes]
    rates = np.array([(of.mean, of.variance) for of in known])
    variance = clock + rates[:, 1]
    alone = int(field.rivals.sum()) < 2
    if alone or not field.candidates.any() or not repeated(sample):
        of = typical(sample, policy.confidence)
        decision = decide_unproven(field, of.median)
        return Contest(
            quantity, tuple(runs), seeds, arrived, sample, of, field, None, variance, decision
        )
    dear = {size: log + moves.get(size, 0.0) for size, log in per_example(runs, quantity).items()}
    found = regrets.judged(_problem(sample, field, clock, rates, dear), kept=kept)
    chance = np.random.default_rng(2)
    own = regrets.with_shared(found.raw, clock[None], sample.step[None], chance)
    of = typical(sample, policy.confidence, own[0])
    decision = decide(found, field, of.median, policy)
    return Contest(
        quantity, tuple(runs), seeds, arrived, sample, of, field, found, variance, decision
    )


def _problem(
    sample: Sample, field: Field, clock: Floats, rates: Floats, dear: Mapping[int, float]
) -> Problem:
    kept = sample.only(sample.known)
    return Problem(
        layout=kept.layout,
        value=kept.value[None],
        censored=kept.censored[None],
        present=np.ones((1, len(kept.value)), dtype=bool),
        candidates=field.candidates[None],
        rivals=field.rivals[None],
        shared=clock[None],
        short=rates[None],
        step=kept.step[None],
        per_example=np.array([[dear.get(size, np.nan) for size in sample.batch_sizes]]),
    )


def per_example(runs: Sequence[TargetRun], quantity: Quantity) -> dict[int, float]:
    """By batch size, of those of which it is known, the log of what an example takes."""
    found: dict[int, list[float]] = {}
    for run in runs if quantity.by_target else ():
        got = reached(run)
        spent = quantity.of(run) if got else quantity.limit(run)
        examples = run.examples_to_target if got else run.examples_seen
        if spent and examples:
            found.setdefault(run.batch_size, []).append(quantity.log(spent / examples))
    return {size: median(logs) for size, logs in found.items()}


def _counts(runs: Sequence[TargetRun], sample: Sample) -> tuple[Ints, Ints]:
    all_runs = Counter(run.batch_size for run in runs)
    arrived = Counter(run.batch_size for run in runs if reached(run))
    return (
        np.array([all_runs[size] for size in sample.batch_sizes], dtype=np.int64),
        np.array([arrived[size] for size in sample.batch_sizes], dtype=np.int64),
    )


def _field(
    runs: Sequence[TargetRun],
    quantity: Quantity,
    sample: Sample,
    seeds: Ints,
    arrived: Ints,
    equal_by: Sequence[Mapping[int, float]],
) -> Field:
    """Candidates reached the target in most of two runs and more, the quantity known."""
    most = (2 * arrived > seeds) | (not quantity.by_target)
    informed = np.bincount(sample.cell[sample.known], minlength=len(sample)) > 0
    memory = _median_memory(runs, sample.batch_sizes)
    known = np.isfinite(memory)
    others = [np.array([by.get(size, np.nan) for size in sample.batch_sizes]) for by in equal_by]
    return Field(
        may_be_used=np.asarray(most & (sample.observed > 0)),
        candidates=np.asarray(most & (sample.observed >= FEWEST_RUNS)),
        rivals=np.asarray(informed),
        reached=arrived / np.maximum(seeds, 1) if quantity.by_target else np.ones(len(sample)),
        whole=np.asarray(sample.observed == sample.runs),
        memory=memory if known.all() else np.array(sample.batch_sizes, dtype=np.float64),
        equal_by=tuple(others),
    )


def _median_memory(runs: Sequence[TargetRun], batch_sizes: Sequence[int]) -> Floats:
    memory = [
        [value for r in runs if r.batch_size == size and (value := MEMORY.of(r)) is not None]
        for size in batch_sizes
    ]
    return np.array([float(np.median(values)) if values else np.nan for values in memory])
