"""scripts/soak: what it calls a violation, and a short run of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import rows
from tune_jobs.store import SweepStore

ROOT = Path(__file__).resolve().parents[1]
SOAK = ROOT / "scripts" / "bench" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> Any:
    before = sys.path[0]
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    sys.path[0] = before
    return module


def test_runs_that_are_missing_and_runs_beyond_are_counted(soak: Any) -> None:
    peace = [rows.result(trial_id=str(n), seed=n) for n in range(4)]
    other = [rows.result(trial_id=f"other {n}", seed=n) for n in (0, 1, 3)]
    assert soak.compared(peace, peace) == (0, 0)
    assert soak.compared(peace, other) == (1, 0)
    assert soak.compared(peace, [*other, rows.result(trial_id="again", seed=3)]) == (1, 1)
    failed = rows.result(trial_id="failed", seed=3, outcome="failed")
    assert soak.compared(peace, [*other, failed]) == (1, 0)
    assert soak.compared(peace, [rows.result(trial_id="a", seed=0, updates=7)]) == (4, 1)


def test_points_without_a_row_and_curves_that_end_elsewhere_are_told(
    soak: Any, tmp_path: Path
) -> None:
    store = SweepStore(tmp_path)
    row = rows.result(trial_id="short")
    store.write_trials([row])
    store.write_measurements([rows.measurement(trial_id="lost"), rows.measurement(
        trial_id="short", examples_seen=row.examples_seen + 1)])  # fmt: skip
    without, elsewhere = soak.store_amiss(store)
    assert "without a row: lost" in without and "their row: short" in elsewhere


def test_the_same_seed_draws_the_same_faults(soak: Any) -> None:
    one, again, other = ([soak.drawn(Random(n)) for _ in range(5)] for n in (3, 3, 4))
    assert one == again != other


def test_the_table_tells_each_sweep_in_a_line(soak: Any) -> None:
    fault = {"kind": "driver killed", "point": "trials", "number": 2, "seconds": 0.0}
    one = {"faults": [fault], "statuses": [-9, 0], "messages": ["", "a|b"], "lost": 0,
           "doubled": 0, "resumed_equal": True, "amiss": [], "seconds": 3.0}  # fmt: skip
    line = soak.table([one]).splitlines()[-1]
    assert line == "| driver killed | 2 trials | 2 | 0 | 0 | yes | -9, 0 | ; a/b |"
    assert soak.violations([one]) == 0 and soak.violations([{**one, "lost": 1}]) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_short_soak_finds_no_violation(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(SOAK), "--minutes", "60", "--sweeps", "1", "--seed", "2",
         "--data-dir", str(data_dir), "--out", str(out)],
        capture_output=True, text=True, env=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(out.read_text())["sweeps"]) == 2
