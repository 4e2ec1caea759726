"""Does a busy neighbour bend the clock? Measured in pairs, alone and beside it, in turn.

    python scripts/bench/contention.py OUT.json [rounds]

Two questions. Profile: does the throughput, and the memory, of a profile taken beside a neighbour
agree with one taken alone? Trial: the same run alone and beside a neighbour: its wall time, its own
clock around the updates, and its train seconds through the profile taken in the same condition.
The neighbour is one process that multiplies matrices on one core.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from tune_jobs import environment
from tune_jobs.data.sources import prepare
from tune_jobs.measure.fresh import FreshProcesses
from tune_jobs.measure.probe import Subject, training_run
from tune_jobs.measure.profiling import DeviceProfiler, ProfilePlan, to_profiles
from tune_jobs.training import device as devices
from tune_jobs.workload_source import WorkloadSource

BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
PROFILE_SECONDS = 120.0
TRIAL_BATCH_SIZE, TRIAL_UPDATES = 64, 60


def keep_busy() -> None:
    import torch

    torch.set_num_threads(1)
    matrix = torch.rand(300, 300)
    while True:
        matrix = torch.tanh(matrix @ matrix)


@contextmanager
def neighbour(present: bool) -> Iterator[None]:
    """A busy process while the block runs, or none."""
    process = multiprocessing.get_context("spawn").Process(target=keep_busy, daemon=True)
    if present:
        process.start()
        time.sleep(2)
    try:
        yield
    finally:
        if present:
            process.kill()
            process.join()


def run_trial(subject: Subject) -> tuple[float, float]:
    """Wall seconds and update seconds of the same training run, in this fresh process."""
    import torch

    torch.set_num_threads(subject.threads)
    began = time.perf_counter()
    run = training_run(subject, TRIAL_BATCH_SIZE, TRIAL_BATCH_SIZE, devices.pick(0.0))
    before = time.perf_counter()
    for _ in range(TRIAL_UPDATES):
        run.update(run.next_batch())
        run.progress.updates += 1
    updates = time.perf_counter() - before
    run.evaluate(run.validation)
    return time.perf_counter() - began, updates


def observe(subject: Subject) -> dict[str, object]:
    """One profile and one trial, now."""
    plan = ProfilePlan(BATCH_SIZES, "whole", PROFILE_SECONDS, 0.1)
    began = time.perf_counter()
    with FreshProcesses() as fresh:
        seen = DeviceProfiler(fresh, subject, plan, lambda line: None).run()
        profile_seconds = time.perf_counter() - began
        # By its module's name, not as part of __main__, which the fresh process does not have.
        trial = import_module("scripts.bench.contention").run_trial
        outcome = fresh.call(trial, subject, 120)[0]
    rows = [r for r in to_profiles(seen, subject, BATCH_SIZES, None, 0.0) if r.chosen]
    step = next(r.step_seconds for r in rows if r.batch_size == TRIAL_BATCH_SIZE)
    wall, updates = outcome.value
    return {
        "examples_per_second": {r.batch_size: r.examples_per_second for r in rows},
        "peak_memory_mib": {r.batch_size: r.peak_memory_mib for r in rows},
        "wall_time_seconds": wall,
        "measured_train_seconds": updates,
        "train_seconds": step * TRIAL_UPDATES if step else None,
        "profile_seconds": profile_seconds,
        "rounds": {r.batch_size: r.rounds for r in rows},
        "load": os.getloadavg()[0],
    }


def main() -> None:
    out, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    data = prepare("mnist", ROOT / ".data").resolve()
    source = WorkloadSource("simple_cnn", "mnist", str(data))
    subject = Subject(source, "adam", 3e-3, 2500, 0, 1, 0.0, None)
    seen: dict[str, list[dict[str, object]]] = {"alone": [], "beside": []}
    for k in range(rounds):
        for condition in ("alone", "beside") if k % 2 == 0 else ("beside", "alone"):
            with neighbour(condition == "beside"):
                seen[condition].append(observe(subject))
            print(k, condition, seen[condition][-1], flush=True)
    ratios = {
        name: [b[name] / a[name] for a, b in zip(seen["alone"], seen["beside"], strict=True)]  # type: ignore[operator]
        for name in ("wall_time_seconds", "measured_train_seconds", "train_seconds")
    }
    for name in ("examples_per_second", "peak_memory_mib"):
        ratios[name] = [
            b[name][size] / a[name][size]  # type: ignore[index]
            for a, b in zip(seen["alone"], seen["beside"], strict=True)
            for size in BATCH_SIZES
        ]
    summary = {
        name: {"median": statistics.median(v), "low": min(v), "high": max(v), "n": len(v)}
        for name, v in ratios.items()
    }
    facts = environment.describe(ROOT)
    facts.pop("host")
    result = {"beside_over_alone": summary, "raw": seen, "machine": facts}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
