"""A metric that is no accuracy is told and drawn by its own name, unit and direction everywhere."""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests import rows
from tests.judged import runs_of, verdict_of
from tests.simulated_report import FACTS, FIGURES, Page, Sweep, in_metric, simulated
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.generalization import generalization
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.reading.sweep_runs import other_targets, runs_of_sweep
from tune_jobs.records import TargetRun
from tune_jobs.reporting.figures.axes import metric_scale
from tune_jobs.reporting.figures.drawing import panel
from tune_jobs.reporting.figures.evidence import Evidence
from tune_jobs.reporting.figures.run_figures import to_target
from tune_jobs.reporting.figures.training_figures import valleys
from tune_jobs.reporting.page.html import write_report
from tune_jobs.reporting.summary import note_of, tags_of
from tune_jobs.reporting.terminal import print_verdicts, table_rows
from tune_jobs.tracking.compare_view import tag_value
from tune_jobs.tracking.fields import curve_metrics, end_metrics, end_params
from tune_jobs.training.workload_facts import facts
from tune_jobs.verdicts import Verdict

Turn = Callable[[float], float]
# Name, mode, of an accuracy; below 1, far above it, and below 0 as a likelihood is.
METRICS: dict[str, tuple[str, Turn]] = {
    "rmse": ("min", lambda a: 10 * (1 - a)),
    "F1": ("max", lambda a: a**2),
    "BLEU": ("max", lambda a: 60 * a**2),
    "log likelihood": ("max", lambda a: -5 * (1 - a) - 0.001),
}


@cache
def measured(metric: str) -> Sweep:
    mode, of = METRICS[metric]
    return in_metric(simulated(sizes=(16, 32, 64, 128)), metric, mode, of)


@cache
def judged(metric: str, goal: str = "time") -> Verdict:
    """At the target that is an accuracy of 0.95."""
    sweep = measured(metric)
    own = sweep.trials[0].target
    (verdict,) = judge_runs(
        sweep.runs, Policy(goal), sweep.profiles, sweep.noise,
        [t for t in sweep.trials if t.stage == "search"], target=own,
    )  # fmt: skip
    return verdict


def page_of(metric: str, folder: Path) -> Page:
    sweep, verdict = measured(metric), judged(metric)
    path = write_report(
        folder, [verdict], sweep.runs, sweep.profiles, sweep.noise, sweep.trials,
        sweep.measurements, title="first", facts=FACTS,
    )  # fmt: skip
    return Page(path.read_text())


def words(page: Page) -> str:
    """What is read on the page: without markup, styles and drawn lines."""
    text = re.sub(r"(?s)<style.*?</style>|<svg (?!.*?role).*?</svg>", " ", page.text)
    return unescape(re.sub(r"<[^>]*>", " ", text))


def printed(verdict: Verdict) -> str:
    out = StringIO()
    print_verdicts([verdict], Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize("metric", METRICS)
def test_a_sweep_of_another_metric_says_accuracy_nowhere(metric: str, tmp_path: Path) -> None:
    page, verdict = page_of(metric, tmp_path), judged(metric)
    own = ["test-metric" if name == "accuracy" else name for name in FIGURES]
    assert page.figures == own
    told = [page.text, printed(verdict), note_of(verdict), *tags_of(verdict).values()]
    assert [re.findall(".{30}accurac.{30}", text) for text in told] == [[]] * len(told)
    for text in (words(page), printed(verdict), note_of(verdict)):
        assert f"reaches {metric} " in text and "{" not in text
    assert f"target {metric} " in printed(verdict) and f"goal {metric}" not in printed(verdict)
    assert f"By target {metric}, k$ [2020], the batch size" in " ".join(printed(verdict).split())
    shown = (f"Test {metric} against batch size", f"Test {metric} (k$ [2020]), shown",
             f"Time, memory and {metric}", f"peak memory, validation {metric}")  # fmt: skip
    for said in shown:
        assert said in words(page), said


def test_accuracies_keep_the_words_they_had() -> None:
    runs = [run for run in simulated(sizes=(16, 32, 64)).runs if run.target == 0.95]
    verdict = verdict_of(runs, goal="accuracy")
    assert re.search(r"\d+ ends at a validation accuracy of 0\.\d", verdict.reason)
    assert "goal accuracy: " in printed(verdict) and ", target 0.95, " in printed(verdict)
    assert verdict_of(runs).reason.split()[1:3] == ["reaches", "0.95"]


@pytest.mark.parametrize("metric", ["rmse", "F1", "BLEU"])
def test_the_goal_accuracy_is_the_metric_at_the_end_in_its_own_direction(metric: str) -> None:
    verdict = judged(metric, "accuracy")
    ends = {row.batch_size: row.val_metric.value or 0.0 for row in verdict.per_batch_size}
    best = (min if METRICS[metric][0] == "min" else max)(ends, key=ends.__getitem__)
    assert verdict.use is not None
    used = ends[verdict.use.batch_size]
    assert used == pytest.approx(ends[best], rel=0.06)
    assert f"ends at {metric} " in verdict.reason and " k$ [2020]" in verdict.reason
    assert f"goal {metric}: " in printed(verdict)
    assert f"{metric}, k$ [2020] at end" in table_rows(verdict)[0]


@pytest.mark.parametrize("metric", ["rmse", "BLEU"])
def test_figures_take_the_best_in_the_metrics_own_direction(metric: str) -> None:
    sweep, verdict = measured(metric), judged(metric, "accuracy")
    drawn = to_target(Evidence(verdict, tuple(sweep.runs)), "val_metric")
    assert drawn is not None and drawn.heading == f"Validation {metric} against batch size"
    ends = {row.batch_size: row.val_metric.value or 0.0 for row in verdict.per_batch_size}
    best = (min if verdict.mode == "min" else max)(ends, key=ends.__getitem__)
    assert re.match(rf"Best: [\d.]+ k\$ \[2020\] \[.*\] at batch size {best}\.", drawn.caption)
    never = [replace(t, examples_to_target=None) for t in sweep.trials if t.stage == "search"]
    valley = valleys(never, {}, verdict)
    assert valley is not None
    assert valley.caption.startswith(f"Last validation {metric}, k$ [2020]: none of 20 search")


def test_batch_sizes_are_not_ranked_by_a_metric_without_ratios_and_that_is_told() -> None:
    verdict = judged("log likelihood")
    (answer,) = [a for a in verdict.by_goal if a.goal == "accuracy"]
    assert (answer.use, answer.status) == (None, "unproven") and "no ratios" in answer.reason
    assert all((row.val_metric.value or 0) < 0 for row in verdict.per_batch_size)
    assert all((row.test_metric.value or 0) < 0 for row in verdict.per_batch_size)
    with pytest.raises(UserError, match=r"log likelihood -0\.\d+ of .* ask for another --goal"):
        judged("log likelihood", "accuracy")


@pytest.mark.parametrize("metric", METRICS)
def test_generalization_is_told_in_the_metrics_own_direction(metric: str) -> None:
    found = judged(metric).generalization
    assert found is not None and found.metric == metric
    assert f"test {metric}" in found.sentence or f"Test {metric}" in found.sentence
    for row in found.rows:  # better on train than on test, by how much
        assert row.train_to_test_gap.value is not None and row.train_to_test_gap.value > 0
        assert row.test_accuracy_at_equal_updates.value is not None


def test_test_accuracy_beside_another_validation_metric_keeps_its_name() -> None:
    """As in a table that holds both."""
    loss = {"metric": "val_loss", "mode": "min", "val_metric": 0.3}
    runs = [run for size, accuracy in ((32, 0.91), (64, 0.92))
            for run in runs_of({size: 2.0}, seeds=3, test_accuracy=accuracy, **loss)]  # fmt: skip
    found = verdict_of(runs).generalization
    assert found is not None and found.metric == "accuracy"
    assert "test accuracy" in found.sentence


@pytest.mark.parametrize("factor", [1e-4, 1.0, 3000.0])
def test_intervals_on_test_hold_at_any_scale_of_the_metric(factor: float) -> None:
    """The same numbers in another unit have the same intervals in that unit."""
    chance = random.Random(2)
    values = [chance.gauss(2 + k, 0.05) for k in range(3) for _ in range(5)]
    runs = [
        rows.target_run(batch_size=2 ** (5 + n // 5), seed=n % 5, metric="rmse", mode="min",
                        test_metric=factor * value) for n, value in enumerate(values)
    ]  # fmt: skip
    found = generalization(runs, 0.95)
    assert found is not None
    for k, row in enumerate(found.rows):
        of = row.test_accuracy
        assert of.value is not None and of.low is not None and of.high is not None
        assert of.value / factor == pytest.approx(2 + k, abs=0.1)
        assert of.low < of.value < of.high
        assert 0.05 < (of.high - of.low) / factor < 0.25  # about 4 x 0.05 / sqrt(5), and its doubt


@pytest.mark.parametrize(("mode", "best"), [("min", "0.810"), ("max", "0.830")])
def test_what_never_reached_came_as_far_as_its_metric(mode: str, best: str) -> None:
    ends = {32: 0.83, 64: 0.81}
    target = 0.5 if mode == "min" else 0.95
    of = {"metric": "m", "mode": mode, "unit": "kg", "target": target}
    runs = [replace(r, val_metric=ends[r.batch_size])
            for r in runs_of({32: 20.0, 64: 10.0}, ends=5.0, **of)]  # fmt: skip
    verdict = verdict_of(runs)
    size = 64 if mode == "min" else 32
    assert verdict.why_not == (
        f"None of 10 runs reached m {target} kg; {size} came closest, with m {best} kg."
    )


def test_runs_that_ended_early_lack_the_metric_by_its_own_name() -> None:
    runs: list[TargetRun] = [
        replace(r, metric="rmse", mode="min") for r in runs_of({32: 2.0, 64: 3.0}, seeds=2)
    ]
    (answer,) = [a for a in verdict_of(runs).by_goal if a.goal == "accuracy"]
    assert answer.reason == "No rmse is known."


@pytest.mark.parametrize(
    ("mode", "curve"),
    [
        ("min", (900.0, 300.0, 80.0, 20.0)),
        ("max", (4.0, 18.0, 25.0, 31.0)),
        ("max", (-4.0, -2.0, -1.0, -0.5)),
        ("min", (3.0, 0.5, -0.5, -0.8)),
        ("min", (0.6012, 0.6008, 0.6003, 0.6001)),
    ],
)
def test_other_targets_lie_within_the_curves_of_any_scale(
    mode: str, curve: tuple[float, ...]
) -> None:
    trial = rows.result(trial_id="a", stage="confirm")
    points = tuple((100 * 2**k, value) for k, value in enumerate(curve))
    found = other_targets([trial], {"a": points}, 1000.0, mode)
    low, high = min(curve), max(curve)
    assert len(found) >= 4 and found == sorted(found) and low <= found[0] and found[-1] <= high


@pytest.mark.parametrize(
    ("values", "scale"),
    [((0.2, 30.0), "log"), ((0.6001, 0.6012), "log"), ((-3.0, 2.0), "linear"),
     ((5.0, 5.0), "log")],
)  # fmt: skip
def test_a_metrics_axis_is_logarithmic_where_all_is_positive_and_names_a_few_places(
    values: tuple[float, float], scale: str
) -> None:
    _, axes = panel("m", "x")
    metric_scale("m", values).axis(axes, "y", *values)
    low, high = axes.get_ylim()
    assert axes.get_yscale() == scale and low < values[0] and values[1] < high
    names = [axes.yaxis.get_major_formatter()(t) for t in axes.yaxis.get_majorticklocs()]
    assert 2 <= len(names) <= 8 and len(set(names)) == len(names)


def test_the_unit_of_a_workloads_metric_is_kept_with_its_sweep() -> None:
    run = rows.result(metric="rmse", mode="min", val_metric=0.4, target=0.5)
    given = {"workload": "tests.workloads:prices", "workload_arguments": {"unit": "k$"}}
    config = replace(SweepConfig(), target=0.5, mode="min", metric="rmse", unit="k$")
    assert facts(given)["unit"] == "k$"
    assert {r.unit for r in runs_of_sweep(config, [run], [])} == {"k$"}


def test_mlflow_has_the_metric_of_a_trial_with_its_name_and_direction() -> None:
    trial = measured("rmse").trials[0]
    own = {"val_metric", "test_metric", "train_metric"}
    assert end_params(trial)["metric"] == "rmse" and end_params(trial)["mode"] == "min"
    assert own <= end_metrics(trial).keys() and "val_accuracy" not in end_metrics(trial)
    assert "val_metric" in curve_metrics(measured("rmse").measurements[0])
    both = end_metrics(rows.result(val_accuracy=0.95))
    assert both["val_metric"] == both["val_accuracy"] == 0.95


@pytest.mark.parametrize(
    ("metric", "column"), [("accuracy", "test_accuracy"), ("rmse", "val_metric")]
)
def test_mlflows_view_draws_the_metric_that_the_sweep_has(metric: str, column: str) -> None:
    view = json.loads(tag_value("s", "r", "confirm", 0, metric))
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].partition(";")[2])))
    assert state["compareRunCharts"][0]["selectedMetrics"][-1] == column
    assert f"metrics.`{column}`" in state["selectedColumns"]
