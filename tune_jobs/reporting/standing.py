"""How each batch size stands while a sweep runs, and how much is left to do: pure, of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, median

import numpy as np

from tune_jobs.config import SweepConfig
from tune_jobs.formatting import learning_rate
from tune_jobs.judging.sentences import per_cent
from tune_jobs.planning.known import Known, known_now
from tune_jobs.planning.learning_rates import valleys_of
from tune_jobs.reading.choosing import best_trial
from tune_jobs.records import BatchSizeProfile, Begun, ConfirmRun, Measurement, TrialResult
from tune_jobs.reporting.table import number
from tune_jobs.verdicts import BatchSizeVerdict, Verdict

DRAWS = 2000
BY_TARGET = ("time", "cost", "examples")  # goals that a valley tells of
HEADINGS = ("batch size", "", "best rate", "to target", "val", "runs", "worse by, at most", "")
LEFT = (1, 7)  # columns of words
LOST = ("slower", "unreached")


@dataclass(frozen=True)
class Rows:
    """A sweep's rows so far."""

    trials: list[TrialResult]
    measurements: list[Measurement]
    profiles: list[BatchSizeProfile]


@dataclass(frozen=True)
class Hope:
    """What the search says of a batch size at its best rate, beside the others: expected regret and
    bound, the log of what it needs (`low`, `middle`, `high`)."""

    expected: float
    bound: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Standing:
    """One row of what is shown: `why` a batch size is dropped, its best run, its runs."""

    batch_size: int
    state: str
    why: str
    best: TrialResult | None
    runs: int
    running: int
    expected: float | None
    bound: float | None


def hopes(config: SweepConfig, rows: Rows) -> dict[int, Hope]:
    """By batch size, of those of which a trial tells; empty where no model of the search does."""
    if not config.structured or config.goal not in BY_TARGET:
        return {}
    known = known_now(config, rows.trials, rows.measurements, rows.profiles)
    return hopes_of(_needs(config, known), config.confidence)


def _needs(config: SweepConfig, known: Known) -> dict[int, tuple[float, float]]:
    """Mean and deviation of the log of what each batch size needs; those that are told."""
    sizes = [s for s in config.batch_sizes if any(t.batch_size == s for t in known.trials)]
    found = {s: v.needs() for s, v in valleys_of(config, sizes, known).items()} if sizes else {}
    return {
        size: (mean + math.log(known.cost[size]), deviation)
        for size, (mean, deviation) in found.items()
        if math.isfinite(mean)
    }


def hopes_of(needs: Mapping[int, tuple[float, float]], confidence: float) -> dict[int, Hope]:
    """From the mean and the deviation of the log of what each needs. One alone tells nothing."""
    if len(needs) < 2:
        return {}
    reach = NormalDist().inv_cdf(confidence)
    means, deviations = (np.array(of) for of in zip(*needs.values(), strict=True))
    luck = np.random.default_rng(0).standard_normal((DRAWS, len(needs)))
    drawn = means + deviations * luck
    over = drawn - drawn.min(axis=1, keepdims=True)
    expected, bound = np.expm1(over.mean(axis=0)), np.expm1(np.quantile(over, confidence, axis=0))
    spread = zip(means - reach * deviations, means, means + reach * deviations, strict=True)
    return {
        size: Hope(float(e), float(b), *map(float, of))
        for size, e, b, of in zip(needs, expected, bound, spread, strict=True)
    }


def standings(
    config: SweepConfig,
    rows: Rows,
    running: Iterable[Begun] = (),
    wanted: Iterable[ConfirmRun] = (),
    verdict: Verdict | None = None,
) -> list[Standing]:
    """One for each batch size, ascending. `wanted` are the confirm runs that are missing now;
    `verdict` that of the last look, before which the search's own model tells."""
    found = {} if verdict else hopes(config, rows)
    judged = {row.batch_size: row for row in verdict.per_batch_size} if verdict else {}
    leader = verdict.use.batch_size if verdict and verdict.use else _leader(config, rows, found)
    under_way = list(running)
    racing = {begun.batch_size for begun in under_way if begun.stage == "search"}
    confirming = {run.batch_size for run in wanted}
    made = []
    for size in sorted(config.batch_sizes):
        of = [t for t in rows.trials if t.batch_size == size]
        mine = sum(begun.batch_size == size for begun in under_way)
        state, why = _misfit(size, rows) or _state(size, leader, found, judged.get(size))
        if state in ("open", "tied", "waiting") and size in confirming:
            state = "confirming"
        if state in ("open", "waiting") and (size in racing or (of and not judged)):
            state = "racing"
        told = judged.get(size) or found.get(size)
        made.append(
            Standing(
                size, state, why, best_trial(of, config.compared_by), len(of), mine, *_regret(told)
            )
        )
    return made


def _leader(config: SweepConfig, rows: Rows, found: Mapping[int, Hope]) -> int | None:
    """The batch size that is ahead so far: by the model, else by its fastest run."""
    if found:
        return min(found, key=lambda s: found[s].middle)
    reached = [t for t in rows.trials if t.examples_to_target is not None]
    if config.goal not in BY_TARGET or not reached:
        return None
    return min(reached, key=lambda t: _spent(t, config.goal)).batch_size


def _spent(trial: TrialResult, goal: str) -> float:
    seconds = trial.time_to_target_seconds if goal != "examples" else None
    return seconds or float(trial.examples_to_target or math.inf)


def _misfit(size: int, rows: Rows) -> tuple[str, str] | None:
    """As `_state`, of a batch size that was profiled and is too large."""
    of = [p for p in rows.profiles if p.batch_size == size]
    if not of or any(p.chosen for p in of):
        return None
    return "dropped", f"does not fit: {of[0].outcome}"


def _state(
    size: int,
    leader: int | None,
    found: Mapping[int, Hope],
    judged: BatchSizeVerdict | None,
) -> tuple[str, str]:
    """The state in a word, and why it is dropped."""
    if size == leader:
        return "leading", ""
    if judged:
        return ("dropped", _why(judged)) if judged.standing in LOST else (judged.standing, "")
    hope, ahead = found.get(size), found.get(leader or 0)
    if hope and ahead and hope.low > ahead.high:
        times = math.exp(hope.low - ahead.middle)
        return "dropped", f"takes {times:.2g} times as long as {leader}, at best"
    return "waiting", ""


def _why(judged: BatchSizeVerdict) -> str:
    times = judged.ratio_to_best.value
    if judged.standing == "slower" and times is not None:
        return f"{times:.2g} times the best"
    return f"reached the target in {judged.reached} of {judged.seeds} runs"


def _regret(told: BatchSizeVerdict | Hope | None) -> tuple[float | None, float | None]:
    if isinstance(told, BatchSizeVerdict):
        return told.expected_regret, told.regret_bound
    return (told.expected, told.bound) if told else (None, None)


def table_lines(made: Sequence[Standing]) -> list[str]:
    """Headings, then a line for each batch size; columns are as wide as what stands in them."""
    cells = [HEADINGS, *(_cells(one) for one in made)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_placed(row, widths)).rstrip() for row in cells]


def _placed(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    of = enumerate(zip(row, widths, strict=True))
    return [cell.ljust(width) if n in LEFT else cell.rjust(width) for n, (cell, width) in of]


def _cells(one: Standing) -> tuple[str, ...]:
    best = one.best
    regret = [r for r in (one.expected, one.bound) if r is not None]
    return (
        str(one.batch_size),
        one.state,
        learning_rate(best.learning_rate if best else None),
        number(best.examples_to_target if best else None, "d"),
        number(best.val_metric if best else None, ".4f"),
        f"{one.runs}+{one.running}" if one.running else str(one.runs),
        ", ".join(map(per_cent, regret)) if len(regret) == 2 else "-",
        one.why,
    )


def purpose(begun: Begun) -> str:
    """What a run is made for."""
    if begun.stage == "search":
        return begun.why or "its batch size's share"
    told = [f"seed {begun.seed}"]
    told += ["to the whole budget"] if begun.whole else []
    return ", ".join(told + (["alone on its device"] if begun.alone else []))


# Work: seconds of training in one slot. A run that is alone takes all slots.


def work_of(row: TrialResult, slots: int) -> float:
    """What a run that has ended was."""
    return row.train_seconds * (slots if row.alone else 1)


def work_wanted(
    wanted: Sequence[ConfirmRun], trials: Sequence[TrialResult], slots: int
) -> list[float]:
    """What each of these confirm runs is expected to be, by what its batch size took so far."""
    by_size = {size: [t for t in trials if t.batch_size == size and t.examples_seen > 0]
               for size in {run.batch_size for run in wanted}}  # fmt: skip
    return [
        _examples(run, by_size[run.batch_size])
        * _seconds(by_size[run.batch_size])
        * (slots if run.alone else 1)
        for run in wanted
    ]


def _examples(run: ConfirmRun, of: Sequence[TrialResult]) -> float:
    """To the target, as its batch size needed it so far; to its end where it goes on to that."""
    reached = [t.examples_to_target for t in of if t.examples_to_target is not None]
    if run.whole or not reached:
        return run.most_examples
    return min(run.most_examples, median(reached))


def _seconds(of: Sequence[TrialResult]) -> float:
    """Training seconds of an example."""
    return mean(t.train_seconds / t.examples_seen for t in of) if of else 0.0


def seconds_left(left: float, done: float, elapsed: float) -> float | None:
    """Of wall time, at the pace so far; None before anything is known of it."""
    return left * elapsed / done if done > 0 else None
