"""torch's compiler, imported once it is asked for.

A process's first optimizer imports `torch._dynamo`, which takes longer than torch itself, only to
have its own functions left out of compiled graphs. A stand-in answers that; whatever else is asked
of the compiler, `torch.compile` included, brings the real one in the stand-in's place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"


class _Later(ModuleType):
    """What an optimizer asks of the compiler; the compiler itself for anything else."""

    @staticmethod
    def graph_break(*_: Any) -> None:
        """Nothing is being compiled."""

    @staticmethod
    def disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        """The function as it is; no graph is being made that it could be left out of."""
        return function if function is not None else _Later.disable

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)  # who looks through all modules asks nothing of it
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
        return getattr(importlib.import_module(NAME), name)


def import_later() -> None:
    """Leave the compiler's import to whoever needs it; nothing where it is there already."""
    if NAME not in sys.modules:
        later = _Later(NAME, __doc__)
        later.__file__ = None
        torch._dynamo = sys.modules[NAME] = later
