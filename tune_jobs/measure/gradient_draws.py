"""Draws of gradients at a run's present weights: the pairs that the noise scale is estimated from.

What is measured, exactly:

- **Train mode.** Dropout is on, because an update sees its noise too: each example has a mask of
  its own, so this noise falls as 1/B like the examples' own and belongs into tr(Sigma); G is then
  the mean over masks too. (The 1/n term takes dropout's part of tr(Sigma) with it, which raises
  |G|^2 by less than tr(Sigma)/n.)
- **Batch normalisation** makes an example's gradient depend on its batch. What is measured then
  are gradients with statistics over the small batch, and the result says so.
- **Preconditioned**, for optimizers with a second moment: gradients are scaled by
  1 / (sqrt(v_hat) + eps) of the optimizer's state before the norms, as Pollux does (Qiao et al.
  2021, section 3.1), up to a common factor and with a floor (`preconditioned_norm`); momentum and
  weight decay are left out of both kinds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tune_jobs.data.batches import Indices
from tune_jobs.measure.noise_scale import Point, Sampling, unbiased
from tune_jobs.measure.pace import Pace
from tune_jobs.training.batch_norm import has_batch_norm
from tune_jobs.training.loop import TrainingRun

RAW, PRECONDITIONED = "raw", "preconditioned"
LEAST_SCALE = 0.01

Gradient = Sequence[torch.Tensor | None]
MeanGradient = Callable[[Indices], Gradient]
SquaredNorm = Callable[[Gradient], torch.Tensor]


def points_here(
    run: TrainingRun,
    train_indices: Indices,
    sampling: Sampling,
    seed: int,
    pace: Pace | None = None,
    ahead: Sequence[int] = (),
) -> list[Point]:
    """Draw at the run's present weights: one Point of each kind. One draw is always made.

    With a `pace` draws are as many as it leaves for this point, `ahead` being the updates from here
    to each later one; else `sampling.draws`.
    """
    pace = pace or Pace()
    norms = norms_of(run.optimizer)
    made: dict[str, list[tuple[float, float]]] = {kind: [] for kind in norms}
    rng = np.random.default_rng([seed, run.progress.updates])
    began = time.perf_counter()
    with undisturbed(run, int(rng.integers(2**62))):
        while (done := len(made[RAW])) < pace.draws(
            done, time.perf_counter() - began, ahead, sampling.draws
        ):
            one = draw(gradient_of(run), train_indices, sampling, rng, norms)
            for kind, pair in one.items():
                made[kind].append(pair)
    return [_point(run, sampling, kind, pairs) for kind, pairs in made.items()]


def _point(
    run: TrainingRun, sampling: Sampling, kind: str, pairs: list[tuple[float, float]]
) -> Point:
    squared, variance = zip(*pairs, strict=True)
    return Point(
        examples_seen=run.progress.updates * run.settings.batch_size,
        updates=run.progress.updates,
        batch_size=run.settings.batch_size,
        learning_rate=run.settings.learning_rate,
        kind=kind,
        small_batch=sampling.small_batch,
        large_batch=sampling.large_batch,
        gradient_squared=squared,
        gradient_variance=variance,
        note=_batch_norm_note(run.model, sampling.small_batch),
    )


def _batch_norm_note(model: torch.nn.Module, small_batch: int) -> str | None:
    if not has_batch_norm(model):
        return None
    return (
        f"batch normalisation: measured with statistics over {small_batch} examples; "
        "other batches have another gradient"
    )


@contextmanager
def undisturbed(run: TrainingRun, seed: int) -> Iterator[None]:
    """Draw from a random state of its own; give back the run's, its buffers and its mode."""
    buffers = {name: b.detach().clone() for name, b in run.model.named_buffers()}
    training = run.model.training
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        run.model.train()
        yield
    run.model.train(training)
    for name, buffer in run.model.named_buffers():
        buffer.copy_(buffers[name])


def gradient_of(run: TrainingRun) -> MeanGradient:
    """The gradient of the run's mean loss over some examples, for all that its optimizer trains.

    Nothing is accumulated into the parameters' `.grad`.
    """
    parameters = run.trained()

    def mean_gradient(indices: Indices) -> Gradient:
        return torch.autograd.grad(run.loss_of(indices), parameters, allow_unused=True)

    return mean_gradient


def draw(
    mean_gradient: MeanGradient,
    population: Indices,
    sampling: Sampling,
    rng: np.random.Generator,
    norms: Mapping[str, SquaredNorm],
) -> dict[str, tuple[float, float]]:
    """One draw from `population` (n,): for each norm the pair (|G|^2, tr(Sigma)), each unbiased.

    Holds one small batch and two gradients: a piece's own and the sum over the pieces.
    """
    chosen = rng.choice(population, sampling.large_batch, replace=False)
    total: list[torch.Tensor | None] = []
    small = dict.fromkeys(norms, 0.0)
    for piece in np.split(chosen, sampling.pieces):
        gradient = mean_gradient(piece)
        for kind, norm in norms.items():
            small[kind] += float(norm(gradient)) / sampling.pieces
        total = _added(total, gradient)
    mean = [None if t is None else t.div_(sampling.pieces) for t in total]
    return {
        kind: unbiased(small[kind], float(norm(mean)), sampling, len(population))
        for kind, norm in norms.items()
    }


def _added(total: list[torch.Tensor | None], gradient: Gradient) -> list[torch.Tensor | None]:
    """`total` plus `gradient`, in place once it holds something."""
    if not total:
        return list(gradient)
    return [
        g if t is None else t if g is None else t.add_(g)
        for t, g in zip(total, gradient, strict=True)
    ]


def norms_of(optimizer: torch.optim.Optimizer) -> dict[str, SquaredNorm]:
    """`raw`, and `preconditioned` once the optimizer has a second moment of its gradients."""
    known = {"exp_avg_sq", "square_avg"}
    if any(known & state.keys() for state in optimizer.state.values()):
        return {RAW: squared_norm, PRECONDITIONED: preconditioned_norm(optimizer)}
    return {RAW: squared_norm}


def squared_norm(gradient: Gradient) -> torch.Tensor:
    """|g|^2 over all parameters, float64 scalar; a parameter without gradient counts nothing."""
    return torch.stack(
        [g.square().sum(dtype=torch.float64) for g in gradient if g is not None]
    ).sum()


def preconditioned_norm(optimizer: torch.optim.Optimizer) -> SquaredNorm:
    """|c g / (sqrt(v_hat) + eps)|^2 with the optimizer's v_hat as it stands (Adam's with its bias
    correction), computed one parameter at a time so that no further vector is held.

    c is the root mean square of sqrt(v_hat), so that points of a run, whose v_hat differ, are in
    one unit and can be averaged. No denominator is below LEAST_SCALE of c: a weight whose inputs
    were hardly ever seen has v_hat near zero, and a few such would else be the whole norm.
    """
    owners = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    typical = _root_mean_square([_second_moment(optimizer.state[p], g) for p, g in owners
                                 if p in optimizer.state])  # fmt: skip

    def norm(gradient: Gradient) -> torch.Tensor:
        scaled = [
            g * typical / _denominator(optimizer.state[p], group).clamp_(min=LEAST_SCALE * typical)
            for g, (p, group) in zip(gradient, owners, strict=True)
            if g is not None and p in optimizer.state
        ]
        return squared_norm(scaled)

    return norm


def _root_mean_square(second_moments: Sequence[torch.Tensor]) -> float:
    total = sum(float(v.sum(dtype=torch.float64)) for v in second_moments)
    return math.sqrt(total / sum(v.numel() for v in second_moments)) or 1.0


def _second_moment(state: Mapping[str, torch.Tensor], group: Mapping[str, Any]) -> torch.Tensor:
    if "square_avg" in state:
        return state["square_avg"]
    return state["exp_avg_sq"].div(1 - group["betas"][1] ** float(state["step"]))


def _denominator(state: Mapping[str, torch.Tensor], group: Mapping[str, Any]) -> torch.Tensor:
    return _second_moment(state, group).sqrt().add_(group["eps"])
