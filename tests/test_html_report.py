"""The page of a report, from simulated sweeps."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.browser import find_chromium, open_page
from tests.simulated_report import (
    FIGURES,
    NONE,
    TARGETS,
    Page,
    profile_of,
    report,
    simulated,
    verdict_of,
)
from tune_jobs.reporting.page.html import file_names, principal, write_report
from tune_jobs.reporting.page.markup import element
from tune_jobs.verdicts import CriticalBatchSize, Verdict

SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 256, 512)
SEEDS = 5
# What a verdict may lack; without it there are fewer figures to draw.
BARE = {"generalization": None, "learning_rate_rule": None, "noise_scale": ()}


@dataclass(frozen=True)
class Made:
    """The report of a large simulated sweep: where it stands, and how long one core drew."""

    folder: Path
    verdict: Verdict
    core_seconds: float


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sweep")
    sweep = simulated(sizes=SIZES, seeds=SEEDS)
    verdict = verdict_of(sweep)
    begun = time.process_time()
    report(folder, sweep, verdict)
    return Made(folder, verdict, time.process_time() - begun)


@pytest.fixture(scope="module")
def folder(made: Made) -> Path:
    return made.folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the measure stage alone: one batch size refused, one accumulated."""
    profiles = [*simulated().profiles, profile_of(1024, 1.0)]
    accumulated = replace(profiles[-2], batch_size=2048, micro_batch_size=512, step_seconds=2.4)
    folder = tmp_path_factory.mktemp("costs")
    path = write_report(folder, [], [], [*profiles, accumulated], title="costs",
                        train_examples=50_000)  # fmt: skip
    return Page(path.read_text())


def test_a_whole_sweep_gives_every_figure_once_in_reading_order(page: Page) -> None:
    assert page.figures == FIGURES


def test_every_figure_also_stands_as_png_and_svg(folder: Path, page: Page) -> None:
    for name in page.figures:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        drawn = ET.parse(folder / "figures" / f"{name}.svg").getroot()
        assert drawn.tag.endswith("svg") and len(list(drawn.iter())) > 50
    assert len(list((folder / "figures").iterdir())) == 2 * len(page.figures)


def test_the_page_asks_nothing_of_a_network_or_a_script(page: Page) -> None:
    assert not page.all("script") and not page.all("link") and not page.all("img")
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            target = attributes.get(name) or ""
            assert not re.match(r"[a-z]+:|//", target), target
    assert "url(http" not in page.text and "@import" not in page.text
    policies = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert str(policies[0]["content"]).startswith("default-src 'none'")


def test_ids_are_unique_and_every_reference_within_the_page_is_met(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-describedby="([^"]+)"', page.text)
    missing = {next(filter(None, found)) for found in named} - {str(i) for i in ids}
    assert not missing


def test_a_figure_says_what_it_shows_in_words_and_numbers(page: Page) -> None:
    captions = re.findall(r"<figcaption.*?</figcaption>", page.text, flags=re.S)
    assert len(captions) == len(FIGURES)
    for caption in captions:
        assert re.search(r"\d", re.sub(r"<[^>]*>", "", caption)), caption
    drawn = [a for a in page.all("svg") if a.get("aria-hidden") is None]
    assert drawn and all(a.get("role") == "img" and a.get("aria-label") for a in drawn)


def test_a_caption_says_one_finding_and_what_the_marks_mean(page: Page) -> None:
    captions = re.findall(r"<figcaption[^>]*><strong>.*?</strong>(.*?)<span", page.text)
    assert len(captions) == len(FIGURES)
    for caption in captions:
        assert len(caption) < 240 and len(re.findall(r"\. ", caption)) <= 2, caption


def test_tables_have_scoped_headers_and_scroll_in_their_own_box(page: Page) -> None:
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    boxes = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in boxes)


def test_headings_never_skip_a_level_and_there_is_one_h1(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_answer_stands_before_the_table_and_the_table_before_the_figures(
    made: Made, page: Page
) -> None:
    order = [
        f"<dd>{made.verdict.use.batch_size}</dd>", "Only 3 seeds",
        "Each batch size: the median run",
        'data-figure="time-to-target"', "How the answer moves</h2>", "Critical batch size</h2>",
        "Learning-rate rule</h2>", "Generalization</h2>", "How it was measured</h2>",
        "Where the records are</h2>",
    ]  # fmt: skip
    places = [page.text.index(part) for part in order]
    assert places == sorted(places)


def test_every_colour_of_the_figures_has_its_twin_for_dark_screens(page: Page) -> None:
    used = set(re.findall(r"var\((--fig-[0-9a-f]{6}),", page.text))
    assert used and used <= set(re.findall(r"(--fig-[0-9a-f]{6}):", page.text))


def test_a_name_from_data_is_escaped_wherever_it_appears(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> & \"co\""
    sweep = simulated(sizes=(16, 64), seeds=2)
    runs = [replace(r, workload=name) for r in sweep.runs]
    verdict = verdict_of(replace(sweep, runs=runs), reason=name, advice=name, warnings=(name,),
                         limit_reason=name, **BARE)  # fmt: skip
    profiles = [replace(p, device=name, reason=name) for p in sweep.profiles]
    path = write_report(tmp_path, [verdict], runs, profiles, title=name, facts={name: {name: name}})
    found = Page(path.read_text())
    assert not found.all("script")
    assert found.text.count("&lt;script&gt;") > 8 and "<script" not in found.text


def test_an_element_escapes_its_text_and_attributes_and_leaves_out_what_is_none() -> None:
    inner = element("b", "<&>", None, 0)
    assert inner == "<b>&lt;&amp;&gt;0</b>"
    assert element("p", inner, id=None, class_="x", aria_label='"<i>') == (
        f'<p class="x" aria-label="&#34;&lt;i&gt;">{inner}</p>')  # fmt: skip
    assert (
        element("a", href=inner) == '<a href="&lt;b&gt;&amp;lt;&amp;amp;&amp;gt;0&lt;/b&gt;"></a>'
    )
    assert element("br") == "<br>"


def test_a_table_of_runs_alone_gives_the_figures_it_can_and_no_word_of_the_others(
    tmp_path: Path,
) -> None:
    sweep = simulated()
    bare = verdict_of(sweep, **BARE)
    found = Page(write_report(tmp_path, [bare], sweep.runs, title="t").read_text())
    assert found.figures == ["time-to-target", "updates-and-examples", "sensitivity", "trade-offs"]
    for absent in ("Generalization", "Learning-rate rule", "Learning curves", "What an update"):
        assert absent not in found.text


def test_runs_that_know_updates_alone_are_drawn_in_updates(tmp_path: Path) -> None:
    sweep = simulated(seeds=2)
    runs = [replace(r, time_to_target_seconds=None, examples_to_target=None, peak_memory_mib=None)
            for r in sweep.runs if r.target == 0.95]  # fmt: skip
    whole = verdict_of(replace(sweep, runs=runs), quantity="updates_to_target")
    per_size = tuple(
        replace(r, time_to_target_seconds=NONE, examples_to_target=NONE,
                median=r.updates_to_target.value)
        for r in whole.per_batch_size
    )  # fmt: skip
    verdict = replace(whole, per_batch_size=per_size, sensitivity=(), learning_rate_rule=None,
                      generalization=None, closed_form=None)  # fmt: skip
    found = Page(write_report(tmp_path, [verdict], runs, title="t").read_text())
    assert found.figures[:2] == ["updates-to-target", "updates-and-examples"]


def test_a_sweep_in_which_nothing_reached_the_target_says_so_and_still_draws(
    tmp_path: Path,
) -> None:
    sweep = simulated(sizes=(16, 64), seeds=2)
    never = {"time_to_target_seconds": None, "examples_to_target": None, "updates_to_target": None}
    runs = [replace(r, **never) for r in sweep.runs]  # type: ignore[arg-type]
    trials = [replace(t, **never) for t in sweep.trials]  # type: ignore[arg-type]
    unreached = replace(sweep, runs=runs, trials=trials)
    found = report(tmp_path, unreached, verdict_of(unreached, learning_rate_rule=None))
    assert "No batch size to use yet" in found.text and "time-to-target" not in found.figures
    assert {"throughput-and-memory", "learning-rate-valleys", "learning-curves"} <= {*found.figures}
    assert "none of 10 search trials reached 0.95" in found.text


def test_an_undecided_verdict_names_the_set_and_what_to_do(tmp_path: Path) -> None:
    sweep = simulated(seeds=2)
    undecided = verdict_of(
        sweep, status="undecided", tied_batch_sizes=(), open_batch_sizes=(16, 32),
        change="16 and 32 may be as fast.", advice="./scripts/sweep --resume --seeds 8", **BARE,
    )  # fmt: skip
    path = write_report(tmp_path, [undecided], [], title="t")
    found = Page(path.read_text())
    assert "may be as good: 16, 32" in found.text and "16 and 32 may be as fast." in found.text
    assert "Next: ./scripts/sweep --resume --seeds 8" in found.text
    assert found.text.index(undecided.answer) < found.text.index("undecided")


def test_one_seed_and_one_batch_size_can_be_shown(tmp_path: Path) -> None:
    sweep = simulated(sizes=(48,), seeds=1)
    found = report(tmp_path, sweep, verdict_of(sweep, critical_batch_size=None))
    assert "time-to-target" in found.figures and "One run each" in found.text


def test_the_measure_stage_alone_gives_two_figures_and_its_table(costs: Page) -> None:
    assert costs.figures == ["step-seconds", "memory"]
    assert "out of memory" in costs.text and "needs about 1441 MiB" in costs.text


def test_an_accumulated_batch_size_says_in_what_passes_it_ran(costs: Page) -> None:
    row = next(r for r in re.findall(r"<tr.*?</tr>", costs.text) if "2048</th>" in r)
    assert "<td>512</td>" in row


def test_several_workloads_stand_in_one_page_each_with_its_own_figures(tmp_path: Path) -> None:
    runs, verdicts = [], []
    for name in ("mnist", "CIFAR-10 / ResNet"):
        sweep = simulated(sizes=(16, 64), seeds=2)
        own = replace(sweep, runs=[replace(r, workload=name) for r in sweep.runs])
        runs += own.runs
        verdicts += [verdict_of(own, target, **BARE) for target in TARGETS[:3]]
    found = Page(write_report(tmp_path, verdicts, runs, title="two").read_text())
    assert "mnist-time-to-target" in found.figures
    assert "cifar-10-resnet-time-to-target" in found.figures
    assert "All answers" in found.text and len(found.all("article")) == 2


def test_workloads_whose_names_read_alike_keep_files_of_their_own() -> None:
    names = file_names(["a b", "a-b", "A B!", "c"])
    assert names == {"a b": "a-b", "a-b": "a-b--2", "A B!": "a-b--3", "c": "c"}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_missing_the_rest_is_drawn(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    sizes = sorted(draw.sample(range(1, 3000), draw.randint(1, 5)))
    sweep = simulated(sizes=sizes, seeds=draw.randint(1, 3), spread=0.5)
    columns = ("time_to_target_seconds", "examples_to_target", "updates_to_target",
               "peak_memory_mib", "learning_rate", "examples_per_second")  # fmt: skip
    lost = {name: None for name in columns if draw.random() < 0.3}
    kept = [r for r in sweep.runs if draw.random() < 0.9] or sweep.runs[:1]
    runs = [replace(r, **lost) for r in kept if r.target == 0.95]  # type: ignore[arg-type]
    runs = runs or [r for r in sweep.runs if r.target == 0.95]
    profiles = [p for p in sweep.profiles if draw.random() < 0.6]
    trials = [t for t in sweep.trials if draw.random() < 0.6]
    partial = replace(sweep, runs=runs, profiles=profiles, trials=trials)
    open_ended = CriticalBatchSize(50.0, 0.0, None, 10.0, 0.5, 0.4, None, 2, 4)
    found = report(tmp_path, partial, verdict_of(partial, critical_batch_size=open_ended))
    assert len(found.figures) == len(set(found.figures))


def test_a_workload_stands_at_the_highest_target_that_was_reached() -> None:
    sweep = simulated(sizes=(16, 32), seeds=2)
    low, high = verdict_of(sweep, 0.9), verdict_of(sweep, 0.95)
    never = replace(verdict_of(sweep, 0.975), status="unreached")
    assert principal([low, high, never]) is high
    assert principal([never, replace(low, status="unreached")]).target == 0.9
    least = [replace(v, mode="min") for v in (low, high, never)]
    assert principal(least) is least[0]


def test_a_second_report_takes_away_the_figures_it_no_longer_has(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    theirs = tmp_path / "figures" / "mine.png"
    theirs.write_bytes(b"kept")
    write_report(tmp_path, [], [], simulated(sizes=(16, 64)).profiles, title="t")
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == {"mine.png", "memory.png", "memory.svg", "step-seconds.png", "step-seconds.svg"}


def test_a_report_is_small_and_drawn_within_fifteen_seconds_of_one_core(made: Made) -> None:
    assert made.core_seconds < 15
    assert (made.folder / "report.html").stat().st_size < 2_000_000


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="needs a Chromium: install chromium, or set CHROMIUM"
)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_shows_every_figure_and_never_scrolls_the_page_sideways(
    folder: Path, width: int
) -> None:
    seen = asyncio.run(looked_at(folder / "report.html", width))
    assert seen["figures"] == FIGURES
    assert seen["smallest"] > 150, "a panel is too small to be read"
    assert seen["across"] <= width and seen["outside"] == []
    assert seen["requests"] == 0


async def looked_at(path: Path, width: int) -> dict[str, Any]:
    """What the browser made of the page at this width."""
    async with open_page(width, 800) as tab:
        await tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                       deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        await tab.open(path.as_uri())
        await tab.wait_for("document.readyState === 'complete' && document.querySelector('main')")
        found = await tab.evaluate(
            """(() => {
              const all = [...document.querySelectorAll('.panel svg')];
              const wide = document.documentElement.clientWidth + 1;
              const scrolled = [...document.querySelectorAll('main *')].filter(
                e => !e.closest('.scroll') && !e.closest('svg')
                     && e.getBoundingClientRect().right > wide);
              return {
                figures: [...document.querySelectorAll('figure')].map(f => f.dataset.figure),
                smallest: Math.min(...all.map(s => s.getBoundingClientRect().width)),
                across: document.documentElement.scrollWidth,
                outside: scrolled.map(e => e.outerHTML.slice(0, 80)),
                requests: performance.getEntriesByType('resource').length,
              };
            })()"""
        )
    return dict(found)
