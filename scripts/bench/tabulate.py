"""A table of recorded runs, on which ways to search for a batch size can be replayed.

    python scripts/bench/tabulate.py OUT_FOLDER [WORKLOAD ...]

Each workload, all if none is named, gives OUT_FOLDER/<workload>.parquet with one row for each
evaluation: every batch size at nine learning rates about its optimizer's rule, three seeds each,
to a budget common to all. A run that has diverged ends with a row that says so.

A network this small takes less time to compute than to call, so all runs of a batch size train
side by side: their weights are the rows of one tensor. Each is the run that the project's loop
makes of its seed: the same first weights and the same order of examples.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.examples import characters as example
from models.mlp import MLP
from tune_jobs.data.batches import ExampleStream, Indices, split_indices
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.sources import prepare
from tune_jobs.errors import unknown_name
from tune_jobs.training import allocator
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.training.schedule import updates_for
from tune_jobs.workload import Workload as Swept
from tune_jobs.workload import accuracy, cross_entropy

BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
RATE_FACTORS = tuple(2.0**k for k in range(-4, 5))
SEEDS = (0, 1, 2)
EVALUATIONS, FIRST = 20, 1 / 64  # the first after this part of the budget
TOGETHER = 64  # examples of each run that go through the network at a time
DATA_DIR = ROOT / ".data"
DIGITS_HELD_OUT, MNIST_TRAINED, MNIST_HELD_OUT = 300, 10_000, 2000
SYMBOLS, CONTEXT, WINDOWS_HELD_OUT = 64, 16, 1000
SCHEMA = pa.schema(
    {
        "workload": pa.string(),
        "batch_size": pa.int32(),
        "learning_rate": pa.float64(),
        "seed": pa.int32(),
        "examples_seen": pa.int32(),
        "val_accuracy": pa.float32(),
        "train_loss": pa.float32(),
        "diverged": pa.bool_(),
    }
)


class Examples(NamedTuple):
    """Inputs, float32 (n, c, h, w) or int64 (n, t), and their labels, int64 (n,) or (n, t)."""

    inputs: Tensor
    labels: Tensor


class Data(NamedTuple):
    train: Examples
    validation: Examples


def digits() -> Data:
    """The 8x8 digits, split as a sweep splits them."""
    data = open_dataset(prepare("digits", DATA_DIR))
    train, validation = split_indices(len(data.train), DIGITS_HELD_OUT, 0)
    return Data(_images(data, train), _images(data, validation))


def mnist10k() -> Data:
    """Some of MNIST's images, each 2x2 pixels averaged: 14x14."""
    data = open_dataset(prepare("mnist", DATA_DIR))
    order = np.random.default_rng(0).permutation(len(data.train))
    parts = np.split(order, [MNIST_TRAINED, MNIST_TRAINED + MNIST_HELD_OUT])[:2]
    train, validation = (_images(data, part) for part in parts)
    pooled = [of._replace(inputs=F.avg_pool2d(of.inputs, 2)) for of in (train, validation)]
    return Data(*pooled)


def _images(data: object, indices: Indices) -> Examples:
    assert isinstance(data, Dataset), "images"
    pixels = torch.from_numpy(data.train.images.take(indices, axis=0)).float()
    inputs = pixels.div_(255).sub_(data.mean).div_(data.std)
    return Examples(inputs, torch.from_numpy(data.train.labels.take(indices)))


def characters() -> Data:
    """Python's own help texts in windows of 16 characters, labelled with the next ones.

    The most frequent characters have a symbol each; all others share symbol 0.
    """
    text = "\n".join(topics[name] for name in sorted(topics))
    common = [character for character, _ in Counter(text).most_common(SYMBOLS - 1)]
    symbol = {character: n for n, character in enumerate(common, start=1)}
    whole = len(text) - len(text) % (CONTEXT + 1)
    windows = torch.tensor([symbol.get(c, 0) for c in text[:whole]]).view(-1, CONTEXT + 1)
    train, validation = (windows[part] for part in split_indices(len(windows), WINDOWS_HELD_OUT, 0))
    return Data(*(Examples(of[:, :-1], of[:, 1:]) for of in (train, validation)))


def example_characters() -> Data:
    """The text of models/examples/characters.py, as that example splits it."""
    of = example.workload()
    return Data(Examples(*of.train), Examples(*of.validation))


class TinyCNN(nn.Module):
    """Images (b, 1, 14, 14) to logits (b, 10): one convolution with stride 2, one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, kernel_size=4, stride=2)
        self.hidden = nn.Linear(8 * 6 * 6, 32)
        self.output = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.flatten(F.relu(self.convolution(images)), 1)
        return self.output(F.relu(self.hidden(x)))  # type: ignore[no-any-return]


def mnist10k_workload() -> Swept:
    """The same data and network for a sweep: `--workload scripts/bench/tabulate.py:...`."""
    train, validation = (tuple(part) for part in mnist10k())
    return Swept("mnist10k", TinyCNN, train, cross_entropy, accuracy, validation=validation)


class TinyTransformer(nn.Module):
    """Symbols (b, t) to logits of the next ones (b, t, symbols): one block, normalised first."""

    mask: Tensor

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.symbols = nn.Embedding(SYMBOLS, width)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.asked = nn.Linear(width, 3 * width)  # queries, keys and values
        self.mixed = nn.Linear(width, width)
        self.hidden = nn.Linear(width, 4 * width)
        self.back = nn.Linear(4 * width, width)
        self.output = nn.Linear(width, SYMBOLS)
        later = torch.full((CONTEXT, CONTEXT), -math.inf).triu(1)
        self.register_buffer("mask", later, persistent=False)

    def forward(self, symbols: Tensor) -> Tensor:
        x = self.symbols(symbols) + self.positions
        x = x + self._attention(self.norms[0](x))
        x = x + self.back(F.relu(self.hidden(self.norms[1](x))))
        return self.output(self.norms[2](x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor) -> Tensor:
        """Written out: the fused kernel cannot be mapped over runs."""
        b, t, width = x.shape
        asked = self.asked(x).view(b, t, 3, self.heads, width // self.heads)
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads) + self.mask
        seen = scores.softmax(-1) @ value
        return self.mixed(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def adam(weights: Tensor, memory: Tensor, gradient: Tensor, rates: Tensor, updates: int) -> None:
    """Update number `updates`, from 1, of torch.optim.Adam. Memory (2, R, P), rates (R, 1)."""
    first, second = memory
    first.lerp_(gradient, 1 - 0.9)
    second.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    scale = second.div(1 - 0.999**updates).sqrt_().add_(1e-8)
    weights.sub_(first.div(scale).mul_(rates / (1 - 0.9**updates)))


def sgd(weights: Tensor, memory: Tensor, gradient: Tensor, rates: Tensor, updates: int) -> None:
    """The same of torch.optim.SGD with Nesterov's momentum of 0.9."""
    momentum = memory[0].mul_(0.9).add_(gradient)
    weights.sub_(momentum.mul(0.9).add_(gradient).mul_(rates))


OPTIMIZERS = {"adam": adam, "sgd": sgd}


@dataclass(frozen=True)
class Workload:
    """What is trained, and for how many examples.

    Attributes:
        base_learning_rate: the middle one of batch size 256, such that the best lie well inside.
        cosine: the learning rate falls to zero over the budget.
        batch_sizes: ascending.
    """

    load: Callable[[], Data]
    build: Callable[[], nn.Module]
    optimizer: str
    base_learning_rate: float
    budget: int
    cosine: bool = False
    batch_sizes: tuple[int, ...] = BATCH_SIZES


# The dearest first, so that no process waits long for the other at the end.
WORKLOADS = {
    "example-characters-adam": Workload(
        example_characters,
        partial(example.Transformer, width=32, layers=1),
        "adam",
        0.012,
        8192,
        batch_sizes=BATCH_SIZES[:6],
    ),
    "characters-transformer-adam": Workload(characters, TinyTransformer, "adam", 0.012, 163_840),
    "mnist10k-cnn-adam": Workload(mnist10k, TinyCNN, "adam", 0.012, 262_144),
    "mnist10k-cnn-sgd": Workload(mnist10k, TinyCNN, "sgd", 0.1, 262_144),
    "digits-mlp-adam": Workload(digits, MLP, "adam", 0.012, 65_536),
    "digits-mlp-adam-cosine": Workload(digits, MLP, "adam", 0.012, 65_536, cosine=True),
    "digits-mlp-sgd": Workload(digits, MLP, "sgd", 0.2, 65_536),
}


def learning_rates(workload: Workload, batch_size: int) -> tuple[float, ...]:
    """Nine, ascending by factors of 2; the optimizer's rule gives the one in the middle."""
    middle = scaled_learning_rate(workload.optimizer, workload.base_learning_rate, batch_size)
    return tuple(middle * factor for factor in RATE_FACTORS)


def rate_left(update: int, updates: int) -> float:
    """The part of the learning rate that update number `update`, from 0, has: a half cosine."""
    return (1 + math.cos(math.pi * update / updates)) / 2


def evaluation_updates(budget: int, batch_size: int) -> tuple[int, ...]:
    """Updates after which to evaluate: geometric in examples, rounded up to whole updates."""
    parts = [FIRST ** (1 - k / (EVALUATIONS - 1)) for k in range(EVALUATIONS)]
    return tuple(sorted({updates_for(budget * part, batch_size) for part in parts}))


def first_weights(build: Callable[[], nn.Module], seed: int) -> Tensor:
    """The seed's P weights, (P,)."""
    torch.manual_seed(seed)
    return torch.cat([p.detach().flatten() for p in build().parameters()])


Forward = Callable[[Tensor, Tensor], Tensor]
Row = tuple[float, int, int, float | None, float | None, bool]


def mapped(network: nn.Module) -> Forward:
    """The network of R runs at once: weights (R, P), inputs (R, b, ...) to logits (R, b, ...)."""
    names, shapes = zip(*((n, p.shape) for n, p in network.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    # The fused kernel of attention cannot be mapped over runs.
    @sdpa_kernel(SDPBackend.MATH)
    def forward(weights: Tensor, inputs: Tensor) -> Tensor:
        parts = [w.view(s) for w, s in zip(torch.split(weights, sizes), shapes, strict=True)]
        named = dict(zip(names, parts, strict=True))
        return torch.func.functional_call(network, named, (inputs,))  # type: ignore[no-any-return]

    return torch.vmap(forward)


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over a run's predictions, (R,), of logits (R, b, ..., k) and labels (R, b, ...)."""
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(len(logits), -1).mean(1)


def gradients(
    forward: Forward, weights: Tensor, train: Examples, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean loss (R,) and its gradient (R, P) over each run's examples, int64 `indices` (R, b)."""
    loss, gradient = torch.zeros(len(weights)), torch.zeros_like(weights)
    for part in torch.split(indices, TOGETHER, dim=1):
        weights = weights.detach().requires_grad_()
        share = part.shape[1] / indices.shape[1]
        mean = losses(forward(weights, train.inputs[part]), train.labels[part]) * share
        gradient += torch.autograd.grad(mean.sum(), weights)[0]
        loss += mean.detach()
    return loss, gradient


@torch.no_grad()
def evaluate(forward: Forward, weights: Tensor, on: Examples) -> tuple[Tensor, Tensor]:
    """Mean loss and part of the predictions that are right, both (R,)."""
    runs, loss, right = len(weights), torch.zeros(len(weights)), torch.zeros(len(weights))
    parts = (torch.split(of, TOGETHER) for of in on)
    for inputs, labels in zip(*parts, strict=True):
        logits = forward(weights, inputs.expand(runs, *inputs.shape))
        loss += losses(logits, labels.expand(runs, *labels.shape)) * len(labels)
        right += (logits.argmax(-1) == labels).flatten(1).sum(1)
    return loss / len(on.labels), right / on.labels.numel()


class SideBySide:
    """The R runs of one batch size that have not diverged, each with P weights.

    Attributes:
        runs: the learning rate and the seed of each.
        rates: the learning rates again, (R, 1).
        weights: (R, P); the runs of a seed begin with the same.
        memory: the optimizer's, (2, R, P).
    """

    def __init__(self, workload: Workload, batch_size: int) -> None:
        self.workload, self.batch_size = workload, batch_size
        self.data, self.forward = workload.load(), mapped(workload.build())
        self.stops = evaluation_updates(workload.budget, batch_size)
        examples = np.arange(len(self.data.train.labels))
        self.streams = {seed: ExampleStream(examples, seed) for seed in SEEDS}
        rates = learning_rates(workload, batch_size)
        self.runs = [(rate, seed) for rate in rates for seed in SEEDS]
        self.rates = torch.tensor([[rate] for rate, _ in self.runs])
        first = {seed: first_weights(workload.build, seed) for seed in SEEDS}
        self.weights = torch.stack([first[seed] for _, seed in self.runs])
        self.memory = torch.zeros(2, *self.weights.shape)
        self.updates = 0

    def advance(self, stop: int) -> list[Row]:
        """Train to update `stop` and evaluate; a row of each run, as in SCHEMA from the rate on.

        The runs that have diverged are left out from there on.
        """
        begun, total = self.updates, torch.zeros(len(self.runs))
        while self.updates < stop:
            total += self.update()
        train_loss = total / (stop - begun)
        val_loss, accuracy = evaluate(self.forward, self.weights, self.data.validation)
        sound = train_loss.isfinite() & val_loss.isfinite()
        columns = (c.tolist() for c in (accuracy, train_loss, sound))
        rows = [
            (*run, stop * self.batch_size, *((right, loss) if fine else (None, None)), not fine)
            for run, right, loss, fine in zip(self.runs, *columns, strict=True)
        ]
        self._keep(sound)
        return rows

    def update(self) -> Tensor:
        """One update of every run; their losses before it, (R,)."""
        start, size = self.updates * self.batch_size, self.batch_size
        taken = {seed: stream.take(start, size) for seed, stream in self.streams.items()}
        indices = torch.from_numpy(np.stack([taken[seed] for _, seed in self.runs]))
        loss, gradient = gradients(self.forward, self.weights, self.data.train, indices)
        left = rate_left(self.updates, self.stops[-1]) if self.workload.cosine else 1.0
        self.updates += 1
        step = OPTIMIZERS[self.workload.optimizer]
        step(self.weights, self.memory, gradient, self.rates * left, self.updates)
        return loss

    def _keep(self, sound: Tensor) -> None:
        if not sound.all():
            self.runs = [run for run, keeps in zip(self.runs, sound.tolist(), strict=True) if keeps]
            self.rates, self.weights = self.rates[sound], self.weights[sound]
            self.memory = self.memory[:, sound]


def tabulated(name: str, batch_size: int) -> pa.Table:
    """The rows of all runs of one batch size, by learning rate, seed and examples seen."""
    of = SideBySide(WORKLOADS[name], batch_size)
    rows = []
    for stop in of.stops:
        rows += of.advance(stop) if of.runs else []
    columns = zip(*((name, batch_size, *row) for row in sorted(rows)), strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)


def write(table: pa.Table, path: Path) -> None:
    """As Parquet; `path` appears whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def _alone() -> None:
    """What each process is set to before it trains."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    allocator.keep_pages()


def _job(of: tuple[str, int]) -> pa.Table:
    return tabulated(*of)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    asked = parser.parse_args()
    out, names = asked.out, asked.names or list(WORKLOADS)
    for name in names:
        if name not in WORKLOADS:
            raise unknown_name("workload", name, WORKLOADS)
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    processes = min(2, os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(processes, _alone) as pool:
        tables = pool.imap(
            _job, [(name, size) for name in names for size in WORKLOADS[name].batch_sizes]
        )
        for name in names:
            path = out / f"{name}.parquet"
            write(pa.concat_tables([next(tables) for _ in WORKLOADS[name].batch_sizes]), path)
            seconds = time.monotonic() - began
            print(f"{path}: {path.stat().st_size / 1000:.0f} KB after {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
