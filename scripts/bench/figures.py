"""Every figure beside its baseline, in one table: figure, baseline, ratio with spread, aim.

    scripts/bench/all FOLDER [--only NAME] [--rounds N] [--table FILE.parquet] [--sweep]

loop      an update of the project's loop: beside a bare one, and torch's DataLoader with plain Adam
slots     busy part of the slots and evaluation's share, beside the same sweep the stock way
first     seconds from the command to the first trial
commands  `--help` and `--dry-run`, beside an interpreter that does nothing
replay    what the planner spends and finds on one table of recorded runs, beside the stock way
sweep     the default sweep, from the command to its answer; with --sweep alone: it takes minutes

Each figure is measured in turn with its baseline. FOLDER gets table.md and result.json, with every
value, the machine and its load. Under 30 minutes on 2 cores that do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from tune_jobs import environment

SWEEP = [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--data-dir", str(ROOT / ".data")]
TRIES = 5  # of a command, in a round
REPEATS = 5  # of a strategy at each target, in a round
TABLE = "digits-mlp-adam"  # made where none is given
STEPS = ((8.0, 1.0), (1024.0, 1.0))  # a and b of an update's a + b B, as on a CPU and on a GPU


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        values: of the figure, one a round, and `baseline` those of its baseline, in pairs.
        aim: of the ratio of baseline over figure where `of` is `ratio`, else of the figure; that
            is the least that it should be, or with `at_most` the most. None where none was set.
    """

    what: str
    unit: str
    values: Sequence[float]
    baseline: Sequence[float] = ()
    aim: float | None = None
    of: str = "figure"
    at_most: bool = False

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.baseline, self.values, strict=bool(self.baseline))
        return [base / value for base, value in pairs if value]

    @property
    def holds(self) -> bool | None:
        """Of the median; None without an aim, or where nothing was measured."""
        of = self.ratios if self.of == "ratio" else self.values
        if self.aim is None or not of:
            return None
        middle = statistics.median(of)
        return middle <= self.aim if self.at_most else middle >= self.aim


def markdown(figures: Sequence[Figure]) -> str:
    """The table; ratios are baseline over figure, with the least and the largest of n pairs."""
    lines = ["| figure | ours | baseline | ratio [least, largest] | n | aim | holds |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for f in figures:
        holds = {None: "", True: "yes", False: "**no**"}[f.holds]
        cells = (f.what, _with(f.values, f.unit), _with(f.baseline, f.unit), _spread(f.ratios),
                 str(len(f.values)), _aim(f), holds)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.4g} {unit}".rstrip() if values else ""


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def _aim(f: Figure) -> str:
    if f.aim is None:
        return ""
    unit = " times" if f.of == "ratio" else f" {f.unit}".rstrip()
    return f"at {'most' if f.at_most else 'least'} {f.aim:g}{unit}"


@dataclass(frozen=True)
class Asked:
    """What was asked on the command line."""

    folder: Path
    rounds: int
    table: Path | None


def loop(asked: Asked) -> list[Figure]:
    from scripts.bench import loop as of

    figures = []
    for row in of.measured(of.mnist_subject(), asked.rounds):
        size, mine = row["batch_size"], row["ours_ms"]
        usual = 2.2 if size >= 256 else 1.4 if size >= 16 else None
        for name, aim in (("bare", 0.97), ("usual", usual)):
            what = f"an update of {size}, beside the {name} loop"
            figures.append(Figure(what, "ms", mine, row[f"{name}_ms"], aim, "ratio"))
    return figures


def slots(asked: Asked) -> list[Figure]:
    from scripts.bench import stock_tune

    rows = stock_tune.measured(asked.rounds)

    def both(name: str) -> tuple[list[float], list[float]]:
        ours, stock = ([r[name] for r in rows if r["way"] == way] for way in stock_tune.WAYS)
        return ours, stock

    return [
        Figure("slots' busy part, beside stock Ray Tune", "", *both("busy_share"), 0.93),
        Figure(
            "examples per slot and second, beside the same", "", *both("examples_per_slot_second")
        ),
        Figure(
            "evaluation's part of trials' seconds", "", *both("evaluation_share"), 1 / 3,
            at_most=True,
        ),
    ]  # fmt: skip


def first(asked: Asked) -> list[Figure]:
    line = [sys.executable, __file__, "--until-first"]
    taken = [_told(line)["seconds"] for _ in range(asked.rounds)]
    return [Figure("command to first trial", "s", taken, aim=60.0, at_most=True)]


def commands(asked: Asked) -> list[Figure]:
    found: dict[str, list[float]] = {"--help": [], "--dry-run": [], "": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds * TRIES):
            for flag, taken in found.items():
                line = [*SWEEP, flag] if flag else [sys.executable, "-c", "pass"]
                began = time.perf_counter()
                subprocess.run(line, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                taken.append(time.perf_counter() - began)
    return [
        Figure(f"`{flag}`, beside an idle interpreter", "s", found[flag], found[""], aim,
               at_most=True)
        for flag, aim in (("--help", 1.0), ("--dry-run", 2.0))
    ]  # fmt: skip


def replay(asked: Asked) -> list[Figure]:
    from scripts.bench import replay as of

    table = of.Table.read(asked.table or _tabulated(asked.folder))
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "stock": []}
    for a, b in STEPS:
        for target in of.targets_of(table):
            for name, rows in found.items():
                rows.append(of.replayed(table, name, target, a, b, asked.rounds * REPEATS))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    both = found["ours"], found["stock"]
    spent, stock = ([float(r["examples_total"]) for r in rows] for rows in both)
    grid = [float(r["grid_examples"]) for r in found["ours"]]
    good, their = ([r["success"] for r in rows] for rows in both)
    lost, lose = ([r["mean_regret"] for r in rows] for rows in both)
    on = f"on {table.workload}"
    return [
        Figure(f"replay {on}: examples, beside the grid", "", spent, grid, 20.0, "ratio"),
        Figure(f"replay {on}: examples, beside stock", "", spent, stock, 3.0, "ratio"),
        Figure(f"replay {on}: choices near the best, beside stock", "", good, their, 0.95),
        Figure(f"replay {on}: mean regret, beside stock", "", lost, lose, 0.02, at_most=True),
    ]


def _tabulated(folder: Path) -> Path:
    path = folder / f"{TABLE}.parquet"
    if not path.exists():
        line = [sys.executable, str(ROOT / "scripts" / "bench" / "tabulate.py"), str(folder), TABLE]
        subprocess.run(line, check=True, stdout=sys.stderr)
    return path


def sweep(asked: Asked) -> list[Figure]:
    """Once: the default sweep as the README gives it."""
    from tune_jobs.store import SweepStore

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([*SWEEP, "--name", "first"], cwd=folder, check=True, stdout=sys.stderr)
        taken = (time.perf_counter() - began) / 60
        store = SweepStore(Path(folder) / "runs" / "first")
        trials, (verdict,) = store.read_trials(), json.loads(store.verdict.read_text())
    evaluating = sum(t.evaluation_seconds or 0.0 for t in trials)
    part = evaluating / (evaluating + sum(t.measured_train_seconds for t in trials))
    bound = (verdict["use"] or {}).get("regret_bound")
    return [
        Figure("the default sweep", "min", [taken], aim=6.0, at_most=True),
        Figure("its bound", "", [bound] if bound is not None else [], aim=0.15, at_most=True),
        Figure("its evaluation's part of trials' seconds", "", [part], aim=1 / 3, at_most=True),
    ]


BENCHES: dict[str, Callable[[Asked], list[Figure]]] = {
    "commands": commands, "first": first, "loop": loop, "slots": slots, "replay": replay,
    "sweep": sweep,
}  # fmt: skip


def until_first() -> None:
    """The default sweep up to its first trial; prints the seconds since this process began."""
    import psutil
    import ray
    from rich.console import Console

    from tune_jobs import preparing
    from tune_jobs.command_line import Action
    from tune_jobs.config import SweepConfig
    from tune_jobs.planning.allowance import Allowance
    from tune_jobs.records import Begun, Measurement, TrialResult
    from tune_jobs.reporting.progress import Progress
    from tune_jobs.store import SweepStore
    from tune_jobs.sweep import ahead
    from tune_jobs.tuning import joining

    class First(Progress):
        def __call__(self, record: Begun | Measurement | TrialResult) -> None:
            seconds = time.time() - psutil.Process().create_time()
            print(json.dumps({"seconds": round(seconds, 1)}), flush=True)
            ray.shutdown()
            os._exit(0)

    with tempfile.TemporaryDirectory() as folder:
        config = replace(SweepConfig(), runs_dir=folder, data_dir=str(ROOT / ".data"))
        console, store = Console(stderr=True), SweepStore.open(folder, config.name)
        store.create()
        told = First(console), Allowance(None)
        uri = f"sqlite:///{folder}/mlflow.db"
        with ahead(store) as fresh:
            data = preparing.data(config)
            joining.start(config, ROOT, lambda line: None)
            from tune_jobs import one_sweep as of

            of.sweep(of.Job(config, store, data, uri, console, Action(), *told, fresh))


def _told(line: Sequence[str]) -> dict[str, Any]:
    """The JSON that a command prints last."""
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> int:
    if sys.argv[1:] == ["--until-first"]:
        until_first()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=BENCHES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--table", type=Path, help="of recorded runs, for replay")
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asked = Asked(given.folder, given.rounds, given.table)
    names = [given.only] if given.only else [n for n in BENCHES if n != "sweep" or given.sweep]
    figures, told = [], {"environment": environment.describe(ROOT), "load_before": os.getloadavg()}
    for name in names:
        began = time.monotonic()
        figures += BENCHES[name](asked)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        # After each: a later one may fail, or be ended.
        rows = [asdict(f) | {"ratios": f.ratios, "holds": f.holds} for f in figures]
        told |= {"load_after": os.getloadavg(), "figures": rows}
        (given.folder / "result.json").write_text(json.dumps(told, indent=1) + "\n")
        (given.folder / "table.md").write_text(markdown(figures))
    print(markdown(figures))
    return 0


if __name__ == "__main__":
    # What is pickled for other processes must not belong to a module called __main__.
    from scripts.bench import figures

    raise SystemExit(figures.main())
