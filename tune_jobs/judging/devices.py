"""Seconds, joules and memory hold for one device type; those of several are never mixed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tune_jobs.formatting import seconds
from tune_jobs.judging.samples import Quantity
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import BatchSizeProfile, TargetRun


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


def predicted_elsewhere(
    runs: Sequence[TargetRun], profiles: Sequence[BatchSizeProfile], quantity: Quantity
) -> str | None:
    """What the runs' examples to the target would take on the other types that were profiled.

    Examples to a target do not depend on the device, seconds for an example do.
    """
    own = main_device(runs)
    others = sorted({p.device for p in profiles if p.chosen} - {own})
    if not others or not quantity.of_device:
        return None
    told = [f"Seconds are those of {own}."]
    for device in others:
        found = _predicted(runs, [p for p in profiles if p.chosen and p.device == device])
        if found:
            least, size = min((value, size) for size, value in found.items())
            told.append(
                f"By its own profile, {device} would be fastest at {size}: {seconds(least)}."
            )
    return " ".join(told)


def _predicted(runs: Sequence[TargetRun], profiles: Sequence[BatchSizeProfile]) -> dict[int, float]:
    """Seconds to the target of each batch size that most of its runs reached, on one device."""
    speed = {p.batch_size: p.examples_per_second for p in profiles}
    found = {}
    for size in sorted({run.batch_size for run in runs}):
        of = [run for run in runs if run.batch_size == size]
        examples = [run.examples_to_target for run in of if run.examples_to_target is not None]
        if speed.get(size) and 2 * sum(map(reached, of)) > len(of) and examples:
            found[size] = median(examples) / float(speed[size] or 1)
    return found
