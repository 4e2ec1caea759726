"""The parts of a report's page, each from a verdict or from recorded rows to markup.

A part that has nothing to say is None, which is nothing within an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from tune_jobs.formatting import DASH, count, goal_name, learning_rate, on_split
from tune_jobs.judging.sentences import per_cent
from tune_jobs.reporting.figures.drawing import Picture
from tune_jobs.reporting.page import tables
from tune_jobs.reporting.page.markup import element, joined
from tune_jobs.reporting.page.tables import named
from tune_jobs.reporting.terminal import named_target, next_step
from tune_jobs.training.segments import segments_of
from tune_jobs.verdicts import Verdict

LIMITS = {
    "memory": "memory",
    "throughput": "throughput",
    "statistics": "statistics (the critical batch size)",
    "range": "the range of batch sizes that was tried",
}


def answer_box(verdict: Verdict) -> Markup:
    """The answer, large: the line that is the answer, what could change it, then its grounds."""
    use = verdict.use
    large = [] if use is None else [("Batch size", str(use.batch_size))]
    if use is not None and use.learning_rate is not None:
        large.append(("Learning rate", learning_rate(use.learning_rate)))
    if use is not None and use.regret_bound is not None:
        sure = f"{100 * verdict.confidence:.4g} % sure: worse than the best by at most"
        large.append((sure, per_cent(use.regret_bound)))
    shown = [element("div", element("dt", name), element("dd", text)) for name, text in large]
    following = next_step(verdict)
    return element(
        "div",
        element("p", verdict.answer, class_="first"),
        element("dl", *shown, class_="answer") if shown else None,
        element("p", verdict.front) if verdict.front else None,
        _schedule(verdict),
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
    target = "" if verdict.target is None else f", target {named_target(verdict)}"
    parts.append(f"goal {goal_name(verdict.goal, verdict.metric)}{target}")
    parts.append(f"confidence {verdict.confidence:.0%}, tolerance {verdict.tolerance:.0%}")
    return "; ".join(parts) + "."


def _schedule(verdict: Verdict) -> Markup | None:
    """What a batch schedule takes against the fixed batch size, and its segments in words."""
    found = verdict.schedule
    if found is None:
        return None
    parts = (
        f"from example {s.from_examples:,} on {s.batch_size} at {learning_rate(s.learning_rate)}"
        for s in segments_of(found.schedule or "")
    )
    told = found.told if found.schedule else None
    named = f"Its batch sizes and learning rates: {'; '.join(parts)}." if found.schedule else None
    return element(
        "p",
        element("strong", "Batch schedule. "),
        " ".join(text for text in (found.sentence, named, told) if text),
        id="schedule",
    )


def _limit(verdict: Verdict) -> Markup | None:
    if not verdict.limit_reason:
        return None
    name = LIMITS.get(verdict.binding_limit or "", "")
    heading = f"The limit that binds: {name}. " if name else ""
    return element("p", element("strong", heading), verdict.limit_reason)


def warnings_box(warnings: Sequence[str]) -> Markup | None:
    if not warnings:
        return None
    items = [element("li", text) for text in warnings]
    heading = element("h3", "Before trusting these numbers")
    return element("div", heading, element("ul", *items), class_="warnings")


def answers_section(verdicts: Sequence[Verdict], links: Mapping[str, str]) -> Markup | None:
    """Every verdict in one line, where there are several; `links` by workload."""
    if len(verdicts) < 2:
        return None
    return element("section", element("h2", "All answers"), tables.of_all_answers(verdicts, links))


def sensitivity_section(verdict: Verdict) -> Markup | None:
    """The answer at every target, and under every goal."""
    by_target = tables.by_target(verdict) if len(verdict.sensitivity) > 1 else None
    by_goal = tables.by_goal(verdict) if len(verdict.by_goal) > 1 else None
    if by_target is None and by_goal is None:
        return None
    return element("section", element("h2", "How the answer moves"), by_target, by_goal)


def learning_rate_section(verdict: Verdict) -> Markup | None:
    """The measured exponent, and what the usual rules would have cost."""
    rule = verdict.learning_rate_rule
    if rule is None:
        return None
    costs = tables.of_rules(rule.costs) if rule.costs else None
    spent = verdict.search_cost
    told = [element("p", text) for text in (rule.sentence, spent and spent.sentence) if text]
    return element("section", element("h2", "Learning-rate rule"), *told, costs)


def statistics_section(verdict: Verdict) -> Markup | None:
    """Critical batch size, noise scale and the closed form, in sentences."""
    told = []
    fit = verdict.critical_batch_size
    if fit is not None:
        chance = fit.lack_of_fit_p
        shape = "" if chance is None else f", lack of fit p = {chance:.2g}"
        told.append(
            f"Critical batch size {count(fit.value, fit.low, fit.high)}: updates to target = "
            f"{count(fit.s_min_updates)} (1 + {count(fit.value)} / B), from {fit.runs} runs at "
            f"{fit.batch_sizes} batch sizes (R² {fit.r_squared:.3f}, residuals about "
            f"{fit.residual:.0%}{shape})."
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
        return None
    heading = element("h2", "Critical batch size")
    return element("section", heading, *(element("p", text) for text in told))


def generalization_section(verdict: Verdict) -> Markup | None:
    """The test metric and the train-to-test gap of each batch size; they decide nothing."""
    found = verdict.generalization
    if found is None:
        return None
    chances = (
        (on_split("test", found.metric), found.test_accuracy_p),
        ("at equal updates", found.test_accuracy_at_equal_updates_p),
        ("gap", found.train_to_test_gap_p),
    )
    tested = ", ".join(f"{name} {p:.2g}" for name, p in chances if p is not None)
    p_values = f"p values over all batch sizes: {tested}."
    return element(
        "section",
        element("h2", "Generalization"),
        element("p", found.sentence),
        element("p", p_values, class_="muted") if tested else None,
        tables.of_test_metric(found, verdict.unit),
    )


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
            element("span", Markup(" ").join(files), class_="files"),
            id=caption,
        ),
        class_=size,
        id=f"figure-{picture.name}",
        data_figure=picture.name,
    )


def facts_section(facts: Mapping[str, object], *parts: Markup | None) -> Markup | None:
    """How it was measured: plain facts first, then each group of facts under its own name."""
    plain = {name: value for name, value in facts.items() if not isinstance(value, Mapping)}
    groups = {name: value for name, value in facts.items() if isinstance(value, Mapping)}
    if not facts and not any(parts):
        return None
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


def _definitions(facts: Mapping[str, object]) -> Markup | None:
    pairs = [
        joined(element("dt", _readable(name)), element("dd", _value(value)))
        for name, value in facts.items()
    ]
    return element("dl", *pairs, class_="facts") if pairs else None


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
