"""Every way to choose a batch size on the same workloads: what it cost, and how far off it was.

    python scripts/bench/ways.py OUT.json [--repeats 3] [--workloads digits,mnist] [--ways a,b]

Each is a whole sweep in a process of its own, the ways interleaved over the repeats. The truth is
the best that any way found: the least median time to target of a confirmed batch size. `regret` is
by what part an answer takes longer; `blind` the same of the best search trial alone, had
that been followed unconfirmed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from tune_jobs import environment
from tune_jobs.planning.ways import WAYS
from tune_jobs.store import SweepStore

WORKLOADS = {
    "digits": ("--data", "digits", "--model", "mlp", "--batch-sizes", "16,32,64,128"),
    "mnist": (),
}
TRIALS = {"digits": 12, "mnist": 18}


def sweep(way: str, workload: str, seed: int, folder: Path) -> dict[str, Any]:
    """One sweep; what it did and answered."""
    name = f"{way}-{workload}-{seed}"
    (toml := folder / f"{name}.toml").write_text(f"seed = {100 * seed}\n")
    command = [
        sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--search", way, "--name", name,
        "--runs-dir", str(folder), "--config", str(toml), "--trials", str(TRIALS[workload]),
        "--tracking-uri", f"sqlite:///{folder}/mlflow.db", *WORKLOADS[workload],
    ]  # fmt: skip
    began = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found: dict[str, Any] = {"way": way, "workload": workload, "seed": seed}
    found |= {"status": ended.returncode, "wall_seconds": time.monotonic() - began}
    store = SweepStore.open(str(folder), name)
    if ended.returncode or not store.verdict.exists():
        return found | {"error": (ended.stdout + ended.stderr)[-2000:]}
    return found | told(store)


def told(store: SweepStore) -> dict[str, Any]:
    """What a sweep's folder says."""
    (verdict,) = json.loads(store.verdict.read_text())
    trials, use = store.read_trials(), verdict["use"] or {}
    confirmed = [t for t in trials if t.stage == "confirm"]
    times: dict[str, list[float | None]] = {}
    for t in confirmed:
        times.setdefault(str(t.batch_size), []).append(t.time_to_target_seconds)
    cost = verdict["search_cost"] or {}
    return {
        "answer": verdict["answer"],
        "verdict": verdict["status"],
        "search_trials": sum(t.stage == "search" for t in trials),
        "confirm_runs": len(confirmed),
        "examples": sum(t.examples_seen for t in trials),
        "device_seconds": sum(t.wall_time_seconds for t in trials),
        "batch_size": use.get("batch_size"),
        "learning_rate": use.get("learning_rate"),
        "regret_bound": use.get("regret_bound"),
        "blind_batch_size": cost.get("blind_batch_size"),
        "blind_regret": cost.get("blind_regret"),
        "said": cost.get("sentence"),
        "times": times,
    }


def median_time(row: dict[str, Any]) -> float | None:
    """Of the confirm runs of the batch size that a sweep says to use."""
    known = [t for t in row.get("times", {}).get(str(row.get("batch_size")), []) if t]
    return statistics.median(known) if known else None


def with_regret(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each sweep with what its answer takes over the best answer of its workload, pooled over its
    way's repeats so that one lucky sweep is not the truth."""
    medians: dict[tuple[str, Any], list[float]] = {}
    for row in rows:
        for size, times in row.get("times", {}).items():
            reached = [t for t in times if t]
            if 2 * len(reached) > len(times):
                medians.setdefault((row["workload"], size), []).append(statistics.median(reached))
    found = []
    for row in rows:
        best = min(
            (statistics.median(v) for (w, _), v in medians.items() if w == row["workload"]),
            default=None,
        )
        mine = median_time(row)
        found.append(row | {"regret": mine / best - 1 if mine and best else None})
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The README's table, a row for each workload and way; medians over the repeats."""
    lines = [
        "| workload | way | trials | examples | device seconds | batch size | regret | status |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        for way in dict.fromkeys(row["way"] for row in rows):
            mine = [r for r in rows if (r["workload"], r["way"]) == (workload, way)]
            ended = [r for r in mine if "batch_size" in r]
            if not ended:
                lines.append(f"| {workload} | `{way}` | failed {len(mine)} times | | | | | |")
                continue
            regrets = [r["regret"] for r in ended if r["regret"] is not None]
            middle = {
                k: statistics.median(r[k] for r in ended)
                for k in ("search_trials", "confirm_runs", "examples", "device_seconds")
            }
            sizes = ", ".join(f"{r['batch_size']} at {r['learning_rate']:.2g}" for r in ended
                              if r["batch_size"])  # fmt: skip
            regret = ", ".join(f"{x:.0%}" for x in regrets) or "-"
            lines.append(
                f"| {workload} | `{way}` | {middle['search_trials']:.0f} + "
                f"{middle['confirm_runs']:.0f} | {middle['examples']:,.0f} | "
                f"{middle['device_seconds']:.0f} | {sizes} | {regret} | "
                f"{', '.join(r['verdict'] for r in ended)} |"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--ways", default=",".join(WAYS))
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.repeats):
            for workload in asked.workloads.split(","):
                for way in asked.ways.split(","):
                    row = sweep(way, workload, seed, Path(folder))
                    rows.append(row)
                    print(f"{way} {workload} {seed}: {row['wall_seconds']:.0f} s, "
                          f"{row.get('answer', 'failed')}", flush=True)  # fmt: skip
                    facts = {"environment": environment.describe(ROOT), "sweeps": with_regret(rows)}
                    asked.out.write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(table(with_regret(rows))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
