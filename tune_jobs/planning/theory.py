"""`--search theory`: only the batch sizes about the best that measuring predicts.

With step seconds a + b B and examples to target E_min (1 + B / B_crit), time to target is least at
B* = sqrt(a B_crit / b); B_crit is taken to be the noise scale of a short run (McCandlish et al.
2018), within the limits of memory and of what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.critical_batch import noise_summaries
from tune_jobs.judging.speed import line_of_step_seconds
from tune_jobs.measure.clock import chosen
from tune_jobs.planning import learning_rates
from tune_jobs.planning.known import Known, Proposal
from tune_jobs.records import BatchSizeProfile, NoiseScale


@dataclass(frozen=True)
class Prediction:
    """The batch size of least time to target, by measuring alone; `batch_size` is None where that
    cannot be told, and `reason` says why."""

    batch_size: float | None
    noise_scale: float | None
    reason: str | None = None


def propose(config: SweepConfig, sizes: Sequence[int], known: Known) -> Proposal | None:
    """The next trial of the structured search over the batch sizes about the prediction."""
    near = about(predicted(known.profiles, known.noise), sizes)
    return learning_rates.propose(config, near, known) if near else None


def told(config: SweepConfig, sizes: Sequence[int], known: Known) -> list[str]:
    """What is predicted, and tried.

    Errors:
        UserError: nothing can be predicted.
    """
    found = predicted(known.profiles, known.noise)
    if found.batch_size is None:
        raise UserError(
            f"--search theory: the best batch size cannot be predicted: {found.reason}; give "
            "--search structured, which needs no prediction"
        )
    near = about(found, sizes)
    beyond = "" if min(sizes) <= found.batch_size <= max(sizes) else ", beyond those that are tried"
    return [
        f"theory: the best batch size is predicted to be {found.batch_size:.3g}{beyond}, by a "
        f"noise scale of {found.noise_scale:.3g} examples; tried are {', '.join(map(str, near))}"
    ]


def after(config: SweepConfig, known: Known, used: int | None) -> list[str]:
    """How far the prediction was."""
    found = predicted(known.profiles, known.noise).batch_size
    if found is None or used is None:
        return []
    off = max(found / used, used / found)
    return [f"Theory predicted {found:.3g}: {off:.2g} times off {used}, of the few it tried."]


def predicted(profiles: Sequence[BatchSizeProfile], noise: Sequence[NoiseScale]) -> Prediction:
    """sqrt(a B_crit / b), with the raw noise scale for B_crit."""
    raw = next((n for n in noise_summaries(noise) if n.kind == "raw"), None)
    if raw is None or raw.value is None:
        why = raw.reason if raw is not None else None
        return Prediction(None, None, why or "the noise scale was not measured")
    rates = {p.batch_size: p.examples_per_second for p in chosen(profiles)}
    line = line_of_step_seconds({s: r for s, r in rates.items() if r}, profiles)
    if line is None:
        return Prediction(None, raw.value, "step seconds give no line a + b B")
    fixed, each = line.intercept, line.slope
    if fixed <= 0 or each <= 0:
        return Prediction(None, raw.value, f"step seconds {fixed:.2g} + {each:.2g} B have no least")
    return Prediction(math.sqrt(fixed * raw.value / each), raw.value)


def about(prediction: Prediction, sizes: Sequence[int]) -> list[int]:
    """The nearest of these batch sizes and its neighbours."""
    if prediction.batch_size is None:
        return []
    ordered = sorted(sizes)
    best = prediction.batch_size
    nearest = min(ordered, key=lambda size: abs(math.log(size / best)))
    at = ordered.index(nearest)
    return ordered[max(0, at - 1) : at + 2]
