"""`report.html`: one file with its figures inside, which asks nothing of a network or a script.

    write_report(folder, verdicts, runs, ...)    the page and its figures
    measure_figures(folder, profiles, ...)       the two figures of the measure stage

Everything that comes from data is escaped where it enters an element (`markup.py`). The page's
own policy forbids scripts and requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from tune_jobs.measure.cost_model import DeviceLimits, limits
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.costs import limit_lines
from tune_jobs.reporting.figures.cost_figures import by_device, measure_drawings
from tune_jobs.reporting.figures.drawing import (
    DARK,
    Drawing,
    Picture,
    batch_colour,
    colours_of,
    dark_colour,
    replace_file,
    slug,
    style,
    variable,
    write,
)
from tune_jobs.reporting.figures.evidence import Evidence
from tune_jobs.reporting.figures.training_figures import noise_along_run
from tune_jobs.reporting.figures.verdict_figures import drawings
from tune_jobs.reporting.page import sections, tables
from tune_jobs.reporting.page.markup import element, joined
from tune_jobs.verdicts import Verdict

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ANY_NUMBER_OF_EXAMPLES = 2**62


def write_report(
    folder: Path,
    verdicts: Sequence[Verdict],
    runs: Sequence[TargetRun],
    profiles: Sequence[BatchSizeProfile] = (),
    noise: Sequence[NoiseScale] = (),
    trials: Sequence[TrialResult] = (),
    measurements: Sequence[Measurement] = (),
    *,
    title: str,
    facts: Mapping[str, object] | None = None,
    margin: float = 0.1,
    train_examples: int | None = None,
) -> Path:
    """Write `report.html` and `figures/<name>.png` and `.svg` into `folder`; returns the page.

    What is not there is not shown: a table of runs alone gives the figures that it can, profiles
    alone (no verdict) the page of the measure stage. Figures that an earlier report left and this
    one has not are removed. Write `verdict.json` first, so that the page can name it.

    Args:
        verdicts: of one or several workloads, at one or several targets. Each workload is shown at
            the target that `principal` picks, the others in tables.
        profiles, noise, trials, measurements: of the sweep; for one workload only.
        facts: how it was measured; a value that is a mapping becomes a group of its own.
        margin, train_examples: as `measure.cost_model.limits` takes them.
    """
    known = device_limits(profiles, margin, train_examples)
    shown = by_workload(verdicts)
    names = file_names(shown)
    pictures: dict[str, list[Picture]] = {}
    for workload, verdict in shown.items():
        evidence = Evidence(verdict, tuple(r for r in runs if r.workload == workload))
        if len(shown) == 1:
            evidence = replace(evidence, profiles=tuple(profiles), limits=known, noise=tuple(noise),
                               trials=tuple(trials), measurements=tuple(measurements))  # fmt: skip
        prefix = f"{names[workload]}-" if len(shown) > 1 else ""
        pictures[workload] = _written(drawings(evidence), folder, prefix)
    if not shown:
        pictures[""] = _written(_cost_drawings(profiles, known, noise), folder)
    body = _body(folder, verdicts, shown, pictures, profiles, known, facts or {}, title)
    page = _page(title, body, _colours(pictures, profiles, verdicts))
    return _replaced(folder, page, {p.name for found in pictures.values() for p in found})


def measure_figures(
    folder: Path,
    profiles: Sequence[BatchSizeProfile],
    margin: float = 0.1,
    train_examples: int | None = None,
) -> list[Picture]:
    """Seconds per update and memory against batch size, into `folder/figures`; for each device.

    `step-seconds.png`, `.svg` and `memory.png`, `.svg`; with several device types their names
    end in the device's. Args as `measure.cost_model.limits` takes them.
    """
    known = device_limits(profiles, margin, train_examples)
    return _written(_cost_drawings(profiles, known), folder)


def _cost_drawings(
    profiles: Sequence[BatchSizeProfile],
    known: Sequence[DeviceLimits],
    noise: Sequence[NoiseScale] = (),
) -> Iterator[Drawing]:
    for own in by_device(profiles, known):
        yield from measure_drawings(*own)
    along = noise_along_run(noise, None)
    if along is not None:
        yield along


def device_limits(
    profiles: Sequence[BatchSizeProfile], margin: float, train_examples: int | None
) -> tuple[DeviceLimits, ...]:
    """Fits and limits of each device type, by its name."""
    most = ANY_NUMBER_OF_EXAMPLES if train_examples is None else train_examples
    devices = sorted({p.device for p in profiles})
    return tuple(limits([p for p in profiles if p.device == d], margin, most) for d in devices)


def by_workload(verdicts: Sequence[Verdict]) -> dict[str, Verdict]:
    """The verdict that stands for each workload, in the order in which they were given."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.workload, []).append(verdict)
    return {workload: principal(own) for workload, own in found.items()}


def principal(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict at the hardest target that was reached, else at the easiest of them.

    One verdict stands for itself: a sweep is judged at its own target.
    """
    reached = [v for v in verdicts if v.status != "unreached"]
    return max(reached, key=_hardness) if reached else min(verdicts, key=_hardness)


def _hardness(verdict: Verdict) -> float:
    """The target, turned so that more is harder."""
    target = verdict.target or 0.0
    return target if verdict.mode == "max" else -target


def file_names(workloads: Iterable[str]) -> dict[str, str]:
    """A name for the files and links of each workload, no two alike."""
    found: dict[str, str] = {}
    for workload in workloads:
        name = slug(workload)
        taken = [n for n in found.values() if n == name or n.startswith(f"{name}--")]
        found[workload] = f"{name}--{len(taken) + 1}" if taken else name
    return found


def _written(made: Iterable[Drawing], folder: Path, prefix: str = "") -> list[Picture]:
    """Draw and write, one after the other, in the one style."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    with style():
        return [write(replace(d, name=prefix + d.name), folder / "figures") for d in made]


def _body(
    folder: Path,
    verdicts: Sequence[Verdict],
    shown: Mapping[str, Verdict],
    pictures: Mapping[str, Sequence[Picture]],
    profiles: Sequence[BatchSizeProfile],
    known: Sequence[DeviceLimits],
    facts: Mapping[str, object],
    title: str,
) -> Markup:
    parts: list[Markup | None] = [element("header", element("h1", title))]
    if not shown:
        parts.append(_costs(known, profiles, pictures.get("", ())))
    names = file_names(shown)
    parts.append(sections.answers_section(verdicts, names))
    for workload, verdict in shown.items():
        parts.append(_workload(verdict, names[workload], pictures[workload]))
    clocks = [tables.of_clocks(v) for v in shown.values()]
    costs = [tables.of_profiles(profiles)] if shown else []
    parts.append(sections.facts_section(facts, *clocks, *costs))
    everything = [p for found in pictures.values() for p in found]
    parts.append(sections.records_section(folder, everything))
    return joined(letters(everything), element("main", *parts))


def letters(pictures: Sequence[Picture]) -> Markup:
    """The outlines of the figures' letters, once for the whole page."""
    glyphs = {name: outline for picture in pictures for name, outline in picture.glyphs.items()}
    defined = element("defs", Markup("".join(glyphs[name] for name in sorted(glyphs))))
    return element("svg", defined, class_="letters", width=0, height=0, aria_hidden="true")


def _workload(verdict: Verdict, name: str, pictures: Sequence[Picture]) -> Markup:
    """One workload in the order in which it is read: the answer first, then its grounds."""
    return element(
        "article",
        element("h2", verdict.workload),
        sections.answer_box(verdict),
        sections.warnings_box(verdict.warnings),
        tables.by_batch_size(verdict),
        *(sections.figure(picture) for picture in pictures),
        sections.sensitivity_section(verdict),
        sections.statistics_section(verdict),
        sections.learning_rate_section(verdict),
        sections.generalization_section(verdict),
        class_="workload",
        id=name,
    )


def _costs(
    known: Sequence[DeviceLimits],
    profiles: Sequence[BatchSizeProfile],
    pictures: Sequence[Picture],
) -> Markup:
    """The measure stage alone: sentences, table, figures."""
    told = []
    for one in known:
        told.append(element("h2", f"What an update costs on {one.device}"))
        told += [element("p", line) for line in limit_lines(one)]
    drawn = [sections.figure(picture) for picture in pictures]
    return element("section", *told, tables.of_profiles(profiles), *drawn)


def _page(title: str, body: Markup, colours: Iterable[str]) -> str:
    css = (Path(__file__).parent / "report.css").read_text()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Markup(css + dark_variables(colours))),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def dark_variables(colours: Iterable[str]) -> str:
    """The figures' colours on a dark screen; on paper and by day they keep their own."""
    set_to = " ".join(f"{variable(c)}: {dark_colour(c)};" for c in sorted(colours))
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {set_to} }} }}\n"


def _colours(
    pictures: Mapping[str, Sequence[Picture]],
    profiles: Sequence[BatchSizeProfile],
    verdicts: Sequence[Verdict],
) -> set[str]:
    """Every colour that the page's figures and chips name."""
    sizes = {p.batch_size for p in profiles}
    sizes |= {row.batch_size for v in verdicts for row in v.per_batch_size}
    drawn = colours_of(svg for found in pictures.values() for p in found for svg in p.panels)
    return drawn | set(DARK) | {batch_colour(size) for size in sizes}


def _replaced(folder: Path, page: str, names: set[str]) -> Path:
    """Put the page in place, then remove the figures that only the page before it had."""
    path = folder / "report.html"
    before = re.findall(r'data-figure="([a-z0-9-]+)"', path.read_text()) if path.exists() else []
    replace_file(path, page.encode())
    for name in set(before) - names:
        for suffix in ("png", "svg"):
            (folder / "figures" / f"{name}.{suffix}").unlink(missing_ok=True)
    return path
