"""The recipe: schedules, clipping, precision and optimizers as torch itself has them.

1. An empty recipe changes no number.
2. The learning rate is a function of the examples seen, exact over an interruption.
3. What is clipped is the gradient of the whole batch.
4. With a schedule that ends with the budget a run reaches its target at its end or not at all.
5. What cannot be meant is told before anything starts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import workloads
from tests.test_workload import gradients, numbers, run_of, to_end
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.errors import UserError
from tune_jobs.recipe import PLAIN, Recipe, recipe_of
from tune_jobs.training import optimizers
from tune_jobs.training.loop import TrainingRun


def with_recipe(**table: Any) -> TrainingRun:
    return run_of(workloads.prices(), recipe=recipe_of(table))


def rates(run: TrainingRun) -> list[float]:
    """The learning rate of every update of the run, over the full one."""
    found = []
    for _ in range(50):
        run.update(run.next_batch())
        run.progress.updates += 1
        found.append(run.optimizer.param_groups[0]["lr"] / run.settings.learning_rate)
    return found


def test_an_empty_recipe_is_a_plain_loop() -> None:  # 1
    run = run_of(workloads.prices())
    torch.manual_seed(0)
    model = workloads.prices().build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for update in range(20):
        loss = float(run.update(run.next_batch()))
        run.progress.updates += 1
        chosen = run.stream.take(update * 24, 24)
        optimizer.zero_grad()
        x, y = torch.from_numpy(workloads.X[chosen]), torch.from_numpy(workloads.Y[chosen])
        plain = nn.functional.mse_loss(model(x)[:, 0], y)
        plain.backward()
        optimizer.step()
        assert loss == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"schedule": "cosine"}, lambda p: 0.5 * (1 + math.cos(math.pi * p))),
        ({"schedule": "linear", "final": 0.1}, lambda p: 1 - 0.9 * p),
        ({"schedule": "steps", "milestones": [0.5, 0.75], "factor": 0.2},
         lambda p: 0.2 ** ((p > 0.5) + (p > 0.75))),
        ({"warmup": 0.2}, lambda p: min(1.0, p / 0.2)),
        ({"schedule": "linear", "warmup": 0.2}, lambda p: min(1.0, p / 0.2) *
         (1 - max(0.0, p - 0.2) / 0.8)),
    ],
)  # fmt: skip
def test_the_rate_is_what_the_schedule_says_of_the_examples_seen(table: Any, wanted: Any) -> None:
    found = rates(with_recipe(**table))  # 2
    assert found == pytest.approx([wanted((k + 1) / 50) for k in range(50)], abs=1e-9)


def test_an_interrupted_warm_up_goes_on_as_if_it_had_not_been() -> None:  # 2
    table = {"schedule": "cosine", "warmup": 0.5, "clip_norm": 0.5}
    whole = to_end(with_recipe(**table))
    first, second = with_recipe(**table), with_recipe(**table)
    for _ in range(3):
        first.advance()
    second.load_state(first.state())
    assert numbers(to_end(second)) == numbers(whole[3:])


@pytest.mark.parametrize("micro", [24, 7, 1])
def test_the_gradient_that_is_clipped_is_the_whole_batchs(micro: int) -> None:  # 3
    recipe = Recipe(clip_norm=0.1)
    found = gradients(run_of(workloads.prices(), micro_batch_size=micro, recipe=recipe))
    free = gradients(run_of(workloads.prices()))
    assert float(free.norm()) > 0.1
    torch.testing.assert_close(found, free * 0.1 / free.norm(), rtol=1e-4, atol=1e-7)


def test_bf16_rounds_the_forward_pass_and_leaves_the_weights_alone() -> None:
    rounded, plain = with_recipe(precision="bf16"), with_recipe()
    one, other = (float(run.update(run.next_batch())) for run in (rounded, plain))
    assert one != other and one == pytest.approx(other, rel=0.05)
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())


def test_norms_and_biases_may_go_without_weight_decay() -> None:
    recipe = Recipe(decay_vectors=False, optimizer_arguments={"weight_decay": 0.1})
    made = optimizers.make("adamw", workloads.prices().build(), 1e-3, recipe)
    decays = [(g["weight_decay"], {p.ndim for p in g["params"]}) for g in made.param_groups]
    assert decays == [(0.1, {2}), (0.0, {1})]


@pytest.mark.parametrize("size", [16, 256, 1024])
def test_the_half_life_of_adams_second_moment_is_constant_in_examples(size: int) -> None:
    made = optimizers.make("adam", nn.Linear(1, 1), 1e-3, Recipe(beta2="half-life"), size)
    half_life = math.log(0.5) / math.log(made.param_groups[0]["betas"][1]) * size
    assert half_life == pytest.approx(math.log(0.5) / math.log(0.999) * 256)


def test_an_optimizer_may_be_any_class() -> None:
    made = optimizers.make("torch.optim:RAdam", nn.Linear(1, 1), 1e-3, PLAIN)
    assert isinstance(made, torch.optim.RAdam)
    with pytest.raises(UserError, match="has no attribute 'Radam'"):
        optimizers.make("torch.optim:Radam", nn.Linear(1, 1), 1e-3)
    with pytest.raises(UserError, match="unexpected keyword argument 'beta'"):
        optimizers.make("adam", nn.Linear(1, 1), 1e-3, Recipe(optimizer_arguments={"beta": 1}))


def test_a_run_whose_rate_ends_with_the_budget_is_judged_at_its_end() -> None:  # 4
    reports = to_end(run_of(workloads.prices(target=2.5), recipe=Recipe(schedule="cosine")))
    assert (reports[-2].val_metric or 9.0) <= 2.5, "the target was passed before"
    assert [r.examples_to_target for r in reports[:-1]] == [None] * (len(reports) - 1)
    assert reports[-1].examples_to_target == 1200


def test_such_runs_are_searched_and_compared_by_what_they_end_at() -> None:  # 4
    config = resolve(None, {"recipe": {"schedule": "cosine"}})
    assert (config.search, config.compared_by, config.goal) == ("tpe", "accuracy", "time")
    assert SweepConfig().compared_by == "time"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"shedule": "cosine"}, "Did you mean 'schedule'?"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"precision": "fp8"}, "known: bf16, float32, fp16, tf32"),
        ({"warmup": 1.5}, "a schedule ends with the budget"),
        ({"warmup": "long"}, "must be int or float"),
        ({"compile": 1}, "must be bool"),
        ({"clip_norm": 0}, "must be greater than 0"),
        ({"schedule": "steps"}, "needs one at least"),
        ({"schedule": "steps", "milestones": [0.9, 0.5]}, "ascending"),
        ({"schedule": "steps", "milestones": [2.0]}, "longer than the budget never comes"),
        ({"milestones": [0.5]}, "they are of"),
        ({"beta2": "constant"}, "known: half-life"),
        ({"optimizer_arguments": 3}, "must be dict"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_told(table: Any, words: str) -> None:  # 5
    with pytest.raises(UserError) as found:
        resolve(None, {"recipe": table})
    assert words in str(found.value)


def test_what_the_sweep_cannot_do_with_a_recipe_is_told() -> None:  # 5
    with pytest.raises(UserError, match="give --search tpe"):
        resolve(None, {"recipe": {"schedule": "cosine"}, "search": "structured"})
    with pytest.raises(UserError, match="base_learning_rate, the centre"):
        resolve(None, {"optimizer": "torch.optim:RAdam"})
    with pytest.raises(UserError, match="needs a GPU"):
        with_recipe(precision="fp16")


def test_a_recipe_stands_in_the_sweeps_own_file(tmp_path: Path) -> None:
    from tune_jobs.config import to_toml

    config = replace(SweepConfig(), recipe={"schedule": "cosine", "warmup": 0.1}, search="tpe")
    file = tmp_path / "sweep.toml"
    file.write_text(to_toml(config))
    assert resolve(file, {}) == config
    assert str(config.training) == "schedule cosine, warmup 0.1"
