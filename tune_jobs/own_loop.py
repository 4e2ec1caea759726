"""For people who keep their own training loop: any framework, one function.

    from tune_jobs.own_loop import own_loop

    @own_loop(metric="accuracy", target=0.9, budget_examples=20_000)
    def train(settings, report):
        model = make(settings.seed, settings.learning_rate)
        for seen in range(settings.batch_size, settings.budget_examples + 1, settings.batch_size):
            model.update(...)
            if time_to_evaluate and not report(examples_seen=seen, val_metric=evaluate(model)):
                return

A sweep runs it with `--train FILE.py:train`, each run in a fresh process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tune_jobs.errors import UserError
from tune_jobs.workload import MODES


@dataclass(frozen=True)
class Settings:
    """What a function of the user's trains with.

    Attributes:
        budget_examples: examples to train on at the most, the same in every run: what a schedule is
            made of. `report` says earlier if that is enough.
        device: `cpu` or `cuda:0`.
        target: the validation metric to reach.
        checkpoint_folder: its files are there again when an interrupted run is taken up; a function
            that keeps none begins anew.
    """

    batch_size: int
    learning_rate: float
    seed: int
    budget_examples: int
    device: str
    target: float
    checkpoint_folder: Path


class Told(Protocol):
    """`report`: what is known after so many examples. False: the run is to end now.

    `evaluation_seconds` are those since the last report that were no training, at the first one the
    set-up as well; where they are not given, all seconds between two reports count as training.
    """

    def __call__(
        self,
        *,
        examples_seen: int,
        val_metric: float,
        test_metric: float | None = None,
        train_loss: float | None = None,
        updates: int | None = None,
        evaluation_seconds: float | None = None,
    ) -> bool: ...


@dataclass(frozen=True)
class OwnLoop:
    """A training function and what a sweep has to know of it.

    Attributes:
        mode: `max` where a larger metric is better, `min` where a smaller one is.
        target: the validation metric to reach; `--target` says otherwise.
        budget_examples: that a run may see at the most; `--budget-examples` says otherwise.
    """

    function: Callable[..., Any]
    metric: str
    mode: str
    target: float | None
    budget_examples: int

    def __call__(self, settings: Settings, report: Told) -> Any:
        return self.function(settings, report)


def own_loop(
    *, metric: str, budget_examples: int, mode: str = "max", target: float | None = None
) -> Callable[[Callable[..., Any]], OwnLoop]:
    """Say of a training function what `--train` has to know before it runs.

    Errors:
        UserError: the mode is none, or the budget is no positive number of examples.
    """
    if mode not in MODES:
        raise UserError(f"own_loop: mode {mode!r} is neither 'max' nor 'min'; give one of them")
    if not isinstance(budget_examples, int) or budget_examples < 1:
        raise UserError(f"own_loop: budget_examples {budget_examples!r}: must be 1 or more")
    return lambda function: OwnLoop(function, metric, mode, target, budget_examples)
