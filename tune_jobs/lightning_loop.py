"""A LightningModule and its DataModule as a training loop of the user's own.

    @own_loop(metric="val_accuracy", target=0.9, budget_examples=20_000)
    def make(settings):
        return MyModule(settings.learning_rate), MyData(settings.batch_size)

`metric` is the name under which the module logs it. Lightning itself is an optional extra.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from tune_jobs.errors import UserError
from tune_jobs.own_loop import OwnLoop, Settings, Told

INSTALL = ".venv/bin/uv pip install -c scripts/constraints.txt lightning"


def trained_by_lightning(loop: OwnLoop) -> OwnLoop:
    """The loop that lets Lightning's Trainer train what the function gives."""
    return replace(loop, function=_loop(loop.function, loop.metric))


def check_installed() -> None:
    """Raises UserError with the command that installs Lightning, where it is not."""
    if find_spec("lightning") is None:
        raise UserError(f"--lightning needs the package lightning: {INSTALL}")


def _loop(make: Callable[..., Any], metric: str) -> Callable[[Settings, Told], None]:
    def train(settings: Settings, report: Told) -> None:
        began = time.perf_counter()
        import lightning

        lightning.seed_everything(settings.seed, verbose=False)
        module, data = make(settings)
        reports = _reports(settings, report, metric, began)
        trainer = lightning.Trainer(
            max_epochs=-1,
            max_steps=math.ceil(settings.budget_examples / settings.batch_size),
            accelerator="cpu" if settings.device == "cpu" else "gpu",
            devices=1,
            callbacks=[reports],
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
        if reports.told_at < trainer.global_step:  # the budget ended within an epoch
            trainer.validate(module, datamodule=data, verbose=False)

    return train


def _reports(settings: Settings, report: Told, metric: str, began: float) -> Any:
    """A callback that reports after each validation, and ends the training when told to.

    What passes from `began` to the first step is set-up, no training.
    """
    import lightning

    class Reports(lightning.Callback):  # type: ignore[misc]
        told_at = 0
        untrained = 0.0  # seconds since the last report

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.untrained = time.perf_counter() - began

        def on_validation_start(self, trainer: Any, module: Any) -> None:
            self.untrained -= time.perf_counter()

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            untrained, self.untrained = self.untrained + time.perf_counter(), 0.0
            known = trainer.callback_metrics
            if metric not in known:
                named = ", ".join(sorted(known)) or "nothing"
                raise UserError(f"the module logs no {metric!r}; it logs {named}")
            seen = trainer.global_step * settings.batch_size
            self.told_at = trainer.global_step
            if not report(
                examples_seen=seen,
                val_metric=float(known[metric]),
                updates=self.told_at,
                evaluation_seconds=untrained,
            ):
                trainer.should_stop = True

    return Reports()
