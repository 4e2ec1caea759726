"""Small random tables through the whole command, in this process: a verdict, or status 2.

5,000 of them: RANDOM_TABLES=5000 pytest tests/reading/test_random_tables.py --timeout 3600
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_jobs import report
from tune_jobs.errors import UserError

TABLES = int(os.environ.get("RANDOM_TABLES", "40"))
SIZES = st.sampled_from(["8", "16", "32", "64", "128", "bs_256"])
SEEDS = st.sampled_from(["0", "1", "2", "3", ""])
TIMES = st.one_of(
    st.floats(1, 500).map(lambda v: f"{v:.1f}"),
    st.sampled_from(["40.0", "40.0", "12", "", "-", "OOM", "did not converge", "1h17m", "0:12:30",
                     "nan", "inf", "> 30", "1e-9", "1e12"]),
)  # fmt: skip
COUNTS = st.one_of(st.integers(1, 40).map(str), st.sampled_from(["", "30", "30"]))
PARTS = st.one_of(
    st.floats(0, 1).map(lambda v: f"{v:.3f}"),
    st.sampled_from(["0.9", "0.9", "0", "1", "", "nan", "OOM"]),
)
PER_CENT = st.floats(1.01, 100).map(lambda v: f"{v:.1f}")
LOSSES = st.one_of(st.floats(-2, 9).map(lambda v: f"{v:.3f}"), st.sampled_from(["0", "nan", ""]))
OTHER = {
    "seed": SEEDS,
    "time_to_target_seconds": TIMES,
    "train time (s)": TIMES,
    "target_epoch": COUNTS,
    "updates_to_target": COUNTS,
    "epoch": COUNTS,
    "step": COUNTS,
    "img/s": TIMES,
    "val_acc": PARTS,
    "Accuracy": PER_CENT,
    "val_loss": LOSSES,
    "value": LOSSES,
    "lr": st.sampled_from(["0.1", "0.2", ""]),
    "target": st.sampled_from(["0.9", "0.8"]),
    "optimizer": st.sampled_from(["sgd", "adam"]),
    "gpu": st.sampled_from(["A", "B", "2"]),
    "num_gpus": st.sampled_from(["1", "2"]),
    "State": st.sampled_from(["finished", "crashed", "aborted"]),
    "converged": st.sampled_from(["True", "False"]),
    "run": st.sampled_from(["1", "2", "x"]),
    "[bold]note\x1b[0m": st.sampled_from(["", "[red]", "\x07"]),
}


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    """A batch size and a few other columns, one to twelve rows."""
    names = draw(st.lists(st.sampled_from(sorted(OTHER)), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(1, 12))
    cells = [[draw(SIZES), *(draw(OTHER[name]) for name in names)] for _ in range(rows)]
    return [["batch_size", *names], *cells]


ASKED = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from([0.5, 0.9, 80.0]),
        "mode": st.sampled_from(["min", "max"]),
        "rows": st.sampled_from(["run", "point"]),
        "goal": st.sampled_from(["time", "examples", "accuracy", "memory"]),
        "json": st.booleans(),
    },
)


@given(tables(), ASKED)
@settings(max_examples=TABLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_small_table_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], asked: dict[str, object]
) -> None:
    judged_or_refused(tmp_path_factory.getbasetemp() / "random.csv", table, asked)


@given(tables(), ASKED)
@settings(max_examples=TABLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_small_table_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], asked: dict[str, object]
) -> None:
    """The reading alone, whatever the judge makes of it."""
    path = tmp_path_factory.getbasetemp() / "random.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune_jobs.reporting.answer.judge_runs", lambda *_, **__: [])
        judged_or_refused(path, table, asked, whole=False)


def judged_or_refused(
    path: Path, table: list[list[str]], asked: dict[str, object], whole: bool = True
) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            report.run(report.Options(table=path, **asked))  # type: ignore[arg-type]
        except UserError as error:
            assert str(error)
            assert "\x1b" not in str(error)
            return
    assert (out.getvalue() + err.getvalue()).strip() or not whole
    assert "\x1b" not in out.getvalue() + err.getvalue()
