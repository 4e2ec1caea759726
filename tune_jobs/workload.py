"""A workload: what a user hands over to be trained, as one object. SimpleCNN on MNIST is one.

    from tune_jobs.workload import Metric, Workload, squared_error

    def workload(width: int = 64) -> Workload:
        return Workload(
            name="prices",
            build=lambda: MyModel(width),
            train=(features, prices),
            loss=lambda model, batch: F.mse_loss(model(batch[0]), batch[1], reduction="none"),
            metric=Metric("rmse", mode="min", of=squared_error, finish=math.sqrt),
            target=0.55,
        )

A sweep trains it with `--workload FILE.py:workload`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_jobs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = Any
"""A tensor, or a tuple, list or dict of such; examples lie along axis 0."""
PerExample = Callable[[Any, Batch], Any]
MODES = ("max", "min")
IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Metric:
    """What batch sizes are compared by: a mean over a split, or any number made of its batches.

    Attributes:
        mode: `max` where larger is better, `min` where smaller is.
        of: `of(model, batch)` gives one value for each example, (b,) or (b, ...), the latter
            averaged over all but the first axis; or a pair (values, weights), both (b,). Another
            metric may stand here: its mode, `finish` and `best` are taken over.
        finish: makes the metric of the mean, such as `math.sqrt`; it must grow with it.
        best: the best value that an example can have. Where it is known, an evaluation ends as
            soon as the target is out of reach.
        evaluate: `evaluate(model, batches)` gives the metric itself, where it is no mean (F1, AUC);
            `batches` are to be gone through once. In place of `of`.
        unit: shown beside the numbers.
    """

    name: str
    mode: str = "max"
    of: PerExample | None = None
    finish: Callable[[float], float] | None = None
    best: float | None = None
    evaluate: Callable[[Any, Iterable[Batch]], float] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.of, Metric):
            taken: dict[str, Any] = {"of": self.of.of, "finish": self.finish or self.of.finish}
            taken |= {"best": self.of.best, "mode": self.of.mode}
            for name, value in taken.items():
                object.__setattr__(self, name, value)
        if self.mode not in MODES:
            raise UserError(
                f"metric {self.name!r}: mode {self.mode!r} is neither 'max' (larger is better) nor "
                "'min' (smaller is better); give one of them"
            )
        if (self.of is None) == (self.evaluate is None):
            raise UserError(
                f"metric {self.name!r}: give either `of` (a value for each example) or `evaluate` "
                "(a number for all batches)"
            )

    def __call__(self, model: Any, batch: Batch) -> Any:
        """The value of each example of a batch."""
        assert self.of is not None, f"{self.name} has no value for an example"
        return self.of(model, batch)

    def finished(self, mean: float) -> float:
        """The metric of a mean over examples; infinite where `finish` overflows."""
        try:
            return float(mean if self.finish is None else self.finish(mean))
        except OverflowError:
            return math.inf


def reaches(value: float, target: float, mode: str) -> bool:
    """Whether a metric of this mode is as good as the target, or better."""
    return value >= target if mode == "max" else value <= target


@dataclass(frozen=True)
class Workload:
    """Model, data, loss and metric; everything else is the sweep's.

    `train`, `validation` and `test` are each a tuple or dict of arrays or tensors of one length (or
    one array alone), which are indexed without a Python step for each example; or anything with
    `len` and `[i]`, such as a torch Dataset or a list, which goes through torch's DataLoader.

    Attributes:
        build: makes the model (an nn.Module); called after the seed is set.
        loss: `loss(model, batch)` gives one loss for each example, (b,) or (b, ...), the latter
            averaged over all but the first axis; or a pair (losses, weights), both (b,). The
            gradient of an update is the weighted mean over its whole batch, however it is cut.
        target: the metric's value to reach; `--target` says otherwise.
        validation: None carves it from `train` by seed.
        test: None leaves the test metric empty. It is shown, and decides nothing.
        budget_examples: examples that a trial may see at the most; `budget_examples` in the TOML
            says otherwise.
        collate: makes a batch of a list of examples, as torch's DataLoader takes it.
        workers: processes that load examples of a Dataset; 0: the trial's own.
        prepare: applied to each batch on its device, before loss and metric see it.
        channels_last: keep 4-dimensional weights with channels last, which convolutions like.
    """

    name: str
    build: Callable[[], nn.Module]
    train: Any
    loss: PerExample
    metric: Metric
    target: float | None = None
    validation: Any = None
    test: Any = None
    budget_examples: int | None = None
    collate: Callable[[list[Any]], Batch] | None = None
    workers: int = 0
    prepare: Callable[[Batch], Batch] | None = None
    channels_last: bool = False


def _correct(model: Any, batch: Batch) -> Any:
    """1 where the model's largest output is the label, else 0; labels of -100 weigh nothing."""
    output, labels = model(batch[0]), batch[1]
    right = (output.argmax(_class_axis(output, labels)) == labels).float()
    return _counted(right, labels)


def _cross_entropy(model: Any, batch: Batch) -> Any:
    """Mean negative log likelihood of each example's labels; labels of -100 weigh nothing."""
    import torch.nn.functional as F

    output, labels = model(batch[0]), batch[1]
    scores = output.movedim(_class_axis(output, labels), 1)
    return _counted(F.cross_entropy(scores, labels, reduction="none"), labels)


def _squared_error(model: Any, batch: Batch) -> Tensor:
    """Squared error of each example, averaged over its outputs."""
    output, wanted = model(batch[0]), batch[1]
    if output.shape != wanted.shape and output.numel() == wanted.numel():
        output = output.reshape(wanted.shape)  # (b, 1) for (b,)
    _same_shape("squared_error", output, wanted)
    error: Tensor = (output - wanted).square()
    return error


def _class_axis(output: Tensor, labels: Tensor) -> int:
    """Where the classes lie: axis 1 as torch has it, or the last, as in (b, t, classes)."""
    if output.shape[:-1] == labels.shape:
        return output.ndim - 1
    if output.shape[:1] + output.shape[2:] == labels.shape:
        return 1
    raise UserError(
        f"the model's output has shape {tuple(output.shape)}, which does not fit labels of shape "
        f"{tuple(labels.shape)}: it needs one axis more, for the classes"
    )


def _counted(values: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Per example, (b,); of sequences the mean over what is not left out, and how much that is."""
    if labels.ndim == 1 and not bool((labels == IGNORED).any()):
        return values
    counted = (
        (labels != IGNORED).flatten(1).to(values.dtype)
        if labels.ndim > 1
        else (labels != IGNORED).to(values.dtype)[:, None]
    )
    weights = counted.sum(1)
    total = (values.reshape(counted.shape) * counted).sum(1)
    return total / weights.clamp(min=1), weights


def _same_shape(name: str, output: Tensor, wanted: Tensor) -> None:
    if output.shape != wanted.shape:
        raise UserError(
            f"{name}: the model's output has shape {tuple(output.shape)}, the wanted values have "
            f"{tuple(wanted.shape)}; let them agree"
        )


accuracy = Metric("accuracy", "max", of=_correct, best=1.0)
"""Part of the examples (of sequences: of their labels) that are classified rightly."""
squared_error = Metric("mean squared error", "min", of=_squared_error, best=0.0)
"""With `finish=math.sqrt` the root mean squared error."""
perplexity = Metric("perplexity", "min", of=_cross_entropy, finish=math.exp, best=0.0)
"""The exponential of the mean negative log likelihood of a label."""
cross_entropy: PerExample = _cross_entropy
"""A loss for labels (b,) or sequences of them (b, t), which weigh by their length."""
