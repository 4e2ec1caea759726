"""Every way to choose a batch size on the same workloads: what it cost, and how far off it was.

    python scripts/bench/ways.py OUT.json [--tables FOLDER] [--repeats 20] [--sweeps 3]
        [--workloads a,b] [--ways a,b]

Each workload has a table of recorded runs (tabulate.py), made in FOLDER where it is missing. What
an update costs on this machine, and the noise scale, are measured once. Ways that need no more are
replayed on the table through the project's planning and judging. The others are whole sweeps of the
same workload in processes of their own, each from there on, interleaved over the repeats. All get
the same trials, seeds and target (the middle one of the table's), and in each repeat the same
middle of the range of rates. Regret is what the chosen cell (batch size and rate) takes over the
best cell, both by the table and by the seconds of this machine.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from scripts.bench.replay import (
    REPLAYED,
    SEEDS,
    TRIALS,
    Table,
    Truth,
    World,
    dealt,
    replayed,
    targets_of,
)
from tune_jobs import environment
from tune_jobs.judging.speed import line_of_step_seconds
from tune_jobs.planning.ways import WAYS
from tune_jobs.records import BatchSizeProfile, NoiseScale
from tune_jobs.store import SweepStore

SUBJECTS = {  # tables, and what a sweep of the same is told
    "digits-mlp-adam": ("--data", "digits", "--model", "mlp"),
    "mnist10k-cnn-adam": ("--workload", "scripts/bench/tabulate.py:mnist10k_workload"),
}
SWEPT = [way for way in WAYS if way not in (*REPLAYED, "structured")]


@dataclass(frozen=True)
class Subject:
    """A workload: its recorded runs, and what was measured of it on this machine; `line` is the
    seconds of an update, a + b B."""

    name: str
    table: Table
    target: float
    profiles: list[BatchSizeProfile]
    noise: list[NoiseScale]
    line: tuple[float, float]

    def regret(self, size: int, rate: float) -> float | None:
        """Of the recorded cell of this batch size with the nearest rate; None where none is."""
        rates = self.table.rates.get(size)
        if rates is None:
            return None
        cell = size, min(range(len(rates)), key=lambda i: abs(math.log(rates[i] / rate)))
        return math.expm1(Truth.of(self.table, self.target, *self.line).regret(cell))


def measured(name: str, tables: Path, folder: Path) -> Subject:
    """The workload's table, made where it is missing, and what `--only measure` says of it."""
    path = tables / f"{name}.parquet"
    if not path.exists():
        command = [sys.executable, str(ROOT / "scripts/bench/tabulate.py"), str(tables), name]
        subprocess.run(command, cwd=ROOT, check=True)
    table = Table.read(path)
    target, toml = targets_of(table)[1], folder / f"{name}.toml"
    toml.write_text(
        f"target = {target}\nbudget_examples = {table.budget}\ntrials = {TRIALS}\n"
        f"seeds = {SEEDS}\nbatch_sizes = {list(table.sizes)}\n"
    )
    ended = swept(name, folder, "--config", str(toml), "--only", "measure", *SUBJECTS[name])
    if ended.returncode:
        raise SystemExit(ended.stdout + ended.stderr)
    store = SweepStore.open(str(folder), name)
    profiles, noise = store.read_profiles(), store.read_noise_scale()
    line = line_of_step_seconds({}, profiles)
    assert line is not None, "two batch sizes at least give a line"
    return Subject(name, table, target, profiles, noise, (line.intercept, line.slope))


def swept(name: str, folder: Path, *said: str) -> subprocess.CompletedProcess[str]:
    """A sweep in its own process."""
    command = [
        sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--name", name,
        "--runs-dir", str(folder), "--tracking-uri", f"sqlite:///{folder}/mlflow.db", *said,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def sweep(way: str, on: Subject, repeat: int, folder: Path) -> dict[str, Any]:
    """One sweep, from what was measured on; what it did and answered."""
    world = World(on.table, on.target, *on.line, dealt(on.table, repeat))
    name = f"{on.name}-{way}-{repeat}"
    own = shutil.ignore_patterns("ray", "mlflow.json")
    shutil.copytree(folder / on.name, folder / name, ignore=own)
    store = SweepStore.open(str(folder), name)
    base = world.config.base_learning_rate
    store.write_config(replace(
        store.read_config(), name=name, search=way, seed=100 * repeat, base_learning_rate=base
    ))  # fmt: skip
    began = time.monotonic()
    ended = swept(name, folder, "--resume")
    found: dict[str, Any] = {"way": way, "workload": on.name, "repeat": repeat}
    found |= {"status": ended.returncode, "wall_seconds": time.monotonic() - began}
    if ended.returncode or not store.verdict.exists():
        return found | {"error": (ended.stdout + ended.stderr)[-2000:]}
    found |= told(store)
    return found | {"regret": on.regret(found["batch_size"], found["learning_rate"])}


def told(store: SweepStore) -> dict[str, Any]:
    """What a sweep's folder says."""
    (verdict,) = json.loads(store.verdict.read_text())
    trials, use = store.read_trials(), verdict["use"]
    return {
        "answer": verdict["answer"],
        "runs": len(trials),
        "examples": sum(t.examples_seen for t in trials),
        "seconds": sum(t.train_seconds or 0.0 for t in trials),
        "batch_size": use["batch_size"],
        "learning_rate": use["learning_rate"],
        "regret_bound": use["regret_bound"],
        "schedule": (verdict["schedule"] or {}).get("sentence"),
    }


HEAD = """\
| workload | way | repeats | trials | examples | device seconds | batch size at rate | regret |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def swept_line(workload: str, way: str, rows: list[dict[str, Any]]) -> str:
    """The README's row of whole sweeps; means, as of what is replayed."""
    ended = [r for r in rows if "answer" in r]
    if not ended:
        return f"| {workload} | `{way}` | {len(rows)}, failed | | | | | |"
    middle = [statistics.mean(r[key] for r in ended) for key in ("runs", "examples", "seconds")]
    rates: dict[int, list[float]] = {}
    for row in ended:
        rates.setdefault(row["batch_size"], []).append(row["learning_rate"])
    chosen = [(size, len(of), statistics.median(of)) for size, of in rates.items()]
    regrets = [math.log1p(r["regret"]) for r in ended if r["regret"] is not None]
    regret = math.expm1(statistics.mean(regrets)) if regrets else None
    return _line(workload, way, f"{len(ended)} sweeps", middle, chosen, regret)


def replayed_line(row: dict[str, Any]) -> str:
    """The same of what was replayed."""
    way = row["strategy"].replace("by-", "").replace("ours", "structured")
    middle = [row["runs"], row["examples_total"], row["seconds"]]
    chosen = [
        (int(size), times, row["learning_rates"][size])
        for size, times in row["batch_sizes"].items()
    ]
    return _line(row["workload"], way, str(row["repeats"]), middle, chosen, row["mean_regret"])


def _line(
    workload: str,
    way: str,
    repeats: str,
    middle: list[float],
    chosen: list[tuple[int, int, float]],
    regret: float | None,
) -> str:
    numbers = f"{middle[0]:.0f} | {middle[1]:,.0f} | {middle[2]:.1f}"
    ordered = sorted(chosen, key=lambda of: -of[1])
    named = ", ".join(f"{size} at {rate:.2g} ({times})" for size, times, rate in ordered)
    over = "-" if regret is None else f"{regret:.0%}"
    return f"| {workload} | `{way}` | {repeats} | {numbers} | {named} | {over} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tables", type=Path, default=ROOT / ".data" / "tables")
    parser.add_argument("--repeats", type=int, default=20, help="of a way on a table")
    parser.add_argument("--workloads", default=",".join(SUBJECTS))
    parser.add_argument("--sweeps", type=int, default=3, help="of a way that is not replayed")
    parser.add_argument("--ways", default=",".join(SWEPT), help="of whole sweeps")
    asked = parser.parse_args()
    found: dict[str, Any] = {"environment": environment.describe(ROOT)}
    found |= {"lines": {}, "replayed": [], "sweeps": []}
    began = time.monotonic()

    def keep(list_of: str, row: dict[str, Any]) -> None:
        found[list_of].append(row)
        found["seconds"] = round(time.monotonic() - began)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(row), flush=True)

    with tempfile.TemporaryDirectory() as at:
        folder, names = Path(at), asked.workloads.split(",")
        subjects = [measured(name, asked.tables, folder) for name in names]
        found["lines"] = {on.name: on.line for on in subjects}
        for on in subjects:
            for way in ["ours", *(f"by-{way}" for way in REPLAYED)]:
                made = replayed(
                    on.table, way, on.target, *on.line, asked.repeats, on.profiles, on.noise
                )
                keep("replayed", made)
        for repeat in range(asked.sweeps):
            for on in subjects:
                for way in filter(None, asked.ways.split(",")):
                    keep("sweeps", sweep(way, on, repeat, folder))
    print(HEAD)
    for name in names:
        for row in found["replayed"]:
            if row["workload"] == name:
                print(replayed_line(row))
        for way in dict.fromkeys(row["way"] for row in found["sweeps"]):
            of = [r for r in found["sweeps"] if (r["way"], r["workload"]) == (way, name)]
            print(swept_line(name, way, of))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
