"""The gradient noise scale of SimpleCNN on MNIST along a run, raw and preconditioned.

    python scripts/bench/noise_scale.py OUT.json [seeds]

Each seed is another run, with draws of its own. One thread. Published for MNIST, for another
network trained by SGD to its end: 50 early, 900 averaged over training (McCandlish et al. 2018,
table 1, simple noise scale).
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from tune_jobs import environment
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.examples import splits_of
from tune_jobs.data.sources import prepare
from tune_jobs.measure.noise_along_training import noise_along_training
from tune_jobs.measure.noise_scale import Sampling
from tune_jobs.records import NoiseScale
from tune_jobs.training.loop import RunSettings, TrainingRun
from tune_jobs.training.scaling import scaled_learning_rate, scaling_of
from tune_jobs.workload_source import WorkloadSource

POINTS = (640, 1280, 2560, 5120, 10_240, 20_480)
BATCH_SIZE, VALIDATION = 64, 2500
SAMPLING = Sampling(small_batch=16, pieces=8, draws=32)
OPTIMIZERS = ("adam", "sgd")
PUBLISHED = {"early": 50, "averaged": 900, "source": "McCandlish et al. 2018, table 1, MNIST"}


def make_run(data: Dataset, optimizer: str, seed: int) -> TrainingRun:
    """A run at the middle of the search range of its optimizer."""
    rate = scaled_learning_rate(optimizer, scaling_of(optimizer).base_learning_rate, BATCH_SIZE)
    settings = RunSettings(
        BATCH_SIZE, BATCH_SIZE, rate, optimizer, seed, budget_examples=POINTS[-1], target=math.inf
    )
    workload, cpu = (
        WorkloadSource("simple_cnn", data.name, None).of_dataset(data),
        torch.device("cpu"),
    )
    return TrainingRun(settings, workload, splits_of(workload, VALIDATION, 0, cpu), cpu)


def observe(data: Dataset, optimizer: str, seed: int) -> dict[str, object]:
    """One run's rows, and the validation accuracy where it ended."""
    run, began = make_run(data, optimizer, seed), time.perf_counter()
    rows = noise_along_training(
        run, run.stream.indices, POINTS, sampling=SAMPLING, seed=seed, cap_seconds=math.inf
    )
    seconds = time.perf_counter() - began
    accuracy = run.evaluate(run.validation).metric
    print(optimizer, seed, f"{seconds:.0f} s, validation accuracy {accuracy:.4f}", flush=True)
    for row in rows:
        print(f"  {row.kind:24} {row.examples_seen:6} {shown(row)}", flush=True)
    return {
        "optimizer": optimizer,
        "seed": seed,
        "seconds": seconds,
        "val_accuracy": accuracy,
        "rows": [asdict(row) for row in rows],
    }


def shown(row: NoiseScale) -> str:
    ends = ["none" if end is None else f"{end:.0f}" for end in (row.low, row.high)]
    value = "none" if row.noise_scale is None else f"{row.noise_scale:.0f}"
    return f"{value} [{ends[0]}, {ends[1]}] {row.reason or ''}"


def summary(runs: list[dict[str, object]]) -> list[dict[str, object]]:
    """Over seeds, for each optimizer, kind and point: median, least and most useful noise scale."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for run in runs:
        for row in run["rows"]:  # type: ignore[attr-defined]
            if row["useful"]:
                key = (str(run["optimizer"]), row["kind"], row["examples_seen"])
                found.setdefault(key, []).append(row["noise_scale"])
    return [
        {"optimizer": optimizer, "kind": kind, "examples_seen": seen, "runs": len(values),
         "median": float(np.median(values)), "least": min(values), "most": max(values)}
        for (optimizer, kind, seen), values in sorted(found.items())
    ]  # fmt: skip


def main() -> None:
    out, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    torch.set_num_threads(1)
    data = open_dataset(prepare("mnist", ROOT / ".data"))
    assert isinstance(data, Dataset), "images"
    runs = [observe(data, name, seed) for name in OPTIMIZERS for seed in range(seeds)]
    facts = environment.describe(ROOT)
    facts.pop("host")
    result = {
        "published": PUBLISHED,
        "sampling": asdict(SAMPLING),
        "batch_size": BATCH_SIZE,
        "over_seeds": summary(runs),
        "raw": runs,
        "machine": facts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
