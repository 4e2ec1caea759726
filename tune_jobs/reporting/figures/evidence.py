"""What the figures of a verdict are drawn from, and its quantities as axes and words name them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tune_jobs.formatting import UNITS_OF_TIME, on_split, quantity, with_unit
from tune_jobs.measure.cost_model import DeviceLimits
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.terminal import QUANTITIES
from tune_jobs.verdicts import BatchSizeVerdict, Estimate, Verdict

TIME = "time_to_target_seconds"
NAMES = {
    TIME: "time to target",
    "examples_to_target": "examples to target",
    "updates_to_target": "updates to target",
    "energy_joules": "energy to target, J",
    "peak_memory_mib": "peak memory, MiB",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "val_metric": "metric at the end",
}
SPLITS_OF = {"val_metric": "validation", "test_metric": "test"}  # of the metric's own name


@dataclass(frozen=True)
class Evidence:
    """One verdict, and the rows that its figures are drawn from.

    Attributes:
        runs: of the verdict's workload, at every target.
        limits: one for each device type in `profiles`.
    """

    verdict: Verdict
    runs: tuple[TargetRun, ...]
    profiles: tuple[BatchSizeProfile, ...] = ()
    limits: tuple[DeviceLimits, ...] = ()
    trials: tuple[TrialResult, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    noise: tuple[NoiseScale, ...] = ()

    @property
    def own_runs(self) -> list[TargetRun]:
        """The runs at the verdict's own target."""
        return [r for r in self.runs if r.target == self.verdict.target]

    @property
    def sizes(self) -> list[int]:
        return [row.batch_size for row in self.verdict.per_batch_size]

    def values(self, batch_size: int, name: str) -> list[float]:
        """A quantity of a batch size's own runs, of those that know it."""
        found = (getattr(r, name, None) for r in self.own_runs if r.batch_size == batch_size)
        return [v for v in found if v is not None]

    def medians(self, name: str) -> dict[int, Estimate]:
        """Median and interval of a quantity, of each batch size that has one."""
        found = {r.batch_size: estimate(r, name, self.verdict) for r in self.verdict.per_batch_size}
        return {size: e for size, e in found.items() if e.value is not None}

    def shown(self, name: str) -> list[float]:
        """Every value of a quantity that a figure of runs and medians has to have room for."""
        values = [v for size in self.sizes for v in self.values(size, name)]
        return [*values, *(e.value for e in self.medians(name).values() if e.value is not None)]


def principal_quantity(verdict: Verdict) -> str:
    """What the first figure shows: seconds to target where they are known, else what was judged."""
    timed = any(row.time_to_target_seconds.value for row in verdict.per_batch_size)
    return TIME if timed else verdict.quantity


def estimate(row: BatchSizeVerdict, name: str, verdict: Verdict) -> Estimate:
    """A batch size's median and interval of a quantity; unknown where the verdict has none."""
    found = getattr(row, name, None)
    if isinstance(found, Estimate):
        return found
    if name == verdict.quantity:
        return Estimate(row.median, row.low, row.high)
    return Estimate(found if isinstance(found, float) else None, None, None)


def plain_name(name: str, verdict: Verdict) -> str:
    """A quantity without its unit: `peak memory`, `validation rmse`."""
    if name in SPLITS_OF:
        return on_split(SPLITS_OF[name], verdict.metric)
    return NAMES.get(name, name.replace("_", " ")).split(",")[0]


def unit_of(name: str, largest: float, verdict: Verdict) -> tuple[str, float]:
    """The axis title of a quantity and what its values are divided by."""
    if name in SPLITS_OF:
        return with_unit(plain_name(name, verdict), verdict.unit), 1.0
    if not name.endswith("_seconds"):
        return NAMES.get(name, name.replace("_", " ")), 1.0
    unit, factor, _ = next(u for u in UNITS_OF_TIME if u[2] is None or largest < u[2])
    return f"{NAMES.get(name, 'time')}, {unit}", factor


def is_least_best(name: str, verdict: Verdict) -> bool:
    """Whether less of a quantity is better."""
    return not name.endswith("accuracy") and (name not in SPLITS_OF or verdict.mode == "min")


def said(name: str, value: Estimate, verdict: Verdict) -> str:
    """A quantity in words: `41 s [38, 45]`."""
    _, show = QUANTITIES.get(name, ("", quantity))
    if name in SPLITS_OF:
        show = partial(quantity, unit=verdict.unit)
    return show(value.value, value.low, value.high)
