"""`--search rules`: no search. One reference rate, carried to every batch size by scaling rules.

The reference is the user's own base learning rate, at batch 256, or the one that a range test found
at one batch size (measure/range_test.py). Each rule's rate is tried once at each batch size; runs
with seeds of their own then validate the best of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_jobs.config import SCALING_RULES, SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.judging.search_cost import best_for
from tune_jobs.judging.sentences import per_cent
from tune_jobs.planning.known import Known, Proposal, rates_of
from tune_jobs.recipe import REFERENCE_BATCH_SIZE
from tune_jobs.records import RangePoint, TrialResult
from tune_jobs.training.scaling import scaling_of

SAME = math.log(1.02)  # rates so near are one
BELOW_THE_EDGE = 4.0  # the reference is so far below the rate of the least loss
SMOOTH = 0.9  # of each loss, what the ones before it weigh
Reference = tuple[int, float]  # batch size and learning rate


def propose(config: SweepConfig, sizes: Sequence[int], known: Known) -> Proposal | None:
    """The next rule's rate at the next batch size; the optimizer's own rule goes first."""
    reference = reference_of(config, known)
    if reference is None or len(known.trials) + len(known.pending) >= config.trials:
        return None
    for rule in in_order(config):
        for size in sorted(sizes):
            base = base_by(rule, reference, size, config.optimizer)
            if all(abs(math.log(base) - other) > SAME for other in rates_of(size, known)):
                return Proposal(size, base, config.budget_examples, f"the {rule} rule", races=False)
    return None


def told(config: SweepConfig, sizes: Sequence[int], known: Known) -> list[str]:
    """Where the rules begin.

    Errors:
        UserError: nowhere: there is no reference.
    """
    reference = reference_of(config, known)
    if reference is None:
        raise UserError(
            "--search rules: the range test found no rate below divergence with less loss than at "
            "its beginning; give base_learning_rate, a rate at batch 256, or --search structured"
        )
    size, rate = reference
    found = "given" if config.base_learning_rate is not None else "by a range test"
    return [f"rules: learning rate {rate:.2g} at batch size {size}, {found}, is carried to others"]


def in_order(config: SweepConfig) -> list[str]:
    """The rules that were asked for, the optimizer's own first."""
    own = scaling_of(config.optimizer).power
    return sorted(config.scaling_rules, key=lambda rule: abs(SCALING_RULES[rule] - own))


def base_by(rule: str, reference: Reference, size: int, optimizer: str) -> float:
    """The base learning rate whose rate at `size` is the reference's, carried by a rule."""
    of, rate = reference
    carried = rate * (size / of) ** SCALING_RULES[rule]
    power = scaling_of(optimizer).power
    return float(f"{carried / (size / REFERENCE_BATCH_SIZE) ** power:.4g}")


def reference_of(config: SweepConfig, known: Known) -> Reference | None:
    """Where the rules begin; None where there is neither a rate nor a range test that tells."""
    if config.base_learning_rate is not None:
        return REFERENCE_BATCH_SIZE, config.base_learning_rate
    return read_off(known.range_test)


def after(config: SweepConfig, known: Known, used: int | None) -> list[str]:
    """What trusting each rule costs: the best batch size by its rates alone, over the best of all
    trials, as each trial's one seed has it."""
    reference = reference_of(config, known)
    best = best_for(config.compared_by, known.trials)
    if reference is None or best is None or best.time_to_target_seconds is None:
        return []
    told = []
    for rule in in_order(config):
        own = [
            t
            for t in known.trials
            if _same(base_by(rule, reference, t.batch_size, config.optimizer), t)
        ]
        chosen = best_for("time", own)
        if chosen is None or chosen.time_to_target_seconds is None:
            told.append(f"{rule}: none of its trials reached the target")
            continue
        over = chosen.time_to_target_seconds / best.time_to_target_seconds - 1
        told.append(f"{rule}: {chosen.batch_size}, {per_cent(over)} over the best trial")
    return [f"Trusting one rule: {'; '.join(told)}."]


def _same(base: float, trial: TrialResult) -> bool:
    return abs(math.log(base / trial.base_learning_rate)) <= SAME


def needs_range_test(config: SweepConfig) -> bool:
    """Whether the reference has to be found first."""
    return config.search == "rules" and config.base_learning_rate is None


def read_off(points: Sequence[RangePoint]) -> Reference | None:
    """What a range test says: the rate of the least smoothed loss, BELOW_THE_EDGE times less.

    Beyond the least the rate is at the edge of divergence (Smith 2017). None where the loss never
    fell, or was still falling at the end of the range.
    """
    smoothed, rates = 0.0, []
    for k, point in enumerate(points, 1):
        smoothed = SMOOTH * smoothed + (1 - SMOOTH) * point.train_loss
        rates.append((smoothed / (1 - SMOOTH**k), point.learning_rate))
    if not rates:
        return None
    least = min(rates)
    if least[1] in (rates[0][1], rates[-1][1]):
        return None
    return points[0].batch_size, least[1] / BELOW_THE_EDGE
