"""The recipe: what stays the same of training while batch size and learning rate are searched.

It stands in the TOML under [recipe]; what is not said there is as it always was. No torch is needed
to know it, so whoever plans may ask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tune_jobs.errors import UserError, unknown_name

SCHEDULES = ("constant", "cosine", "linear", "steps")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
HALF_LIFE = "half-life"
REFERENCE_BATCH_SIZE = 256
ADAM_BETA2 = 0.999


@dataclass(frozen=True)
class Recipe:
    """Attributes:
    optimizer_arguments: keyword arguments of the optimizer, such as betas or weight_decay.
    decay_vectors: False: weight decay leaves out parameters of fewer than two dimensions, the
        norms' and biases.
    schedule: of the learning rate over the budget in examples: `constant`, `cosine` or `linear`
        down to `final`, or `steps`: times `factor` at each of `milestones`.
    warmup: part of the budget over which the rate rises linearly to its full value.
    final: part of the full rate that is left at the end.
    milestones: parts of the budget, ascending.
    clip_norm: the most that the norm of an update's gradient may be.
    precision: of forward pass and loss, by autocast: weights stay float32.
    compile: the model goes through torch.compile.
    deterministic: refuse operations whose result depends on chance (torch's own switch).
    beta2: `half-life` keeps the half-life of Adam's second moment constant in examples instead of
        updates, as beta2^(B/256) (Marek et al. 2025).
    """

    optimizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    decay_vectors: bool = True
    schedule: str = "constant"
    warmup: float = 0.0
    final: float = 0.0
    milestones: Sequence[float] = ()
    factor: float = 0.1
    clip_norm: float | None = None
    precision: str = "float32"
    compile: bool = False
    deterministic: bool = False
    beta2: str | None = None

    @property
    def ends_with_the_budget(self) -> bool:
        """Whether a run means something only at its end: its rate falls on the way there."""
        return self.schedule != "constant"

    def rate_at(self, part: float) -> float:
        """The learning rate over its full value, once so much of the budget is seen."""
        rising = min(1.0, part / self.warmup) if self.warmup else 1.0
        after = max(0.0, part - self.warmup) / (1 - self.warmup)
        if self.schedule == "cosine":
            falling = 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
            return rising * (self.final + (1 - self.final) * falling)
        if self.schedule == "linear":
            return rising * (1 - (1 - self.final) * min(1.0, after))
        if self.schedule == "steps":
            return rising * float(self.factor ** sum(part > m for m in self.milestones))
        return rising

    def beta2_at(self, batch_size: int, betas: Sequence[float]) -> tuple[float, float]:
        """Adam's betas at a batch size."""
        first, second = betas
        if self.beta2 == HALF_LIFE:
            second = float(second ** (batch_size / REFERENCE_BATCH_SIZE))
        return first, second

    def __str__(self) -> str:
        """What differs from the plainest recipe, in words."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{k} {v}" for k, v in told.items() if v != getattr(PLAIN, k))


PLAIN = Recipe()


def recipe_of(table: Mapping[str, Any]) -> Recipe:
    """The recipe of a table of the TOML.

    Errors:
        UserError: an unknown key, a value of another type or outside its range.
    """
    known = [f.name for f in fields(Recipe)]
    for key in table:
        if key not in known:
            raise unknown_name("[recipe]: key", key, known)
    _check_types(table)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    recipe = Recipe(**given)
    _check_values(recipe)
    return recipe


_NUMBERS = ("warmup", "final", "factor", "clip_norm")
_SWITCHES = ("decay_vectors", "compile", "deterministic")


def _check_types(table: Mapping[str, Any]) -> None:
    wanted: dict[str, tuple[type, ...]] = {
        "optimizer_arguments": (dict,), "milestones": (list, tuple), "schedule": (str,),
        "precision": (str,), "beta2": (str,),
    }  # fmt: skip
    wanted |= dict.fromkeys(_NUMBERS, (int, float)) | dict.fromkeys(_SWITCHES, (bool,))
    for key, value in table.items():
        mistaken = isinstance(value, bool) and bool not in wanted[key]
        if mistaken or not isinstance(value, wanted[key]):
            names = " or ".join(kind.__name__ for kind in wanted[key])
            raise UserError(f"[recipe] {key} = {value!r}: must be {names}; correct it")


def _check_values(recipe: Recipe) -> None:
    for kind, name, names in (
        ("schedule", recipe.schedule, SCHEDULES),
        ("precision", recipe.precision, PRECISIONS),
    ):
        if name not in names:
            raise unknown_name(f"[recipe] {kind}", name, names)
    if recipe.beta2 not in (None, HALF_LIFE):
        raise unknown_name("[recipe] beta2", str(recipe.beta2), (HALF_LIFE,))
    for name in ("warmup", "final"):
        if not 0 <= getattr(recipe, name) < 1:
            raise UserError(
                f"[recipe] {name} = {getattr(recipe, name)}: must be a part, in [0, 1), of the "
                "budget (final: of the rate): a schedule ends with the budget"
            )
    if recipe.clip_norm is not None and not 0 < recipe.clip_norm < math.inf:
        raise UserError(f"[recipe] clip_norm = {recipe.clip_norm}: must be greater than 0")
    if not 0 < recipe.factor < 1:
        raise UserError(f"[recipe] factor = {recipe.factor}: must be in (0, 1), such as 0.1")
    _check_milestones(recipe)


def _check_milestones(recipe: Recipe) -> None:
    marks = recipe.milestones
    if bool(marks) != (recipe.schedule == "steps"):
        raise UserError(
            f"[recipe] milestones = {list(marks)} with schedule {recipe.schedule!r}: they are of "
            '"steps", which needs one at least, such as [0.5, 0.75]'
        )
    numbers = all(isinstance(m, (int, float)) and 0 < m < 1 for m in marks)
    if not numbers or list(marks) != sorted(set(marks)):
        raise UserError(
            f"[recipe] milestones = {list(marks)}: parts of the budget in (0, 1), ascending; what "
            "is longer than the budget never comes"
        )
