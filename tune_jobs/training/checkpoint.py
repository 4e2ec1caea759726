"""A run's state on disk. Absence means a fresh start; anything unreadable is an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tune_jobs.errors import StoreError

FILE = "run.pt"


def save(state: dict[str, Any], folder: Path) -> None:
    """Write `state` into `folder`, whole or not at all."""
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    torch.save(state, temporary)
    os.replace(temporary, folder / FILE)


def load(folder: Path) -> dict[str, Any]:
    """Read what `save` wrote; raises StoreError when it is missing or damaged."""
    path = folder / FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle can raise anything; the cause stays attached
        # What follows the first sentence is torch's advice to unpickle it.
        said = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
        raise StoreError(f"checkpoint {path} cannot be read ({said}); delete its trial") from error
    return state
