"""Seconds, joules and memory hold for one device type; those of several are never mixed."""

from __future__ import annotations

from collections.abc import Sequence

from tune_jobs.analysis.samples import Quantity
from tune_jobs.records import TargetRun


def main_device(runs: Sequence[TargetRun]) -> str | None:
    """The device type that most batch sizes ran on, then most runs; None when it is not known."""
    found = dict.fromkeys(run.device for run in runs)

    def covered(device: str | None) -> tuple[int, int]:
        of = [run for run in runs if run.device == device]
        return len({run.batch_size for run in of}), len(of)

    return max(found, key=covered, default=None)


def judged_on(runs: Sequence[TargetRun], quantity: Quantity) -> list[TargetRun]:
    """The runs that may be compared by the quantity."""
    if not quantity.of_device:
        return list(runs)
    device = main_device(runs)
    return [run for run in runs if run.device == device]


def device_warning(runs: Sequence[TargetRun], quantity: Quantity) -> str | None:
    """What was left out because it ran elsewhere."""
    others = sorted({str(run.device or "an unnamed device") for run in runs})
    kept = judged_on(runs, quantity)
    if len(others) < 2:
        return None
    if len(kept) == len(runs):
        return f"The runs come from several device types ({', '.join(others)})."
    return (
        f"The runs come from several device types ({', '.join(others)}), whose seconds cannot be "
        f"compared: the {len(kept)} of {kept[0].device or 'an unnamed device'} are judged, "
        f"{len(runs) - len(kept)} left out."
    )
