"""A decision in words: the answer in one line, what could change it, its grounds, what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from tune_jobs.formatting import (
    ACCURACY,
    count,
    learning_rate,
    quantity,
    seconds,
    target_name,
    value_of_metric,
)
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.regret import MOST_LOG
from tune_jobs.judging.settling import BLOCKS, ended_early
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import BatchSizeVerdict, Estimate, Settling, Use

Show = Callable[..., str]
NO_BOUND = 10.0  # a regret over this many times is no bound worth a number


def _mebibytes(value: float | None, low: float | None = None, high: float | None = None) -> str:
    return count(value, low, high).replace(" [", " MiB [") if low else f"{count(value)} MiB"


def _joules(value: float | None, low: float | None = None, high: float | None = None) -> str:
    return quantity(value, low, high, unit="J")


@dataclass(frozen=True)
class Words:
    """How a goal's quantity is spoken of.

    Attributes:
        does, show: `64 {does} {value}`; `compares` `128 {compares} 1.3 times`.
        best: `within 3 % of {best}`; `as_good` `32 may be {as_good}`.
    """

    does: str
    show: Show
    compares: str
    best: str
    as_good: str


EXAMPLES = "examples"  # which in a table may be epochs
WORDS = {
    "time": Words("reaches {target} in", seconds, "takes {ratio} as long", "the fastest",
                  "as fast"),
    "examples": Words("reaches {target} with", count, "needs {ratio} as many examples",
                      "the fewest examples", "as frugal"),
    "energy": Words("reaches {target} on", _joules, "takes {ratio} the energy",
                    "the least energy", "as frugal"),
    "cost": Words("reaches {target} at a cost of", quantity, "costs {ratio} as much",
                  "the cheapest", "as cheap"),
    "memory": Words("takes", _mebibytes, "takes {ratio} as much", "the least memory", "as lean"),
}  # fmt: skip


def words_of(contest: Contest, policy: Policy) -> Words:
    """The goal's words; the metric's own name where it is judged."""
    if policy.goal != "accuracy":
        unit = contest.runs[0].examples_unit if contest.runs else EXAMPLES
        told = WORDS[policy.goal]
        return replace(
            told,
            compares=told.compares.replace(EXAMPLES, unit),
            best=told.best.replace(EXAMPLES, unit),
        )
    metric, unit = metric_and_unit(contest.runs)
    if metric == ACCURACY:
        return Words("ends at a validation accuracy of", quantity, "makes {ratio} as many errors",
                     "the lowest error", "as good")  # fmt: skip
    plain = metric.replace("{", "{{").replace("}", "}}")
    compares, best = {
        "error": (f"is {{ratio}} as far from {plain} 1", f"the highest {metric}"),
        "value": (f"ends at {{ratio}} the {plain}", f"the lowest {metric}"),
        "inverse": (f"ends {{ratio}} below it in {plain}", f"the highest {metric}"),
    }[contest.quantity.scale]
    return Words(f"ends at {plain}", partial(quantity, unit=unit), compares, best, "as good")


def metric_and_unit(runs: Sequence[TargetRun]) -> tuple[str, str]:
    """The metric's own name and unit."""
    return (runs[0].metric, runs[0].unit) if runs else (ACCURACY, "")


def answer_of(
    contest: Contest,
    rows: Sequence[BatchSizeVerdict],
    use: Use | None,
    target: float | None,
    policy: Policy,
) -> str:
    """The first line: which batch size to use now, and what that can cost at the most."""
    if use is None:
        return "No batch size to use yet: no run reached the target."
    rate = use.learning_rate
    at = "" if rate is None else f", learning rate {learning_rate(rate)}"
    named_use = f"Use batch size {use.batch_size}{at}: "
    words = words_of(contest, policy)
    if use.expected_regret is not None and use.regret_bound is not None:
        return named_use + _within(use.expected_regret, use.regret_bound, words, policy) + "."
    return named_use + _unproven(contest, rows, target, words) + "."


def _within(expected: float, bound: float, words: Words, policy: Policy) -> str:
    sure = f"at {policy.confidence:.0%} within {per_cent(bound)}".replace("%", " %", 1)
    if bound >= NO_BOUND:
        sure = "how much worse at the most cannot be told"
    if expected < 0.005:
        return f"expected to be {words.best}, {sure}"
    return f"expected within {per_cent(expected)} of {words.best}, {sure}"


def per_cent(part: float) -> str:
    """`14 %`: never less than it is, and at least 1 %."""
    return f"{max(1, math.ceil(100 * part - 1e-6)):,} %"


def _unproven(
    contest: Contest, rows: Sequence[BatchSizeVerdict], target: float | None, words: Words
) -> str:
    """What single runs, or few that reached, tell by themselves."""
    index = contest.decision.used
    assert index is not None, "something is used"
    row = rows[index]
    if contest.quantity.by_target and 2 * row.reached <= row.seeds:
        at = target_name(target, *metric_and_unit(contest.runs))
        return f"unproven, it reached {at} in {row.reached} of {row.seeds} runs"
    if int(contest.field.rivals.sum()) < 2:
        return "unproven, there is no other batch size to compare it with"
    single = "one run each" if contest.seeds.max() < 2 else "its runs were not repeated"
    return f"unproven, {single}; {_apart(contest, rows, index, words)}"


def _apart(contest: Contest, rows: Sequence[BatchSizeVerdict], index: int, words: Words) -> str:
    """By how much the numbers alone separate the next best."""
    value = words.show(rows[index].median)
    second = _next_best(contest, index)
    if second is None:
        return f"{value}, and no other reached it"
    other = rows[second]
    ratio = times_of(contest.typical.median[second] - contest.typical.median[index])
    times = f" ({quantity(ratio)} times)" if contest.quantity.scale == "value" else ""
    return f"{value}, the next best, {other.batch_size}, {words.show(other.median)}{times}"


def _next_best(contest: Contest, index: int) -> int | None:
    middle = contest.typical.median
    others = [i for i in range(len(middle)) if i != index and math.isfinite(middle[i])]
    return min(others, key=lambda i: float(middle[i]), default=None)


def why_not(
    rows: Sequence[BatchSizeVerdict], runs: Sequence[TargetRun], target: float | None
) -> str:
    """No run reached the target: how far they came."""
    named_as = metric_and_unit(runs)
    own = named_as[0] == ACCURACY
    ends = [(r.val_accuracy if own else r.val_metric, r.batch_size) for r in rows]
    known = [(end.value, size) for end, size in ends if end.value is not None]
    came = ""
    if known:
        best, size = (max if runs[0].mode == "max" else min)(known)
        came = f"; {size} came closest, with {value_of_metric(quantity(best), *named_as)}"
    return f"None of {len(runs)} runs reached {target_name(target, *named_as)}{came}."


def change_of(
    contest: Contest, rows: Sequence[BatchSizeVerdict], settling: Settling | None, policy: Policy
) -> str | None:
    """The second line: what could change the answer, and what that costs."""
    of, words = contest.decision, words_of(contest, policy)
    if of.used is None:
        return None
    if settling is not None and settling.batch_sizes:
        return f"{_open_ones(contest, words)} {_settle(contest, settling)}".strip()
    told = []
    if of.open:
        told.append(
            f"{named(contest.sizes(of.open))} may be {words.as_good}; that any is over "
            f"{policy.tolerance:.0%} better is ruled out at {1 - policy.risk_allowed:.0%}."
        )
    elif of.tied:
        verb = "is" if len(of.tied) == 1 else "are"
        told.append(
            f"{named(contest.sizes(of.tied))} {verb} equal to it within {policy.tolerance:.0%}."
        )
    if settling is not None:
        told.append(
            f"The bound is wide by what a better learning rate of {named(settling.rates)} may save."
        )
    return " ".join(told).replace("%", " %") or None


def _open_ones(contest: Contest, words: Words) -> str:
    of = contest.decision
    if of.status == "unproven" or not of.open:
        return ""
    return f"{named(contest.sizes(of.open))} may be {words.as_good}."


def _settle(contest: Contest, settling: Settling) -> str:
    """`Settling it takes about 40 s more: worth it for more than 90 trainings.`"""
    if settling.seeds is None:
        early = [contest.batch_sizes[i] for i in contest.decision.open if ended_early(contest, i)]
        if early:
            return f"The runs of {named(early)} were ended too early to tell."
        if not contest.shared.any():
            return f"Settling it would take over {BLOCKS[-1]} runs of each."
        alone = "More runs alone would not settle it: "
        if settling.rates:
            many = "rates of" if len(settling.rates) > 1 else "rate of"
            return f"{alone}the best learning {many} {named(settling.rates)} must be known better."
        own = contest.shared[contest.decision.used]
        near = {contest.batch_sizes.index(size) for size in settling.batch_sizes}
        others = [contest.shared[i] for i in near - {contest.decision.used}]
        known = math.sqrt(own + max(others, default=0.0))
        return f"{alone}learning rates and profiled seconds are known to about {per_cent(known)}."
    have = min(int(contest.seeds[contest.batch_sizes.index(s)]) for s in settling.batch_sizes)
    further = settling.seeds - have
    runs = f"{further} more run{'' if further == 1 else 's'} of {named(settling.batch_sizes)}"
    if settling.device_seconds is None:
        return f"Settling it takes about {runs}."
    told = f"Settling it takes about {_roughly(settling.device_seconds)} more ({runs})"
    if settling.trainings is None:
        return f"{told}."
    many = "any further training" if settling.trainings == 1 else (
        f"more than {settling.trainings:,} trainings"
    )  # fmt: skip
    return f"{told}: worth it for {many}."


def _roughly(value: float) -> str:
    """Seconds to two digits."""
    return seconds(value, value * 0.9, value * 1.1).split(" [")[0]


def reason_of(
    contest: Contest,
    rows: Sequence[BatchSizeVerdict],
    runs: Sequence[TargetRun],
    target: float | None,
    policy: Policy,
) -> str:
    """The answer's grounds, in one sentence."""
    index = contest.decision.used
    if index is None:
        return why_not(rows, runs, target)
    row, words = rows[index], words_of(contest, policy)
    at = target_name(target, *metric_and_unit(runs))
    does = words.does.format(target=at)
    if row.median is None:
        often = f"{row.reached} of {row.seeds} runs"
        return f"{row.batch_size} reached {at} in {often}."
    said = f"{row.batch_size} {does} {words.show(row.median, row.low, row.high)}"
    if contest.decision.tied and contest.decision.status == "tied":
        return f"{said}, and {_among_equals(contest, row, policy)}."
    second = _next_best(contest, index)
    if second is None:
        return f"{said}; no other batch size got there in most of its runs."
    over = ratio_over(contest, second, index, policy.confidence)
    return f"{said}; the next best, {rows[second].batch_size}, {_compared(words, over)}."


def _among_equals(contest: Contest, row: BatchSizeVerdict, policy: Policy) -> str:
    """What sets the one to use apart from those it is equal to."""
    names = named(contest.sizes(sorted({*contest.decision.tied, contest.decision.used or 0})))
    memory = row.peak_memory_mib
    least = f"takes {count(memory)} MiB" if memory else "is the one to use"
    within = f"{policy.tolerance:.0%}".replace("%", " %")
    return f"{least}, of {names}, which are equal within {within}"


def ratio_over(contest: Contest, index: int, other: int, confidence: float) -> Estimate:
    """The one's typical quantity over the other's, with its interval where runs were repeated."""
    if contest.regret is None:
        middle = contest.typical.median
        return Estimate(times_of(middle[index] - middle[other]), None, None)
    draws = contest.regret.first[0]
    over = sorted((draws[:, index] - draws[:, other]).tolist())
    ends = [over[int(p * (len(over) - 1))] for p in ((1 - confidence) / 2, (1 + confidence) / 2)]
    low, high = (times_of(end) for end in ends)
    return Estimate(times_of(median(over)), low, high)


def times_of(log_ratio: float) -> float:
    """A ratio from its log, the furthest ones cut to what a float can hold."""
    return math.exp(max(-MOST_LOG, min(MOST_LOG, log_ratio)))


def _compared(words: Words, over: Estimate) -> str:
    return words.compares.format(ratio=quantity(over.value, over.low, over.high, unit="times"))


def advice_of(contest: Contest, settling: Settling | None, policy: Policy) -> str | None:
    """The command that is worth its price; None where the answer stands, or nothing is."""
    if contest.decision.status == "unreached":
        if policy.resume is None:
            return "Judge at a target that was reached (--target)."
        return "Begin a sweep with a lower --target, or with a larger --budget-examples."
    if settling is None or policy.resume is None or settling.worth_it is False:
        return None
    if settling.seeds is not None:
        return f"{policy.resume} --seeds {settling.seeds}"
    if any(ended_early(contest, i) for i in contest.decision.open):
        return "Begin a sweep with a larger --budget-examples."
    return "Begin a sweep with more learning rates (--trials)." if settling.rates else None


def named(sizes: Sequence[int | None]) -> str:
    """`32`, `32 and 64`, `32, 64 and 128`."""
    texts = [str(size) for size in sizes]
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
