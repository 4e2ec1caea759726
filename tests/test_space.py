"""What is searched beside batch size and learning rate."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from tests import rows
from tests.test_ways import config_of, search
from tune_jobs.config import resolve
from tune_jobs.errors import UserError
from tune_jobs.planning.confirm_plan import next_runs
from tune_jobs.planning.known import Known
from tune_jobs.planning.shares import in_turn, log_uniform, tree_parzen
from tune_jobs.recipe import recipe_of
from tune_jobs.records import TrialResult
from tune_jobs.space import applied, as_text, axes_of, from_text
from tune_jobs.tracking.fields import end_params

SPACE = {"momentum": [0.5, 0.99], "weight_decay": [1e-6, 1e-2]}
SIZES = (16, 64)


def tried(way: str, count: int = 12) -> list[TrialResult]:
    """Each trial the better the nearer its momentum is to 0.9."""
    config = config_of(way, optimizer="sgd", space=SPACE, batch_sizes=SIZES, trials=count)
    propose = in_turn(tree_parzen if way == "tpe" else log_uniform)
    made: list[TrialResult] = []
    while (asked := propose(config, SIZES, Known(made, {}, (), {}))) is not None:
        seen = round(1000 * (1 + 10 * abs(asked.space["momentum"] - 0.9)))
        made.append(
            rows.result(
                trial_id=str(len(made)), batch_size=asked.batch_size, budget_examples=100_000,
                base_learning_rate=asked.base_learning_rate, examples_to_target=seen,
                space=as_text(asked.space),
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize("way", ["tpe", "random"])
def test_it_is_drawn_within_its_ranges_the_middle_first_and_the_same_again(way: str) -> None:
    made, again = tried(way), tried(way)
    assert [t.space for t in made] == [t.space for t in again] and len(made) == 12
    values = [from_text(t.space) for t in made]
    assert all(0.5 <= v["momentum"] <= 0.99 and 1e-6 <= v["weight_decay"] <= 1e-2 for v in values)
    assert values[0]["weight_decay"] == pytest.approx(1e-4)
    assert len({t.space for t in made}) > 8


def test_tpe_draws_nearer_to_what_did_well_than_chance_does() -> None:
    def off(way: str) -> float:
        last = tried(way, 60)[-30:]
        return median(abs(from_text(t.space)["momentum"] - 0.9) for t in last)

    assert off("tpe") < off("random")


def test_a_confirm_run_and_its_record_have_what_the_best_trial_had() -> None:
    made = tried("random")
    config = config_of("random", optimizer="sgd", space=SPACE, batch_sizes=SIZES, trials=12)
    best = min(made, key=lambda t: (t.batch_size, t.examples_to_target or 0))
    runs = [run for run in next_runs(config, made, []) if run.batch_size == best.batch_size]
    assert runs and all(run.space == best.space for run in runs)
    assert end_params(best)["momentum"] == str(from_text(best.space)["momentum"])


def test_values_become_the_optimizers_arguments_and_the_recipes_warm_up() -> None:
    recipe = recipe_of({"optimizer_arguments": {"nesterov": False}})
    found = applied(recipe, {"momentum": 0.8, "warmup": 0.1})
    assert found.optimizer_arguments == {"nesterov": False, "momentum": 0.8}
    assert found.warmup == 0.1
    assert applied(recipe, {"beta2": 0.99}).optimizer_arguments["betas"] == (0.9, 0.99)
    assert applied(recipe, {}) == recipe


def test_what_another_optimizer_has_is_left_out() -> None:
    assert set(axes_of(SPACE, "adam")) == {"weight_decay"}
    assert set(axes_of(SPACE | {"beta2": [0.9, 0.999]}, "sgd")) == {"momentum", "weight_decay"}


def test_without_it_nothing_changes() -> None:
    assert all(t.space is None for t in search(config_of("tpe")))


@pytest.mark.parametrize(
    ("space", "search_by", "message"),
    [
        ({"momentun": [0, 1]}, "tpe", "Did you mean 'momentum'"),
        ({"momentum": [0.9, 0.5]}, "tpe", "must rise"),
        ({"momentum": [0.5, 0.5]}, "tpe", "must rise"),
        ({"momentum": [0.5, 2]}, "tpe", "within 0 and"),
        ({"momentum": "high"}, "tpe", "must be a range"),
        ({"momentum": [0.5, True]}, "tpe", "must be a range"),
        (SPACE, "structured", "give --search tpe or random"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(
    space: dict[str, Any], search_by: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolve(None, {"space": space, "search": search_by, "optimizer": "sgd"})
