"""A decision in words: the reason in one sentence, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tune_jobs.formatting import accuracy, count, quantity, seconds, target_name
from tune_jobs.judging.contest import Contest
from tune_jobs.judging.deciding import MOST_SEEDS
from tune_jobs.judging.policy import Policy
from tune_jobs.verdicts import BatchSizeVerdict, Estimate

Show = Callable[..., str]


def _plain(value: float | None, low: float | None = None, high: float | None = None) -> str:
    return quantity(value, low, high)


def _mebibytes(value: float | None, low: float | None = None, high: float | None = None) -> str:
    return count(value, low, high).replace(" [", " MiB [") if low else f"{count(value)} MiB"


def _joules(value: float | None, low: float | None = None, high: float | None = None) -> str:
    return quantity(value, low, high, unit="J")


@dataclass(frozen=True)
class Words:
    """How a goal's quantity is spoken of: `64 {does} {value}`, `128 {compares} 1.3 times`."""

    does: str
    show: Show
    compares: str
    least: str


WORDS = {
    "time": Words("reaches {target} in", seconds, "takes {ratio} as long", "the fastest"),
    "examples": Words(
        "reaches {target} with the fewest examples,", count, "needs {ratio} as many",
        "the most frugal",
    ),
    "energy": Words(
        "reaches {target} on", _joules, "takes {ratio} the energy",
        "the most frugal",
    ),
    "cost": Words("reaches {target} at a cost of", _plain, "costs {ratio} as much", "the cheapest"),
    "memory": Words("reaches {target} within", _mebibytes, "takes {ratio} as much", "the leanest"),
    "accuracy": Words(
        "ends at a validation accuracy of", accuracy, "makes {ratio} as many errors",
        "the most accurate",
    ),
}  # fmt: skip


def reason_of(
    contest: Contest, rows: Sequence[BatchSizeVerdict], target: float | None, policy: Policy
) -> str:
    """Why the verdict is what it is, in one sentence."""
    status = contest.decision.status
    if status == "unreached":
        return _unreached(target)
    if status == "undecided":
        return _undecided(contest, rows, policy)
    return _decided(contest, rows, target, policy)


def _unreached(target: float | None) -> str:
    return f"No batch size reached {target_name(target)} in more than half of its runs."


def _decided(
    contest: Contest, rows: Sequence[BatchSizeVerdict], target: float | None, policy: Policy
) -> str:
    index = contest.decision.recommended
    assert index is not None, "a decided contest recommends"
    row, words = rows[index], WORDS[policy.goal]
    does = words.does.format(target=target_name(target))
    said = f"{row.batch_size} {does} {words.show(row.median, row.low, row.high)}"
    if len(contest.decision.tied) > 1:
        return f"{said}, and {_among_equals(contest, rows, index, policy)}."
    return f"{said}; {_runner_up(contest, rows, index, words, policy)}."


def _among_equals(
    contest: Contest, rows: Sequence[BatchSizeVerdict], index: int, policy: Policy
) -> str:
    """What sets the recommended one apart from those it is tied with."""
    names = named([contest.batch_sizes[i] for i in contest.decision.tied])
    row = rows[index]
    memory = row.peak_memory_mib
    least = f"takes the least memory ({count(memory)} MiB)" if memory else "is the smallest"
    within = all(contest.decision.within[i] for i in contest.decision.tied)
    those = "of" if within else f"of those shown to be within {policy.tolerance:.0%} of the best in"
    return f"{least} {those} {names}, {_equal(policy)}"


def _equal(policy: Policy) -> str:
    return (
        f"which cannot be told apart at {policy.confidence:.0%} or lie within "
        f"{policy.tolerance:.0%}"
    )


def _runner_up(
    contest: Contest, rows: Sequence[BatchSizeVerdict], index: int, words: Words, policy: Policy
) -> str:
    """The next best, and by how much it is worse."""
    middle = contest.comparison.middle
    others = [i for i in range(len(rows)) if contest.field.candidates[i] and i != index]
    if not others:
        return "no other batch size reached the target in more than half of its runs"
    second = min(others, key=lambda i: float(middle[i]))
    over = rows[second].ratio_to_best
    return (
        f"the next best, {rows[second].batch_size}, {words.compares.format(ratio=_ratio(over))}, "
        f"told apart at {policy.confidence:.0%}"
    )


def _ratio(over: Estimate) -> str:
    return quantity(over.value, over.low, over.high, unit="times")


def _undecided(contest: Contest, rows: Sequence[BatchSizeVerdict], policy: Policy) -> str:
    decision, words = contest.decision, WORDS[policy.goal]
    assert decision.leading is not None, "an undecided contest has a leader"
    row = rows[decision.leading]
    leads = f"{row.batch_size} leads with {words.show(row.median, row.low, row.high)}"
    if contest.seeds.max() < 2:
        return f"Undecided: one run of each batch size cannot tell noise from difference; {leads}."
    if decision.more_seeds is None:
        return f"Undecided: {leads}, {_open(contest, rows)}."
    return f"Undecided: about {_settle(contest)}; {leads}."


def _settle(contest: Contest) -> str:
    """`4 more seeds would settle 64 against 128`."""
    number, pair = contest.decision.more_seeds, contest.decision.open_pair
    seeds = "1 more seed" if number == 1 else f"{number} more seeds"
    if pair is None:
        return f"{seeds} would settle it"
    return f"{seeds} would settle {contest.size(pair[0])} against {contest.size(pair[1])}"


def _open(contest: Contest, rows: Sequence[BatchSizeVerdict]) -> str:
    """Why no number of seeds is named."""
    pair, leading = contest.decision.open_pair, contest.decision.leading
    if pair is None or leading is None:
        return (
            "but has a single run" if _single(contest, leading) else "but is not shown to be best"
        )
    other = pair[0] if pair[1] == leading else pair[1]
    row = rows[other]
    if not contest.field.candidates[other]:
        return (
            f"but the runs of {row.batch_size} that did not reach the target ended too early to "
            "tell it slower"
        )
    if _single(contest, other) or _single(contest, leading):
        return f"and a single run tells too little of {_those_single(contest)}"
    return f"but settling it against {row.batch_size} would take over {MOST_SEEDS} more seeds"


def _single(contest: Contest, index: int | None) -> bool:
    return index is not None and int(contest.seeds[index]) < 2


def _those_single(contest: Contest) -> str:
    return named([b for b, n in zip(contest.batch_sizes, contest.seeds, strict=True) if n < 2])


def advice_of(contest: Contest, policy: Policy) -> str | None:
    """What to do next; None when the verdict stands."""
    decision = contest.decision
    if decision.status == "unreached":
        return "Lower the target or give the runs a larger budget (--target, --budget-examples)."
    if decision.status != "undecided":
        return None
    if contest.seeds.min() < 2:
        return "Give every batch size at least 3 seeds, the same ones (--resume --seeds 3)."
    if decision.more_seeds is not None:
        total = int(contest.seeds[contest.field.rivals].min()) + decision.more_seeds
        return f"Run {_of_pair(contest)} with the same further seeds (--resume --seeds {total})."
    if _early(contest):
        return "Give the runs a larger budget (--budget-examples)."
    return f"Take {contest.size(decision.leading)}, or accept a wider tolerance."


def _early(contest: Contest) -> bool:
    pair = contest.decision.open_pair
    return pair is not None and not all(contest.field.candidates[i] for i in pair)


def _of_pair(contest: Contest) -> str:
    pair = contest.decision.open_pair
    return "them" if pair is None else f"{contest.size(pair[0])} and {contest.size(pair[1])}"


def named(sizes: Sequence[int | None]) -> str:
    """`32`, `32 and 64`, `32, 64 and 128`."""
    texts = [str(size) for size in sizes]
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
