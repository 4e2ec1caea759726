"""The contract of every model, and of their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models.mlp import MLP
from models.registry import build, known, resolve
from models.simple_cnn import SimpleCNN
from tune_jobs.errors import UserError

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 9, 12)]


def a_model(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A user's model, named `tests.test_models:a_model`."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), classes), nn.LogSoftmax(dim=1)
    )


def not_a_model(input_shape: tuple[int, int, int], classes: int) -> str:
    return "not a module"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*known(), "tests.test_models:a_model"])
def test_a_model_gives_log_probabilities_for_any_input_shape(
    name: str, shape: tuple[int, int, int]
) -> None:
    output = build(name, shape, classes=7)(torch.rand(5, *shape))
    assert output.shape == (5, 7)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("name", known())
def test_a_model_gives_the_same_for_channels_last_images(name: str) -> None:
    model = build(name, (3, 9, 12), classes=7).eval()
    images = torch.rand(5, 3, 9, 12)
    torch.testing.assert_close(
        model(images.contiguous(memory_format=torch.channels_last)), model(images)
    )


@pytest.mark.parametrize("name", known())
def test_a_model_is_the_same_for_the_same_seed(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(name, (1, 8, 8), classes=10).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", known())
def test_a_gradient_reaches_every_weight_of_a_model(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, (1, 8, 8), classes=10)
    nn.functional.nll_loss(model(torch.rand(16, 1, 8, 8)), torch.arange(16) % 10).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_simple_cnn_has_the_layers_of_the_example() -> None:
    model = SimpleCNN()
    assert model.linear1.in_features == 9216
    assert sum(p.numel() for p in model.parameters()) == 1_199_882


def test_simple_cnn_refuses_images_too_small_for_it() -> None:
    with pytest.raises(UserError, match="images of 5x8"):
        build("simple_cnn", (1, 5, 8), classes=10)


def test_the_mlp_is_small() -> None:
    assert sum(p.numel() for p in MLP().parameters()) < 10_000


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'simple_cn'.*mlp, simple_cnn.*Did you mean 'simple_cnn'"):
        resolve("simple_cn")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("no_such_module:build", "'no_such_module' does not import"),
        ("tests.test_models:missing", "'missing' in module 'tests.test_models' does not exist"),
        ("tests.test_models:SHAPES", "'SHAPES' in module 'tests.test_models' is not callable"),
        (":build", "not of the form"),
        ("tests.test_models:", "not of the form"),
        (".relative:build", "not of the form"),
        ("a..b:build", "does not import"),
    ],
)
def test_a_model_of_the_user_that_cannot_be_used_is_refused(name: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        resolve(name)


def test_a_module_that_breaks_at_import_is_told_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_at_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="ZeroDivisionError: division by zero"):
        resolve("breaks_at_import:build")


def test_a_function_that_gives_no_module_is_refused() -> None:
    with pytest.raises(UserError, match=r"gave str, not a torch\.nn\.Module"):
        build("tests.test_models:not_a_model", (1, 8, 8), classes=10)


def test_a_built_in_name_is_checked_without_importing_torch() -> None:
    code = (
        "import sys; from models.registry import resolve; resolve('mlp'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
