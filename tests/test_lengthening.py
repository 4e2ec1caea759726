"""A budget too short for the target: it is doubled while the best trial is on its way there."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tests.test_sweep import command, surroundings
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.planning.known import Known, by_what_was_reached
from tune_jobs.planning.learning_rates import bases_to_confirm, propose
from tune_jobs.planning.lengthening import longer_budget, needs
from tune_jobs.planning.timing import worth_timing
from tune_jobs.records import Measurement, TrialResult
from tune_jobs.store import SweepStore

BUDGET = 8_000
SIZES = (16, 64, 256)
CONFIG = replace(SweepConfig(), batch_sizes=SIZES, budget_examples=BUDGET, target=0.97)


def tried(name: str, error_at_the_end: float, rate: float = 1e-3, **changes: Any) -> TrialResult:
    fields: dict[str, Any] = {
        "trial_id": name, "stage": "search", "batch_size": 64, "base_learning_rate": rate,
        "outcome": "finished", "examples_seen": BUDGET, "budget_examples": BUDGET, "target": 0.97,
        "examples_to_target": None, "time_to_target_seconds": None,
        "val_accuracy": 1 - error_at_the_end,
    }  # fmt: skip
    return rows.result(**fields | changes)


def curve_of(trial: TrialResult, power: float = 0.6) -> list[Measurement]:
    """Errors that fall by a power of the examples, to the trial's own end."""
    ends = trial.examples_seen
    return [
        rows.measurement(
            trial_id=trial.trial_id, examples_seen=seen,
            val_accuracy=1 - (1 - (trial.val_accuracy or 0.0)) * (ends / seen) ** power,
        )
        for seen in (ends // 8, ends // 4, ends // 2, ends)
    ]  # fmt: skip


def known_of(*trials: TrialResult, power: float = 0.6) -> Known:
    curves = {t.trial_id: curve_of(t, power) for t in trials}
    return Known(trials, curves, (), dict.fromkeys(SIZES, 0.001))


IN_VAIN = [tried(str(n), error) for n, error in enumerate((0.05, 0.04, 0.06))]


def test_the_budget_is_doubled_once_three_whole_trials_were_in_vain() -> None:
    assert longer_budget(CONFIG, known_of(*IN_VAIN[:2])) is None
    assert longer_budget(replace(CONFIG, trials=6), known_of(*IN_VAIN[:2])) == 2 * BUDGET
    assert longer_budget(CONFIG, known_of(*IN_VAIN)) == 2 * BUDGET
    stopped = replace(IN_VAIN[2], outcome="stopped", examples_seen=3_000)
    assert longer_budget(CONFIG, known_of(*IN_VAIN[:2], stopped)) is None
    reached = replace(IN_VAIN[2], examples_to_target=7_000)
    assert longer_budget(CONFIG, known_of(*IN_VAIN[:2], reached)) is None


def test_trials_of_a_shorter_budget_are_no_evidence_against_a_longer_one() -> None:
    longer = replace(CONFIG, budget_examples=2 * BUDGET)
    assert longer_budget(longer, known_of(*IN_VAIN)) is None
    again = [
        tried(f"again {n}", 0.035, examples_seen=2 * BUDGET, budget_examples=2 * BUDGET)
        for n in range(3)
    ]
    assert longer_budget(longer, known_of(*IN_VAIN, *again)) == 4 * BUDGET


def test_a_target_out_of_sight_leaves_the_budget_as_it_is() -> None:
    assert longer_budget(replace(CONFIG, target=0.9999), known_of(*IN_VAIN)) is None
    flat = known_of(*IN_VAIN, power=0.0)
    assert longer_budget(CONFIG, flat) is None
    last = replace(CONFIG, budget_examples=8 * BUDGET)
    whole = [tried(str(n), 0.04, examples_seen=8 * BUDGET) for n in range(3)]
    assert longer_budget(last, known_of(*whole)) is None, "eight times the first one"


@pytest.mark.parametrize(
    "changes", [{"lengthens": False}, {"recipe": {"schedule": "cosine"}, "search": "tpe"}]
)
def test_a_budget_that_was_given_or_that_ends_the_run_stays(changes: dict[str, Any]) -> None:
    assert longer_budget(replace(CONFIG, **changes), known_of(*IN_VAIN)) is None


def test_a_budget_that_was_given_is_known_to_be() -> None:
    assert resolve(None, {}).lengthens
    assert not resolve(None, {"budget_examples": 5_000}).lengthens
    assert not resolve(None, {"train": "models/examples/own_loop.py:train"}).lengthens


def test_what_is_needed_goes_on_from_the_last_octave_in_either_direction() -> None:
    assert needs(((1_000, 0.2), (2_000, 0.4), (4_000, 0.7)), 0.85) == pytest.approx(8_000)
    assert needs(((1_000, 20), (2_000, 40), (4_000, 70)), 85) == pytest.approx(4_000 * 2**0.5)
    assert needs(((1_000, 3.0), (2_000, 2.0), (4_000, 1.5)), 1.0) == pytest.approx(8_000)
    assert needs(((2_000, 0.6), (4_000, 0.6)), 0.8) == math.inf
    assert needs(((4_000, 0.6),), 0.8) == math.inf and needs((), 0.8) == math.inf


def test_where_none_reached_trials_are_read_at_what_the_best_had_half_way() -> None:
    known = known_of(tried("best", 0.04, 1e-3), tried("worse", 0.09, 4e-3))
    read = by_what_was_reached(known)
    assert [t.examples_to_target for t in read.trials] == [BUDGET // 2, None]
    near = by_what_was_reached(known_of(tried("best", 0.04), tried("near", 0.05)))
    best, other = (t.examples_to_target or 0 for t in near.trials)
    assert best == BUDGET // 2 < other < BUDGET
    some = known_of(tried("reached", 0.02, examples_to_target=6_000), IN_VAIN[0])
    assert by_what_was_reached(some) is some


def test_rates_are_searched_and_confirmed_about_the_best_though_none_reached() -> None:
    errors = {1e-4: 0.2, 3e-4: 0.07, 1e-3: 0.04, 3e-3: 0.08, 3e-2: 0.89}
    trials = [tried(str(rate), error, rate) for rate, error in errors.items()]
    known = known_of(*trials)
    base = bases_to_confirm(CONFIG, SIZES, known)[64]
    assert 5e-4 < base < 2e-3
    at_64 = [
        found.base_learning_rate
        for seed in range(12)
        if (found := propose(replace(CONFIG, seed=seed), (64,), known)) and found.why == "may win"
    ]
    assert at_64 and sum(2e-4 < base < 5e-3 for base in at_64) >= 0.8 * len(at_64)
    assert not worth_timing(CONFIG, trials)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_goes_on_with_a_longer_budget_and_is_resumed_with_it(
    tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "it.toml").write_text(
        'model = "mlp"\ndata = "digits"\nbatch_sizes = [16, 64]\ntrials = 12\nseeds = 2\n'
        'target = 0.93\nprofile_seconds = 2\nnoise_scale = false\ncpus_per_trial = "1"\n'
        "budget_examples = 1024\nlengthens = true\n"
    )
    line, around = command(tmp_path, data_dir, "--config", "it.toml"), surroundings(tmp_path)
    done = subprocess.run(line, cwd=tmp_path, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no trial reached 0.93 within 1,024 examples: the budget is 2,048" in done.stdout
    store = SweepStore(tmp_path / "runs" / "it")
    searched = [t for t in store.read_trials() if t.stage == "search"]
    assert len(searched) >= 12
    assert {t.budget_examples for t in searched} >= {1_024, 2_048}
    assert any(t.examples_to_target is not None for t in searched)
    longest = store.read_config().budget_examples
    assert longest in (2_048, 4_096, 8_192)
    again = subprocess.run(
        [*line, "--resume", "--seeds", "3"], cwd=tmp_path, env=around, capture_output=True,
        text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert store.read_config().budget_examples == longest
