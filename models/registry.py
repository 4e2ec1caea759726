"""Models by name: a built-in one, a library's, or `package.module:function` of the user's.

A model's function takes `input_shape=`, (c, h, w) of images and (d,) of a table, and `classes=`; it
gives an nn.Module whose output is log-probabilities (b, classes), or one number for each example
(b, 1) where `classes` is None: a regression. A new built-in: write its file, add it here, pass the
contract.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from models.libraries import LIBRARIES, library_model
from tune_jobs.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

InputShape = tuple[int, ...]
ModelFunction = Callable[..., "nn.Module"]


# The imports stand inside, so that a name can be checked without the seconds torch takes.
def _simple_cnn(input_shape: InputShape, classes: int | None) -> nn.Module:
    from models.simple_cnn import SimpleCNN

    if len(input_shape) != 3 or classes is None:
        raise UserError(
            f"simple_cnn takes images (c, h, w) and tells classes, the data has inputs of shape "
            f"{tuple(input_shape)}; use --model mlp"
        )
    return SimpleCNN(input_shape, classes)


def _mlp(input_shape: InputShape, classes: int | None) -> nn.Module:
    from models.mlp import MLP

    return MLP(input_shape, classes)


MODELS: dict[str, ModelFunction] = {"simple_cnn": _simple_cnn, "mlp": _mlp}


def known() -> list[str]:
    """The names of the built-in models, sorted."""
    return sorted(MODELS)


def resolve(name: str) -> ModelFunction:
    """The function that builds the model `name`; imports nothing heavy for a built-in name.

    Errors:
        UserError: the name is unknown, or its module or function cannot be used.
    """
    if name in MODELS:
        return MODELS[name]
    if ":" not in name:
        others = ", ".join(f"{library}:NAME" for library in LIBRARIES)
        remedy = f"Others are given as {others}, your own as package.module:function."
        raise unknown_name("model", name, MODELS, remedy)
    if name.partition(":")[0] in LIBRARIES:
        return library_model(name)
    return _import_function(name)


def build(name: str, input_shape: InputShape, classes: int | None) -> nn.Module:
    """The model `name` for inputs of this shape, freshly initialised.

    Errors:
        UserError: as `resolve`, or the function does not give an nn.Module.
    """
    from torch import nn

    model = resolve(name)(input_shape=input_shape, classes=classes)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model {name!r} gave {type(model).__name__}, not a torch.nn.Module; "
            f"let the function return the module"
        )
    return model


def _import_function(name: str) -> ModelFunction:
    module_name, _, function_name = name.partition(":")
    if not module_name or module_name.startswith(".") or not function_name.isidentifier():
        raise UserError(f"model {name!r} is not of the form package.module:function; write it so")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"model {name!r}: module {module_name!r} does not import "
            f"({type(error).__name__}: {error}); correct its name, or put its folder on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        what = "is not callable" if hasattr(module, function_name) else "does not exist"
        raise UserError(
            f"model {name!r}: {function_name!r} in module {module_name!r} {what}; name a function "
            f"that takes input_shape= and classes= and returns a torch.nn.Module"
        )
    return function  # type: ignore[no-any-return]
