"""A grid of learning rates: each batch size judged at its best, chosen on other runs if it can be.

The run of seed s is taken at the rate that the runs of the other seeds choose, so that no run is
judged by the luck it was chosen for (leave one seed out). Without several seeds at a rate, the rate
is chosen by the very runs that are judged, and that is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from tune_jobs.formatting import learning_rate
from tune_jobs.reading.names import TO_TARGET
from tune_jobs.records import TargetRun

Badness = tuple[float, float]


@dataclass(frozen=True)
class Chosen:
    """The runs of a batch size at its best rates, and whether other runs chose the rates."""

    runs: tuple[int, ...]
    by_others: bool


@dataclass(frozen=True)
class AtBestRates:
    """The runs at the best rate of their batch size, and all of those they were chosen from."""

    runs: tuple[TargetRun, ...]
    searched: tuple[TargetRun, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def at_best_rates(runs: Sequence[TargetRun], accuracy: bool) -> AtBestRates:
    """`accuracy`: the final metric counts, not what it took to a target."""
    kept: list[TargetRun] = []
    searched: list[TargetRun] = []
    notes, left_out = [], []
    for key in dict.fromkeys((run.workload, run.target) for run in runs):
        mine = [run for run in runs if (run.workload, run.target) == key]
        if not _is_grid(mine):
            kept += mine
            continue
        quantity = _quantity(mine, accuracy)
        found = {
            size: _chosen([run for run in mine if run.batch_size == size], quantity)
            for size in sorted({run.batch_size for run in mine})
        }
        best = {
            size: [[r for r in mine if r.batch_size == size][k] for k in of.runs]
            for size, of in found.items()
        }
        kept += [run for of in best.values() for run in of]
        searched += mine
        number = sum(map(len, best.values()))
        notes += _told(key[0], best, found, mine)
        left_out.append(f"{key[0]}: {len(mine) - number} of {len(mine)} runs left out: "
                        "at other learning rates than the best of their batch size")  # fmt: skip
    return AtBestRates(tuple(kept), tuple(searched), tuple(notes), tuple(left_out))


def _is_grid(runs: Sequence[TargetRun]) -> bool:
    """Whether some batch size was tried at several rates."""
    rates: dict[int, set[float | None]] = {}
    for run in runs:
        rates.setdefault(run.batch_size, set()).add(run.learning_rate)
    return any(len(of) > 1 for of in rates.values())


def _quantity(runs: Sequence[TargetRun], accuracy: bool) -> str:
    if accuracy:
        return "val_metric"
    known = (name for name in TO_TARGET if any(getattr(run, name) is not None for run in runs))
    return next(known, TO_TARGET[0])


def _chosen(runs: Sequence[TargetRun], quantity: str) -> Chosen:
    """Indices into the runs of one batch size."""
    seeds = dict.fromkeys(run.seed for run in runs if run.seed is not None)
    per_seed = []
    for seed in seeds:
        others = [run for run in runs if run.seed not in (seed, None)]
        mine = {run.learning_rate for run in runs if run.seed == seed}
        tried = {run.learning_rate for run in others} & mine
        if not tried:
            break
        rate = min(tried, key=lambda r: (_badness(others, r, quantity), r or 0.0))
        per_seed += [k for k, r in enumerate(runs) if r.seed == seed and r.learning_rate == rate]
    else:
        if len(seeds) > 1 and all(run.seed is not None for run in runs):
            return Chosen(tuple(per_seed), True)
    rates = {run.learning_rate for run in runs}
    rate = min(rates, key=lambda r: (_badness(runs, r, quantity), r or 0.0))
    here = tuple(k for k, run in enumerate(runs) if run.learning_rate == rate)
    return Chosen(here, len(rates) == 1)


def _badness(runs: Sequence[TargetRun], rate: float | None, quantity: str) -> Badness:
    """The median at a rate, never being worse than any; of equal ones the mean of those known."""
    values = [_value(run, quantity) for run in runs if run.learning_rate == rate]
    known = [v for v in values if math.isfinite(v)]
    middle = median(sorted(values)) if values else math.inf
    missing = (len(values) - len(known)) / len(values) if values else 1.0
    return middle, missing if middle == math.inf else mean(known)


def _value(run: TargetRun, quantity: str) -> float:
    value = getattr(run, quantity)
    if value is None and quantity == "val_metric":
        value = run.val_accuracy
    if value is None:
        return math.inf
    return -float(value) if quantity == "val_metric" and run.mode == "max" else float(value)


def _told(
    workload: str,
    best: dict[int, list[TargetRun]],
    found: dict[int, Chosen],
    runs: Sequence[TargetRun],
) -> list[str]:
    of_size = []
    for size, chosen in best.items():
        rates = dict.fromkeys(learning_rate(run.learning_rate) for run in chosen)
        tried = len({run.learning_rate for run in runs if run.batch_size == size})
        of_size.append(f"{size} at {' or '.join(rates)} of {tried}")
    told = [f"{workload}: each batch size is judged at its best learning rate: "
            f"{'; '.join(of_size)}"]  # fmt: skip
    if all(chosen.by_others for chosen in found.values()):
        told.append(f"{workload}: the rate of each run was chosen by the runs of the other seeds")
    else:
        told.append(
            f"{workload}: learning rates were chosen by the very runs that are judged, so the best "
            "of several looks better than it is, the more so the more were tried; repeat the best "
            "rates with new seeds"
        )
    return told
