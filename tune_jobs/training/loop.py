"""One configuration on one device: train, count examples, evaluate, say what was seen.

No Ray, no MLflow. `TrainingRun.advance` trains to the next evaluation and returns a `Report`; the
caller decides whether to call it again. `state` and `load_state` carry a run over an interruption:
on a CPU a resumed run gives the numbers of the uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import count, islice
from typing import Any, Self

import numpy as np
import torch

from tune_jobs.data.batches import ExampleStream, Indices
from tune_jobs.data.examples import Part, Split, Splits, on_device
from tune_jobs.recipe import PLAIN, Recipe
from tune_jobs.training import device as devices
from tune_jobs.training import optimizers, schedule
from tune_jobs.training.energy import Joules
from tune_jobs.training.evaluating import Aim, Evaluator
from tune_jobs.training.means import per_example
from tune_jobs.training.precision import Precision
from tune_jobs.training.segments import Course, Segment
from tune_jobs.workload import Batch, Workload, reaches

FARTHEST = 4.0  # times the examples seen so far: no evaluation is put off beyond them


@dataclass(frozen=True)
class RunSettings:
    """One configuration of the training loop.

    `micro_batch_size` examples go through the model at a time; the gradient of an update is the
    exact weighted mean over its `batch_size` examples however it is cut. `rungs` are budgets in
    examples.

    Attributes:
        segments: a batch schedule, in place of the one batch size and learning rate.
        stops_at_target: end as soon as the target is reached, the budget unused.
        most_examples: the first evaluation from there on ends a run that missed its target; None:
            the budget.
        test_updates: updates after which the test metric is measured too, beside rungs and end.
        test_examples: how many of the test split are looked at in the end; None for all.
        test_sample: how many of them before the end.
        train_sample: examples of the training split whose metric is measured at the end.
        evaluation_threads: CPU threads while evaluating; None leaves them as they are.
    """

    batch_size: int
    micro_batch_size: int
    learning_rate: float
    optimizer: str
    seed: int
    budget_examples: int
    target: float
    recipe: Recipe = PLAIN
    segments: tuple[Segment, ...] = ()
    rungs: tuple[int, ...] = ()
    stops_at_target: bool = False
    most_examples: int | None = None
    test_updates: tuple[int, ...] = ()
    test_examples: int | None = None
    test_sample: int | None = None
    train_sample: int = 0
    evaluation_threads: int | None = None


@dataclass(frozen=True)
class Report:
    """What is known after an evaluation. Seconds are this run's own clock, summed over resumes.

    `val_examples` are those that validation rests on: an evaluation ends once it is known that the
    target is not reached. Energy is of the device during the updates alone; None unless all of them
    were counted.
    """

    examples_seen: int
    updates: int
    train_loss: float | None
    val_loss: float | None
    val_metric: float | None
    val_examples: int | None
    test_metric: float | None
    train_metric: float | None
    train_seconds: float
    evaluation_seconds: float | None
    wall_time_seconds: float
    peak_memory_mib: float | None
    examples_to_target: int | None
    updates_to_target: int | None
    train_seconds_to_target: float | None
    energy_joules: float | None
    rung: int | None
    diverged: bool
    done: bool


@dataclass
class Progress:
    """Everything that changes while a run goes on, beside weights and random state.

    The target was last missed after `missed_updates`, by a metric of `missed_metric`; it is not
    reached before `soonest` updates.
    """

    updates: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    wall_time_seconds: float = 0.0
    peak_memory_mib: float | None = None
    updates_to_target: int | None = None
    train_seconds_to_target: float | None = None
    energy_joules: float | None = None
    missed_updates: int = 0
    missed_metric: float | None = None
    missed_seconds: float = 0.0
    soonest: int = 0

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """As kept, of an earlier version maybe, which knew other things."""
        return cls(**{f.name: kept[f.name] for f in fields(cls) if f.name in kept})


class TrainingRun:
    """A run of one configuration of a workload, on its splits.

    `joules` reads the device's energy counter, where it has one.
    """

    def __init__(
        self,
        settings: RunSettings,
        workload: Workload,
        splits: Splits,
        device: torch.device,
        joules: Joules | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        devices.reset_peak_memory(device)
        self.settings = settings
        self.workload = workload
        self.device = device
        self.joules = joules
        self.train = splits.train
        # In an order of its own: the first of them stand for all.
        self.validation = _mixed(splits.validation)
        self.aim = Aim.at(settings.target, self.validation)
        self.test = None if splits.test is None else _mixed(splits.test, settings.test_examples)
        self.train_sample = Split(
            splits.train.examples, splits.train.indices[: settings.train_sample]
        )
        self.stream = ExampleStream(splits.train.indices, settings.seed)
        self.parts: Iterator[Batch] | None = None
        self.model = workload.build().to(device)
        if workload.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.evaluate = Evaluator(workload, self.model, device, settings.seed)
        self.optimizer = optimizers.make(
            settings.optimizer,
            self.model,
            settings.learning_rate,
            settings.recipe,
            settings.batch_size,
        )
        self.precision = Precision.of(settings.recipe, device)
        if settings.recipe.deterministic:
            torch.use_deterministic_algorithms(True)
        if settings.recipe.compile:
            self.model.compile()
        self.progress = Progress(energy_joules=None if joules is None else 0.0)
        one = Segment(0, settings.batch_size, settings.learning_rate, settings.micro_batch_size)
        self.course = Course(settings.segments or (one,))
        planned = (settings.budget_examples, self.course, settings.rungs)
        extra = set(settings.test_updates)
        most_examples = settings.most_examples or settings.budget_examples
        most = self.course.updates_for(most_examples)
        self.stops = tuple(sorted({*schedule.evaluation_updates(*planned), *extra}))
        self.ends_in_vain = next((s for s in self.stops if s >= most), self.stops[-1])
        self.landmarks = tuple(sorted({*schedule.landmark_updates(*planned), *extra}))
        self.marked = {*extra, *map(self.course.updates_for, settings.rungs)}
        self.rung_at = {self.course.updates_for(r): k for k, r in enumerate(settings.rungs)}

    def advance(self) -> Report:
        """Train to the next evaluation, evaluate, and report. Not to be called after `done`."""
        began = time.perf_counter()
        already = self.progress.wall_time_seconds
        stop = self._next_stop()
        with self._energy_meter():
            losses = self._train_until(stop)
        train_loss = float(np.mean(losses))
        if not math.isfinite(train_loss):
            self.progress.wall_time_seconds = already + time.perf_counter() - began
            return self._report(train_loss=None)
        with self._evaluation_clock():
            seen = self._evaluate_all(stop)
        self.progress.wall_time_seconds = already + time.perf_counter() - began
        return self._report(train_loss=train_loss, **seen)

    def _next_stop(self) -> int:
        """Updates at the next evaluation: fewer where the target was reached, or is far."""
        reached = self.progress.updates_to_target is not None
        stops = self.landmarks if reached else self.stops
        ahead = [s for s in stops if s > self.progress.updates]
        soonest = 0 if reached else self.progress.soonest
        after = [*ahead[1:], math.inf]
        stop = next(s for s, n in zip(ahead, after, strict=True) if n > soonest or s in self.marked)
        return stop if reached else min(stop, self.ends_in_vain)

    def _evaluate_all(self, stop: int) -> dict[str, Any]:
        """Validation always; test and training sample at the end, and test at the marks asked.

        Validation is whole from the target on and at the end, and where trials that go on past the
        target are compared; elsewhere it ends once it is known that the target is not reached.
        """
        reached = self.progress.updates_to_target is not None
        compared = stop in self.rung_at and not self.settings.stops_at_target
        whole = reached or compared or stop >= self.ends_in_vain
        found = self.evaluate(self.validation, None if whole else self.aim)
        if not found.finite:
            return {"val_loss": None}
        if not reached:
            self._find_crossing(found.metric, stop)
        seen = {"val_loss": found.loss, "val_metric": found.metric, "val_examples": found.examples}
        last = self._is_last(stop)
        if self.test and (last or stop in self.rung_at or stop in self.settings.test_updates):
            sample = self.test.indices[: None if last else self.settings.test_sample]
            seen["test_metric"] = self.evaluate(Split(self.test.examples, sample)).metric
        if last and len(self.train_sample.indices):
            seen["train_metric"] = self.evaluate(self.train_sample).metric
        return seen

    def _is_last(self, updates: int) -> bool:
        reached = self.progress.updates_to_target is not None
        if reached:
            return self.settings.stops_at_target or updates >= self.stops[-1]
        return updates >= self.ends_in_vain

    def ended_report(self) -> Report:
        """Where the run stands when it cannot go on: no evaluation."""
        return self._report(train_loss=None)

    def _train_until(self, stop: int) -> list[float]:
        """The mean loss of each update until then."""
        progress, losses = self.progress, []
        self.model.train()
        devices.synchronize(self.device)
        before, began = progress.train_seconds, time.perf_counter()
        while progress.updates < stop:
            losses.append(self.update(self.next_batch()))
            progress.updates += 1
        devices.synchronize(self.device)
        progress.train_seconds = before + time.perf_counter() - began
        return [float(loss) for loss in losses]

    def next_batch(self) -> Iterator[Batch]:
        """The micro-batches of the next update, on the device; to be used up by `update`."""
        if self.parts is None:
            self.parts = self.train.examples.stream(self._parts(), self.settings.seed)
        now = self.course.at(self.progress.updates)
        passes = -(-now.batch_size // (now.micro_batch_size or now.batch_size))
        return (self._prepared(batch) for batch in islice(self.parts, passes))

    def _parts(self) -> Iterator[Part]:
        """All micro-batches from where the run stands."""
        for updates in count(self.progress.updates):
            at, now = self.course.examples(updates), self.course.at(updates)
            whole = self.stream.take(at, now.batch_size)
            micro = now.micro_batch_size or now.batch_size
            for start in range(0, now.batch_size, micro):
                yield at + start, whole[start : start + micro]

    def _prepared(self, batch: Batch) -> Batch:
        return on_device(batch, self.device, self.workload.prepare)

    def update(self, batches: Iterable[Batch]) -> torch.Tensor:
        """One optimizer step on the exact weighted mean gradient over `batches`; gives the mean
        loss.

        The caller counts it in `progress.updates`.
        """
        now = self.course.at(self.progress.updates)
        self._set_rate(now)
        self.optimizer.zero_grad(set_to_none=True)
        total, weighed = torch.zeros((), device=self.device), None
        for batch in batches:
            with self.precision.forward():
                losses, weights = per_example(self.workload.loss(self.model, batch), "loss")
            loss = (losses if weights is None else losses * weights).sum()
            loss = loss / now.batch_size
            self.precision.backward(loss)
            total += loss.detach()
            if weights is not None:
                weighed = weights.sum() + (0.0 if weighed is None else weighed)
        if weighed is not None:  # known only now, so the gradient becomes a mean afterwards
            scale = now.batch_size / weighed.clamp(min=1e-12)
            torch._foreach_mul_([p.grad for p in self.trained() if p.grad is not None], scale)
            total *= scale
        self.precision.step(self.optimizer, self.trained(), self.settings.recipe.clip_norm)
        return total

    def _set_rate(self, now: Segment) -> None:
        """The learning rate of the next update, by its segment and the examples it will have
        seen."""
        settings, recipe = self.settings, self.settings.recipe
        if recipe.schedule == "constant" and not recipe.warmup and not settings.segments:
            return
        part = self.course.examples(self.progress.updates + 1) / settings.budget_examples
        for group in self.optimizer.param_groups:
            group["lr"] = now.learning_rate * recipe.rate_at(min(1.0, part))
            group |= optimizers.betas(recipe, now.batch_size) if settings.segments else {}

    def loss_of(self, indices: Indices) -> torch.Tensor:
        """The weighted mean loss over these training examples, to be differentiated."""
        batch = self._prepared(self.train.examples.fetch(indices))
        with self.precision.forward():
            losses, weights = per_example(self.workload.loss(self.model, batch), "loss")
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    def trained(self) -> list[torch.nn.Parameter]:
        """All parameters that the optimizer trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _reaches(self, value: float) -> bool:
        return reaches(value, self.settings.target, self.workload.metric.mode)

    def _find_crossing(self, value: float, stop: int) -> None:
        """Where the target was crossed since it was missed last, if `value` reaches it: read
        between both evaluations, to the next whole update. A run that means something only at its
        end reaches it there or not at all."""
        now, at_the_end = self.progress, self.settings.recipe.ends_with_the_budget
        if not self._reaches(value) or (at_the_end and stop < self.stops[-1]):
            now.missed_updates, now.missed_metric = now.updates, value
            now.missed_seconds, now.soonest = now.train_seconds, self._soonest(value)
            return
        found = now.updates
        if now.missed_metric is not None and not at_the_end:
            ends = ((now.missed_updates, now.missed_metric), (now.updates, value))
            points = [(self.course.examples(updates), metric) for updates, metric in ends]
            at = schedule.crossing(points, self.settings.target, self.workload.metric.mode)
            found = min(found, self.course.updates_for(at or points[1][0]))
        since, seconds = now.updates - now.missed_updates, now.train_seconds - now.missed_seconds
        now.updates_to_target = found
        now.train_seconds_to_target = now.train_seconds - seconds * (now.updates - found) / since

    def _soonest(self, value: float) -> int:
        """Updates before which a run that stands at `value` is not expected at its target, within
        two octaves: what is missing falls no faster than examples grow."""
        metric, seen = self.workload.metric, self.course.examples(self.progress.updates)
        if metric.best is None:
            return 0
        best = metric.finished(metric.best)
        missing, allowed = abs(best - value), abs(best - self.settings.target)
        if not missing > allowed > 0:
            return 0
        return self.course.updates_for(seen * min(FARTHEST, missing / allowed))

    @contextmanager
    def _energy_meter(self) -> Iterator[None]:
        """Add what the device uses meanwhile; a run of which a part was not counted has no sum."""
        read, so_far = self.joules, self.progress.energy_joules
        if read is None or so_far is None:
            self.progress.energy_joules = None
            yield
            return
        before = read()
        try:
            yield
        finally:
            self.progress.energy_joules = so_far + read() - before

    @contextmanager
    def _evaluation_clock(self) -> Iterator[None]:
        began, threads = time.perf_counter(), torch.get_num_threads()
        if self.settings.evaluation_threads:
            torch.set_num_threads(self.settings.evaluation_threads)
        yield
        torch.set_num_threads(threads)
        self.progress.evaluation_seconds += time.perf_counter() - began

    def _report(
        self,
        train_loss: float | None,
        val_loss: float | None = None,
        val_metric: float | None = None,
        val_examples: int | None = None,
        test_metric: float | None = None,
        train_metric: float | None = None,
    ) -> Report:
        """A run without a finite validation loss has diverged."""
        diverged = val_loss is None
        progress = self.progress
        peaks = [p for p in (progress.peak_memory_mib, devices.peak_memory_mib(self.device)) if p]
        progress.peak_memory_mib = max(peaks, default=None)
        reached = progress.updates_to_target
        return Report(
            examples_seen=self.course.examples(progress.updates),
            updates=progress.updates,
            train_loss=train_loss,
            val_loss=val_loss,
            val_metric=val_metric,
            val_examples=val_examples,
            test_metric=test_metric,
            train_metric=train_metric,
            train_seconds=progress.train_seconds,
            evaluation_seconds=progress.evaluation_seconds,
            wall_time_seconds=progress.wall_time_seconds,
            peak_memory_mib=progress.peak_memory_mib,
            examples_to_target=None if reached is None else self.course.examples(reached),
            updates_to_target=reached,
            train_seconds_to_target=progress.train_seconds_to_target,
            energy_joules=progress.energy_joules,
            rung=self.rung_at.get(progress.updates),
            diverged=diverged,
            done=diverged or self._is_last(progress.updates),
        )

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, for `torch.save`."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": dict(vars(self.progress)),
            "scaler": self.precision.state(),
            "validation_loss": torch.from_numpy(self.aim.loss.copy()),
            "random": torch.get_rng_state(),
            "cuda_random": cuda,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`, as if there had been no interruption."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress.of(state["progress"])
        self.parts = None
        if "validation_loss" in state:  # older ones lack it
            self.aim.loss = state["validation_loss"].numpy()
        self.precision.load_state(state.get("scaler"))
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)


def _mixed(split: Split, first: int | None = None) -> Split:
    """The split in a seeded order, so that some of it stand for all; the `first` so many of it."""
    order = np.random.default_rng(0).permutation(split.indices)
    return Split(split.examples, order[:first])
