"""The page of a report and its figures, from simulated sweeps."""

from __future__ import annotations

import asyncio
import math
import random
import re
import statistics
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.browser import find_chromium, open_page
from tests import rows
from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult
from tune_jobs.reporting.figures.drawing import (
    ACCENT,
    DARK,
    INK,
    LIMIT,
    MUTED,
    PAPER,
    RECOMMENDED,
    batch_colour,
    contrast,
    dark_colour,
    log_ticks,
    short,
    slug,
    spread,
    variable,
)
from tune_jobs.reporting.page.html import file_names, measure_figures, principal, write_report
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    ClosedForm,
    CriticalBatchSize,
    Estimate,
    Generalization,
    GeneralizationRow,
    GoalAnswer,
    LearningRateRule,
    NoiseScaleSummary,
    Pareto,
    RuleCost,
    TargetAnswer,
    Verdict,
)


@dataclass(frozen=True)
class Sweep:
    """A simulated sweep: what a store would hold."""

    profiles: list[BatchSizeProfile]
    trials: list[TrialResult]
    measurements: list[Measurement]
    runs: list[TargetRun]
    noise: list[NoiseScale]


FIRST, PER_EXAMPLE, S_MIN, B_CRIT, BUDGET = 0.006, 0.0011, 44.0, 70.0, 24_576
TARGETS = (0.9, 0.93, 0.95, 0.965, 0.975)
SIZES = (16, 32, 64, 128, 256, 512)


def accuracy_after(examples: float, needed: float) -> float:
    """A learning curve that passes 0.95 at `needed` examples and ends near 0.988."""
    return 0.988 - 0.888 * (1 + 9.7 * examples / needed) ** -1.332


def examples_until(target: float, needed: float) -> float:
    return (((0.888 / (0.988 - target)) ** (1 / 1.332)) - 1) * needed / 9.7


def simulated(sizes: Sequence[int] = SIZES, seeds: int = 3, spread: float = 0.06) -> Sweep:
    """Log-normal updates to target around S_min (1 + B_crit / B); seconds are a + b B an update."""
    draw = random.Random(4)
    sweep = Sweep([], [], [], [], [])
    for size in sizes:
        step = FIRST + PER_EXAMPLE * size * (1 + 0.02 * draw.gauss(0, 1))
        sweep.profiles.append(profile_of(size, step))
        best_rate = 0.002 * (size / 64) ** 0.6
        for k in range(5):
            rate = best_rate * 10 ** draw.uniform(-0.9, 0.9)
            needed = needed_examples(size, draw.gauss(0, spread))
            needed *= math.exp(0.9 * math.log(rate / best_rate) ** 2)
            add_trial(sweep, "search", size, k, rate, step, needed)
        for seed in range(seeds):
            needed = needed_examples(size, draw.gauss(0, spread))
            add_trial(sweep, "confirm", size, seed, best_rate, step, needed)
    for k, examples in enumerate((256, 4096, 16_384)):
        scale = 60.0 * 2**k
        sweep.noise.append(
            rows.noise_scale(
                examples_seen=examples, noise_scale=scale, low=0.7 * scale, high=1.4 * scale
            )
        )
    return sweep


def needed_examples(size: int, noise: float) -> float:
    return S_MIN * (1 + B_CRIT / size) * size * math.exp(noise)


def profile_of(size: int, step: float) -> BatchSizeProfile:
    fits = size < 1024
    return rows.profile(
        batch_size=size, micro_batch_size=size, step_seconds=step if fits else None,
        step_seconds_low=step * 0.98 if fits else None, timed_updates=40,
        step_seconds_high=step * 1.02 if fits else None,
        examples_per_second=size / step if fits else None,
        peak_memory_mib=520 + 0.9 * size if fits else None, memory_limit_mib=1300.0,
        outcome="finished" if fits else "out_of_memory",
        training_memory_mib=500 + 0.9 * size if fits else None,
        reason=None if fits else "needs about 1441 MiB, the limit is 1300 MiB",
    )  # fmt: skip


def add_trial(
    sweep: Sweep, stage: str, size: int, seed: int, rate: float, step: float, needed: float
) -> None:
    trial_id = f"{stage}-{size}-{seed}"
    reached = needed <= BUDGET
    per_example = step / size
    ends = BUDGET if stage == "confirm" or reached else BUDGET // 3
    for k in range(1, 25):
        at = round(BUDGET * (k / 24) ** 1.6)
        if at <= ends:
            sweep.measurements.append(curve_point(trial_id, stage, size, at, step, needed, k))
    end = accuracy_after(ends, needed)
    sweep.trials.append(
        rows.result(
            trial_id=trial_id, name=trial_id, stage=stage, batch_size=size, seed=seed,
            micro_batch_size=size, learning_rate=rate, target=0.95, budget_examples=BUDGET,
            base_learning_rate=rate * (256 / size) ** 0.5, examples_seen=ends,
            updates=ends // size, examples_to_target=round(needed) if reached else None,
            updates_to_target=round(needed / size) if reached else None,
            time_to_target_seconds=needed * per_example if reached else None,
            train_seconds=ends * per_example, measured_train_seconds=ends * per_example * 1.02,
            outcome="finished" if ends == BUDGET else "stopped", val_accuracy=end,
            test_accuracy=end - 0.002, train_accuracy=min(end + 0.004, 1.0),
            peak_memory_mib=520 + 0.9 * size, examples_per_second=1 / per_example,
        )
    )  # fmt: skip
    if stage == "confirm":
        sweep.runs.extend(target_runs(sweep.trials[-1], needed))


def curve_point(
    trial_id: str, stage: str, size: int, at: int, step: float, needed: float, k: int
) -> Measurement:
    seconds = at * step / size
    wiggle = 0.004 * math.sin(2.3 * k + size) * (BUDGET - at) / BUDGET
    return rows.measurement(
        trial_id=trial_id, stage=stage, batch_size=size, examples_seen=at, updates=at // size,
        val_accuracy=accuracy_after(at, needed) + wiggle, train_seconds=seconds,
        wall_time_seconds=seconds * 1.3,
    )  # fmt: skip


def target_runs(trial: TrialResult, needed: float) -> list[TargetRun]:
    """The confirm run judged at each target."""
    per_example = trial.train_seconds / trial.examples_seen
    found = []
    for target in TARGETS:
        at = examples_until(target, needed)
        reached = at <= BUDGET
        found.append(
            rows.target_run(
                workload="mnist", batch_size=trial.batch_size, seed=trial.seed, target=target,
                time_to_target_seconds=at * per_example if reached else None,
                examples_to_target=at if reached else None, interpolated=target != 0.95,
                updates_to_target=at / trial.batch_size if reached else None,
                examples_seen=BUDGET, updates=BUDGET // trial.batch_size,
                train_seconds=trial.train_seconds, learning_rate=trial.learning_rate,
                measured_time_to_target_seconds=at * per_example * 1.03 if reached else None,
                val_accuracy=trial.val_accuracy,
                examples_per_second=trial.examples_per_second,
                peak_memory_mib=trial.peak_memory_mib, train_accuracy=trial.train_accuracy,
                test_accuracy=trial.test_accuracy,
                test_accuracy_at_equal_updates=accuracy_after(48 * trial.batch_size, needed),
            )
        )  # fmt: skip
    return found


NONE = Estimate(None, None, None)


def summary(values: Sequence[float | None]) -> Estimate:
    """Median and range; a run that never reached counts as slower than all."""
    middle = statistics.median([math.inf if v is None else v for v in values])
    known = [v for v in values if v is not None]
    if not math.isfinite(middle):
        return Estimate(None, min(known, default=None), None)
    high = max(known) * 1.02 if len(known) == len(values) else None
    return (
        Estimate(middle, min(known) * 0.98, high)
        if len(values) > 1
        else Estimate(middle, None, None)
    )


def verdict_of(sweep: Sweep, target: float = 0.95, **changes: Any) -> Verdict:
    """A verdict as the judge would make one, near enough to draw it."""
    sizes = sorted({r.batch_size for r in sweep.runs})
    per_size = tuple(
        size_verdict([r for r in sweep.runs if r.batch_size == s and r.target == target])
        for s in sizes
    )
    known = [(r.median, r.batch_size) for r in per_size if r.median is not None]
    best = min(known, default=(None, None))
    tied = tuple(b for m, b in known if best[0] is not None and m <= 1.08 * best[0])
    per_size = tuple(
        replace(
            r,
            standing="tied"
            if r.batch_size in tied
            else "slower"
            if r.median is not None
            else "unreached",
        )
        for r in per_size
    )
    reached = best[1] is not None
    answers = tuple(
        TargetAnswer(t, "tied", s, (s, 2 * s), s)
        for t, s in zip(TARGETS, (64, 64, 32, 32, 16), strict=True)
    )
    fields = dict(
        workload=sweep.runs[0].workload, goal="time", quantity="time_to_target_seconds",
        target=target, status=("tied" if len(tied) > 1 else "decided") if reached else "unreached",
        recommended_batch_size=min(tied, default=None), tied_batch_sizes=tied,
        leading_batch_size=best[1], risk=0.03, more_seeds=None, open_pair=None,
        reason=f"{min(tied)} takes the least memory of the batch sizes that cannot be told from "
        "the fastest" if tied else "no batch size reached 0.95 in more than half of its runs",
        advice=None if reached else "raise --budget-examples or lower --target",
        binding_limit="statistics" if reached else None,
        limit_reason="512 is no faster per example than 128 (plateau) and needs 1.9 times the "
        "examples (beyond the critical batch size)" if reached else None,
        critical_batch_size=CriticalBatchSize(72.0, 58.0, 91.0, 43.0, 0.994, 0.04, 0.4,
                                              len(sizes), len(sizes) * 3) if reached else None,
        critical_batch_size_reason=None if reached else "fewer than three batch sizes reached it.",
        closed_form=ClosedForm(math.sqrt(FIRST / PER_EXAMPLE * 72), 17.0, 23.0, FIRST, PER_EXAMPLE,
                               True, "The closed form says 20, near the winner.")
        if reached else None,
        noise_scale=(NoiseScaleSummary("raw", 160.0, 110.0, 260.0, 40.0, 300.0, 4, None),)
        if sweep.noise else (),
        per_batch_size=per_size, infeasible_batch_sizes=(), generalization=generalization(per_size),
        sensitivity=answers,
        by_goal=(GoalAnswer("time", "time_to_target_seconds", "tied", 32, (32, 64), 32, "fastest"),
                 GoalAnswer("energy", "energy_joules", "undecided", None, (), None,
                            "no energy was measured")),
        pareto=Pareto(("time_to_target_seconds", "peak_memory_mib", "val_accuracy"), tied),
        learning_rate_rule=LearningRateRule(
            Estimate(0.6, 0.45, 0.74), len(sizes), False, True,
            (RuleCost("linear", 1.0, 64, 512, 0.016, 0.018, 1.9, None),
             RuleCost("square root", 0.5, 64, 512, 0.0056, None, None, "none tried near it")),
            "The best learning rate grows as B^0.60 [0.45, 0.74]: square root is plausible, "
            "linear is not."),
        confidence=0.95, tolerance=0.05, warnings=("Only 3 seeds: intervals are wide.",),
    )  # fmt: skip
    return Verdict(**(fields | changes))  # type: ignore[arg-type]


def size_verdict(runs: Sequence[TargetRun]) -> BatchSizeVerdict:
    time = summary([r.time_to_target_seconds for r in runs])
    first = runs[0]
    return BatchSizeVerdict(
        batch_size=first.batch_size, standing="slower", within_tolerance=False, ratio_to_best=NONE,
        seeds=len(runs), reached=sum(r.time_to_target_seconds is not None for r in runs),
        median=time.value, mean=time.value, low=time.low, high=time.high, mean_low=time.low,
        mean_high=time.high, mean_at_least=None, time_to_target_seconds=time,
        examples_to_target=summary([r.examples_to_target for r in runs]),
        updates_to_target=summary([r.updates_to_target for r in runs]),
        measured_time_to_target_seconds=time.value and time.value * 1.03,
        measured_to_predicted=1.03 if time.value else None, learning_rate=first.learning_rate,
        examples_per_second=first.examples_per_second, peak_memory_mib=first.peak_memory_mib,
        energy_joules=NONE, val_accuracy=Estimate(0.97 - 2e-5 * first.batch_size, 0.95, 0.98),
        test_accuracy=Estimate(0.97, 0.96, 0.98), micro_batch_size=first.batch_size, fits=True,
    )  # fmt: skip


def generalization(per_size: Sequence[BatchSizeVerdict]) -> Generalization:
    found = []
    for k, row in enumerate(per_size):
        end, equal = 0.984 - 0.0015 * k, 0.90 + 0.016 * k
        found.append(GeneralizationRow(
            row.batch_size, Estimate(end, end - 0.002, end + 0.002),
            Estimate(0.006 - 0.0004 * k, 0.004 - 0.0004 * k, 0.008 - 0.0004 * k),
            Estimate(equal, equal - 0.004, equal + 0.004)))  # fmt: skip
    return Generalization(
        tuple(found),
        0.2,
        0.6,
        0.001,
        True,
        "At the common budget test accuracy cannot be told apart (p = 0.2).",
    )


class Page(HTMLParser):
    """A page that was read: its elements, and whether every one was closed in its turn."""

    EMPTY = frozenset({"meta", "br", "hr", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes what was not open"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self) -> list[str]:
        return [str(figure["data-figure"]) for figure in self.all("figure")]


FIGURES = [
    "time-to-target", "updates-and-examples", "throughput-and-memory", "learning-rate-valleys",
    "learning-rate-rule", "learning-curves", "noise-scale", "accuracy", "sensitivity",
    "trade-offs",
]  # fmt: skip
FACTS = {"seeds": 3, "versions": {"torch": "2.15.0"}, "sizes": (16, 32), "commit": None}


def report(folder: Path, sweep: Sweep, verdict: Verdict | None = None, **more: Any) -> Page:
    """The page of a whole sweep."""
    made = [verdict or verdict_of(sweep)]
    path = write_report(
        folder, made, sweep.runs, sweep.profiles, sweep.noise, sweep.trials, sweep.measurements,
        title="first", facts=FACTS, **more,
    )  # fmt: skip
    return Page(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the report of a simulated sweep."""
    made = tmp_path_factory.mktemp("sweep")
    report(made, simulated())
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


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


def test_tables_have_scoped_headers_and_scroll_in_their_own_box(page: Page) -> None:
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    boxes = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in boxes)


def test_headings_never_skip_a_level_and_there_is_one_h1(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_answer_stands_before_the_table_and_the_table_before_the_figures(page: Page) -> None:
    order = [
        '<dd>16</dd>', "Only 3 seeds", "Each batch size: the median run",
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
                         limit_reason=name)  # fmt: skip
    profiles = [replace(p, device=name, reason=name) for p in sweep.profiles]
    path = write_report(tmp_path, [verdict], runs, profiles, title=name, facts={name: {name: name}})
    found = Page(path.read_text())
    assert not found.all("script")
    assert found.text.count("&lt;script&gt;") > 8 and "<script" not in found.text


def test_a_table_of_runs_alone_gives_the_figures_it_can_and_no_word_of_the_others(
    tmp_path: Path,
) -> None:
    sweep = simulated()
    bare = verdict_of(sweep, generalization=None, learning_rate_rule=None, noise_scale=())
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
    sweep = simulated(seeds=2)
    never = {"time_to_target_seconds": None, "examples_to_target": None, "updates_to_target": None}
    runs = [replace(r, **never) for r in sweep.runs]  # type: ignore[arg-type]
    trials = [replace(t, **never) for t in sweep.trials]  # type: ignore[arg-type]
    unreached = replace(sweep, runs=runs, trials=trials)
    found = report(tmp_path, unreached, verdict_of(unreached, learning_rate_rule=None))
    assert "none reached the target" in found.text and "time-to-target" not in found.figures
    assert {"throughput-and-memory", "learning-rate-valleys", "learning-curves"} <= {*found.figures}
    assert "none of 30 search trials reached 0.95" in found.text


def test_an_undecided_verdict_names_the_set_and_what_to_do(tmp_path: Path) -> None:
    sweep = simulated(seeds=2)
    undecided = verdict_of(
        sweep, status="undecided", recommended_batch_size=None, tied_batch_sizes=(16, 32),
        more_seeds=4, open_pair=(16, 32), advice="run 4 more seeds",
    )  # fmt: skip
    found = report(tmp_path, sweep, undecided)
    assert "undecided between 16, 32" in found.text
    assert "about 4 more seeds for 16, 32" in found.text and "run 4 more seeds" in found.text
    assert 'class="chosen"' not in found.text.split("<figure")[0]


def test_one_seed_and_one_batch_size_can_be_shown(tmp_path: Path) -> None:
    sweep = simulated(sizes=(48,), seeds=1)
    found = report(tmp_path, sweep, verdict_of(sweep, critical_batch_size=None))
    assert "time-to-target" in found.figures and "One run each" in found.text


def test_the_measure_stage_alone_gives_two_figures_and_its_table(tmp_path: Path) -> None:
    sweep = simulated()
    profiles = [*sweep.profiles, profile_of(1024, 1.0)]
    path = write_report(tmp_path, [], [], profiles, title="costs", train_examples=50_000)
    found = Page(path.read_text())
    assert found.figures == ["step-seconds", "memory"]
    assert "out of memory" in found.text and "needs about 1441 MiB" in found.text


def test_each_device_type_has_its_own_figures_of_cost(tmp_path: Path) -> None:
    profiles = [
        replace(p, device=name) for name in ("NVIDIA H200", "cpu") for p in simulated().profiles
    ]
    names = [picture.name for picture in measure_figures(tmp_path, profiles)]
    assert names == ["step-seconds-nvidia-h200", "memory-nvidia-h200", "step-seconds-cpu",
                     "memory-cpu"]  # fmt: skip


def test_an_accumulated_batch_size_says_in_what_passes_it_ran(tmp_path: Path) -> None:
    profiles = simulated().profiles
    profiles.append(replace(profiles[-1], batch_size=2048, micro_batch_size=512, step_seconds=2.4))
    path = write_report(tmp_path, [], [], profiles, title="costs")
    assert "memory" in Page(path.read_text()).figures


def test_several_workloads_stand_in_one_page_each_with_its_own_figures(tmp_path: Path) -> None:
    runs, verdicts = [], []
    for name in ("mnist", "CIFAR-10 / ResNet"):
        sweep = simulated(sizes=(16, 64, 256), seeds=2)
        own = replace(sweep, runs=[replace(r, workload=name) for r in sweep.runs])
        runs += own.runs
        verdicts += [verdict_of(own, target) for target in TARGETS[:3]]
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


def test_a_second_report_takes_away_the_figures_it_no_longer_has(tmp_path: Path) -> None:
    sweep = simulated(sizes=(16, 64), seeds=2)
    report(tmp_path, sweep)
    theirs = tmp_path / "figures" / "mine.png"
    theirs.write_bytes(b"kept")
    Page(write_report(tmp_path, [], [], sweep.profiles, title="t").read_text())
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == {"mine.png", "memory.png", "memory.svg", "step-seconds.png", "step-seconds.svg"}


def test_a_report_is_small_and_drawn_within_fifteen_seconds_of_one_core(tmp_path: Path) -> None:
    sizes = (8, 16, 24, 32, 48, 64, 96, 128, 256, 512)
    sweep = simulated(sizes=sizes, seeds=5)
    begun = time.process_time()
    report(tmp_path, sweep)
    assert time.process_time() - begun < 15
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_a_batch_size_has_one_colour_in_every_sweep_and_it_can_be_seen() -> None:
    colours = [batch_colour(2**k) for k in range(1, 15)]
    assert len(set(colours)) == len(colours)
    for colour in colours:
        assert contrast(colour, PAPER) >= 3
        assert contrast(dark_colour(colour), dark_colour(PAPER)) >= 4.5


def test_every_ink_of_the_style_can_be_read_by_day_and_by_night() -> None:
    for ink in (INK, MUTED, RECOMMENDED, LIMIT, ACCENT):
        assert contrast(ink, PAPER) >= 4.5 and contrast(DARK[ink], DARK[PAPER]) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    placed = spread([3.0, 1.0, 1.1, 1.2], 1.0)
    ordered = sorted(placed)
    assert all(b - a >= 0.999 for a, b in pairwise(ordered))
    assert placed[1] < placed[2] < placed[3] < placed[0]


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.2), (3, 8), (10, 40), (1, 1e6), (2e-5, 0.3)])
def test_log_ticks_are_few_and_within_the_axis(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 6 and all(low <= t <= high for t in ticks)


def test_numbers_of_ticks_and_names_of_files_are_short() -> None:
    assert [short(v) for v in (0, 250, 1500, 2e4, 3e6, 0.05, 2e-5)] == [
        "0", "250", "1.5k", "20k", "3M", "0.05", "2e-5"]  # fmt: skip
    assert slug("SimpleCNN on MNIST!") == "simplecnn-on-mnist" and slug("***") == "workload"
    assert variable("#12743c") == "--fig-12743c"


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
