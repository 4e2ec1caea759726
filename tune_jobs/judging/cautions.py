"""What a careful reader should know before trusting a verdict's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tune_jobs.formatting import learning_rate
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.devices import device_warning, judged_on, predicted_elsewhere
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.rate_luck import Shortfall
from tune_jobs.judging.sentences import named, per_cent, times_of
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import BatchSizeProfile, TargetRun, TrialResult
from tune_jobs.verdicts import BatchSizeVerdict, ClosedForm

FEW_SEEDS = 3
COARSE = 0.2  # of themselves, examples to a target are hardly known
APART = math.log(1.5)  # runs of one batch size; what is nearer is noise
AGREE = 0.1  # the clock and the profile agree within this part
EDGE = 1.25  # a rate this near to an end of its range lies on its edge


def warnings_of(
    contest: Contest,
    rows: Sequence[BatchSizeVerdict],
    runs: Sequence[TargetRun],
    elsewhere: Sequence[BatchSizeProfile],
    search: Sequence[TrialResult],
    closed: ClosedForm | None,
    policy: Policy,
    short: Mapping[int, Shortfall],
) -> tuple[str, ...]:
    """All that apply, what weighs most first. `runs` are all at the contest's target; `elsewhere`
    are profiles of device types other than theirs, `short` what the choice of learning
    rates leaves."""
    told = [
        device_warning(runs, contest.quantity),
        predicted_elsewhere(judged_on(runs, contest.quantity), elsewhere, contest.quantity),
        _two_kinds(contest),
        _seeds(contest),
        _edges(rows, search, policy),
        _coarse(contest),
        _clock(rows),
        _rates(contest, short),
        _borrowed(rows, short),
        _never(contest, runs),
        closed.sentence if closed is not None and closed.agrees is False else None,
        _several_rates(contest.runs),
        _interpolated(runs),
    ]
    return tuple(text for text in told if text)


def _seeds(contest: Contest) -> str | None:
    pairs = list(zip(contest.batch_sizes, contest.seeds, strict=True))
    single = [size for size, seeds in pairs if seeds < 2]
    few = [size for size, seeds in pairs if seeds < FEW_SEEDS]
    if len(single) == len(pairs):
        return "A single run of each batch size: nothing can be told apart."
    if single:
        return f"A single run of {named(single)}: how much its runs differ is not known."
    if few:
        return f"Only {min(seeds for _, seeds in pairs)} seeds of {named(few)}: intervals are wide."
    return None


def _two_kinds(contest: Contest) -> str | None:
    """Batch sizes whose runs lie further apart than those of all others do."""
    sample = contest.sample
    apart = {
        contest.batch_sizes[i]: float(np.ptp(of))
        for i in range(len(sample))
        if len(of := sample.value[(sample.cell == i) & ~sample.censored]) > 1
    }
    odd = [s for s, far in apart.items() if far > max(APART, 3 * np.median(list(apart.values())))]
    if not odd:
        return None
    worst = times_of(max(apart[size] for size in odd))
    return (
        f"The runs of {named(odd)} lie up to {worst:.1f} times apart, others much nearer: they may "
        "be of two kinds; look at them."
    )


def _interpolated(runs: Sequence[TargetRun]) -> str | None:
    if not any(run.interpolated for run in runs):
        return None
    return (
        "Read from the learning curves between two evaluations: the runs themselves stopped at "
        "another target."
    )


def _clock(rows: Sequence[BatchSizeVerdict]) -> str | None:
    """Where the seconds by the clock, alone on the device, contradict the profile."""
    off = [
        (row.batch_size, row.measured_to_predicted)
        for row in rows
        if row.measured_to_predicted and abs(row.measured_to_predicted - 1) > AGREE
    ]
    if not off:
        return None
    listed = ", ".join(f"{ratio:.2f} times at {size}" for size, ratio in off)
    return (
        "By the clock, alone on the device, runs took other seconds than profiled, which is "
        f"counted: {listed}."
    )


def _coarse(contest: Contest) -> str | None:
    """Where the target was crossed before the evaluations came close together."""
    known = [(r.batch_size, r.resolution) for r in contest.runs if r.resolution is not None]
    worst = max((part for _, part in known), default=0.0)
    coarse = sorted({size for size, part in known if part > COARSE})
    if not coarse or not contest.quantity.by_target:
        return None
    return (
        f"{named(coarse)} crossed the target so soon that their examples to it are known within "
        f"{worst:.0%} only: raise the target or lower the budget."
    )


def _never(contest: Contest, runs: Sequence[TargetRun]) -> str | None:
    missed = [run for run in runs if not reached(run)]
    if not missed or not contest.quantity.by_target:
        return None
    told = f"{len(missed)} of {len(runs)} runs never reached the target"
    silent = sorted({run.batch_size for run in missed if not contest.quantity.limit(run)})
    if not silent:
        return f"{told}; each counts as over what it had spent."
    return f"{told}; how long those of {named(silent)} went on is not told."


def _several_rates(runs: Sequence[TargetRun]) -> str | None:
    rates: dict[int, set[float]] = {}
    for run in runs:
        if run.learning_rate is not None:
            rates.setdefault(run.batch_size, set()).add(run.learning_rate)
    mixed = sorted(size for size, of in rates.items() if max(of) > min(of) * 1.001)
    if not mixed:
        return None
    return f"Runs of {named(mixed)} used several learning rates: what they differ by is not noise."


def _edges(
    rows: Sequence[BatchSizeVerdict], search: Sequence[TrialResult], policy: Policy
) -> str | None:
    """Batch sizes whose best learning rate may lie outside of what was searched."""
    on_edge = [row for row in rows if _on_edge(row, search, policy)]
    if not on_edge:
        return None
    listed = named([row.batch_size for row in on_edge])
    rates = ", ".join(learning_rate(row.learning_rate) for row in on_edge)
    return (
        f"The best learning rate of {listed} ({rates}) lies on the edge of the range searched: a "
        "better one may lie beyond."
    )


def _borrowed(rows: Sequence[BatchSizeVerdict], short: Mapping[int, Shortfall]) -> str | None:
    left = [r.batch_size for r in rows if r.batch_size in short and short[r.batch_size].borrowed]
    if not left:
        return None
    return (
        f"No learning rate that the search tried at {named(left)} reached the target: where their "
        "best ones lie is told by the other batch sizes alone, and counted as widely."
    )


def _rates(contest: Contest, short: Mapping[int, Shortfall]) -> str | None:
    """The choice of the learning rate is a draw of its own: whether it is counted."""
    if not contest.quantity.by_target:
        return None
    if not short:
        return (
            "How far each batch size's learning rate is from its best one is not known, and in no "
            "number here."
        )
    of = contest.decision
    alive = contest.sizes([i for i in (of.used, *of.tied, *of.open) if i is not None])
    over = {s: short[s].mean + math.sqrt(short[s].variance) for s in alive if s in short}
    if not over:
        return None
    most = max(over, key=lambda s: over[s])
    return (
        f"At a better learning rate than those tried {most} may take "
        f"{per_cent(-math.expm1(-over[most]))} less (one deviation), which is counted."
    )


def _on_edge(row: BatchSizeVerdict, search: Sequence[TrialResult], policy: Policy) -> bool:
    """At an end of the range, and no trial went further beyond it."""
    mine = [t for t in search if t.batch_size == row.batch_size and t.stage == "search"]
    if policy.base_learning_rate_range is None or row.learning_rate is None or not mine:
        return False
    rate = row.learning_rate
    nearest = min(mine, key=lambda t: abs(math.log(t.learning_rate / rate)))
    base, tried = nearest.base_learning_rate, [t.base_learning_rate for t in mine]
    low, high = policy.base_learning_rate_range
    over = base >= high / EDGE and max(tried) < base * EDGE
    return over or (base <= low * EDGE and min(tried) > base / EDGE)
