"""From runs at one target to the numbers that are compared: logarithms, some of them censored.

Everything that multiplies (time, examples, energy, cost, memory, error rate) is compared on the
log scale, where a ratio is a difference and the noise of training is nearest to normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tune_jobs.errors import UserError
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.spread import Bools, Floats, Ints
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun

Value = Callable[[TargetRun], float | None]
Limits = Mapping[int, float]


def energy_to_target(run: TargetRun) -> float | None:
    """The run's energy up to the target, taken as even over its examples."""
    examples, seen = run.examples_to_target, run.examples_seen
    if run.energy_joules is None or examples is None or not seen:
        return run.energy_joules
    return run.energy_joules * examples / seen


@dataclass(frozen=True)
class Quantity:
    """What a goal compares.

    Attributes:
        name: the field of BatchSizeVerdict that shows it.
        of: its value of a run that reached the target; `limit` what a run that did not is over.
        by_target: whether only runs that reached the target have one.
        of_device: whether it holds for one device type alone.
        larger_is_better: an accuracy; its error rate 1 - accuracy is what is compared.
    """

    name: str
    of: Value
    limit: Value
    by_target: bool = True
    of_device: bool = False
    larger_is_better: bool = False

    def shown(self, log_value: float) -> float | None:
        """From the log scale back to the quantity; None where it has no end."""
        if not math.isfinite(log_value):
            return None
        return 1 - math.exp(log_value) if self.larger_is_better else math.exp(log_value)


TIME = Quantity(
    "time_to_target_seconds",
    lambda r: r.time_to_target_seconds,
    lambda r: r.train_seconds,
    of_device=True,
)
EXAMPLES = Quantity("examples_to_target", lambda r: r.examples_to_target, lambda r: r.examples_seen)
UPDATES = Quantity("updates_to_target", lambda r: r.updates_to_target, lambda r: r.updates)
ENERGY = Quantity("energy_joules", energy_to_target, lambda r: r.energy_joules, of_device=True)
MEMORY = Quantity(
    "peak_memory_mib",
    lambda r: r.peak_memory_mib,
    lambda r: None,
    by_target=False,
    of_device=True,
)
ACCURACY = Quantity(
    "val_accuracy",
    lambda run: run.val_accuracy,
    lambda run: None,
    by_target=False,
    larger_is_better=True,
)


def quantity_of(policy: Policy) -> Quantity:
    """The quantity that the policy's goal compares."""
    if policy.goal == "cost":
        return cost(policy.price_per_device_hour or 0.0)
    goals = {"time": TIME, "examples": EXAMPLES, "energy": ENERGY, "accuracy": ACCURACY}
    return {**goals, "memory": MEMORY}[policy.goal]


def cost(price_per_device_hour: float) -> Quantity:
    """Time to target at a price, in the price's currency."""

    def priced(seconds: float | None) -> float | None:
        return None if seconds is None else seconds / 3600 * price_per_device_hour

    return Quantity(
        "cost_to_target",
        lambda run: priced(TIME.of(run)),
        lambda run: priced(TIME.limit(run)),
        of_device=True,
    )


def variance_of_resolution(runs: Sequence[TargetRun]) -> dict[int, float]:
    """By batch size, the variance of the log that evaluating now and then leaves in a crossing.

    It is uniform within the resolution. All runs of a batch size are evaluated at the same
    examples, so that they may share it: equal numbers say less than they seem to.
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        if reached(run) and run.resolution is not None:
            found.setdefault(run.batch_size, []).append(run.resolution**2 / 12)
    return {size: sum(parts) / len(parts) for size, parts in found.items()}


@dataclass(frozen=True)
class Sample:
    """Runs at one target as arrays over N runs of K batch sizes.

    Attributes:
        batch_sizes: (K,), ascending; `cell` (N,) is the index of a run's batch size.
        seed: (N,) index of the run's seed; a run of unknown seed has an index of its own.
        value: (N,) log of the quantity, or of what it is known to exceed where `censored`
            (minus infinity where nothing is known).
    """

    batch_sizes: tuple[int, ...]
    cell: Ints
    seed: Ints
    value: Floats
    censored: Bools

    def __len__(self) -> int:
        return len(self.batch_sizes)

    @property
    def runs(self) -> Ints:
        """Runs of each batch size (K,)."""
        return np.bincount(self.cell, minlength=len(self)).astype(np.int64)

    @property
    def observed(self) -> Ints:
        """Runs of each batch size that were not censored (K,)."""
        return np.bincount(self.cell[~self.censored], minlength=len(self)).astype(np.int64)

    def of(self, index: int) -> Sample:
        """The runs of one batch size."""
        mine = self.cell == index
        zeros = np.zeros(int(mine.sum()), dtype=np.int64)
        size = (self.batch_sizes[index],)
        return Sample(size, zeros, self.seed[mine], self.value[mine], self.censored[mine])


def sample_of(runs: Sequence[TargetRun], quantity: Quantity, limits: Limits) -> Sample:
    """The runs as arrays; runs without the quantity are left out, those censored never.

    `limits` bounds from below, for a batch size, a run whose own end is not known.
    """
    sizes = tuple(sorted({run.batch_size for run in runs}))
    floor = _error_floor(runs, quantity) if quantity.larger_is_better else 0.0
    rows = []
    for place, run in enumerate(runs):
        cell, seed = sizes.index(run.batch_size), _seed_key(run, place)
        value = quantity.of(run) if reached(run) or not quantity.by_target else None
        if value is not None:
            rows.append((cell, seed, _log(quantity, value, floor, run), False))
        elif quantity.by_target and not reached(run):
            limit = quantity.limit(run) or limits.get(run.batch_size)
            rows.append((cell, seed, math.log(limit) if limit else -math.inf, True))
    return _arrays(sizes, rows)


def _arrays(sizes: tuple[int, ...], rows: list[tuple[int, object, float, bool]]) -> Sample:
    keys = {key: index for index, key in enumerate(dict.fromkeys(row[1] for row in rows))}
    return Sample(
        sizes,
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([keys[row[1]] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([row[3] for row in rows], dtype=np.bool_),
    )


def _seed_key(run: TargetRun, place: int) -> object:
    return run.seed if run.seed is not None else ("unknown", place)


def _log(quantity: Quantity, value: float, floor: float, run: TargetRun) -> float:
    if quantity.larger_is_better:
        return math.log(max(1 - value, floor))
    if value <= 0:
        raise UserError(
            f"{quantity.name} {value:g} of batch size {run.batch_size}, seed {run.seed}: must be "
            "greater than 0; correct the run, or leave the value empty if it never got there"
        )
    return math.log(value)


def _error_floor(runs: Sequence[TargetRun], quantity: Quantity) -> float:
    """Half of the smallest error rate seen: what an error rate of zero counts as."""
    errors = [1 - value for run in runs if (value := quantity.of(run)) is not None]
    return min((e for e in errors if e > 0), default=1e-6) / 2


def known_limits(runs: Sequence[TargetRun], quantity: Quantity) -> dict[int, float]:
    """For each batch size, the largest value any of its runs is known to have got to.

    For tables that leave open where a run that did not reach its target ended: with a budget common
    to a batch size's runs it went on at least as long as the slowest that did reach one, which is
    also the maximum-likelihood value of an unknown limit. `runs` are those at all targets.
    """
    largest: dict[int, float] = {}
    for run in runs:
        values = [quantity.of(run) if reached(run) else None, quantity.limit(run)]
        for value in (v for v in values if v):
            largest[run.batch_size] = max(value, largest.get(run.batch_size, 0.0))
    return largest
