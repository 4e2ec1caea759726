"""The precision of forward pass and loss, and the step that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tune_jobs.errors import UserError
from tune_jobs.recipe import Recipe

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Precision:
    """Weights and optimizer stay float32; `scaler` keeps the small gradients of fp16 from vanishing
    (torch.amp)."""

    device: str
    type: torch.dtype | None
    scaler: torch.amp.GradScaler | None

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> Precision:
        """Errors:
        UserError: the device does not have the precision.
        """
        name = recipe.precision
        if name in ("tf32", "fp16") and device.type != "cuda":
            raise UserError(
                f"[recipe] precision {name!r} needs a GPU, and trials here run on a {device.type}; "
                "give float32 or bf16"
            )
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError("[recipe] precision 'bf16': this GPU has no bfloat16; give fp16")
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        return cls(device.type, TYPES.get(name), scaler)

    def forward(self) -> AbstractContextManager[Any]:
        """Round the forward pass and the loss."""
        return torch.autocast(self.device, self.type) if self.type else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
        clip_norm: float | None,
    ) -> None:
        """One optimizer step on the gradients as they stand, of a norm of at most `clip_norm`."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        if self.scaler is None:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any] | None:
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state(self, state: dict[str, Any] | None) -> None:
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(state)
