"""From runs at one target to the numbers that are compared: logarithms, some of them censored.

Everything that multiplies (time, examples, energy, cost, memory, error rate) is compared on the
log scale, where a ratio is a difference and the noise of training is nearest to normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from tune_jobs.errors import UserError
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import Bools, Floats, Ints, Layout
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun

Value = Callable[[TargetRun], float | None]
Limits = Mapping[int, float]
FURTHEST = 600.0  # of a log from the middle one: what is beyond is no quantity but a mistake


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
        scale: what is compared by ratio: the `value`; its `error` 1 - value, of a fraction of which
            more is better; its `inverse`, of any other number of which more is better.
    """

    name: str
    of: Value
    limit: Value
    by_target: bool = True
    of_device: bool = False
    scale: str = "value"

    def log(self, value: float) -> float:
        """The log of what is compared; minus infinity for an error rate of 0."""
        if self.scale == "error":
            return math.log(1 - value) if value < 1 else -math.inf
        return -math.log(value) if self.scale == "inverse" else math.log(value)

    def shown(self, log_value: float) -> float | None:
        """From the log scale back to the quantity; None where it has no end."""
        if not abs(log_value) < 700:
            return None
        if self.scale == "error":
            return 1 - math.exp(log_value)
        return math.exp(-log_value if self.scale == "inverse" else log_value)


TIME = Quantity(
    "time_to_target_seconds",
    lambda r: r.time_to_target_seconds,
    lambda r: r.train_seconds,
    of_device=True,
)
EXAMPLES = Quantity("examples_to_target", lambda r: r.examples_to_target, lambda r: r.examples_seen)
UPDATES = Quantity("updates_to_target", lambda r: r.updates_to_target, lambda r: r.updates)
ENERGY = Quantity("energy_joules", energy_to_target, lambda r: r.energy_joules, of_device=True)


def at_the_end(name: str, of: Value, scale: str = "error", of_device: bool = False) -> Quantity:
    """A quantity that every run has, whatever it reached."""
    return Quantity(name, of, lambda run: None, False, of_device, scale)


MEMORY = at_the_end("peak_memory_mib", lambda r: r.peak_memory_mib, "value", of_device=True)
ACCURACY = at_the_end("val_accuracy", lambda r: r.val_accuracy)
TEST_ACCURACY = at_the_end("test_accuracy", lambda r: r.test_accuracy)  # shown; chooses nothing


def metric_of(runs: Sequence[TargetRun], split: str = "val") -> Quantity:
    """The metric that the runs end with on a split: its accuracy, or one of another name."""
    name = f"{split}_metric"
    of = attrgetter(name)
    values = [value for run in runs if (value := of(run)) is not None]
    if not values and all(run.metric == "accuracy" for run in runs):
        return ACCURACY if split == "val" else TEST_ACCURACY
    scale = "value"
    if runs[0].mode == "max":
        scale = "error" if all(0 <= v <= 1 for v in values) else "inverse"
    return at_the_end(name, of, scale)


def without_ratio(quantity: Quantity, runs: Sequence[TargetRun]) -> bool:
    """Whether some run's value has no logarithm, so that no ratio of two means anything."""
    values = [value for run in runs if (value := quantity.of(run)) is not None]
    return quantity.scale != "error" and any(value <= 0 for value in values)


def quantity_of(policy: Policy, runs: Sequence[TargetRun]) -> Quantity:
    """The quantity that the policy's goal compares."""
    if policy.goal == "cost":
        return cost(policy.price_per_device_hour or 0.0)
    if policy.goal == "accuracy":
        return metric_of(runs)
    goals = {"time": TIME, "examples": EXAMPLES, "energy": ENERGY, "memory": MEMORY}
    return goals[policy.goal]


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


@dataclass(frozen=True)
class Sample:
    """Runs at one target as arrays over N runs of K batch sizes.

    Attributes:
        batch_sizes: (K,), ascending; `cell` (N,) is the index of a run's batch size.
        seed: (N,) index of the run's seed; a run of unknown seed has an index of its own.
        value: (N,) log of the quantity, or of what it is known to exceed where `censored`
            (minus infinity where nothing is known).
        step: (K,) within what part of itself a batch size's crossings are known; 0 where exactly.
    """

    batch_sizes: tuple[int, ...]
    cell: Ints
    seed: Ints
    value: Floats
    censored: Bools
    step: Floats

    def __len__(self) -> int:
        return len(self.batch_sizes)

    @property
    def layout(self) -> Layout:
        return Layout(self.batch_sizes, self.cell, self.seed)

    @property
    def known(self) -> Bools:
        """Runs of which something is known (N,)."""
        return np.isfinite(self.value)

    @property
    def runs(self) -> Ints:
        """Runs of each batch size (K,)."""
        return np.bincount(self.cell, minlength=len(self)).astype(np.int64)

    @property
    def observed(self) -> Ints:
        """Runs of each batch size that were not censored (K,)."""
        return np.bincount(self.cell[~self.censored], minlength=len(self)).astype(np.int64)

    def only(self, kept: Bools) -> Sample:
        """The runs that are kept (N,), among the same batch sizes."""
        parts = (self.cell[kept], self.seed[kept], self.value[kept], self.censored[kept])
        return Sample(self.batch_sizes, *parts, self.step)

    def moved(self, by: Mapping[int, float]) -> Sample:
        """The values of each batch size moved by so much."""
        moves = np.array([by.get(size, 0.0) for size in self.batch_sizes])
        return replace(self, value=self.value + moves[self.cell])


def sample_of(runs: Sequence[TargetRun], quantity: Quantity, limits: Limits) -> Sample:
    """The runs as arrays; runs without the quantity are left out, those censored never.

    `limits` bounds from below, for a batch size, a run whose own end is not known. Raises UserError
    for a value that has no logarithm.
    """
    sizes = tuple(sorted({run.batch_size for run in runs}))
    rows = []
    for place, run in enumerate(runs):
        key = (sizes.index(run.batch_size), _seed_key(run, place))
        value = quantity.of(run) if reached(run) or not quantity.by_target else None
        if value is not None:
            rows.append((*key, _log(quantity, value, run), False))
        elif quantity.by_target and not reached(run):
            limit = quantity.limit(run) or limits.get(run.batch_size)
            rows.append((*key, quantity.log(limit) if limit else -math.inf, True))
    return _arrays(sizes, rows, _steps(runs, sizes) if quantity.by_target else np.zeros(len(sizes)))


def _arrays(
    sizes: tuple[int, ...], rows: list[tuple[int, object, float, bool]], step: Floats
) -> Sample:
    keys = {key: index for index, key in enumerate(dict.fromkeys(row[1] for row in rows))}
    value = np.array([row[2] for row in rows], dtype=np.float64)
    censored = np.array([row[3] for row in rows], dtype=np.bool_)
    return Sample(
        sizes,
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([keys[row[1]] for row in rows], dtype=np.int64),
        _within_reach(value, censored),
        censored,
        step,
    )


def _within_reach(value: Floats, censored: Bools) -> Floats:
    """An error rate of 0 counts as half of the smallest; nothing lies further than FURTHEST."""
    finite = value[np.isfinite(value)]
    least = float(finite.min(initial=0.0)) - math.log(2)
    value = np.where(np.isfinite(value) | censored, value, least)
    middle = float(np.median(finite)) if len(finite) else 0.0
    inside = np.clip(value, middle - FURTHEST, middle + FURTHEST)
    return np.where(np.isfinite(value), inside, value)


def _steps(runs: Sequence[TargetRun], sizes: Sequence[int]) -> Floats:
    """The evaluations' grid about the crossings of each batch size (K,), as the mean part."""
    found: dict[int, list[float]] = {size: [0.0] for size in sizes}
    for run in runs:
        if reached(run) and run.resolution:
            found[run.batch_size].append(run.resolution)
    return np.array([sum(parts) / max(1, len(parts) - 1) for parts in found.values()])


def _seed_key(run: TargetRun, place: int) -> object:
    return run.seed if run.seed is not None else ("unknown", place)


def _log(quantity: Quantity, value: float, run: TargetRun) -> float:
    if quantity.scale != "error" and value <= 0:
        name, remedy = quantity.name, "leave the value empty if it never got there"
        if name == "val_metric":
            name, remedy = run.metric, "ask for another --goal"
        raise UserError(
            f"{name} {value:g} of batch size {run.batch_size}, seed {run.seed}: must be "
            f"greater than 0, since batch sizes are compared by ratio; correct the run, or {remedy}"
        )
    return quantity.log(value)


def known_limits(runs: Sequence[TargetRun], quantity: Quantity) -> dict[int, float]:
    """For each batch size, the largest value any of its runs is known to have got to.

    For tables that leave open where a run that did not reach its target ended: with a budget common
    to a batch size's runs it went on at least as long as the slowest that did reach one, which is
    also the maximum-likelihood value of an unknown limit. `runs` are those at all targets.
    """
    largest: dict[int, float] = {}
    for run in runs if quantity.by_target else ():
        values = [quantity.of(run) if reached(run) else None, quantity.limit(run)]
        for value in (v for v in values if v):
            largest[run.batch_size] = max(value, largest.get(run.batch_size, 0.0))
    return largest
