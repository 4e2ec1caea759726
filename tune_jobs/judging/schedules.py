"""A batch schedule against the fixed batch size to use: how many times what that takes to the same
target. Pure.

Runs are paired by seed; what is judged is the mean of the log ratio with its t interval. A run that
was cut counts as if it had arrived where it ended, which favours it: so a schedule of which a run
was cut has no upper end, and cannot be shown to be better, and a fixed run that was cut only makes
the schedule look worse than it is. In seconds the interval holds the error of the profiled seconds
too, which all pairs share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tune_jobs.formatting import target_name
from tune_jobs.judging.paired import FEWEST_PAIRS, log_ratios, pairs_of, ratio_of
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import Quantity
from tune_jobs.judging.sentences import metric_and_unit
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import TargetRun
from tune_jobs.training.segments import segments_of
from tune_jobs.verdicts import Estimate, ScheduleVerdict

TAKES = {
    "time_to_target_seconds": "what",
    "cost_to_target": "the cost that",
    "examples_to_target": "the examples that",
    "energy_joules": "the energy that",
}


def judge_schedule(
    name: str,
    schedule: str | None,
    told: str | None,
    runs: Sequence[TargetRun],
    fixed: Sequence[TargetRun],
    quantity: Quantity,
    policy: Policy,
    clock: Mapping[int, float] | None = None,
) -> ScheduleVerdict:
    """What the runs of a schedule say beside those of the fixed batch size, at one target.

    Args:
        schedule: its segments; None where there is none, which `told` explains.
        clock: by batch size, the variance of the log of its profiled seconds.
    """
    pairs = pairs_of(runs, fixed)
    logs = log_ratios(pairs, quantity)
    cut = sum(not reached(run) for run, _ in pairs)
    batch_size = fixed[0].batch_size if fixed else None
    shared = _shared(schedule, batch_size, clock or {})
    ratio = ratio_of(logs, cut, policy.confidence, shared)
    at = target_name(fixed[0].target, *metric_and_unit(fixed)) if fixed else "the target"
    return ScheduleVerdict(
        name=name,
        schedule=schedule,
        batch_size=batch_size,
        ratio=ratio,
        pairs=len(logs),
        reached=len(pairs) - cut,
        better=_better(ratio),
        sentence=_sentence(name, batch_size, at, ratio, len(logs), cut, quantity, told),
        told=told,
    )


def _shared(schedule: str | None, batch_size: int | None, clock: Mapping[int, float]) -> float:
    """The variance that the profiled seconds leave in the log ratio, at the most."""
    sizes = {segment.batch_size for segment in segments_of(schedule or "")} - {batch_size}
    others = [clock.get(size, 0.0) for size in sizes]
    return max(others) + clock.get(batch_size or 0, 0.0) if others else 0.0


def _better(ratio: Estimate) -> bool | None:
    """Whether the schedule is shown to take less, or more; None where it is not told apart."""
    if ratio.high is not None and ratio.high < 1:
        return True
    return False if ratio.low is not None and ratio.low > 1 else None


def _sentence(
    name: str,
    batch_size: int | None,
    at: str,
    ratio: Estimate,
    pairs: int,
    cut: int,
    quantity: Quantity,
    told: str | None,
) -> str:
    if ratio.value is None:
        return _capital(told) if told else f"No run of {name} stands beside one of a fixed size."
    interval = "" if ratio.low is None else f" [{ratio.low:.2f}, {_end(ratio.high)}]"
    times = f"{'at least ' if cut else ''}{ratio.value:.2f} times{interval}"
    takes = f"of {TAKES.get(quantity.name, 'what')} batch size {batch_size} takes"
    missed = f"; {cut} of its {pairs} runs were cut" if cut else ""
    better = _better(ratio)
    if better:
        return (
            f"{name} reaches {at} in {times} {takes}: use it where your loop can change the batch."
        )
    if better is False:
        return f"{name} takes {times} {takes} to {at}{missed}: stay with the fixed batch size."
    few = "" if pairs >= FEWEST_PAIRS else ", from one pair of runs"
    return (
        f"{name} is not told apart from batch size {batch_size}: {times} {takes} to {at}"
        f"{missed}{few}."
    )


def _end(high: float | None) -> str:
    return "open" if high is None else f"{high:.2f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
