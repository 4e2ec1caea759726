"""Is the judge right? Simulated sweeps with a known truth, judged by the numeric parts.

    python scripts/bench/calibration.py OUT.json [simulations]

Each simulation draws a workload (critical batch size, cost of an update), its runs (log-normal
about the hyperbola, part of the noise shared by runs of one seed), and ends runs at a budget, so
that some never reach the target. Asked of each: do the intervals of the typical run hold its true
value; is the recommended batch size within 5 % of the true best; how often is there an answer.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np
from scipy import stats

from tune_jobs import environment
from tune_jobs.judging.contest import Contest, hold
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import TIME
from tune_jobs.judging.spread import Bools, Floats
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import STATUSES

FIRST_SECONDS, LEAST_UPDATES = 0.01, 400.0
KEPT = ("python", "cpus", "commit", "versions")
POLICY = Policy()


@dataclass(frozen=True)
class Scenario:
    """What the simulated sweeps have in common.

    Attributes:
        deviation: of a run's log seconds; `shared` is the part of its variance that runs of one
            seed have in common, `uneven` how much batch sizes differ in noise (log deviation).
        censored: part of all runs that the budget ends before they reach the target.
        budget: common to all runs in `seconds`, or in `examples`, which ends large batches first.
        fewer: each batch size lacks up to so many of the seeds.
    """

    seeds: int
    deviation: float
    censored: float = 0.0
    batch_sizes: int = 6
    budget: str = "seconds"
    shared: float = 0.3
    uneven: float = 0.0
    fewer: int = 0


@dataclass(frozen=True)
class Simulated:
    """One sweep's runs and the truth behind them; `seconds` (K,) of the typical run."""

    runs: tuple[TargetRun, ...]
    batch_sizes: tuple[int, ...]
    seconds: Floats


@dataclass(frozen=True)
class Scores:
    """Of one simulation: what was said against what is true.

    Attributes:
        covered: of each interval with two ends, whether it holds the truth.
        bounded: of each without an upper end (the middle run never reached the target), whether the
            truth is over its lower one.
        loss: of the recommended batch size over the best, as a part; None without one.
    """

    covered: Bools
    bounded: Bools
    status: str
    loss: float | None


def simulate(scenario: Scenario, chance: np.random.Generator) -> Simulated:
    """Draw a workload and its runs."""
    sizes = 2.0 ** np.arange(4, 4 + scenario.batch_sizes)
    per_example = FIRST_SECONDS / _log_uniform(chance, 10, 300)
    critical = _log_uniform(chance, 20, 3000)
    rate = sizes / (FIRST_SECONDS + per_example * sizes)
    examples = LEAST_UPDATES * (sizes + critical)
    drawn = examples[:, None] * np.exp(_noise(scenario, len(sizes), chance))
    took = drawn / rate[:, None]
    kept = _kept(scenario, len(sizes), chance)
    ends = _ends(scenario, took if scenario.budget == "seconds" else drawn, kept, rate)
    runs = tuple(_run(int(sizes[i]), int(j), took[i, j], ends[i]) for i, j in np.argwhere(kept))
    return Simulated(runs, tuple(int(size) for size in sizes), examples / rate)


def _log_uniform(chance: np.random.Generator, low: float, high: float) -> float:
    return math.exp(chance.uniform(math.log(low), math.log(high)))


def _noise(scenario: Scenario, sizes: int, chance: np.random.Generator) -> Floats:
    """(K, seeds) log deviations: one part common to the runs of a seed."""
    own = scenario.deviation * np.exp(scenario.uneven * chance.standard_normal((sizes, 1)))
    common = chance.standard_normal((1, scenario.seeds))
    alone = chance.standard_normal((sizes, scenario.seeds))
    return own * (math.sqrt(scenario.shared) * common + math.sqrt(1 - scenario.shared) * alone)


def _kept(scenario: Scenario, sizes: int, chance: np.random.Generator) -> Bools:
    """(K, seeds): which runs there are."""
    least = scenario.seeds - chance.integers(0, scenario.fewer + 1, (sizes, 1))
    return np.asarray(np.arange(scenario.seeds) < least)


def _ends(scenario: Scenario, spent: Floats, kept: Bools, rate: Floats) -> Floats:
    """(K,) seconds at which the budget ends a run of each batch size."""
    if not scenario.censored:
        return np.full(len(rate), np.inf)
    budget = float(np.quantile(spent[kept], 1 - scenario.censored))
    return np.full(len(rate), budget) if scenario.budget == "seconds" else budget / rate


def _run(size: int, seed: int, took: float, ends: float) -> TargetRun:
    reached = took <= ends
    return replace(
        _BLANK,
        batch_size=size,
        seed=seed,
        time_to_target_seconds=float(took) if reached else None,
        train_seconds=float(ends) if math.isfinite(ends) else float(took),
    )


_BLANK = TargetRun(
    workload="simulated", batch_size=1, seed=0, target=None, time_to_target_seconds=None,
    examples_to_target=None, updates_to_target=None, interpolated=False, examples_seen=None,
    updates=None, train_seconds=None, measured_time_to_target_seconds=None, learning_rate=None,
    examples_per_second=None, peak_memory_mib=None, energy_joules=None, val_accuracy=None,
    train_accuracy=None, test_accuracy=None, test_accuracy_at_equal_updates=None, device=None,
)  # fmt: skip


def judged(simulated: Simulated) -> Contest:
    """The numeric parts of the judge alone."""
    return hold(simulated.runs, TIME, {}, POLICY, {})


def scored(simulated: Simulated, contest: Contest) -> Scores:
    """What the judge said against the truth."""
    truth, of = np.log(simulated.seconds), contest.typical
    told, two_ends = np.isfinite(of.low), np.isfinite(of.high)
    above, below = of.low <= truth, truth <= of.high
    chosen = contest.decision.recommended
    loss = None if chosen is None else float(np.exp(truth[chosen] - truth.min()) - 1)
    return Scores(
        (above & below)[told & two_ends], above[told & ~two_ends], contest.decision.status, loss
    )


def run(scenario: Scenario, simulations: int, seed: int) -> list[Scores]:
    """So many simulations, always the same ones for a seed."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(simulations):
        simulated = simulate(scenario, chance)
        found.append(scored(simulated, judged(simulated)))
    return found


def binomial(successes: int, n: int) -> tuple[float | None, float | None, float | None]:
    """The part with its 95 % interval (Clopper and Pearson 1934)."""
    if n == 0:
        return None, None, None
    low = float(stats.beta.ppf(0.025, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(0.975, successes + 1, n - successes)) if successes < n else 1.0
    return successes / n, low, high


def clustered(parts: Sequence[float]) -> tuple[float, float, float]:
    """The mean part over simulations with its 95 % interval, the simulation being the unit."""
    values = np.array(parts)
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def scenarios() -> list[Scenario]:
    """What the record is made of: seeds x noise x censoring, then what a sweep may be besides."""
    grid = [
        Scenario(seeds, deviation, censored, budget="examples" if censored == 0.4 else "seconds")
        for censored in (0.0, 0.2, 0.4)
        for seeds in (3, 5, 10)
        for deviation in (0.05, 0.15, 0.3)
    ]
    return [
        *grid,
        *(Scenario(5, 0.1, batch_sizes=sizes) for sizes in (4, 5, 7, 8)),
        *(Scenario(5, 0.1, shared=shared) for shared in (0.0, 0.8)),
        *(Scenario(seeds, 0.1, uneven=0.5) for seeds in (3, 5)),
        Scenario(5, 0.1, 0.2, fewer=2),
        Scenario(10, 0.1, 0.2, uneven=0.5, fewer=5),
    ]


def summary(scenario: Scenario, found: Sequence[Scores]) -> dict[str, object]:
    """What the record keeps of a scenario; each part as [part, low, high] at 95 %."""
    held = [float(s.covered.mean()) for s in found if len(s.covered)]
    bounds = [float(s.bounded.mean()) for s in found if len(s.bounded)]
    losses = [s.loss for s in found if s.loss is not None]
    within = sum(loss <= POLICY.tolerance + 1e-9 for loss in losses)
    return {
        **asdict(scenario),
        "simulations": len(found),
        "intervals": sum(len(s.covered) for s in found),
        "coverage": rounded(clustered(held)),
        "lower_bounds": sum(len(s.bounded) for s in found),
        "lower_bounds_hold": rounded(clustered(bounds)) if bounds else None,
        "status": {name: sum(s.status == name for s in found) for name in STATUSES},
        "recommended": len(losses),
        "recommended_within_tolerance": rounded(binomial(within, len(losses))),
        "largest_loss": round(max(losses), 4) if losses else None,
    }


def rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def entirely(rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Over all scenarios: the extremes of coverage, and every recommendation together."""
    coverages = [row["coverage"][0] for row in rows]
    told = sum(row["recommended"] for row in rows)
    right = sum(
        round(row["recommended_within_tolerance"][0] * row["recommended"])
        for row in rows
        if row["recommended"]
    )
    return {
        "coverage_least": min(coverages),
        "coverage_most": max(coverages),
        "recommended": told,
        "recommended_within_tolerance": rounded(binomial(right, told)),
    }


def measured(job: tuple[int, Scenario, int]) -> dict[str, object]:
    """One scenario's summary."""
    seed, scenario, simulations = job
    return summary(scenario, run(scenario, simulations, seed))


def main() -> int:
    out, simulations = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    began = time.monotonic()
    jobs = [(seed, scenario, simulations) for seed, scenario in enumerate(scenarios())]
    with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        rows = []
        for row in pool.imap(measured, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
    facts = {k: v for k, v in environment.describe(ROOT).items() if k in KEPT}
    result = {
        "confidence": POLICY.confidence,
        "tolerance": POLICY.tolerance,
        "seconds": round(time.monotonic() - began),
        "environment": facts,
        "all": entirely(rows),
        "scenarios": rows,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
