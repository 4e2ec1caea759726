"""A workload tried on a few examples before anything starts: what cannot train is told here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tune_jobs.data.examples import Arrays, Split, Splits, leaves, on_device
from tune_jobs.errors import UserError
from tune_jobs.training.loop import RunSettings, TrainingRun
from tune_jobs.workload import IGNORED, Workload, accuracy, perplexity, reaches
from tune_jobs.workload_source import raised

FEW, OTHER_FEW = 3, 5  # no two axes of a batch are of both lengths by chance
START_EXAMPLES = 64
UPDATES = 5
MODELS = 8  # of which a metric must tell one from the others
BROADCAST = "Using a target size"  # torch's warning of a loss between shapes that differ


def rehearse(workload: Workload, splits: Splits, target: float | None) -> float:
    """Put a few examples through everything a run will do; gives what an untrained model has.

    Errors:
        UserError: whatever a run would fail of, or a comparison of runs would be wrong by.
    """
    where = f"workload {workload.name!r}"
    for title, split in _named(splits):
        _check_finite(where, title, split)
    device = torch.device("cpu")
    settings = RunSettings(FEW, FEW, 1e-3, "sgd", 0, FEW * UPDATES, math.inf)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=BROADCAST)
        run = _told(f"{where}: its model", lambda: TrainingRun(settings, workload, splits, device))
        for count in (FEW, OTHER_FEW):
            _check_loss(where, run, count)
        before, shown = _start(where, run), _shown(where, run)
        _check_labels(where, run, splits)
        _told(f"{where}: an update", lambda: _train(run))
        others = (_untrained(settings, workload, splits, seed) for seed in range(1, MODELS))
        if shown == _shown(where, run) and all(shown == _shown(where, other) for other in others):
            raise UserError(
                f"{where}: its metric is {before:g} for every model; it must tell models apart"
            )
    if target is not None and reaches(before, target, workload.metric.mode):
        better = "above" if workload.metric.mode == "max" else "below"
        raise UserError(
            f"--target {target:g}: the untrained model has {workload.metric.name} {before:g} "
            f"already (on {min(START_EXAMPLES, len(splits.validation.indices))} examples); give a "
            f"target {better} that"
        )
    return before


def _named(splits: Splits) -> list[tuple[str, Split]]:
    named = [("train", splits.train), ("validation", splits.validation)]
    return named + ([] if splits.test is None else [("test", splits.test)])


def _check_finite(where: str, title: str, split: Split) -> None:
    if not isinstance(split.examples, Arrays):
        return
    for number, leaf in enumerate(leaves(split.examples.arrays)):
        numpy = isinstance(leaf, np.ndarray)
        if not (leaf.dtype.kind == "f" if numpy else leaf.is_floating_point()):
            continue
        finite = np.isfinite(leaf) if numpy else torch.isfinite(leaf).numpy()
        bad = np.flatnonzero(~finite.reshape(len(leaf), -1).all(axis=1))
        if len(bad):
            raise UserError(
                f"{where}: {title} holds NaN or infinity in {len(bad)} of {len(leaf)} examples "
                f"(array {number}, first in example {bad[0]}); leave them out or fill them in"
            )


def _untrained(settings: RunSettings, workload: Workload, splits: Splits, seed: int) -> TrainingRun:
    other = RunSettings(**{**vars(settings), "seed": seed})
    return TrainingRun(other, workload, splits, torch.device("cpu"))


def _check_loss(where: str, run: TrainingRun, count: int) -> None:
    indices = run.train.indices[:count]
    batch = _told(
        f"{where}: a batch of {count} examples",
        lambda: on_device(run.train.examples.fetch(indices), run.device, run.workload.prepare),
    )
    if not any(isinstance(leaf, torch.Tensor) for leaf in _flat(batch)):
        raise UserError(
            f"{where}: a batch is {type(batch).__name__} and holds no tensor; let `collate` make "
            "tensors, in tuples or dicts"
        )
    run.model.train()
    given = _told(f"{where}: its loss", lambda: run.workload.loss(run.model, batch))
    losses = given[0] if isinstance(given, tuple) else given
    shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else ()
    if shape[:1] != (len(indices),):
        raise UserError(
            f"{where}: its loss gave shape {shape} for {len(indices)} examples; it must give one "
            'for each of them, ({n},) or ({n}, ...): leave the mean out, as with reduction="none"'
            .replace("{n}", str(len(indices)))
        )  # fmt: skip
    if shape[1:] == (len(indices),) and count == OTHER_FEW:
        raise UserError(
            f"{where}: its loss gave {shape} for {count} examples: the model's output and what it "
            "is compared with differ in shape, (b, 1) and (b,) perhaps, and were broadcast; "
            "squeeze one of them"
        )


def _check_labels(where: str, run: TrainingRun, splits: Splits) -> None:
    """Labels within the model's classes, where a ready-made metric says what labels are."""
    if run.workload.metric.of not in (accuracy.of, perplexity.of):
        return
    batch = on_device(run.train.examples.fetch(run.train.indices[:FEW]), run.device,
                      run.workload.prepare)  # fmt: skip
    with torch.inference_mode():
        output, labels = run.model(batch[0]), batch[1]
    classes = output.shape[-1 if output.shape[:-1] == labels.shape else 1]
    for title, split in _named(splits):
        if not isinstance(split.examples, Arrays) or not isinstance(split.examples.arrays, tuple):
            continue
        all_labels = torch.tensor(np.asarray(split.examples.arrays[1]))
        wrong = ((all_labels < 0) & (all_labels != IGNORED)) | (all_labels >= classes)
        if bool(wrong.any()):
            value = int(all_labels[wrong][0])
            raise UserError(
                f"{where}: {title} has the label {value} in {int(wrong.sum())} places or others "
                f"like it; the model tells {classes} classes, 0 to {classes - 1}"
            )


def _start(where: str, run: TrainingRun) -> float:
    validation = run.validation
    few = Split(validation.examples, validation.indices[:START_EXAMPLES])
    found = _told(f"{where}: its metric", lambda: run.evaluate(few))
    if not math.isfinite(found.metric):
        raise UserError(
            f"{where}: its metric is {found.metric} on {found.examples} examples before training; "
            "it must be a finite number"
        )
    return float(found.metric)


def _shown(where: str, run: TrainingRun) -> Any:
    """What the metric makes of the model: of each example where it can, since two models that are
    right as often are not right of the same ones."""
    if run.workload.metric.of is None:
        return _start(where, run)
    indices = run.validation.indices[:START_EXAMPLES]
    batch = on_device(run.validation.examples.fetch(indices), run.device, run.workload.prepare)
    run.model.eval()
    with torch.inference_mode():
        given = _told(f"{where}: its metric", lambda: run.workload.metric(run.model, batch))
    return (given[0] if isinstance(given, tuple) else given).tolist()


def _train(run: TrainingRun) -> None:
    run.model.train()
    for _ in range(UPDATES):
        run.update(run.next_batch())
        run.progress.updates += 1


def _flat(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [leaf for part in batch.values() for leaf in _flat(part)]
    if isinstance(batch, (tuple, list)):
        return [leaf for part in batch for leaf in _flat(part)]
    return [batch]


def _told(where: str, action: Callable[[], Any]) -> Any:
    """What the action gives; an error of the user's code is told with the line that raised it."""
    try:
        return action()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise raised(where, error) from error
