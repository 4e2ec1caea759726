"""Models of a library: `torchvision:resnet18`, `timm:NAME`, untrained.

A library is imported only where one of its models is asked for: that takes seconds.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tune_jobs.errors import UserError

if TYPE_CHECKING:
    from torch import nn

COLOURS = 3
NEAREST = 3
# Two networks have further outputs while they train, which need a loss of their own: left out.
# Their first weights are drawn as their papers do, which torchvision wants to be asked for.
ONE_OUTPUT = {"googlenet", "inception_v3"}


def library_model(name: str) -> Callable[..., nn.Module]:
    """The function that builds the model `library:NAME`, as the registry knows such functions.

    Errors:
        UserError: the library is not installed, or knows no such model.
    """
    library, _, model = name.partition(":")
    module, names, make = LIBRARIES[library]
    imported = _imported(name, module)
    known = list(names(imported))
    if model not in known:
        near = difflib.get_close_matches(model, known, n=NEAREST)
        told = " or ".join(f"'{library}:{n}'" for n in near or known[:NEAREST])
        hint = f"Did you mean {told}?" if near else f"Such as {told}."
        raise UserError(f"model {name!r} is unknown; {library} knows {len(known)}. {hint}")

    def build(input_shape: tuple[int, ...], classes: int | None) -> nn.Module:
        if len(input_shape) != 3 or classes is None:
            raise UserError(
                f"model {name!r} takes images (c, h, w) and tells classes, the data has inputs of "
                f"shape {tuple(input_shape)}; use --model mlp, or one of your own"
            )
        from models.of_library import OfLibrary

        return OfLibrary(*make(imported, model, input_shape[0], classes))

    return build


def _imported(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise UserError(
            f"model {name!r} needs {library}, which does not import ({error}); install it with "
            f"`pip install {library}`"
        ) from error


def _of_torchvision(models: Any, name: str, channels: int, classes: int) -> tuple[nn.Module, int]:
    """The network and how often its one channel is repeated: torchvision's take three."""
    if channels not in (1, COLOURS):
        raise UserError(
            f"model 'torchvision:{name}' takes images of 1 or {COLOURS} channels, the data has "
            f"{channels}; use timm:NAME, or a model of your own"
        )
    more = {"aux_logits": False, "init_weights": True} if name in ONE_OUTPUT else {}
    network = models.get_model(name, weights=None, num_classes=classes, **more)
    return network, COLOURS if channels == 1 else 1


def _of_timm(timm: Any, name: str, channels: int, classes: int) -> tuple[nn.Module, int]:
    """timm's own way with other channels: a first convolution for just those."""
    return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels), 1


LIBRARIES: dict[str, tuple[str, Callable[[Any], list[str]], Callable[..., Any]]] = {
    "torchvision": ("torchvision.models", lambda m: m.list_models(module=m), _of_torchvision),
    "timm": ("timm", lambda m: m.list_models(), _of_timm),
}
