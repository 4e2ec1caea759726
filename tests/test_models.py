"""The contract of every model, and of their names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from models.mlp import MLP
from models.registry import build, known, resolve
from models.simple_cnn import SimpleCNN
from tune_jobs.errors import UserError

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 9, 12)]
NEEDS = {"timm:resnet18": "timm"}
NAMES = [
    pytest.param(n, marks=pytest.mark.skipif(find_spec(NEEDS.get(n, "torch")) is None,
                                             reason=f"{NEEDS.get(n)} is not installed"))
    for n in (*known(), "torchvision:resnet18", "timm:resnet18")
]  # fmt: skip


def a_model(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A user's model, named `tests.test_models:a_model`."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), classes), nn.LogSoftmax(dim=1)
    )


def not_a_model(input_shape: tuple[int, int, int], classes: int) -> str:
    return "not a module"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*NAMES, "tests.test_models:a_model"])
def test_a_model_gives_log_probabilities_for_any_input_shape(
    name: str, shape: tuple[int, int, int]
) -> None:
    output = build(name, shape, classes=7)(torch.rand(5, *shape))
    assert output.shape == (5, 7)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_the_same_for_channels_last_images(name: str) -> None:
    model = build(name, (3, 9, 12), classes=7).eval()
    images = torch.rand(5, 3, 9, 12)
    torch.testing.assert_close(
        model(images.contiguous(memory_format=torch.channels_last)), model(images)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_the_same_for_the_same_seed(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(name, (1, 8, 8), classes=10).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_weight_of_a_model(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, (1, 8, 8), classes=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # some networks begin with branches that are multiplied by zero
        optimizer.step()
        optimizer.zero_grad()
        nn.functional.nll_loss(model(torch.rand(16, 1, 8, 8)), torch.arange(16) % 10).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_simple_cnn_has_the_layers_of_the_example() -> None:
    model = SimpleCNN()
    assert model.linear1.in_features == 9216
    assert sum(p.numel() for p in model.parameters()) == 1_199_882


def test_simple_cnn_gives_the_numbers_of_the_example() -> None:
    model, images = SimpleCNN((1, 12, 12)), torch.rand(5, 1, 12, 12)

    def as_in_the_example(x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(model.conv1(x))
        x = nn.functional.relu(model.conv2(x))
        x = model.dropout1(nn.functional.max_pool2d(x, 2))
        x = nn.functional.relu(model.linear1(torch.flatten(x, 1)))
        return nn.functional.log_softmax(model.linear2(model.dropout2(x)), dim=1)

    seen: list[list[torch.Tensor | None]] = []
    ways: list[Callable[[torch.Tensor], torch.Tensor]] = [model, as_in_the_example]
    for forward in ways:
        torch.manual_seed(0)
        output = forward(images)
        nn.functional.nll_loss(output, torch.arange(5)).backward()
        seen.append([output, *(p.grad for p in model.parameters())])
        model.zero_grad()
    for ours, theirs in zip(*seen, strict=True):
        assert ours is not None and theirs is not None and torch.equal(ours, theirs)


def test_simple_cnn_refuses_images_too_small_for_it() -> None:
    with pytest.raises(UserError, match="images of 5x8"):
        build("simple_cnn", (1, 5, 8), classes=10)


def test_the_mlp_is_small() -> None:
    assert sum(p.numel() for p in MLP().parameters()) < 10_000


def test_the_mlp_takes_features_and_gives_classes_or_a_number() -> None:
    features = torch.rand(5, 13)
    assert build("mlp", (13,), classes=3)(features).shape == (5, 3)
    assert build("mlp", (13,), classes=None)(features).shape == (5, 1)


def test_a_single_channel_is_repeated_for_a_network_that_takes_three() -> None:
    model = build("torchvision:resnet18", (1, 8, 8), classes=10).eval()
    image = torch.rand(2, 1, 8, 8)
    given = nn.functional.log_softmax(model.network(image.repeat(1, 3, 1, 1)), dim=1)
    torch.testing.assert_close(model(image), given)
    assert sum(p.numel() for p in model.parameters()) == 11_181_642  # torchvision's, 10 classes


def test_a_network_with_further_outputs_is_built_with_one() -> None:
    model = build("torchvision:googlenet", (3, 40, 40), classes=4)
    assert model(torch.rand(2, 3, 40, 40)).shape == (2, 4)


@pytest.mark.parametrize("name", ["simple_cnn", "torchvision:resnet18"])
@pytest.mark.parametrize(("shape", "classes"), [((13,), 3), ((1, 8, 8), None)])
def test_a_model_of_images_that_are_told_apart_refuses_anything_else(
    name: str, shape: tuple[int, ...], classes: int | None
) -> None:
    with pytest.raises(UserError, match=r"takes images \(c, h, w\) and tells classes.*--model mlp"):
        build(name, shape, classes)


def test_an_unknown_model_of_a_library_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"knows 80.*Did you mean 'torchvision:resnet18' or"):
        resolve("torchvision:resnet81")
    with pytest.raises(UserError, match="Such as 'torchvision:alexnet'"):
        resolve("torchvision:")


def test_channels_that_a_network_cannot_take_are_told() -> None:
    with pytest.raises(UserError, match="takes images of 1 or 3 channels, the data has 2"):
        build("torchvision:resnet18", (2, 8, 8), classes=10)


def test_a_library_that_is_not_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, which does not import.*pip install timm"):
        resolve("timm:resnet18")


def test_torchvision_is_imported_only_where_it_is_asked_for() -> None:
    code = (
        "import sys; from models.registry import build; build('mlp', (1, 8, 8), 10); "
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
