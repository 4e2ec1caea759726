"""A sweep that was killed plans on from its rows: the runs are those of one that never was.

Where results arrive in the same order: one run at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.judging.judging import judge_runs
from tune_jobs.planning.confirm_plan import seeds_looked_at
from tune_jobs.planning.known import Known, Proposal, known_now
from tune_jobs.planning.learning_rates import bases_to_confirm, propose
from tune_jobs.planning.looks import look_of, open_looks, with_look
from tune_jobs.planning.next_step import next_step
from tune_jobs.planning.ways import way_of
from tune_jobs.reading.sweep_runs import runs_of_sweep, tried_runs
from tune_jobs.records import ConfirmRun, Look, Measurement, TrialResult
from tune_jobs.reporting.answer import policy_of
from tune_jobs.training.scaling import scaled_learning_rate

SIZES = (16, 64, 256)
CONFIG = replace(
    SweepConfig(), batch_sizes=SIZES, trials=8, seeds=5, budget_examples=20_000, target=0.9,
    base_learning_rate=1e-3, tolerance=0.01, trainings_to_come=1_000_000,
)  # fmt: skip
STEP = {size: 0.03 + 0.0001 * size for size in SIZES}
PROFILES = [rows.profile(batch_size=size, step_seconds=STEP[size]) for size in SIZES]
PARTS = (0.25, 0.5, 0.75, 1.0)  # of a run, where it is evaluated
Asked = Proposal | ConfirmRun
JUDGED: dict[tuple[object, ...], Look] = {}


@dataclass
class Rows:
    """What the store holds of a sweep."""

    trials: list[TrialResult] = field(default_factory=list)
    points: list[Measurement] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    history: list[tuple[int, list[Look]]] = field(default_factory=list)  # by trials ended

    def known(self) -> Known:
        return known_now(CONFIG, self.trials, self.points, PROFILES)

    def until(self, ended: int) -> Rows:
        """Those of a driver that was killed when so many trials had ended, before it looked."""
        kept = self.trials[:ended]
        names = {t.trial_id for t in kept}
        looks = next((looks for at, looks in reversed(self.history) if at < ended), [])
        history = [one for one in self.history if one[0] < ended]
        return Rows(list(kept), [p for p in self.points if p.trial_id in names], looks, history)


def needed(size: int, base: float, seed: int) -> float:
    """Examples to the target: 64 and 256 are near equals by time."""
    off, luck = math.log(base / 2e-3), np.random.default_rng([size, seed]).normal(0.0, 0.25)
    return 3000 * (1 + size / 80) * math.exp(1.5 * (math.hypot(0.5, off) - 0.5) + luck)


def make(asked: Asked, config: SweepConfig, now: Rows) -> None:
    """Make a run: its rows join the others."""
    searches = isinstance(asked, Proposal)
    size, base, seed = asked.batch_size, asked.base_learning_rate, 0 if searches else asked.seed
    needs = needed(size, base, seed)
    whole = not searches and asked.whole
    seen = asked.most_examples if whole else min(asked.most_examples, math.ceil(needs))
    reached = math.ceil(needs) if needs <= seen else None
    name, stage = str(len(now.trials)), "search" if searches else "confirm"
    each = STEP[size] / size
    now.trials.append(
        rows.result(
            trial_id=name, stage=stage, batch_size=size, base_learning_rate=base, seed=seed,
            learning_rate=scaled_learning_rate(config.optimizer, base, size),
            budget_examples=config.budget_examples, examples_seen=seen, updates=seen // size,
            examples_to_target=reached, updates_to_target=reached and reached // size,
            time_to_target_seconds=reached and reached * each, train_seconds=seen * each,
            measured_train_seconds=seen * each, val_accuracy=0.95 if reached else 0.8,
            measured_time_to_target_seconds=None, alone=not searches and asked.alone,
        )
    )  # fmt: skip
    now.points += [
        rows.measurement(
            trial_id=name, stage=stage, batch_size=size, examples_seen=int(part * seen),
            val_accuracy=min(0.97, 0.9 * (part * seen / needs) ** 0.3), examples_to_target=reached,
        )
        for part in PARTS
    ]  # fmt: skip


def planned(config: SweepConfig, now: Rows) -> Asked | None:
    """The next run, as the driver asks for it; looks that are due are made."""
    way = way_of(config)
    if not any(t.stage == "confirm" for t in now.trials):
        asked = way.propose(config, SIZES, now.known())
        if asked is not None:
            return asked
    while True:
        confirmed = [t for t in now.trials if t.stage == "confirm"]
        found = partial(bases_to_confirm, config, SIZES, now.known(), confirmed)
        step = next_step(config, now.trials, now.looks, found() if config.structured else {})
        if step.trials:
            further = replace(config, trials=step.trials)
            return propose(further, SIZES, now.known(), now.looks[-1].rates)
        if not step.look:
            return step.runs[0] if step.runs else None
        now.looks = with_look(now.looks, looked(config, now))
        now.history.append((len(now.trials), now.looks))


def looked(config: SweepConfig, now: Rows) -> Look:
    """Rows that were judged before are not judged again: that takes seconds."""
    key = (config.search, *now.trials, *now.points, *now.looks)
    if key not in JUDGED:
        JUDGED[key] = _looked(config, now)
    return JUDGED[key]


def _looked(config: SweepConfig, now: Rows) -> Look:
    policy = policy_of(config, config.goal, now.trials)
    (verdict,) = judge_runs(
        runs_of_sweep(config, now.trials, now.points),
        replace(policy, looks=open_looks(now.looks, now.trials)), PROFILES,
        searched=tried_runs(config, now.trials), target=config.target,
    )  # fmt: skip
    return look_of(verdict, config, now.trials, seeds_looked_at(config, now.looks, now.trials))


def swept(config: SweepConfig, now: Rows) -> Rows:
    """The whole sweep, from what the rows hold."""
    while (asked := planned(config, now)) is not None:
        make(asked, config, now)
    return now


@pytest.mark.parametrize("search", ["structured", "tpe"])
def test_a_sweep_cut_at_ten_points_plans_on_as_the_uninterrupted_one(search: str) -> None:
    config = replace(CONFIG, search=search)
    whole = swept(config, Rows())
    ended = len(whole.trials)
    assert {t.stage for t in whole.trials} == {"search", "confirm"} and len(whole.history) > 2
    cuts = sorted({round(float(at)) for at in np.linspace(1, ended - 1, 10)})
    assert len(cuts) == 10
    for cut in cuts:
        again = swept(config, whole.until(cut))
        assert again.trials == whole.trials, f"killed when {cut} of {ended} trials had ended"
        assert again.history == whole.history
