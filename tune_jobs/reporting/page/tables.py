"""The tables of a report's page: columns are pairs of a title and the cell of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from markupsafe import Markup

from tune_jobs.formatting import (
    ACCURACY,
    DASH,
    count,
    goal_name,
    learning_rate,
    on_split,
    quantity,
    seconds,
    target_name,
)
from tune_jobs.judging.sentences import per_cent
from tune_jobs.records import BatchSizeProfile
from tune_jobs.reporting.figures.drawing import batch_colour, variable
from tune_jobs.reporting.page.markup import element, joined
from tune_jobs.reporting.terminal import (
    AT_THE_END,
    QUANTITIES,
    named_target,
    standing,
    target_title,
    title_of,
)
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    Estimate,
    Generalization,
    RuleCost,
    Verdict,
)

Column = tuple[str, Callable[..., object]]


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[object],
    chosen: Callable[..., bool] = lambda row: False,
    *,
    prose: Sequence[str] = (),
) -> Markup:
    """A table whose first column heads its rows; columns of dashes alone are left out.

    It scrolls inside its own box where the page is narrower.

    Args:
        chosen: the rows to mark.
        prose: the titles of columns that hold words rather than numbers.
    """
    cells = [[cell(row) for _, cell in columns] for row in rows]
    kept = [k for k in range(len(columns)) if k == 0 or any(c[k] not in (DASH, "") for c in cells)]
    style = ["text" if title in prose else None for title, _ in columns]
    heads = [element("th", columns[k][0], scope="col", class_=style[k]) for k in kept]
    body = [
        element(
            "tr",
            element("th", found[0], scope="row", class_=style[0]),
            *(element("td", found[k], class_=style[k]) for k in kept[1:]),
            class_="chosen" if chosen(row) else None,
        )
        for row, found in zip(rows, cells, strict=True)
    ]
    parts = element("thead", element("tr", *heads)), element("tbody", *body)
    whole = element("table", *parts, aria_label=caption)
    return joined(
        element("p", caption, class_="caption"),
        element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption),
    )


# --- cells and columns that several tables have ----------------------------------------------


def named(sizes: Iterable[int]) -> str:
    """`16, 32`, or a dash for none."""
    return ", ".join(map(str, sizes)) or DASH


def size_chip(size: int) -> Markup:
    """A batch size with its colour."""
    colour = batch_colour(size)
    style = f"background:var({variable(colour)},{colour})"
    return joined(element("span", class_="chip", style=style, aria_hidden="true"), size)


def stacked(show: Callable[..., str], value: Estimate) -> Markup:
    """`41 s [38, 45]` with the interval below the value."""
    shown, bracket, interval = show(value.value, value.low, value.high).partition(" [")
    below = joined(" ", element("span", f"[{interval}", class_="interval")) if bracket else None
    return joined(shown, below)


SIZE: Column = ("batch\nsize", lambda row: size_chip(row.batch_size))
ANSWER: tuple[Column, ...] = (
    ("use", lambda answer: answer.use or DASH),
    ("worse than the\nbest by at most", lambda answer: _bound(answer.regret_bound)),
    ("equal to it", lambda answer: named(answer.tied_batch_sizes)),
    ("may be as good", lambda answer: named(answer.open_batch_sizes)),
    ("status", lambda answer: answer.status),
)
WHY: Column = ("why", lambda row: row.reason or "")


# --- tables of a verdict ---------------------------------------------------------------------


def by_batch_size(verdict: Verdict) -> Markup:
    """What the runs say of each batch size, the judged quantity first, intervals in brackets."""
    first, *others = sorted(QUANTITIES, key=lambda name: name != verdict.quantity)
    columns: list[Column] = [
        SIZE,
        _quantity_column(first, verdict),
        ("times the\nbest other", lambda row: stacked(quantity, row.ratio_to_best)),
        ("expected worse\nthan the best by", lambda row: _bound(row.expected_regret)),
        ("at most", lambda row: _bound(row.regret_bound)),
        ("standing", standing),
        ("runs", lambda row: str(row.seeds))
        if verdict.target is None and verdict.quantity in AT_THE_END
        else ("reached", lambda row: f"{row.reached} of {row.seeds}"),
        ("learning\nrate", lambda row: learning_rate(row.learning_rate)),
        *(_quantity_column(name, verdict) for name in others),
        ("in passes\nof", _passes),
    ]
    return table(
        f"Each batch size: the median run and, in brackets, its {verdict.confidence:.0%} interval",
        columns,
        verdict.per_batch_size,
        lambda row: row.standing == "used",
    )


def _quantity_column(name: str, verdict: Verdict) -> Column:
    _, show = QUANTITIES[name]

    def cell(row: BatchSizeVerdict) -> object:
        if name == verdict.quantity:
            return stacked(show, Estimate(row.median, row.low, row.high))
        found = getattr(row, name)
        return stacked(show, found) if isinstance(found, Estimate) else show(found)

    return title_of(name, verdict), cell


def _bound(regret: float | None) -> str:
    return DASH if regret is None else per_cent(regret)


def _passes(row: BatchSizeVerdict) -> str:
    split = row.micro_batch_size is not None and row.micro_batch_size < row.batch_size
    return str(row.micro_batch_size) if split else DASH


def of_all_answers(verdicts: Sequence[Verdict], links: Mapping[str, str]) -> Markup:
    """Every verdict in one line; `links` by workload."""
    columns: list[Column] = [
        ("workload", lambda v: element("a", v.workload, href=f"#{links[v.workload]}")),
        ("target", lambda v: named_target(v) if v.target is not None else DASH),
        ("status", lambda v: v.status),
        ("answer", lambda v: v.answer),
    ]
    return table("Each workload and target", columns, verdicts, prose=("workload", "answer"))


def by_target(verdict: Verdict) -> Markup:
    """The answer at each target, the verdict's own marked."""
    columns: list[Column] = [
        (target_title(verdict), lambda answer: target_name(answer.target)),
        *ANSWER,
    ]
    return table("The answer at each target", columns, verdict.sensitivity,
                 lambda answer: answer.target == verdict.target)  # fmt: skip


def by_goal(verdict: Verdict) -> Markup:
    """The answer under each goal, the verdict's own marked."""
    goal: Column = ("goal", lambda answer: goal_name(answer.goal, verdict.metric))
    columns: list[Column] = [goal, *ANSWER, WHY]
    return table("The answer under each goal", columns, verdict.by_goal,
                 lambda answer: answer.goal == verdict.goal, prose=("why",))  # fmt: skip


def of_rules(costs: Sequence[RuleCost]) -> Markup:
    """What the usual learning-rate rules would have cost."""
    columns: list[Column] = [
        ("rule", lambda c: f"{c.rule}, B^{c.exponent:g}"),
        ("at batch\nsize", lambda c: c.batch_size),
        ("its learning\nrate", lambda c: learning_rate(c.learning_rate)),
        ("nearest\ntried", lambda c: learning_rate(c.nearest_learning_rate)),
        ("cost", _rule_cost),
        ("note", lambda c: c.reason or ""),
    ]
    anchor = costs[0].anchor_batch_size
    caption = f"Had a rule been trusted from batch size {anchor}: examples to target"
    return table(caption, columns, costs, prose=("rule", "note"))


def _rule_cost(cost: RuleCost) -> str:
    return DASH if cost.examples_ratio is None else f"{cost.examples_ratio:.2f} times"


def of_test_metric(found: Generalization, unit: str = "") -> Markup:
    """The test metric and the train-to-test gap of each batch size."""
    name = on_split("test", found.metric)
    beside = "" if found.metric == ACCURACY or not unit else f" ({unit})"

    def column(title: str, name: str) -> Column:
        def cell(row: object) -> str:
            value: Estimate = getattr(row, name)
            return quantity(value.value, value.low, value.high, digits=4)

        return title, cell

    columns = [
        SIZE,
        column(f"{name},\ncommon budget", "test_accuracy"),
        column(f"{name},\nequal updates", "test_accuracy_at_equal_updates"),
        column("better on train\nthan on test by", "train_to_test_gap"),
    ]
    caption = f"{name[0].upper()}{name[1:]}{beside}, shown and never used for a choice"
    return table(caption, columns, found.rows)


def of_clocks(verdict: Verdict) -> Markup | None:
    """Predicted and measured seconds side by side, where confirm runs were timed alone."""
    rows = [r for r in verdict.per_batch_size if r.measured_time_to_target_seconds is not None]
    columns: list[Column] = [
        SIZE,
        ("by the profile", lambda row: seconds(row.time_to_target_seconds.value)),
        ("by the clock,\nalone", lambda row: seconds(row.measured_time_to_target_seconds)),
        ("ratio", lambda row: quantity(row.measured_to_predicted)),
    ]
    return table("Time to target, predicted and measured", columns, rows) if rows else None


# --- the table of the measure stage ----------------------------------------------------------


def of_profiles(profiles: Sequence[BatchSizeProfile]) -> Markup | None:
    """What an update costs at each batch size, also where it did not fit."""
    columns: list[Column] = [
        SIZE,
        ("in passes\nof", lambda p: p.micro_batch_size),
        ("device", lambda p: p.device),
        ("an update", lambda p: seconds(p.step_seconds, p.step_seconds_low, p.step_seconds_high)),
        ("examples\n/s", lambda p: count(p.examples_per_second)),
        ("peak\nMiB", lambda p: count(p.peak_memory_mib)),
        ("reserved\nMiB", lambda p: count(p.reserved_memory_mib)),
        ("outcome", lambda p: p.outcome.replace("_", " ")),
        WHY,
    ]
    ordered = sorted(profiles, key=lambda p: (p.device, p.batch_size, p.micro_batch_size))
    caption = "What an update costs, alone on the device; marked: what trials use"

    def used(profile: BatchSizeProfile) -> bool:
        return profile.chosen and profile.outcome == "finished"

    return table(caption, columns, ordered, used, prose=("why",)) if profiles else None
