"""What part of the slots' time goes into training: a sweep of ours beside the same the stock way.

    python scripts/bench/stock_tune.py OUT.json [rounds]

The stock way is Ray Tune as its guides have it: a plain function with its imports inside, a process
for each trial, Ray's own MLflow callback, ASHA and HyperOpt over one common race of batch size and
learning rate. Data, model, budget, and what a trial asks of Ray are the same. Each sweep is made in
a process of its own, in turn.

A slot is what one trial asks for. Busy are the seconds that trials trained or evaluated, over slots
times the seconds from the first trial's start, as Tune tells it, to the last one's end; looks, and
what a run that is alone leaves idle, count as idle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
os.environ["PYTHONPATH"] = str(ROOT)  # for Ray's workers

from tune_jobs import environment
from tune_jobs.config import SweepConfig

CONFIG = replace(
    SweepConfig(), batch_sizes=(16, 64, 256), extends=False, trials=9, budget_examples=4_608,
    target=0.9, seeds=2, profile_seconds=15.0, noise_scale=False, cpus_per_trial="1",
    data_dir=str(ROOT / ".data"),
)  # fmt: skip
EVALUATIONS = 9  # of a stock trial's budget, the first rung's place among them
WAYS = ("ours", "stock")


@dataclass(frozen=True)
class Made:
    """A sweep: examples and seconds are of all its trials, `wall_seconds` as above."""

    way: str
    trials: int
    slots: int
    wall_seconds: float
    examples: int
    train_seconds: float
    evaluation_seconds: float

    @property
    def figures(self) -> dict[str, float]:
        slot_seconds = self.slots * self.wall_seconds
        busy = self.train_seconds + self.evaluation_seconds
        return {
            "busy_share": round(busy / slot_seconds, 4),
            "examples_per_slot_second": round(self.examples / slot_seconds, 1),
            "evaluation_share": round(self.evaluation_seconds / busy, 4),
        }


def ours(folder: Path) -> Made:
    """The sweep as the command line makes it; what began and ended is heard beside."""
    from rich.console import Console

    from tune_jobs import one_sweep, preparing
    from tune_jobs.command_line import Action
    from tune_jobs.planning.allowance import Allowance
    from tune_jobs.records import Begun, Measurement, TrialResult
    from tune_jobs.reporting.progress import Progress
    from tune_jobs.store import SweepStore

    heard: list[float] = []

    class Watched(Progress):
        def __call__(self, record: Begun | Measurement | TrialResult) -> None:
            heard.append(time.monotonic())
            super().__call__(record)

    config = replace(CONFIG, name="ours", runs_dir=str(folder))
    console, store = Console(stderr=True), SweepStore.open(config.runs_dir, config.name)
    store.create()
    told = Watched(console), Allowance(None)
    uri = f"sqlite:///{folder}/mlflow.db"
    job = one_sweep.Job(config, store, preparing.data(config), uri, console, Action(), *told)
    one_sweep.sweep(job)
    trials = store.read_trials()
    return Made(
        "ours", len(trials), _slots(), heard[-1] - heard[0],
        sum(t.examples_seen for t in trials),
        sum(t.measured_train_seconds for t in trials),
        sum(t.evaluation_seconds or 0.0 for t in trials),
    )  # fmt: skip


def stock_trial(asked: dict[str, Any]) -> None:
    """As a guide to Ray Tune would have it; reports examples, accuracy and its seconds."""
    import time

    import torch
    import torch.nn.functional as F
    from PIL import Image
    from ray import tune
    from torchvision import transforms

    from models.registry import build
    from tune_jobs.data.batches import split_indices
    from tune_jobs.data.dataset import Dataset, open_dataset

    data = open_dataset(Path(asked["data"]))
    assert isinstance(data, Dataset), "images"
    pixels = data.train.images
    prepared = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))]
    )

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(data.train.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = Image.fromarray(pixels[index, 0])
            return prepared(image), int(data.train.labels[index])

    images = Images()
    train, held_out = split_indices(len(images), asked["validation"], 0)
    subsets = [torch.utils.data.Subset(images, part.tolist()) for part in (train, held_out)]
    loader = torch.utils.data.DataLoader(subsets[0], batch_size=asked["batch_size"], shuffle=True)
    held = torch.utils.data.DataLoader(subsets[1], batch_size=1000)
    torch.manual_seed(0)
    model = build(asked["model"], tuple(data.train.images.shape[1:]), data.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=asked["learning_rate"])
    seen, due, spent = 0, 0.0, {"train_seconds": 0.0, "evaluation_seconds": 0.0}
    while seen < asked["budget"]:
        due, began = due + asked["budget"] / EVALUATIONS, time.perf_counter()
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen += len(labels)
            if seen >= due:
                break
        spent["train_seconds"] += time.perf_counter() - began
        began = time.perf_counter()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in held)
        spent["evaluation_seconds"] += time.perf_counter() - began
        tune.report({"examples_seen": seen, "accuracy": right / asked["validation"], **spent})


def stock(folder: Path) -> Made:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.hyperopt import HyperOptSearch

    from tune_jobs.data.sources import prepare
    from tune_jobs.planning.search_plan import learning_rate_range
    from tune_jobs.training.scaling import scaled_learning_rate
    from tune_jobs.tuning.starting import start_ray

    started: list[float] = []

    class Watched(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            started.append(time.monotonic())

    data = prepare(CONFIG.data, Path(CONFIG.data_dir))
    start_ray(ROOT)
    within, sizes = learning_rate_range(CONFIG), CONFIG.batch_sizes
    rates = [
        scaled_learning_rate(CONFIG.optimizer, base, size)
        for base, size in ((within.low, min(sizes)), (within.high, max(sizes)))
    ]
    tuner = tune.Tuner(
        tune.with_resources(stock_trial, {"cpu": 1}),
        param_space={
            "batch_size": tune.choice(sizes), "learning_rate": tune.loguniform(*rates),
            "data": str(data), "validation": CONFIG.validation_examples, "model": CONFIG.model,
            "budget": CONFIG.budget_examples,
        },
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=CONFIG.trials,
            max_concurrent_trials=_slots(),
            search_alg=HyperOptSearch(random_state_seed=0),
            scheduler=ASHAScheduler(
                time_attr="examples_seen", max_t=CONFIG.budget_examples,
                grace_period=CONFIG.budget_examples // EVALUATIONS, reduction_factor=3,
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder), verbose=0,
            callbacks=[
                Watched(),
                MLflowLoggerCallback(f"sqlite:///{folder}/mlflow.db", experiment_name="stock"),
            ],
        ),
    )  # fmt: skip
    rows = [result.metrics or {} for result in tuner.fit()]
    wall = time.monotonic() - started[0]
    sums = [sum(row[name] for row in rows) for name in
            ("examples_seen", "train_seconds", "evaluation_seconds")]  # fmt: skip
    return Made("stock", len(rows), _slots(), wall, int(sums[0]), *sums[1:])


def _slots() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])


def made(way: str) -> dict[str, Any]:
    """One sweep in a process of its own."""
    line = [sys.executable, __file__, "--one", way]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measured(rounds: int) -> list[dict[str, Any]]:
    """Rows of both ways in turn, the first to begin changing from round to round."""
    order = [way for k in range(rounds) for way in (WAYS if k % 2 == 0 else WAYS[::-1])]
    rows = []
    for way in order:
        rows.append(made(way))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> int:
    if sys.argv[1] == "--one":
        with tempfile.TemporaryDirectory() as folder:
            row = {"ours": ours, "stock": stock}[sys.argv[2]](Path(folder))
        print(json.dumps(asdict(row) | row.figures))
        return 0
    out, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    rows, facts = measured(rounds), environment.describe(ROOT)
    out.write_text(json.dumps({"rounds": rounds, "environment": facts, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
