"""Is the judge right? Simulated sweeps with a known truth, judged by the judge's own numeric parts.

    python scripts/bench/calibration.py OUT.json [simulations] [scenario ...]

Each simulation draws a workload (critical batch size, cost of an update) and its runs: log-normal
about the hyperbola or otherwise distributed, part of the noise shared by runs of one seed, some
ended by a budget, some batch sizes at a learning rate short of their best. Asked of each: does the
bound of the regret hold; how often is there an answer; how often is it wrong (worse than the best
by over 5 %); do the intervals of the typical run hold its true value.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np
from scipy import stats

from tune_jobs import environment
from tune_jobs.judging import regret as regrets
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.posterior import Bools, Floats, Layout
from tune_jobs.judging.regret import Problem
from tune_jobs.judging.settling import BLOCKS

FIRST_SECONDS, LEAST_UPDATES = 0.01, 400.0
KEPT = ("python", "cpus", "commit", "versions")
POLICY = Policy()
KNOWING_DRAWS = 4000
LOOKS = (2, *BLOCKS[:5])  # seeds at which a sweep looks
TOGETHER = 50  # simulations that are judged at once


@dataclass(frozen=True)
class Scenario:
    """What the simulated sweeps have in common.

    Attributes:
        looks: seeds at which the runs are looked at; more are made where the answer is left open.
        deviation: of a run's log seconds; `shared` is the part of its variance that runs of one
            seed have in common, `uneven` how much batch sizes differ in noise (log deviation).
        tails: `normal`, `t3` (Student's t with three degrees of freedom), or `tenth` (one run in
            ten takes three times as long).
        cut: part of all runs that a budget common to all ends before they reach the target.
        slow: half of the batch sizes take four times as long, and no run goes on beyond twice what
            the typical run of the others takes.
        near: a rival this much slower than the best, all others far off; None: the hyperbola.
        shortfall: a batch size's rate is short of its best by up to this part; `told` says whether
            the judge knows the variance of that.
        step: crossings are seen on a grid of this part of themselves.
        falling: with each doubling of the batch size this part fewer examples are needed than the
            hyperbola has it, which the judge takes to be impossible at the best rates.
    """

    looks: tuple[int, ...] = (3,)
    deviation: float = 0.1
    batch_sizes: int = 6
    shared: float = 0.3
    uneven: float = 0.0
    tails: str = "normal"
    cut: float = 0.0
    slow: bool = False
    near: float | None = None
    shortfall: float = 0.0
    told: bool = True
    step: float = 0.0
    falling: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the noise is one that could be known: normal and of one deviation."""
        even = self.tails == "normal" and not self.uneven
        return even and len(self.looks) == 1 and not (self.step or self.shortfall)

    @property
    def name(self) -> str:
        """What differs from the plainest scenario."""
        plain, mine = asdict(Scenario()), asdict(self)
        return ", ".join(f"{k} {v}" for k, v in mine.items() if v != plain[k]) or "plain"


@dataclass(frozen=True)
class Simulated:
    """P sweeps: log seconds of each run (P, K, S), where a run was cut, the truth (P, K), what
    each run would have taken had it not been cut, the log seconds of an example (P, K), and what
    a batch size's rate is short of its best by (P, K)."""

    value: Floats
    censored: Bools
    truth: Floats
    whole: Floats
    per_example: Floats
    short: Floats


def simulate(scenario: Scenario, number: int, chance: np.random.Generator) -> Simulated:
    """Draw so many workloads and their runs, at the last look's seeds."""
    k, seeds = scenario.batch_sizes, scenario.looks[-1]
    truth, per_example = _truth(scenario, number, chance)
    short = chance.uniform(0, math.log1p(scenario.shortfall), (number, k))
    value = (truth + short)[:, :, None] + _noise(scenario, number, seeds, chance)
    if scenario.step:
        grid = math.log1p(scenario.step)
        value = np.ceil(value / grid) * grid
    ends = _ends(scenario, value, truth)
    return Simulated(np.minimum(value, ends), value > ends, truth, value, per_example, short)


def _truth(scenario: Scenario, number: int, chance: np.random.Generator) -> tuple[Floats, Floats]:
    """(P, K) log seconds of the typical run at the best rate, and of an example."""
    k = scenario.batch_sizes
    sizes = 2.0 ** np.arange(4, 4 + k)
    if scenario.near is not None:
        near = [0.0, math.log1p(scenario.near), *([math.log(2)] * (k - 2))]
        return np.repeat(np.array(near)[None], number, axis=0), np.full((number, k), np.nan)
    per_example = FIRST_SECONDS / _log_uniform(chance, 10, 300, number)
    critical = _log_uniform(chance, 20, 3000, number)
    seconds: Floats = np.log(FIRST_SECONDS / sizes + per_example)
    logs: Floats = np.log(LEAST_UPDATES * (sizes + critical)) + seconds
    logs += np.arange(k) * math.log1p(-scenario.falling)
    if scenario.slow:
        logs[:, k // 2 :] = logs[:, : k // 2].min(axis=1, keepdims=True) + math.log(4)
    return logs, seconds


def _log_uniform(chance: np.random.Generator, low: float, high: float, number: int) -> Floats:
    return np.exp(chance.uniform(math.log(low), math.log(high), (number, 1)))


def _noise(scenario: Scenario, number: int, seeds: int, chance: np.random.Generator) -> Floats:
    """(P, K, S) log deviations: one part common to the runs of a seed."""
    k = scenario.batch_sizes
    own = scenario.deviation * np.exp(scenario.uneven * chance.standard_normal((number, k, 1)))
    common = chance.standard_normal((number, 1, seeds))
    alone = chance.standard_normal((number, k, seeds))
    if scenario.tails == "t3":
        alone = chance.standard_t(3, (number, k, seeds)) / math.sqrt(3)
    found = own * (math.sqrt(scenario.shared) * common + math.sqrt(1 - scenario.shared) * alone)
    if scenario.tails == "tenth":
        found = found + math.log(3) * (chance.random(found.shape) < 0.1)
    return np.asarray(found)


def _ends(scenario: Scenario, value: Floats, truth: Floats) -> Floats:
    """(P, 1, 1): the log seconds at which a run is ended."""
    if scenario.slow:
        return np.asarray(truth.min(axis=1)[:, None, None] + math.log(2))
    if not scenario.cut:
        return np.full((len(value), 1, 1), np.inf)
    return np.asarray(np.quantile(value, 1 - scenario.cut, axis=(1, 2), keepdims=True))


def problem(scenario: Scenario, of: Simulated, seeds: int, which: Bools) -> Problem:
    """What the judge is asked after so many seeds, of those sweeps."""
    k, number = scenario.batch_sizes, int(which.sum())
    sizes = tuple(2 ** (4 + i) for i in range(k))
    layout = Layout(sizes, np.repeat(np.arange(k), seeds), np.tile(np.arange(seeds), k))
    censored = of.censored[which][:, :, :seeds]
    reached = (~censored).sum(axis=2)
    over = math.log1p(scenario.shortfall) if scenario.told else 0.0
    return Problem(
        layout=layout,
        value=of.value[which][:, :, :seeds].reshape(number, -1),
        censored=censored.reshape(number, -1),
        present=np.ones((number, k * seeds), dtype=bool),
        candidates=(2 * reached > seeds) & (reached > 1),
        rivals=np.ones((number, k), dtype=bool),
        shared=np.zeros((number, k)),
        short=np.broadcast_to([over / 2, over**2 / 12], (number, k, 2)),
        step=np.full((number, k), math.log1p(scenario.step)),
        per_example=of.per_example[which],
    )


def knowing_the_noise(scenario: Scenario, of: Simulated, chance: np.random.Generator) -> Bools:
    """Which sweeps are answered at the first look, at the same risk, by one who knows each run's
    noise and saw every run to its end (P,): the most that any judge could answer."""
    seeds = scenario.looks[0]
    middle = of.whole[:, :, :seeds].mean(axis=2)
    error = scenario.deviation * math.sqrt((1 - scenario.shared) / seeds)
    answered = []
    for of_one in middle:
        draws = of_one + error * chance.standard_normal((KNOWING_DRAWS, len(of_one)))
        regret = draws[:, np.argmin(draws.mean(axis=0))] - draws.min(axis=1)
        risk = regrets.risk(regret, POLICY.log_tolerance)
        answered.append(float(risk) <= Policy().risk_allowed)
    return np.array(answered)


@dataclass(frozen=True)
class Scores:
    """Of P sweeps: what was said at the last look at each, against what is true; all (P,).

    Attributes:
        judged: most runs of some batch size reached the target.
        loss: of the batch size to use over the best, as a log, each at its best rate; `bound` what
            was said of it at the first look, and of the rate that it ran at, where `first_loss` was
            that of the one to use then, and `told_loss` that with what its rate was short of its
            best by, if the judge knew of any.
        covered: part of the intervals of typical runs that hold the truth at the first look.
        knowing: answered by one who knows the noise; of a noise that is even and normal.
    """

    judged: Bools
    answered: Bools
    loss: Floats
    first_loss: Floats
    told_loss: Floats
    bound: Floats
    covered: Floats
    knowing: Bools


def scored(scenario: Scenario, of: Simulated, chance: np.random.Generator) -> Scores:
    """The sweeps looked at, one look after the other, as long as the answer is left open."""
    number = len(of.truth)
    left = np.ones(number, dtype=bool)
    judged, answered = np.zeros(number, dtype=bool), np.zeros(number, dtype=bool)
    loss, first_loss, told_loss, bound, covered = (np.zeros(number) for _ in range(5))
    for look, seeds in enumerate(scenario.looks):
        asked = problem(scenario, of, seeds, left)
        found = regrets.judged(asked)
        regret = found.of(found.chosen)
        truth = of.truth[left]
        lost = np.take_along_axis(truth, found.chosen[:, None], axis=1)[:, 0] - truth.min(axis=1)
        fit = asked.candidates.any(axis=1)
        allowed = Policy(looks=look).risk_allowed
        sure = fit & (regrets.risk(regret, POLICY.log_tolerance) <= allowed)
        loss[left], answered[left], judged[left] = lost, sure, fit
        if look == 0:
            own = np.take_along_axis(of.short, found.chosen[:, None], axis=1)[:, 0]
            first_loss, told_loss = lost, lost + scenario.told * own
            said = found.as_told(found.chosen)
            bound = regrets.bound(said, POLICY.confidence, found.seen)
            low, high = np.quantile(found.first, [0.025, 0.975], axis=1)
            covered = ((low <= truth) & (truth <= high)).mean(axis=1)
        left = left & ~answered
        if not left.any():
            break
    knowing = knowing_the_noise(scenario, of, chance)
    return Scores(judged, answered, loss, first_loss, told_loss, np.log1p(bound), covered, knowing)


def run(scenario: Scenario, simulations: int, seed: int) -> Scores:
    """So many simulations, always the same ones for a seed."""
    chance, other = np.random.default_rng(seed), np.random.default_rng(seed)
    parts = [
        scored(scenario, simulate(scenario, min(TOGETHER, simulations - begun), chance), other)
        for begun in range(0, simulations, TOGETHER)
    ]
    return Scores(
        *(np.concatenate(c) for c in zip(*(vars(p).values() for p in parts), strict=True))
    )


def binomial(successes: int, n: int) -> list[float | None]:
    """The part with its 95 % interval (Clopper and Pearson 1934)."""
    if n == 0:
        return [None, None, None]
    low = float(stats.beta.ppf(0.025, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(0.975, successes + 1, n - successes)) if successes < n else 1.0
    return [round(part, 4) for part in (successes / n, low, high)]


def scenarios() -> list[Scenario]:
    """What the record is made of."""
    looks = LOOKS
    return [
        *(Scenario((s,), d) for s in (2, 3, 5, 8) for d in (0.03, 0.1, 0.2)),
        *(Scenario((3,), batch_sizes=k) for k in (2, 3, 4, 8, 10)),
        *(Scenario((5,), shared=s) for s in (0.0, 0.8)),
        *(Scenario((s,), uneven=0.5) for s in (2, 3, 5, 8)),
        *(Scenario((s,), tails=t) for t in ("t3", "tenth") for s in (3, 5)),
        *(Scenario((3,), cut=c) for c in (0.3, 0.6, 0.9)),
        *(Scenario((s,), slow=True) for s in (2, 3, 5)),
        *(Scenario((s,), shortfall=0.3) for s in (3, 5, 8)),
        *(Scenario((s,), shortfall=0.3, told=False) for s in (3, 8)),
        *(Scenario((3,), d, step=0.1) for d in (0.02, 0.05, 0.1)),
        *(Scenario((s,), near=0.06, batch_sizes=3) for s in (2, 3, 8)),
        Scenario(looks),
        Scenario(looks, near=0.06, batch_sizes=3),
        Scenario(looks, near=0.06, batch_sizes=6),
        Scenario(looks, near=0.1, batch_sizes=3, uneven=0.5),
        *(Scenario((3,), shortfall=f) for f in (1.0, 3.0)),
        *(Scenario((3,), shortfall=f, falling=0.05) for f in (0.3, 1.0)),
        Scenario((8,), shortfall=0.3, falling=0.05),
    ]


def summary(scenario: Scenario, of: Scores) -> dict[str, object]:
    """What the record keeps of a scenario; each part as [part, low, high] at 95 %."""
    judged, wrong = of.judged, of.answered & (of.loss > POLICY.log_tolerance + 1e-9)
    n, answers = len(judged), int(of.answered.sum())
    held = (of.told_loss <= of.bound + 1e-9) & judged
    return {
        "scenario": scenario.name,
        "sweeps": n,
        "judged": int(judged.sum()),
        "bound_holds": binomial(int(held.sum()), int(judged.sum())),
        "median_bound": round(float(np.expm1(np.median(of.bound[judged]))), 4),
        "mean_loss": round(float(np.expm1(of.first_loss[judged].mean())), 4),
        "answered": binomial(answers, n),
        "answered_knowing_the_noise": round(float(of.knowing.mean()), 4)
        if scenario.known
        else None,
        "wrong_of_sweeps": binomial(int(wrong.sum()), n),
        "wrong_of_answers": binomial(int(wrong.sum()), answers),
        "intervals_hold": round(float(of.covered[judged].mean()), 4),
        "told": scenario.told or not scenario.shortfall,
    }


def entirely(rows: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Over all scenarios in which the judge is told what it cannot see."""
    of = [row for row in rows if row["told"]]
    answers = sum(round(row["answered"][0] * row["sweeps"]) for row in of)
    wrong = sum(round(row["wrong_of_sweeps"][0] * row["sweeps"]) for row in of)
    return {
        "bound_holds_least": min(row["bound_holds"][0] for row in of),
        "wrong_of_sweeps_most": max(row["wrong_of_sweeps"][0] for row in of),
        "answers": answers,
        "wrong_of_all_answers": binomial(wrong, answers),
    }


def measured(job: tuple[int, Scenario, int]) -> dict[str, object]:
    """One scenario's summary."""
    seed, scenario, simulations = job
    began = time.monotonic()
    found = summary(scenario, run(scenario, simulations, seed))
    return found | {"seconds_a_sweep": round((time.monotonic() - began) / simulations, 3)}


def main() -> int:
    out, simulations = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    began = time.monotonic()
    wanted = [s for s in scenarios() if len(sys.argv) < 4 or s.name in sys.argv[3:]]
    jobs = [(seed, scenario, simulations) for seed, scenario in enumerate(wanted)]
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
