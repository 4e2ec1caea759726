"""Sweeps on digits with faults drawn at random, resumed until they are done, and checked.

    scripts/soak --minutes 30 --seed 1 --out result.json
    scripts/soak --table result.json

Which faults, at which points and how many is drawn from the seed. One sweep is left in peace; each
other begins with its profiles and is judged by examples, since what runs take by the clock differs
from sweep to sweep: with one trial at a time both must make the same runs. After each attempt, and
at the end, is checked:

1. a row that stood before a fault stands as it was after it, and at the end each run of the sweep
   left in peace stands once, to the last digit: none lost, none doubled;
2. each point belongs to a trial that has a row, and the curve ends where the row says;
3. MLflow holds one parent, and one closed run for each trial and profile, with the curve's points;
4. every attempt ends by itself, with the status that its fault calls for and without a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from tune_jobs import environment
from tune_jobs.errors import StoreError
from tune_jobs.holding import Holder
from tune_jobs.records import TrialResult
from tune_jobs.store import SweepStore

NAME = "soak"
SETTINGS = f"""
model = "mlp"
data = "digits"
validation_examples = 300
batch_sizes = [16, 64]
trials = 4
seeds = 2
budget_examples = 3072
target = 0.85
goal = "examples"
profile_seconds = 2
noise_scale = false
cpus_per_trial = "{os.cpu_count()}"
"""
# No idle workers, which no trial uses.
IDLE = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
ATTEMPT_SECONDS = 900.0
STATUS = {"driver killed": -9, "SIGTERM": 143, "SIGINT": 130}
MADE = (
    "stage", "outcome", "batch_size", "learning_rate", "seed", "alone", "examples_seen", "updates",
    "examples_to_target", "val_metric", "test_metric",
)  # fmt: skip
# Point -> whether the store says that it is reached; a number is the point's own.
POINTS: dict[str, Callable[[SweepStore, int], bool]] = {
    "at the start": lambda store, _: True,
    "points": lambda store, n: len(store.read_measurements()) >= n,
    "trials": lambda store, n: len(store.read_trials()) >= n,
    "confirming": lambda store, _: any(m.stage == "confirm" for m in store.read_measurements()),
    "concluding": lambda store, _: store.verdict.exists(),
}


@dataclass(frozen=True)
class Fault:
    """What happens to a sweep, when its store has reached a point."""

    kind: str
    point: str
    number: int = 0
    seconds: float = 0.0  # after the point

    def __str__(self) -> str:
        return f"{self.number} {self.point}" if self.number else self.point


@dataclass
class Soaked:
    """What came of one sweep."""

    faults: list[Fault]
    statuses: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    resumed_equal: bool | None = None
    amiss: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Place:
    """A folder with sweeps, their home and MLflow's store; `sweep.py` is run in it."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder = folder
        self.data_dir = data_dir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "soak.toml").write_text(SETTINGS)
        self.store = SweepStore(folder / "runs" / NAME)
        self.uri = f"sqlite:///{folder}/mlflow.db"

    def start(self) -> subprocess.Popen[str]:
        asked = ["--resume"] if self.store.exists() else ["--config", "soak.toml"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), "--name", NAME, "--data-dir",
             str(self.data_dir), "--tracking-uri", self.uri, *asked],
            cwd=self.folder, env={**os.environ, **IDLE, "HOME": str(self.folder)}, text=True,
            stdout=subprocess.DEVNULL, stderr=(self.folder / "stderr").open("w"),
        )  # fmt: skip

    def said(self) -> str:
        return (self.folder / "stderr").read_text()


def drawn(chance: random.Random) -> list[Fault]:
    """One to three faults of a sweep."""
    kinds = ["driver killed", "driver killed", "SIGTERM", "SIGINT", "trial killed", "MLflow away"]
    faults = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        point = chance.choice(["points", "points", "trials", "trials", "confirming", "concluding",
                               "at the start"])  # fmt: skip
        number = {"points": chance.randint(1, 12), "trials": chance.randint(1, 6)}.get(point, 0)
        kind = chance.choice(kinds)
        if kind in ("trial killed", "MLflow away") and point in ("at the start", "concluding"):
            point, number = "trials", 1
        faults.append(Fault(kind, point, number, chance.choice((0.0, 0.0, chance.random() * 3))))
    return faults


def soaked(place: Place, faults: Sequence[Fault], peace: SweepStore | None) -> Soaked:
    """One sweep through its faults to its end, and what must hold of it."""
    result, began = Soaked(list(faults)), time.monotonic()
    if peace is not None:
        place.store.create()
        for name in ("sweep.toml", "environment.json", "profiles.parquet"):
            shutil.copy(peace.folder / name, place.store.folder / name)
    with mlflow(place, any(fault.kind == "MLflow away" for fault in faults)) as server:
        for fault in [*faults, None]:
            for _ in range(3):
                attempt(place, fault, result, server)
                if fault is not None or result.statuses[-1] == 0:
                    break
            if result.statuses[-1] == 0 and fault is None:
                break
        result.amiss += store_amiss(place.store) + mlflow_amiss(place.uri, place.store)
    if result.statuses[-1] != 0:
        result.amiss.append(f"never done: {place.said()[-1000:]}")
    if peace is not None:
        result.lost, result.doubled = compared(peace.read_trials(), place.store.read_trials())
        result.resumed_equal = not (result.lost or result.doubled) and answer_of(
            peace
        ) == answer_of(place.store)
    result.seconds = time.monotonic() - began
    return result


def attempt(place: Place, fault: Fault | None, result: Soaked, server: list[Any]) -> None:
    """A driver's life: begun, hit by the fault once its point is reached, and ended."""
    before = rows_of(place.store)
    driver = place.start()
    struck = fault is not None and reached(place.store, fault, driver)
    if struck:
        assert fault is not None
        strike(fault, driver, server)
    try:
        status = driver.wait(ATTEMPT_SECONDS)
    except subprocess.TimeoutExpired:
        driver.kill()
        status = driver.wait()
        result.amiss.append(f"stood still for {ATTEMPT_SECONDS:.0f} s: {place.said()[-1000:]}")
    said = place.said()
    result.statuses.append(status)
    result.messages.append(said.strip().splitlines()[-1] if said.strip() else "")
    if "Traceback" in said:
        result.amiss.append(f"a traceback: {said[-1000:]}")
    allowed = {0, STATUS.get(fault.kind, 0)} if fault is not None and struck else {0}
    if status not in allowed:
        result.amiss.append(f"status {status} after {fault}: {said[-500:]}")
    after = rows_of(place.store)
    changed = [name for name, row in before.items() if after.get(name) != row]
    if changed:  # 1
        result.amiss.append(f"rows changed or gone: {', '.join(changed)}")


def rows_of(store: SweepStore) -> dict[str, TrialResult]:
    return {row.trial_id: row for row in store.read_trials() if row.outcome != "failed"}


def reached(store: SweepStore, fault: Fault, driver: subprocess.Popen[str]) -> bool:
    """Wait for the fault's point; False where the driver ended before. What is counted is what
    this driver adds."""
    counts: dict[str, Callable[[], Sized]] = {
        "points": store.read_measurements,
        "trials": store.read_trials,
    }
    count = counts.get(fault.point, list)
    number, verdict = len(count()) + fault.number, store.verdict
    with suppress(FileNotFoundError):
        if fault.point == "concluding":
            verdict.unlink()
    began = time.monotonic()
    while driver.poll() is None and time.monotonic() - began < ATTEMPT_SECONDS:
        with suppress(StoreError):
            if begun_by(driver, store) and POINTS[fault.point](store, number):
                time.sleep(fault.seconds)
                return driver.poll() is None
        time.sleep(0.05)
    return False


def begun_by(driver: subprocess.Popen[str], store: SweepStore) -> bool:
    """Whether this driver holds the sweep: what an earlier one left says nothing of it."""
    with suppress(OSError):
        holder = Holder.read(store.lock.read_text())
        return holder is not None and holder.pid == driver.pid
    return False


def strike(fault: Fault, driver: subprocess.Popen[str], server: list[Any]) -> None:
    if fault.kind == "trial killed":
        for process in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::b"):
                    process.kill()
                    return
    elif fault.kind == "MLflow away":
        stopped(server.pop())
        time.sleep(4)
        server.append(begun(*server_of))
    else:
        signals = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
        driver.send_signal(signals.get(fault.kind, signal.SIGKILL))


server_of: list[Any] = []  # folder and port of the server that is there


@contextmanager
def mlflow(place: Place, wanted: bool) -> Iterator[list[Any]]:
    """A server in the place of the file, where one is to go away."""
    server: list[Any] = []
    if wanted:
        with socket.create_server(("127.0.0.1", 0)) as free:
            server_of[:] = [place.folder, free.getsockname()[1]]
        server.append(begun(*server_of))
        place.uri = f"http://127.0.0.1:{server_of[1]}"
    try:
        yield server
    finally:
        for process in server:
            stopped(process)


def begun(folder: Path, port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
         f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts"),
         "--port", str(port), "--workers", "1"],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(1_200):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            break
        time.sleep(0.1)
    return process


def stopped(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def compared(peace: Sequence[TrialResult], rows: Sequence[TrialResult]) -> tuple[int, int]:
    """Runs of the sweep left in peace that are missing, and runs beyond them."""

    def made(trials: Sequence[TrialResult]) -> Counter[Any]:
        kept = (row for row in trials if row.outcome != "failed")
        return Counter(tuple(getattr(row, name) for name in MADE) for row in kept)

    expected, found = made(peace), made(rows)
    return (expected - found).total(), (found - expected).total()


def answer_of(store: SweepStore) -> list[Any]:
    """What the verdict answers, without what the clock on the wall had part in."""
    verdicts = json.loads(store.verdict.read_text()) if store.verdict.exists() else []
    return [(v["status"], v["use"], v["target"], v["tied_batch_sizes"]) for v in verdicts]


def store_amiss(store: SweepStore) -> list[str]:
    """What the store holds that cannot be."""
    rows = {row.trial_id: row for row in store.read_trials()}
    ends: dict[str, int] = {}
    for point in store.read_measurements():
        ends[point.trial_id] = max(point.examples_seen, ends.get(point.trial_id, 0))
    strange = sorted(ends.keys() - rows.keys())
    short = [i for i, end in ends.items() if i in rows and rows[i].examples_seen != end]
    told = [f"points of trials without a row: {', '.join(strange)}"] if strange else []
    return told + (
        [f"curves that end elsewhere than their row: {', '.join(short)}"] if short else []
    )


def mlflow_amiss(uri: str, store: SweepStore) -> list[str]:
    """What MLflow holds other than the store does."""
    from tune_jobs.tracking.client import PARENT, connect

    client = connect(uri)
    experiment = client.get_experiment_by_name("batch-size")
    if experiment is None:
        return ["MLflow has no experiment"]
    runs = list(client.search_runs([experiment.experiment_id], max_results=1_000))
    nested = [run for run in runs if PARENT in run.data.tags]
    open_runs = [r.info.run_name for r in runs if r.info.status not in ("FINISHED", "FAILED")]
    told = [] if len(runs) == len(nested) + 1 else [f"{len(runs) - len(nested)} parents in MLflow"]
    told += [f"runs not closed in MLflow: {open_runs}"] if open_runs else []
    trials = [run for run in nested if run.data.tags["stage"] != "measure"]
    held = Counter(run.data.tags["trial_id"] for run in trials)
    wanted = Counter(row.trial_id for row in store.read_trials())
    if held != wanted:
        told.append(
            f"trials in MLflow: {held - wanted} beyond the store's, {wanted - held} missing"
        )
    points = {(m.trial_id, m.examples_seen) for m in store.read_measurements()}
    for run in trials:
        name = run.data.tags["trial_id"]
        steps = [p.step for p in client.get_metric_history(run.info.run_id, "train_seconds")]
        curve = {step for trial, step in points if trial == name}
        if not curve <= set(steps):
            told.append(f"MLflow lacks points of {name}: {sorted(curve - set(steps))}")
    return told


def table(results: Sequence[dict[str, Any]]) -> str:
    """A line for each sweep: its faults, where they struck, and what came of it."""
    head = "| fault | point | tries | lost | doubled | resumed equal | status | message |"
    lines = [head, "| --- | --- | ---: | ---: | ---: | --- | --- | --- |"]
    for one in results:
        faults = [Fault(**fault) for fault in one["faults"]]
        cells = (
            "; ".join(fault.kind for fault in faults) or "none",
            "; ".join(map(str, faults)) or "-",
            len(one["statuses"]), one["lost"], one["doubled"],
            {None: "-", True: "yes", False: "no"}[one["resumed_equal"]],
            ", ".join(map(str, one["statuses"])),
            "; ".join([*one["amiss"], *one["messages"]]).replace("|", "/").replace("\n", " ")[:300],
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def violations(results: Sequence[dict[str, Any]]) -> int:
    return sum(
        bool(r["amiss"] or r["lost"] or r["doubled"] or r["resumed_equal"] is False)
        for r in results
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="no sweep is begun after them")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--sweeps", type=int, default=10_000, help="with faults, at the most")
    parser.add_argument("--out", type=Path, help="JSON file of the results, written after each")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".data")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and stop")
    asked = parser.parse_args()
    if asked.table is not None:
        print(table(json.loads(asked.table.read_text())["sweeps"]))
        return 0
    began, chance = time.monotonic(), random.Random(asked.seed)
    sweeps: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        peace = Place(Path(folder) / "peace", asked.data_dir)
        for number in range(asked.sweeps + 1):
            if number and time.monotonic() - began > 60 * asked.minutes:
                break
            place = Place(Path(folder) / str(number), asked.data_dir) if number else peace
            faults = drawn(chance) if number else []
            sweeps.append(asdict(soaked(place, faults, peace.store if number else None)))
            print(table(sweeps[-1:]).splitlines()[-1], flush=True)
            if asked.out is not None:
                facts = environment.describe(ROOT)
                kept = {"seed": asked.seed, "environment": facts, "sweeps": sweeps}
                asked.out.write_text(json.dumps(kept, indent=1) + "\n")
            if not number and sweeps[0]["amiss"]:
                break
            if not violations(sweeps[-1:]):
                shutil.rmtree(place.folder if number else Path(folder) / "none", True)
    return 1 if violations(sweeps) else 0


if __name__ == "__main__":
    raise SystemExit(main())
