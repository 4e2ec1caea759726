"""The examples, the file to begin from and README's own block: each trains and is answered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trained import CPU
from tune_jobs import new_workload
from tune_jobs.data.examples import splits_of
from tune_jobs.errors import UserError
from tune_jobs.training.loop import RunSettings, TrainingRun
from tune_jobs.training.rehearsal import rehearse
from tune_jobs.training.workload_facts import facts
from tune_jobs.workload import reaches
from tune_jobs.workload_source import users_workload

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(p for p in (ROOT / "models" / "examples").glob("*.py") if p.stem != "__init__")
WORKLOADS = [p for p in EXAMPLES if "def workload(" in p.read_text()]
SMALL = """
batch_sizes = [16, 64]
trials = 4
seeds = 2
profile_seconds = 5
noise_scale = false
"""


def test_an_example_is_short() -> None:
    assert len(WORKLOADS) >= 4
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 60, path.name


@pytest.mark.parametrize("path", WORKLOADS, ids=lambda p: p.stem)
def test_an_example_passes_its_rehearsal_and_learns(path: Path, mnist_dir: Path) -> None:
    workload = users_workload(f"{path}:workload", {})
    splits = splits_of(workload, 60, 0, CPU)
    rehearse(workload, splits, workload.target)
    settings = RunSettings(16, 16, 2e-3, "adam", 0, 640, workload.target or 0.0)
    run = TrainingRun(settings, workload, splits, CPU)
    before = run.evaluate(run.validation).metric
    reports = [run.advance()]
    while not reports[-1].done:
        reports.append(run.advance())
    after = reports[-1].val_metric
    assert after is not None and after != before
    assert reaches(after, before, workload.metric.mode)


def swept(workload: str, folder: Path) -> str:
    """What a small sweep of a workload prints, in the folder it was begun in."""
    (folder / "small.toml").write_text(SMALL)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--workload", workload,
         "--config", "small.toml", "--name", "small",
         "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"],
        cwd=folder, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_readmes_own_block_ends_in_an_answer(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Your own model")[1].split("\n## ")[0]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    command = re.search(r"--workload (\S+)", section)
    assert block is not None and command is not None
    file = command.group(1).split(":")[0]
    (tmp_path / file).write_text(block.group(1))
    assert re.search(r"^Use batch size \d+, learning rate", swept(command.group(1), tmp_path), re.M)


def test_the_file_to_begin_from_runs_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    command = new_workload.write(path)
    assert command == f"./scripts/sweep --workload {path}:workload"
    found = facts({"workload": f"{path}:workload"})
    assert (found["metric"], found["mode"], found["model"]) == ("rmse", "min", "mine")


@pytest.mark.parametrize(
    ("name", "words"),
    [("mine.txt", "name a Python file"), ("my-own.py", "can be imported"),
     ("there.py", "there is such a file already"), ("no/folder.py", "No such file or directory")],
)  # fmt: skip
def test_a_file_that_cannot_be_begun_is_told(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there.py").write_text("kept")
    with pytest.raises(UserError, match=words):
        new_workload.write(tmp_path / name)
    assert (tmp_path / "there.py").read_text() == "kept"
