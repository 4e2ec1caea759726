"""Every way to choose a batch size on the same workloads: what it cost, and how far off it was.

    python scripts/bench/ways.py OUT.json [--tables A.parquet,B.parquet] [--repeats 50]
        [--workloads digits,mnist] [--sweeps 3] [--ways a,b]

Ways that need recorded runs alone are replayed on tables of `tabulate.py`, through the project's
planning and judging, a at 8 b and the middle one of the table's targets; regret is over the best
cell in truth. The others, and `structured` beside them, are whole sweeps in processes of their own,
the ways interleaved over the repeats; there the truth is the best that any of them found: the least
median time to target of a confirmed batch size.
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

from scripts.bench.replay import REPLAYED, Table, replayed, targets_of
from tune_jobs import environment
from tune_jobs.planning.ways import WAYS
from tune_jobs.store import SweepStore

WORKLOADS = {
    "digits": ("--data", "digits", "--model", "mlp", "--batch-sizes", "8,16,32,64,128,256"),
    "mnist": (),
}
TRIALS = {"digits": 12, "mnist": 18}
SWEPT = [way for way in WAYS if way not in REPLAYED]


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
        "schedule": (verdict["schedule"] or {}).get("sentence"),
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


HEAD = """\
| workload | way | sweeps | runs | examples | seconds of training | batch sizes | regret |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def swept_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The README's table of whole sweeps, a row for each workload and way."""
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        for way in dict.fromkeys(row["way"] for row in rows):
            mine = [r for r in rows if (r["workload"], r["way"]) == (workload, way)]
            ended = [r for r in mine if "batch_size" in r]
            if not ended:
                lines.append(f"| {workload} | `{way}` | {len(mine)}, failed | | | | | |")
                continue
            runs = [r["search_trials"] + r["confirm_runs"] for r in ended]
            examples, seconds = ([r[k] for r in ended] for k in ("examples", "device_seconds"))
            sizes = [r["batch_size"] for r in ended]
            regrets = [r["regret"] for r in ended if r["regret"] is not None]
            lines.append(_line(workload, way, len(ended), runs, examples, seconds,
                               {str(s): sizes.count(s) for s in sizes}, regrets))  # fmt: skip
    return lines


def replayed_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same of what was replayed; seconds are those of the table's step line."""
    return [
        _line(r["workload"], r["strategy"].replace("by-", "").replace("ours", "structured"),
              r["repeats"], [r["runs"]], [r["examples_total"]], [r["seconds"] / 1000],
              r["batch_sizes"], [r["mean_regret"]])
        for r in rows
    ]  # fmt: skip


def _line(
    workload: str,
    way: str,
    sweeps: int,
    runs: list[float],
    examples: list[float],
    seconds: list[float],
    sizes: dict[str, int],
    regrets: list[float],
) -> str:
    middle = [f"{statistics.median(of):,.0f}" for of in (runs, examples, seconds)]
    named = ", ".join(f"{size} ({times})" for size, times in sizes.items())
    regret = f"{statistics.mean(regrets):.0%}" if regrets else "-"
    return f"| {workload} | `{way}` | {sweeps} | {' | '.join(middle)} | {named} | {regret} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tables", default="", help="of scripts/bench/tabulate.py")
    parser.add_argument("--repeats", type=int, default=50, help="of a way on a table")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="of whole sweeps")
    parser.add_argument("--sweeps", type=int, default=3, help="of a way on a workload")
    parser.add_argument("--ways", default=",".join(SWEPT), help="of whole sweeps")
    asked = parser.parse_args()
    found: dict[str, Any] = {"environment": environment.describe(ROOT), "replayed": []}
    for path in filter(None, asked.tables.split(",")):
        on = Table.read(Path(path))
        for name in ["ours", *(f"by-{way}" for way in REPLAYED)]:
            row = replayed(on, name, targets_of(on)[1], 8.0, 1.0, asked.repeats)
            found["replayed"].append(row)
            print(json.dumps(row), flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.sweeps):
            for workload in asked.workloads.split(","):
                for way in asked.ways.split(","):
                    row = sweep(way, workload, seed, Path(folder))
                    rows.append(row)
                    print(f"{way} {workload} {seed}: {row['wall_seconds']:.0f} s, "
                          f"{row.get('answer', 'failed')} {row.get('schedule') or ''}",
                          flush=True)  # fmt: skip
                    asked.out.write_text(json.dumps(found | {"sweeps": with_regret(rows)}) + "\n")
    asked.out.write_text(json.dumps(found | {"sweeps": with_regret(rows)}, indent=1) + "\n")
    print("\n".join([HEAD, *replayed_lines(found["replayed"]), *swept_lines(with_regret(rows))]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
