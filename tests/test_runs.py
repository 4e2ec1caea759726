"""From anyone's table and from a sweep's trials to the rows that a verdict is made of."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.reading.sweep_runs import runs_of_sweep, tried_runs
from tune_jobs.reading.table_of_runs import COLUMNS, TableOfRuns, runs_of_table
from tune_jobs.records import Measurement, TargetRun, TrialResult
from tune_jobs.training.schedule import crossing


def read(tmp_path: Path, text: str | bytes, mapping: dict[str, str] | None = None) -> TableOfRuns:
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return runs_of_table(path, mapping)


# What is read


def test_a_table_with_the_least_columns_is_read(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,seed,time_to_target_seconds\n32,0,10.5\n64,0,\n")
    first, second = table.runs
    assert (first.batch_size, first.seed, first.time_to_target_seconds) == (32, 0, 10.5)
    assert (first.workload, first.target, first.interpolated) == ("runs", None, False)
    assert second.time_to_target_seconds is None
    assert table.notes == ()


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "None", "inf", "Infinity", "null", "NA"])
def test_every_spelling_of_not_reached_is_one(tmp_path: Path, cell: str) -> None:
    table = read(tmp_path, f"batch_size,seed,examples_to_target\n32,0,{cell}\n")
    assert table.runs[0].examples_to_target is None
    assert table.runs[0].updates_to_target is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(
    tmp_path: Path, delimiter: str, prefix: bytes, end: str
) -> None:
    lines = ["batch_size,seed,time_to_target_seconds,", "32,1,4.5,", "", "64,1,3.25,", ",,,"]
    text = end.join(lines).replace(",", delimiter) + end
    runs = read(tmp_path, prefix + text.encode()).runs
    assert [(r.batch_size, r.time_to_target_seconds) for r in runs] == [(32, 4.5), (64, 3.25)]


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"  # the name misleads
    columns = {
        "batch_size": pa.array([32, 64], pa.int32()),
        "seed": pa.array([0, None], pa.int64()),
        "updates_to_target": pa.array([100.0, float("nan")]),
        "workload": pa.array(["a", "a"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    first, second = runs_of_table(path).runs
    assert (first.workload, first.examples_to_target) == ("a", 3200)
    assert (second.seed, second.updates_to_target) == (None, None)


def test_columns_may_be_mapped_and_unknown_ones_are_told(tmp_path: Path) -> None:
    text = "bs,seed,ttt,colour\n32,0,4,red\n"
    table = read(tmp_path, text, {"batch_size": "bs", "time_to_target_seconds": "ttt"})
    assert table.runs[0].batch_size == 32
    assert table.notes == ("columns not read: colour",)


def test_missing_seeds_are_allowed_and_told(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,time_to_target_seconds\n32,4\n32,5\n")
    assert [r.seed for r in table.runs] == [None, None]
    assert "no seed" in table.notes[0]


# What is derived


def test_examples_updates_and_seconds_are_derived_from_one_another(tmp_path: Path) -> None:
    head = "batch_size,seed,updates_to_target,examples_per_second,updates\n"
    run = read(tmp_path, head + "32,0,100,640,250\n").runs[0]
    assert (run.examples_to_target, run.time_to_target_seconds) == (3200, 5)
    assert (run.examples_seen, run.updates, run.train_seconds) == (8000, 250, 12.5)


def test_throughput_is_the_runs_own_or_the_median_of_its_batch_size(tmp_path: Path) -> None:
    head = "batch_size,seed,examples_to_target,examples_per_second\n"
    body = "32,0,1000,100\n32,1,1000,200\n32,2,1000,400\n32,3,1000,\n"
    runs = read(tmp_path, head + body).runs
    assert [r.time_to_target_seconds for r in runs] == [10, 5, 2.5, 5]


def test_throughput_is_derived_from_examples_and_seconds(tmp_path: Path) -> None:
    head = "batch_size,seed,examples_to_target,time_to_target_seconds\n"
    assert read(tmp_path, head + "32,0,1000,4\n").runs[0].examples_per_second == 250


def test_a_quantity_is_known_for_all_that_reached_or_for_none(tmp_path: Path) -> None:
    """Otherwise a run without seconds would look like one that never reached the target."""
    head = "batch_size,seed,examples_to_target,examples_per_second\n"
    table = read(tmp_path, head + "32,0,1000,100\n64,0,1000,\n64,1,,\n")
    assert [r.time_to_target_seconds for r in table.runs] == [None, None, None]
    assert [r.examples_to_target for r in table.runs] == [1000, 1000, None]
    assert "time_to_target_seconds can be derived for some runs only" in table.notes[0]


def test_accuracies_in_per_cent_become_fractions(tmp_path: Path) -> None:
    head = "workload,batch_size,seed,examples_to_target,test_accuracy\n"
    table = read(tmp_path, head + "a,32,0,9,97.5\na,32,1,9,98\nb,32,0,9,0.5\n")
    assert [r.test_accuracy for r in table.runs] == pytest.approx([0.975, 0.98, 0.5])
    assert table.notes == ("a: test_accuracy read as per cent",)


# What is refused

HEAD = "batch_size,seed,time_to_target_seconds"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["is empty"]),
        ("\n \n", ["is empty"]),
        ("\ufeff", ["is empty"]),
        ('""', ["is empty"]),
        (HEAD, ["header and no rows"]),
        ("size of batch,seed,time_to_target_seconds\n32,0,4\n",
         ["lacks the column batch_size", "it has: size of batch, seed",
          "--map 'batch_size=size of batch'"]),
        ("batch_size,seed,needed time\n32,0,4\n",
         ["updates_to_target", "--map 'time_to_target_seconds=needed time'"]),
        ("batch_size,seed,epoch\n32,0,4\n", ["--map epochs_to_target=epoch"]),
        ("batch_size,seed\n32,0\n", ["lacks the column time_to_target_seconds or"]),
        ("foo\n1\n", ["lacks the column batch_size, and", "it has: foo"]),
        ("batch_size,batch_size,time_to_target_seconds\n1,1,1\n", ["'batch_size' stands twice"]),
        (f"{HEAD}\n32,0,4\n64,0,fast\n", ["line 3", "time_to_target_seconds", "'fast'"]),
        (f"{HEAD}\n32,0,\"4,5\"\n", ["line 2", "'4,5' is not a number", "decimal point"]),
        (f"{HEAD}\n32,0,1_0\n", ["'1_0' is not a number"]),
        (f"{HEAD}\n32,0,-1\n", ["'-1' must be greater than 0", "not reached"]),
        (f"{HEAD}\n32,0,0\n", ["'0' must be greater than 0"]),
        (f"{HEAD}\n32,0,-inf\n", ["must be greater than 0"]),
        (f"{HEAD}\n32.5,0,4\n", ["line 2", "column batch_size", "positive integer"]),
        (f"{HEAD}\n0,0,4\n", ["column batch_size", "positive integer"]),
        (f"{HEAD}\n-8,0,4\n", ["column batch_size", "positive integer"]),
        (f"{HEAD}\nnan,0,4\n", ["column batch_size", "positive integer"]),
        (f"{HEAD}\n,0,4\n", ["column batch_size", "an empty cell must be a positive integer"]),
        (f"{HEAD}\n32,0.5,4\n", ["column seed", "integer"]),
        (f"{HEAD}\n32,0,4,5\n", ["line 2", "4 cells for the 3 columns"]),
        (f"{HEAD}\n32,0\n", ["line 2", "2 cells for the 3 columns"]),
        (f"{HEAD}\n32,0,\"4\n", ["not valid CSV"]),
        (f"{HEAD},learning_rate\n32,0,4,inf\n", ["learning_rate", "not a finite number"]),
        (f"{HEAD},learning_rate\n32,0,4,nan\n", ["learning_rate", "not a finite number"]),
        (f"{HEAD},peak_memory_mib\n32,0,4,0\n", ["peak_memory_mib", "greater than 0"]),
        (f"{HEAD},test_accuracy\n32,0,4,120\n", ["test_accuracy", "[0, 1]"]),
        (f"{HEAD},target\n32,0,4,0.9\n32,1,4,\n", ["line 3, column target: empty"]),
        (f"{HEAD},train_seconds\n32,0,5,4\n", ["time_to_target_seconds 5 is more than"]),
        (f"{HEAD},examples_to_target\n32,0,5,100\n64,0,5,\n64,1,,90\n",
         ["line 4", "time_to_target_seconds is empty"]),
        ("batch_size,seed,examples_to_target,updates_to_target\n32,0,6400,50\n",
         ["128 examples for each update", "over all devices"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_place_rule_and_remedy(
    tmp_path: Path, text: str, says: list[str]
) -> None:
    with pytest.raises(UserError) as told:
        read(tmp_path, text)
    for part in says:
        assert part in str(told.value)
    assert "runs.csv" in str(told.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{HEAD}\n32,0,4\n".encode("utf-16")[:-1], "is not UTF-16; save the file in UTF-8"),
        (f"{HEAD}\n32,0,4\n".encode("utf-16-le"), "zero bytes"),
        (f"{HEAD},workload\n32,0,4,Gr\xf6\xdfe\n".encode("latin-1"), "line 2: byte 0xf6"),
        (b"PK\x03\x04 and so on", "spreadsheet; export it as CSV"),
        (b"\x1f\x8b and so on", "gzip"),
        (b"PAR1 and no more", "not a readable Parquet file"),
    ],
)
def test_what_is_not_a_table_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(tmp_path, content)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        runs_of_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="directory"):
        runs_of_table(tmp_path)
    (tmp_path / "text.parquet").write_text(f"{HEAD}\n32,0,4\n")
    with pytest.raises(UserError, match="does not begin with PAR1"):
        runs_of_table(tmp_path / "text.parquet")


def test_a_mapping_names_columns_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'batchsize' is unknown; known: batch_size"):
        read(tmp_path, f"{HEAD}\n32,0,4\n", {"batchsize": "bs"})
    with pytest.raises(UserError, match="Did you mean 'seed'"):
        read(tmp_path, f"{HEAD}\n32,0,4\n", {"seed": "seeed"})


JUNK = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "32", "64", "0.9", "1e400", "1e-320", "9" * 500, '"', "٣", "0x10", "-0"]),
)


@given(
    header=st.lists(st.one_of(st.sampled_from(COLUMNS), st.text(max_size=9)), max_size=8),
    cells=st.lists(st.lists(JUNK, max_size=9), max_size=6),
)
def test_any_text_is_read_or_refused_as_the_users(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], cells: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding="utf-8", errors="ignore", newline="") as file:
        csv.writer(file).writerows([["batch_size", "updates_to_target", *header], *cells])
    judged_or_refused(path)


@given(st.binary(max_size=200), st.sampled_from([b"", b"PAR1", f"{HEAD}\n".encode()]))
def test_any_bytes_are_read_or_refused_as_the_users(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, beginning: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(beginning + content)
    judged_or_refused(path)


def judged_or_refused(path: Path) -> None:
    """Every number of a table that is read is finite, positive, and of its kind."""
    try:
        runs = runs_of_table(path).runs
    except UserError as error:
        assert str(path) in str(error) or str(path.stem) in str(error)
        return
    for run in runs:
        assert isinstance(run.batch_size, int)
        assert run.batch_size >= 1
        for name in ("time_to_target_seconds", "examples_to_target", "updates_to_target"):
            value = getattr(run, name)
            assert value is None or (math.isfinite(value) and value > 0)


# A sweep's trials


def confirm_runs() -> tuple[list[TrialResult], list[Measurement]]:
    """Two batch sizes, two seeds: accuracy is 1 - B / examples, so its crossings are known."""
    trials, curves = [], []
    for size in (16, 64):
        for seed in (0, 1):
            name = f"c{size}-{seed}"
            trials.append(rows.result(
                trial_id=name, stage="confirm", batch_size=size, seed=seed, target=0.95,
                budget_examples=6400, examples_seen=6400, updates=6400 // size,
                examples_to_target=20 * size, updates_to_target=20, train_seconds=64.0,
                time_to_target_seconds=0.2 * size, test_accuracy=0.9,
            ))  # fmt: skip
            for seen in (320, 1600, 3200, 6400):
                curves.append(rows.measurement(
                    trial_id=name, stage="confirm", batch_size=size, examples_seen=seen,
                    updates=seen // size, val_accuracy=1 - size / seen,
                    test_accuracy=0.5 + seen / 2**17 if seen in (1600, 6400) else None,
                ))  # fmt: skip
    return trials, curves


def of_sweep(
    trials: Sequence[TrialResult], curves: Sequence[Measurement] = (), **settings: Any
) -> list[TargetRun]:
    return runs_of_sweep(SweepConfig(**settings), trials, curves)


def test_a_confirm_run_is_judged_at_the_sweeps_target_exactly_as_it_found_it() -> None:
    runs = [r for r in of_sweep(*confirm_runs()) if not r.interpolated]
    assert [(r.batch_size, r.seed) for r in runs] == [(16, 0), (16, 1), (64, 0), (64, 1)]
    assert {r.target for r in runs} == {0.95}
    assert [r.examples_to_target for r in runs] == [320, 320, 1280, 1280]
    assert runs[2].time_to_target_seconds == 0.2 * 64
    assert runs[0].workload == "simple_cnn on mnist"


def test_other_targets_are_read_from_the_curves() -> None:
    runs = of_sweep(*confirm_runs())
    targets = sorted({r.target for r in runs if r.target is not None})
    assert 5 <= len(targets) <= 7
    # No crossing before every run's first evaluation, none above the best median run.
    assert targets[0] >= 1 - 16 / 320
    assert targets[-1] <= 1 - 16 / 6400
    for run in (r for r in runs if r.interpolated and r.examples_to_target is not None):
        assert run.target is not None
        assert run.time_to_target_seconds == pytest.approx(run.examples_to_target / 100)
        assert run.updates_to_target == pytest.approx(run.examples_to_target / run.batch_size)
    hardest = [r for r in runs if r.target == targets[-1]]
    assert [r.examples_to_target is None for r in hardest] == [False, False, True, True]


def test_a_crossing_is_interpolated_in_the_logarithm_and_is_the_first() -> None:
    points = ((100, 0.5), (400, 0.7), (800, 0.6), (1600, 0.8))
    assert crossing(points, 0.6) == pytest.approx(200)
    assert crossing(points, 0.7) == pytest.approx(400)
    assert crossing(points, 0.75) == pytest.approx(800 * 2**0.75)
    assert crossing(points, 0.4) == 100
    assert crossing(points, 0.9) is None
    assert crossing((), 0.5) is None


def test_test_accuracy_at_equal_updates_is_that_of_the_largest_batchs_whole_budget() -> None:
    runs = of_sweep(*confirm_runs())
    # 6400 examples are 100 updates of 64; 16 makes 100 updates in 1600 examples.
    assert {r.test_accuracy_at_equal_updates for r in runs if r.batch_size == 16} == {
        0.5 + 1600 / 2**17
    }
    assert {r.test_accuracy_at_equal_updates for r in runs if r.batch_size == 64} == {
        0.5 + 6400 / 2**17
    }


def test_a_test_accuracy_far_from_equal_updates_is_not_taken_for_one() -> None:
    trials, curves = confirm_runs()
    only_last = [m for m in curves if m.examples_seen == 6400]
    runs = of_sweep(trials, only_last)
    assert {r.test_accuracy_at_equal_updates for r in runs if r.batch_size == 16} == {None}


def test_without_confirm_runs_the_best_search_trial_stands_alone() -> None:
    trials = [
        rows.result(trial_id="a", batch_size=16, seed=0, examples_to_target=None),
        rows.result(trial_id="b", batch_size=16, seed=1, examples_to_target=400),
        rows.result(trial_id="c", batch_size=64, outcome="diverged", examples_to_target=None),
        rows.result(trial_id="d", batch_size=128, stage="confirm", seed=2),
        rows.result(trial_id="e", batch_size=128, seed=3),
    ]
    runs = of_sweep(trials, target=0.9)
    assert [(r.batch_size, r.seed) for r in runs] == [(16, 1), (128, 2)]


def test_the_clock_of_a_run_is_heard_where_it_was_alone_or_had_cores_of_its_own() -> None:
    settings: tuple[dict[str, Any], ...] = (
        {"alone": True, "gpus": 0.5}, {"alone": False}, {"alone": False, "gpus": 0.5},
        {"alone": False, "cpus": 0.5}, {},
    )  # fmt: skip
    trials = [
        rows.result(trial_id=str(k), stage="confirm", seed=k, **of) for k, of in enumerate(settings)
    ]
    runs = of_sweep(trials, target=0.9)
    assert [r.measured_time_to_target_seconds for r in runs] == [5.5, 5.5, None, None, 5.5]
    assert [r.alone for r in runs] == [True, False, False, False, True]
    assert of_sweep([rows.result()], target=0.9)[0].measured_time_to_target_seconds is None


def test_all_confirm_runs_tell_of_learning_rates_each_as_it_went_on_longest() -> None:
    again = {"stage": "confirm", "batch_size": 16, "seed": 1}
    trials = [
        rows.result(trial_id="a"), rows.result(trial_id="b", learning_rate=2e-3),
        rows.result(trial_id="c", learning_rate=4e-3, outcome="failed"),
        rows.result(trial_id="d", **again, examples_seen=700),
        rows.result(trial_id="e", **again), rows.result(trial_id="f", **again, learning_rate=2e-3),
        rows.result(trial_id="g", stage="schedule"),
    ]  # fmt: skip
    told = tried_runs(SweepConfig(), trials)
    assert sorted((r.batch_size, r.learning_rate or 0, r.examples_seen) for r in told) == [
        (16, 1e-3, 900), (16, 2e-3, 900), (32, 1e-3, 900), (32, 2e-3, 900)
    ]  # fmt: skip


def test_a_run_that_failed_is_left_out_and_one_that_diverged_never_reached() -> None:
    never = {"examples_to_target": None, "updates_to_target": None, "time_to_target_seconds": None}
    trials = [
        rows.result(trial_id="a", stage="confirm", seed=0, outcome="failed", **never),
        rows.result(trial_id="b", stage="confirm", seed=1, outcome="diverged", **never),
        rows.result(trial_id="c", stage="confirm", seed=2),
    ]
    runs = of_sweep(trials, target=0.9)
    assert [(r.seed, r.examples_to_target) for r in runs] == [(1, None), (2, 500)]
    assert runs[0].test_accuracy is None
    assert of_sweep([]) == []


def test_a_perfect_curve_still_has_other_targets() -> None:
    curve = [
        rows.measurement(trial_id="a", stage="confirm", examples_seen=s, val_accuracy=a)
        for s, a in ((100, 0.5), (400, 1.0))
    ]
    runs = of_sweep([rows.result(trial_id="a", stage="confirm")], curve, target=0.9)
    assert len({r.target for r in runs}) >= 5


def test_a_run_that_diverged_counts_as_its_whole_budget_in_vain() -> None:
    config = replace(SweepConfig(), target=0.9)
    gone = rows.result(stage="confirm", outcome="diverged", batch_size=64, budget_examples=6400,
                       examples_seen=640, updates=10, train_seconds=2.0, examples_to_target=None,
                       updates_to_target=None, time_to_target_seconds=None, target=0.9)  # fmt: skip
    (run,) = runs_of_sweep(config, [gone], [])
    assert (run.examples_seen, run.updates, run.train_seconds) == (6400, 100, 20.0)
    assert run.examples_to_target is None and run.val_accuracy is None
