"""The parts of a report's page, each from a verdict or from recorded rows to markup.

A part that has nothing to say is the empty markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tune_jobs.formatting import DASH, count, learning_rate, quantity, seconds, target_name
from tune_jobs.judging.sentences import per_cent
from tune_jobs.records import BatchSizeProfile
from tune_jobs.reporting.figures.drawing import Picture, batch_colour, variable
from tune_jobs.reporting.page.markup import Markup, element, joined
from tune_jobs.reporting.terminal import QUANTITIES, next_step, standing
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    Estimate,
    GeneralizationRow,
    GoalAnswer,
    RuleCost,
    TargetAnswer,
    Verdict,
)

NOTHING = Markup("")
LIMITS = {
    "memory": "memory",
    "throughput": "throughput",
    "statistics": "statistics (the critical batch size)",
    "range": "the range of batch sizes that was tried",
}


def named(sizes: Iterable[int]) -> str:
    """`16, 32`, or a dash for none."""
    return ", ".join(map(str, sizes)) or DASH


def answer_box(verdict: Verdict) -> Markup:
    """The answer, large: the line that is the answer, what could change it, then its grounds."""
    use = verdict.use
    large = [] if use is None else [("Batch size", str(use.batch_size))]
    if use is not None and use.learning_rate is not None:
        large.append(("Learning rate", learning_rate(use.learning_rate)))
    if use is not None and use.regret_bound is not None:
        at_most = f"{verdict.confidence:.0%} sure: worse than the best by at most"
        large.append((at_most.replace("%", " %"), per_cent(use.regret_bound)))
    shown = [element("div", element("dt", name), element("dd", text)) for name, text in large]
    following = next_step(verdict)
    return element(
        "div",
        element("p", verdict.answer, class_="first"),
        element("dl", *shown, class_="answer") if shown else None,
        element("p", verdict.change, class_="reason") if verdict.change else None,
        element("p", element("code", following)) if following else None,
        element("p", element("span", verdict.status, class_="badge"), " ", _at(verdict)),
        *(element("p", text) for text in verdict.left_out),
        element("p", verdict.reason),
        _limit(verdict),
        class_="verdict" if verdict.status in ("decided", "tied") else "verdict open",
    )


def _at(verdict: Verdict) -> str:
    """The sets, the target, the goal and the confidence, in one line."""
    parts = []
    if verdict.tied_batch_sizes:
        parts.append(f"equal: {named(verdict.tied_batch_sizes)}")
    if verdict.open_batch_sizes:
        parts.append(f"may be as good: {named(verdict.open_batch_sizes)}")
    target = "" if verdict.target is None else f", target {target_name(verdict.target)}"
    parts.append(f"goal {verdict.goal}{target}")
    parts.append(f"confidence {verdict.confidence:.0%}, tolerance {verdict.tolerance:.0%}")
    return "; ".join(parts) + "."


def _limit(verdict: Verdict) -> Markup | None:
    if not verdict.limit_reason:
        return None
    name = LIMITS.get(verdict.binding_limit or "", "")
    heading = f"The limit that binds: {name}. " if name else ""
    return element("p", element("strong", heading), verdict.limit_reason)


def warnings_box(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return NOTHING
    items = [element("li", text) for text in warnings]
    heading = element("h3", "Before trusting these numbers")
    return element("div", heading, element("ul", *items), class_="warnings")


# --- tables ----------------------------------------------------------------------------------

Column = tuple[str, Callable[..., object], bool]
"""Title, cell of a row, and whether the cell is prose rather than a number."""


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[object],
    chosen: Callable[..., bool] = lambda row: False,
) -> Markup:
    """A table whose first column heads its rows; columns of dashes alone are left out.

    It scrolls inside its own box where the page is narrower.
    """
    cells = [[cell(row) for _, cell, _ in columns] for row in rows]
    kept = [k for k in range(len(columns)) if k == 0 or any(c[k] not in (DASH, "") for c in cells)]
    heads = [
        element("th", columns[k][0], scope="col", class_="text" if columns[k][2] else None)
        for k in kept
    ]
    body = [
        element(
            "tr",
            *(_cell(found[k], first=k == 0, prose=columns[k][2]) for k in kept),
            class_="chosen" if chosen(row) else None,
        )
        for row, found in zip(rows, cells, strict=True)
    ]
    whole = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        aria_label=caption,
    )
    return joined(
        element("p", caption, class_="caption") if caption else None,
        element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption),
    )


def _cell(content: object, *, first: bool, prose: bool) -> Markup:
    class_ = "text" if prose else None
    if first:
        return element("th", content, scope="row", class_=class_)
    return element("td", content, class_=class_)


def size_chip(size: int) -> Markup:
    """A batch size with its colour."""
    colour = batch_colour(size)
    style = f"background:var({variable(colour)},{colour})"
    return joined(element("span", class_="chip", style=style, aria_hidden="true"), size)


def table_by_batch_size(verdict: Verdict) -> Markup:
    """What the runs say of each batch size, the judged quantity first, intervals in brackets."""
    first = [verdict.quantity] if verdict.quantity in QUANTITIES else []
    names = [*first, *(name for name in QUANTITIES if name not in first)]
    columns: list[Column] = [
        ("batch\nsize", lambda row: size_chip(row.batch_size), False),
        *((_title(name), _quantity_cell(name, verdict), False) for name in names[:1]),
        ("times the\nbest other", lambda row: stacked(quantity(*_parts(row.ratio_to_best))), False),
        ("worse than\nthe best by", lambda row: stacked(_worse(row)), False),
        ("standing", standing, False),
        ("reached", lambda row: f"{row.reached} of {row.seeds}", False),
        ("learning\nrate", lambda row: learning_rate(row.learning_rate), False),
        *((_title(name), _quantity_cell(name, verdict), False) for name in names[1:]),
        ("in passes\nof", _passes, False),
    ]
    interval = f"{verdict.confidence:.0%}"
    return table(
        f"Each batch size: the median run and, in brackets, its {interval} interval",
        columns,
        verdict.per_batch_size,
        lambda row: row.standing == "used",
    )


def _title(name: str) -> str:
    return QUANTITIES[name][0]


def _quantity_cell(name: str, verdict: Verdict) -> Callable[[BatchSizeVerdict], object]:
    show = QUANTITIES[name][1]

    def cell(row: BatchSizeVerdict) -> object:
        if name == verdict.quantity:
            return stacked(show(row.median, row.low, row.high))
        found = getattr(row, name)
        if isinstance(found, Estimate):
            return stacked(show(found.value, found.low, found.high))
        return show(found)

    return cell


def stacked(text: str) -> object:
    """`41 s [38, 45]` with the interval below the value."""
    value, bracket, interval = text.partition(" [")
    if not bracket:
        return text
    return joined(value, " ", element("span", f"[{interval}", class_="interval"))


def _parts(value: Estimate) -> tuple[float | None, float | None, float | None]:
    return value.value, value.low, value.high


def _worse(row: BatchSizeVerdict) -> str:
    """What it is expected to be worse than the best, and at the most."""
    if row.expected_regret is None or row.regret_bound is None:
        return DASH
    return f"{per_cent(row.expected_regret)} [at most {per_cent(row.regret_bound)}]"


def _passes(row: BatchSizeVerdict) -> str:
    split = row.micro_batch_size is not None and row.micro_batch_size < row.batch_size
    return str(row.micro_batch_size) if split else DASH


def answers_table(verdicts: Sequence[Verdict], links: Mapping[str, str]) -> Markup:
    """Every verdict in one line, where there are several; `links` by workload."""
    if len(verdicts) < 2:
        return NOTHING
    columns: list[Column] = [
        ("workload", lambda v: element("a", v.workload, href=f"#{links[v.workload]}"), True),
        ("target", lambda v: target_name(v.target) if v.target is not None else DASH, False),
        ("status", lambda v: v.status, False),
        ("answer", lambda v: v.answer, True),
    ]
    return element(
        "section",
        element("h2", "All answers"),
        table("Each workload and target", columns, verdicts),
    )


def sensitivity_section(verdict: Verdict) -> Markup:
    """The answer at every target, and under every goal."""
    parts = []
    if len(verdict.sensitivity) > 1:
        columns: list[Column] = [
            ("target", lambda a: target_name(a.target), False),
            *_ANSWER_COLUMNS,
        ]
        at = verdict.target
        parts.append(table("The answer at each target", columns, verdict.sensitivity,
                           lambda a: a.target == at))  # fmt: skip
    if len(verdict.by_goal) > 1:
        parts.append(_goals_table(verdict))
    if not parts:
        return NOTHING
    return element("section", element("h2", "How the answer moves"), *parts)


def _bound(answer: TargetAnswer | GoalAnswer) -> str:
    return DASH if answer.regret_bound is None else per_cent(answer.regret_bound)


_ANSWER_COLUMNS: list[Column] = [
    ("use", lambda a: a.use or DASH, False),
    ("worse than the\nbest by at most", _bound, False),
    ("equal to it", lambda a: named(a.tied_batch_sizes), False),
    ("may be as good", lambda a: named(a.open_batch_sizes), False),
    ("status", lambda a: a.status, False),
]


def _goals_table(verdict: Verdict) -> Markup:
    columns: list[Column] = [
        ("goal", lambda a: a.goal, False),
        *_ANSWER_COLUMNS,
        ("why", lambda a: a.reason, True),
    ]
    goal = verdict.goal
    return table("The answer under each goal", columns, verdict.by_goal, lambda a: a.goal == goal)


def learning_rate_section(verdict: Verdict) -> Markup:
    """The measured exponent, and what the usual rules would have cost."""
    rule = verdict.learning_rate_rule
    if rule is None:
        return NOTHING
    columns: list[Column] = [
        ("rule", lambda c: f"{c.rule}, B^{c.exponent:g}", True),
        ("at batch\nsize", lambda c: c.batch_size, False),
        ("its learning\nrate", lambda c: learning_rate(c.learning_rate), False),
        ("nearest\ntried", lambda c: learning_rate(c.nearest_learning_rate), False),
        ("cost", _rule_cost, False),
        ("note", lambda c: c.reason or "", True),
    ]
    parts = [element("h2", "Learning-rate rule"), element("p", rule.sentence)]
    if rule.costs:
        anchor = rule.costs[0].anchor_batch_size
        caption = f"Had a rule been trusted from batch size {anchor}: examples to target"
        parts.append(table(caption, columns, rule.costs))
    return element("section", *parts)


def _rule_cost(cost: RuleCost) -> str:
    return DASH if cost.examples_ratio is None else f"{cost.examples_ratio:.2f} times"


def statistics_section(verdict: Verdict) -> Markup:
    """Critical batch size, noise scale and the closed form, in sentences."""
    told = []
    fit = verdict.critical_batch_size
    if fit is not None:
        chance = fit.lack_of_fit_p
        shape = "" if chance is None else f", lack of fit p = {chance:.2g}"
        told.append(
            f"Critical batch size {count(fit.value, fit.low, fit.high)}: updates to target = "
            f"{count(fit.s_min_updates)} (1 + {count(fit.value)} / B), from {fit.runs} runs at "
            f"{fit.batch_sizes} batch sizes (R² {fit.r_squared:.3f}{shape})."
        )
    elif verdict.critical_batch_size_reason:
        told.append(f"No critical batch size: {verdict.critical_batch_size_reason}")
    for n in verdict.noise_scale:
        if n.value is None:
            told.append(f"Noise scale ({n.kind}): not told. {n.reason or ''}".strip())
            continue
        text = f"Noise scale ({n.kind}), a prediction of it: {count(n.value, n.low, n.high)}"
        if n.first is not None and n.last is not None and n.points > 1:
            text += f", from {count(n.first)} at the first to {count(n.last)} at the last point"
        told.append(text + ".")
    if verdict.closed_form is not None:
        told.append(verdict.closed_form.sentence)
    if not told:
        return NOTHING
    heading = element("h2", "Critical batch size")
    return element("section", heading, *(element("p", text) for text in told))


def generalization_section(verdict: Verdict) -> Markup:
    """Test accuracy and the train-to-test gap of each batch size; they decide nothing."""
    found = verdict.generalization
    if found is None:
        return NOTHING

    def accuracy(name: str) -> Callable[[GeneralizationRow], str]:
        def cell(row: GeneralizationRow) -> str:
            value: Estimate = getattr(row, name)
            return quantity(*_parts(value), digits=4)

        return cell

    columns: list[Column] = [
        ("batch\nsize", lambda row: size_chip(row.batch_size), False),
        ("test accuracy,\ncommon budget", accuracy("test_accuracy"), False),
        ("test accuracy,\nequal updates", accuracy("test_accuracy_at_equal_updates"), False),
        ("train accuracy -\ntest accuracy", accuracy("train_to_test_gap"), False),
    ]
    chances = (
        ("test accuracy", found.test_accuracy_p),
        ("at equal updates", found.test_accuracy_at_equal_updates_p),
        ("gap", found.train_to_test_gap_p),
    )
    tested = ", ".join(f"{name} {p:.2g}" for name, p in chances if p is not None)
    return element(
        "section",
        element("h2", "Generalization"),
        element("p", found.sentence),
        element("p", f"p values over all batch sizes: {tested}.", class_="muted") if tested else "",
        table("Test accuracy, shown and never used for a choice", columns, found.rows),
    )


def clock_table(verdict: Verdict) -> Markup:
    """Predicted and measured seconds side by side, where confirm runs were timed alone."""
    rows = [r for r in verdict.per_batch_size if r.measured_time_to_target_seconds is not None]
    if not rows:
        return NOTHING
    columns: list[Column] = [
        ("batch\nsize", lambda row: size_chip(row.batch_size), False),
        ("by the profile", lambda row: seconds(row.time_to_target_seconds.value), False),
        ("by the clock,\nalone", lambda row: seconds(row.measured_time_to_target_seconds), False),
        ("ratio", lambda row: quantity(row.measured_to_predicted), False),
    ]
    return table("Time to target, predicted and measured", columns, rows)


def profile_table(profiles: Sequence[BatchSizeProfile]) -> Markup:
    """What an update costs at each batch size, also where it did not fit."""
    if not profiles:
        return NOTHING
    columns: list[Column] = [
        ("batch\nsize", lambda p: size_chip(p.batch_size), False),
        ("in passes\nof", lambda p: p.micro_batch_size, False),
        ("device", lambda p: p.device, False),
        ("an update", lambda p: seconds(p.step_seconds, p.step_seconds_low, p.step_seconds_high),
         False),
        ("examples\n/s", lambda p: count(p.examples_per_second), False),
        ("peak\nMiB", lambda p: count(p.peak_memory_mib), False),
        ("reserved\nMiB", lambda p: count(p.reserved_memory_mib), False),
        ("outcome", lambda p: p.outcome.replace("_", " "), False),
        ("why", lambda p: p.reason or "", True),
    ]  # fmt: skip
    ordered = sorted(profiles, key=lambda p: (p.device, p.batch_size, p.micro_batch_size))
    caption = "What an update costs, alone on the device; marked: what trials use"
    return table(caption, columns, ordered, lambda p: p.chosen and p.outcome == "finished")


# --- figures, facts, records -----------------------------------------------------------------


def figure(picture: Picture) -> Markup:
    """A figure with its caption; its panels wrap below one another where there is no room."""
    caption = f"caption-{picture.name}"
    panels = []
    for number, svg in enumerate(picture.panels, 1):
        part = f", part {number} of {len(picture.panels)}" if len(picture.panels) > 1 else ""
        opening = element(
            "svg", role="img", aria_label=picture.heading + part, aria_describedby=caption
        ).removesuffix("></svg>")
        drawn = Markup(svg.replace("<svg", opening, 1))
        panels.append(element("div", drawn, class_="panel"))
    size = {1: "one", 2: "two"}.get(len(picture.panels), "three")
    files = [element("a", kind.upper(), href=f"figures/{picture.name}.{kind}")
             for kind in ("png", "svg")]  # fmt: skip
    return element(
        "figure",
        element("div", *panels, class_=f"panels {'three' if picture.columns == 3 else size}"),
        element(
            "figcaption",
            element("strong", picture.heading),
            picture.caption,
            " ",
            element("span", *joined_by(" ", files), class_="files"),
            id=caption,
        ),
        class_=size,
        id=f"figure-{picture.name}",
        data_figure=picture.name,
    )


def joined_by(separator: str, parts: Sequence[Markup]) -> list[object]:
    """The parts with the separator between them."""
    found: list[object] = []
    for part in parts:
        found += [separator, part] if found else [part]
    return found


def facts_section(facts: Mapping[str, object], *parts: Markup) -> Markup:
    """How it was measured: plain facts first, then each group of facts under its own name."""
    plain = {name: value for name, value in facts.items() if not isinstance(value, Mapping)}
    groups = {name: value for name, value in facts.items() if isinstance(value, Mapping)}
    if not facts and not any(parts):
        return NOTHING
    return element(
        "section",
        element("h2", "How it was measured"),
        *parts,
        _definitions(plain),
        *(
            joined(element("h3", _readable(name)), _definitions(group))
            for name, group in groups.items()
        ),
    )


def _definitions(facts: Mapping[str, object]) -> Markup:
    pairs = [
        joined(element("dt", _readable(name)), element("dd", _value(value)))
        for name, value in facts.items()
    ]
    return element("dl", *pairs, class_="facts") if pairs else NOTHING


def _readable(name: object) -> str:
    return str(name).replace("_", " ")


def _value(value: object) -> str:
    if value is None or value == "":
        return DASH
    if isinstance(value, Mapping):
        return ", ".join(f"{_readable(k)} {_value(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(_value(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def records_section(folder: Path, pictures: Sequence[Picture]) -> Markup:
    """Where the records are, and how to make this page again."""
    known = (
        ("sweep.toml", "the configuration; the sweep can be run again from it"),
        ("environment.json", "versions, host, devices, commit"),
        ("profiles.parquet", "what an update costs, one row a batch size"),
        ("noise_scale.parquet", "the gradient noise scale along a run"),
        ("trials.parquet", "one row a trial, search and confirm"),
        ("measurements.parquet", "the learning curves, one row a report"),
        ("verdict.json", "this verdict, machine-readable"),
    )
    found = [(name, what) for name, what in known if (folder / name).exists()]
    if pictures:
        found.append(("figures/", f"{len(pictures)} figures, each as PNG and SVG"))
    rows = [joined(element("dt", element("code", n)), element("dd", what)) for n, what in found]
    return element(
        "section",
        element("h2", "Where the records are"),
        element("p", "In ", element("code", folder.name or str(folder)), ", beside this page:"),
        element("dl", *rows, class_="facts") if rows else None,
    )
