"""Mean loss and metric over a split; of validation no more than tells whether the target is missed.

An evaluation may end once too many examples fell short for the target, exactly as if all had been
seen. So it begins with a part that stands for all, one example in so many in the order of what they
lost when they were last seen, and goes on with those that lost most. What is told of all is read
from both: those that lost most as they are, the others as the part of them that was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tune_jobs.data.batches import Indices
from tune_jobs.data.examples import Split, on_device
from tune_jobs.training import device as devices
from tune_jobs.training.means import Mean, Once, Values, per_example, weighed
from tune_jobs.training.out_of_memory import is_out_of_memory
from tune_jobs.workload import Batch, Workload, reaches

EVERY = 6  # one example in so many stands for all: a target is missed after these and the hardest
FEWEST = 300  # that stand for all, or all there are: fewer tell a curve too badly


class Evaluation(NamedTuple):
    """Mean loss and metric over a split, read from so many `examples` of it."""

    loss: float
    metric: float
    examples: int

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.metric)


@dataclass
class Aim:
    """A target of a split of n examples; `loss` (n,) of each when it was last seen, NaN before."""

    target: float
    loss: npt.NDArray[np.float32]

    @classmethod
    def at(cls, target: float, split: Split) -> Aim:
        return cls(target, np.full(len(split.indices), np.nan, np.float32))

    def order(self, every: int) -> Order:
        """One in `every` first, in no order of theirs, then the others by loss, the largest first;
        what was never seen is taken to be like the mean."""
        seen = self.loss[~np.isnan(self.loss)]
        loss = np.nan_to_num(self.loss, nan=seen.mean() if len(seen) else 0.0)
        hardest = np.argsort(-loss, kind="stable")
        ranks = np.arange(len(loss))
        shown = ranks % every == every // 2
        first = ranks[shown][np.argsort(hardest[shown])]
        ranks = np.concatenate([first, ranks[~shown]])
        return Order(hardest[ranks], ranks, len(first))

    def note(self, positions: Indices, losses: torch.Tensor) -> None:
        """The `losses` (b,) of the examples at the first b of these positions."""
        self.loss[positions[: len(losses)]] = losses.float().cpu().numpy()


class Order(NamedTuple):
    """In which order n examples are evaluated: their `positions` (n,), and by how many each was
    surpassed in what it lost when it was last seen, `ranks` (n,). The first `shown` stand for all.
    """

    positions: Indices
    ranks: Indices
    shown: int

    @classmethod
    def plain(cls, examples: int) -> Order:
        """As they come."""
        return cls(np.arange(examples), np.arange(examples), 0)

    def stands_for(self, seen: int) -> npt.NDArray[np.float64]:
        """How many examples each of the first `seen` stands for (seen,): itself, where all that
        lost more were seen too; those of the shown that lost less share what is left."""
        known = self.ranks[seen - 1] + 1 if seen > self.shown else 0
        shares = self.ranks[:seen] >= known
        left = len(self.ranks) - known
        return np.where(shares, left / max(1, shares.sum()), 1.0)


def one_in(examples: int) -> int:
    """One example in how many stands for so many: EVERY, or fewer where FEWEST lack."""
    return max(1, min(EVERY, examples // FEWEST))


class Evaluator:
    """Evaluates a model on splits of its workload.

    Attributes:
        batch: examples of a batch; fewer once so many did not fit.
    """

    def __init__(
        self, workload: Workload, model: torch.nn.Module, device: torch.device, seed: int
    ) -> None:
        self.workload, self.model, self.device, self.seed = workload, model, device, seed
        self.batch = devices.EVALUATION_BATCH[device.type]

    @torch.inference_mode()
    def __call__(self, split: Split, aim: Aim | None = None) -> Evaluation:
        """Mean loss and metric over a split; read from some of it where the target of `aim` is
        missed, and then the metric misses it too, by as little as is known if it would reach it.

        Raises:
            MemoryError: not even one example fits.
        """
        while True:
            try:
                return self._evaluate(split, aim)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch == 1:
                    raise MemoryError(f"while one example was evaluated: {error}") from error
            self.batch //= 2

    def _evaluate(self, split: Split, aim: Aim | None) -> Evaluation:
        self.model.eval()
        model, metric, of = Once(self.model), self.workload.metric, len(split.indices)
        order = Order.plain(of) if aim is None else aim.order(one_in(of))
        loss, value = Mean(), Mean()
        lost: list[Values] = []
        got: list[Values] = []

        def batches() -> Iterator[Batch]:
            for batch in self._batches(split, order):
                model.forget()
                lost.append(per_example(self.workload.loss(model, batch), "loss"))
                if aim is not None:
                    aim.note(order.positions[loss.examples :], lost[-1][0])
                loss.add(lost[-1])
                yield batch

        if metric.evaluate is not None:
            found = float(metric.evaluate(model, batches()))
            return Evaluation(loss.mean, found, loss.examples)
        for batch in batches():
            got.append(per_example(metric(model, batch), "metric"))
            value.add(got[-1])
            if not math.isfinite(loss.total):
                break
            most = self._at_best(value, of)
            if aim is not None and most is not None and not reaches(most, aim.target, metric.mode):
                each = order.stands_for(value.examples)
                told = metric.finished(weighed(got, each))
                worse = min if metric.mode == "max" else max
                return Evaluation(weighed(lost, each), worse(told, most), value.examples)
        return Evaluation(loss.mean, metric.finished(value.mean), value.examples)

    def _batches(self, split: Split, order: Order) -> Iterator[Batch]:
        """Of `self.batch` examples each; none holds both of those shown and of others."""
        indices, shown = split.indices[order.positions], order.shown
        begins = [*range(0, shown, self.batch), *range(shown, len(indices), self.batch)]
        ends = [*begins[1:], len(indices)]
        parts = ((at, indices[at:end]) for at, end in zip(begins, ends, strict=True))
        stream = split.examples.stream(parts, self.seed)
        return (on_device(batch, self.device, self.workload.prepare) for batch in stream)

    def _at_best(self, value: Mean, of: int) -> float | None:
        """The metric if all of the examples to come have the best value; None where unknown."""
        metric = self.workload.metric
        if metric.best is None or value.weight != value.examples:
            return None
        return metric.finished(value.at_best(metric.best, of))
