"""A sweep that is asked to end: it writes what it has, says how to go on, and can."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_sweep import ROOT, command, surroundings
from tune_jobs.store import SweepStore

SMALL = (
    'model = "mlp"\ndata = "digits"\nvalidation_examples = 300\nbudget_examples = 2048\n'
    "batch_sizes = [16, 64]\ntrials = 4\nseeds = 1\nprofile_seconds = 5\nnoise_scale = false\n"
    'target = 0.9\ncpus_per_trial = "1"\n'
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "reached",
    [lambda store: store.exists(), lambda store: len(store.read_trials()) > 1],
    ids=["while measuring", "among trials"],
)
def test_sigterm_ends_a_sweep_as_ctrl_c_does_with_status_143(
    reached: Callable[[SweepStore], bool], tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "it.toml").write_text(SMALL)
    line, around = command(tmp_path, data_dir, "--config", "it.toml"), surroundings(tmp_path)
    driver = subprocess.Popen(
        line, cwd=tmp_path, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    store = SweepStore(tmp_path / "runs" / "it")
    while not reached(store):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143, said
    assert "--resume" in said and "*** SIGTERM" not in said and "Traceback" not in said
    assert not store.lock.exists()
    before = store.read_trials()
    done = subprocess.run([*line, "--resume"], cwd=tmp_path, env=around, capture_output=True)
    assert done.returncode == 0, done.stderr
    after = {row.trial_id: row for row in store.read_trials()}
    assert [after[row.trial_id] for row in before] == before
    assert sum(row.stage == "search" for row in after.values()) == 4


def test_sigterm_after_all_is_done_changes_nothing() -> None:
    code = (
        "import atexit, os, signal, sys, tune_jobs.sweep as sweep\n"
        "sweep.parse, sweep.run = lambda: None, lambda invocation: 0\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.exit(sweep.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_while_a_finalizer_runs_is_not_lost(number: int, status: int) -> None:
    code = (
        "import os, signal, sys, time, weakref, tune_jobs.sweep as sweep\n"
        # As at a terminal: what a script begins in its background ignores SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Collected: pass\n"
        f"def finalizer(ref): os.kill(os.getpid(), {number}); time.sleep(1)\n"
        "def run(invocation):\n"
        "    one = Collected()\n"
        "    ref = weakref.ref(one, finalizer)\n"
        "    del one\n"
        "    time.sleep(20)\n"
        "    return 0\n"
        "sweep.parse, sweep.run = lambda: None, run\n"
        "sys.exit(sweep.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == status
    assert "--resume" in done.stderr and "Traceback" not in done.stderr
