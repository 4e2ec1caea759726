"""How soon does a strategy find the batch size to use? Replayed on a table of recorded runs.

    python scripts/bench/replay.py --table FILE.parquet [--target X] [--a A --b B] [--repeats N]
        [--strategies ours,stock,random,grid,one-epoch] [--json]

The table has a row for each evaluation: workload, batch_size, learning_rate, seed, examples_seen,
val_accuracy; optional diverged. An update of B examples takes a + b B. `ours` asks the project's
own planner and judge, and `by-tpe` and the like those of another `--search`; `stock` is ASHA and
TPE over one common race, then three seeds of its best three; `random` draws cells; `grid` runs
every cell once; `one-epoch` runs every cell to a tenth and the best few to their end. The middle of
the range of learning rates that a strategy begins with is drawn anew for each repeat. Runs past the
target, for accuracy and curves, come after the answer and are not made. A choice succeeds
that is, in truth (the geometric mean over all seeds of the table), within 5 % of the best cell, or
within two standard errors where these are more.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np
import pyarrow.parquet as pq

from tune_jobs.config import SweepConfig
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.planning.confirm_plan import seeds_looked_at
from tune_jobs.planning.known import Known, Proposal, repeated_before
from tune_jobs.planning.learning_rates import bases_to_confirm, propose
from tune_jobs.planning.looks import look_of, open_looks, with_look
from tune_jobs.planning.next_step import Step, next_step
from tune_jobs.planning.search_plan import learning_rate_range, rungs_of
from tune_jobs.planning.ways import way_of
from tune_jobs.reading.choosing import score
from tune_jobs.reading.sweep_runs import runs_of_sweep, tried_runs
from tune_jobs.records import BatchSizeProfile, Look, Measurement, NoiseScale, TrialResult
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.training.schedule import crossing

NEAR = 0.05
CENTRE_OFF = math.log(3)  # the range's middle is off by up to so much, either way
TRIALS, SEEDS = 18, 3
Cell = tuple[int, int]  # batch size, index of the learning rate
Run = tuple[int, int, int]  # and the seed


@dataclass(frozen=True)
class Table:
    """Recorded runs: `curves` by (batch size, rate's index, seed), as (examples, accuracy), of
    which some `diverged` after their last."""

    workload: str
    sizes: tuple[int, ...]
    rates: dict[int, tuple[float, ...]]
    seeds: tuple[int, ...]
    curves: dict[Run, tuple[tuple[float, float], ...]]
    budget: int
    diverged: frozenset[Run] = frozenset()

    @classmethod
    def read(cls, path: Path) -> Table:
        """Raises ValueError where a column is missing."""
        rows = pq.read_table(path).to_pylist()
        sizes = tuple(sorted({int(r["batch_size"]) for r in rows}))
        rates = {
            s: tuple(sorted({float(r["learning_rate"]) for r in rows if r["batch_size"] == s}))
            for s in sizes
        }
        curves: dict[Run, list[tuple[float, float]]] = {}
        diverged = set()
        for r in sorted(rows, key=lambda r: r["examples_seen"]):
            size = int(r["batch_size"])
            key = (size, rates[size].index(float(r["learning_rate"])), int(r["seed"]))
            of = curves.setdefault(key, [])
            if r.get("diverged"):
                diverged.add(key)
            if r["val_accuracy"] is not None and math.isfinite(r["val_accuracy"]):
                of.append((float(r["examples_seen"]), float(r["val_accuracy"])))
        return cls(
            str(rows[0]["workload"]),
            sizes,
            rates,
            tuple(sorted({int(r["seed"]) for r in rows})),
            {key: tuple(of) for key, of in curves.items()},
            max(int(r["examples_seen"]) for r in rows),
            frozenset(diverged),
        )

    @property
    def optimizer(self) -> str:
        """One whose rule moves rates with the batch size as the table's grid of them does."""
        x = np.log(self.sizes)
        y = [float(np.log(self.rates[size]).mean()) for size in self.sizes]
        slope = float(np.polyfit(x, y, 1)[0]) if len(self.sizes) > 1 else 0.0
        return "sgd" if slope > 0.75 else "adam"

    def needs(self, cell: Cell, seed: int, target: float) -> float:
        """Examples to the target, infinite where it was not reached."""
        found = crossing(self.curves.get((*cell, seed), ()), target)
        return math.inf if found is None else found

    @property
    def cells(self) -> list[Cell]:
        return [(size, i) for size in self.sizes for i in range(len(self.rates[size]))]


@dataclass
class World:
    """One repeat: a table asked for runs, and what was spent. Seeds are dealt anew."""

    table: Table
    target: float
    a: float
    b: float
    chance: np.random.Generator
    profiles: Sequence[BatchSizeProfile] = ()
    noise: Sequence[NoiseScale] = ()
    spent: float = 0.0
    bound: float | None = None
    asked: list[tuple[Cell, float]] = field(default_factory=list)
    trials: list[TrialResult] = field(default_factory=list)
    curves: dict[str, list[Measurement]] = field(default_factory=dict)
    rungs: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seeds = [int(s) for s in self.chance.permutation(self.table.seeds)]
        middle = self.table.sizes[len(self.table.sizes) // 2]
        self.optimizer = self.table.optimizer
        self.bases = {  # logs of base learning rates, by batch size
            size: np.log(rates) - math.log(scaled_learning_rate(self.optimizer, 1.0, size))
            for size, rates in self.table.rates.items()
        }
        centre = float(self.bases[middle].mean() + self.chance.uniform(-CENTRE_OFF, CENTRE_OFF))
        self.config = SweepConfig(
            batch_sizes=self.table.sizes, trials=TRIALS, seeds=SEEDS, target=self.target,
            budget_examples=self.table.budget, base_learning_rate=math.exp(centre),
            model=self.table.workload, data="table", search="structured", optimizer=self.optimizer,
        )  # fmt: skip

    def seconds(self, size: int, examples: float) -> float:
        return (self.a + self.b * size) / size * examples

    def snapped(self, size: int, base: float) -> Cell:
        """The cell whose base learning rate is nearest."""
        return size, int(np.argmin(np.abs(self.bases[size] - math.log(base))))

    def base(self, cell: Cell) -> float:
        return float(math.exp(self.bases[cell[0]][cell[1]]))

    def run(
        self,
        cell: Cell,
        seed: int,
        most: float,
        *,
        whole: bool = False,
        stage: str = "search",
        base: float | None = None,
    ) -> TrialResult:
        """A run of the table, ended at its target unless it is `whole`, or at `most` examples; it
        is told to be of the `base` rate that was asked for, where that is given."""
        size, index = cell
        key = size, index, self.seeds[seed % len(self.seeds)]
        curve = self.table.curves.get(key, ())
        needs = crossing(curve, self.target)
        end = next((e for e, _ in curve if e >= most), curve[-1][0] if curve else float(size))
        if needs is not None and not whole:
            end = min(end, next(e for e, _ in curve if e >= needs))
        reached = needs if needs is not None and needs <= end else None
        lost = not curve or (key in self.table.diverged and most > curve[-1][0] == end)
        ended = "diverged" if lost and reached is None else "finished"
        self.spent += end
        self.asked.append((cell, self.spent))
        row = self._row(cell, seed, stage, ended, end, reached)
        if base is not None:
            rate = scaled_learning_rate(self.optimizer, base, size)
            row = replace(row, base_learning_rate=base, learning_rate=rate)
        self.trials.append(row)
        self.curves[row.trial_id] = [self._point(row, e, a) for e, a in curve if e <= end]
        return row

    def raced(self, cell: Cell, most: float) -> float:
        """Where ASHA ends a trial in the race of its batch size, `most` if it does not."""
        curve = self.table.curves.get((*cell, self.seeds[0]), ())
        needs = crossing(curve, self.target)
        for place, rung in enumerate(rungs_of(self.config)):
            at, accuracy = next(((e, a) for e, a in curve if e >= rung), (0.0, 0.0))
            if not at or at >= most or (needs is not None and needs <= at):
                break
            others = self.rungs.setdefault((cell[0], place), [])
            worth = score(accuracy, None, self.table.budget, "max")
            behind = others and worth < np.quantile(others, 1 - 1 / self.config.reduction_factor)
            others.append(worth)
            if behind:
                return at
        return most

    def known(self) -> Known:
        cost = {size: self.seconds(size, 1.0) for size in self.table.sizes}
        trials = [t for t in self.trials if t.stage == "search"]
        measured = (cost, self.profiles, self.noise, ())
        return Known(trials, self.curves, (), *measured, repeated_before(self.trials))

    def to_confirm(self) -> dict[int, float]:
        """Base learning rates of the confirm runs, as the table has them; by the model's ways."""
        if not self.config.structured:
            return {}
        confirmed = [t for t in self.trials if t.stage == "confirm"]
        found = bases_to_confirm(self.config, self.table.sizes, self.known(), confirmed)
        return {size: self.base(self.snapped(size, base)) for size, base in found.items()}

    def _row(
        self, cell: Cell, seed: int, stage: str, outcome: str, end: float, reached: float | None
    ) -> TrialResult:
        size, _ = cell
        took = self.seconds(size, end)
        to_target = None if reached is None else self.seconds(size, reached)
        return TrialResult(
            trial_id=f"t{len(self.trials)}", name="", sweep="replay", stage=stage, outcome=outcome,
            reason=None, batch_size=size, micro_batch_size=size, base_learning_rate=self.base(cell),
            # As runs are planned, to the last digit: by it a run is known to be made.
            learning_rate=scaled_learning_rate(self.optimizer, self.base(cell), size),
            optimizer=self.optimizer, seed=seed,
            model=self.config.model, data="table", node=None, device="cpu", cpus=1.0, gpus=0.0,
            budget_examples=self.table.budget, target=self.target, examples_seen=int(end),
            updates=math.ceil(end / size),
            examples_to_target=None if reached is None else int(reached),
            updates_to_target=None if reached is None else math.ceil(reached / size),
            time_to_target_seconds=to_target, train_seconds=took, measured_train_seconds=took,
            measured_time_to_target_seconds=None, evaluation_seconds=0.0, wall_time_seconds=took,
            waited_seconds=None, energy_joules=None, examples_per_second=end / took,
            peak_memory_mib=None, val_accuracy=None, test_accuracy=None, train_accuracy=None,
            alone=False,
        )  # fmt: skip

    def _point(self, row: TrialResult, examples: float, accuracy: float) -> Measurement:
        return Measurement(
            trial_id=row.trial_id, stage=row.stage, batch_size=row.batch_size,
            examples_seen=int(examples), updates=math.ceil(examples / row.batch_size),
            train_loss=None, val_loss=None, val_accuracy=accuracy, test_accuracy=None,
            train_accuracy=None, examples_to_target=row.examples_to_target,
            train_seconds=self.seconds(row.batch_size, examples), wall_time_seconds=0.0, rung=None,
        )  # fmt: skip

    def took(self, cell: Cell, seed: int) -> float:
        """Seconds to the target; the accuracy it lacked on top where it was not reached."""
        row = self.run(cell, seed, self.table.budget)
        return row.time_to_target_seconds or math.inf


@dataclass(frozen=True)
class Chosen:
    """The cell chosen, and the bound of its regret where one was told."""

    cell: Cell
    bound: float | None = None


def by(way: str) -> Callable[[World], Chosen]:
    """A way of `--search`, one run after the other, and the project's judge. Raises UserError where
    it goes by what was measured, and nothing was."""

    def strategy(world: World) -> Chosen:
        config = world.config = replace(world.config, search=way)
        sizes = world.table.sizes
        way_of(config).told(config, sizes, world.known())
        search(world, lambda: way_of(config).propose(config, sizes, world.known()))
        looks: list[Look] = []
        step, made = Step(look=True), -1
        while len(world.trials) > made or step.look:
            made = len(world.trials)
            step = next_step(config, world.trials, looks, world.to_confirm())
            if step.look:
                looks = with_look(looks, look_now(world, looks))
            elif step.trials:
                search_further(world, looks[-1], step.trials)
            for run in (r for r in step.runs if not r.late):  # which decides nothing
                cell = world.snapped(run.batch_size, run.base_learning_rate)
                base = None if config.structured else run.base_learning_rate
                world.run(cell, run.seed, run.most_examples, stage="confirm", base=base)
        use = looks[-1].used if looks else None
        bases_run = [t.base_learning_rate for t in world.trials
                     if t.stage == "confirm" and t.batch_size == use]  # fmt: skip
        if use is None or not bases_run:
            return Chosen((sizes[0], 0))
        return Chosen(world.snapped(use, bases_run[-1]), world.bound)

    return strategy


def search(world: World, propose: Callable[[], Proposal | None]) -> None:
    """The trials that are proposed. The model of all sizes is told the rate that was run; ways that
    know their trials again by the rate asked for are told that."""
    while (asked := propose()) is not None:
        base = asked.base_learning_rate
        cell = world.snapped(asked.batch_size, base)
        races = asked.races and not world.config.structured
        most = world.raced(cell, asked.most_examples) if races else asked.most_examples
        world.run(cell, 0, most, base=None if world.config.structured else base)


def search_further(world: World, look: Look, trials: int) -> None:
    config = replace(world.config, trials=trials)
    sizes = world.table.sizes
    search(world, lambda: propose(config, sizes, world.known(), look.rates))


def look_now(world: World, looks: Sequence[Look]) -> Look:
    config = replace(world.config, budget_examples=world.table.budget)
    points = [m for of in world.curves.values() for m in of]
    policy = Policy(looks=open_looks(looks, world.trials))
    runs = runs_of_sweep(config, world.trials, points)
    (verdict,) = judge_runs(
        runs, policy, searched=tried_runs(config, world.trials), target=config.target
    )
    world.bound = verdict.use.regret_bound if verdict.use else None
    return look_of(verdict, config, world.trials, seeds_looked_at(config, looks, world.trials))


def joint(world: World, seed: int, history: Sequence[tuple[Cell, float]]) -> Cell:
    """TPE over batch size and base rate as one space, as a plain script asks for it."""
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, tpe
    from hyperopt.base import Domain

    within, sizes = learning_rate_range(world.config), world.table.sizes
    low, high = math.log(within.low), math.log(within.high)
    space = {"size": hp.choice("size", range(len(sizes))), "base": hp.loguniform("base", low, high)}
    docs: list[dict[str, Any]] = []
    for k, ((size, index), loss) in enumerate(history):
        vals = {"size": [sizes.index(size)], "base": [world.base((size, index))]}
        docs.append({
            "state": JOB_STATE_DONE, "tid": k, "spec": None, "exp_key": None, "owner": None,
            "version": 0, "book_time": None, "refresh_time": None,
            "result": {"status": STATUS_OK, "loss": loss},
            "misc": {"tid": k, "cmd": None, "workdir": None, "vals": vals,
                     "idxs": {name: [k] for name in vals}},
        })  # fmt: skip
    trials = Trials()
    if docs:
        trials.insert_trial_docs(docs)
        trials.refresh()
    found = tpe.suggest([len(docs)], Domain(lambda _: None, space), trials, seed, n_startup_jobs=5)
    vals = found[0]["misc"]["vals"]
    return world.snapped(sizes[int(vals["size"][0])], float(vals["base"][0]))


def stock(world: World) -> Chosen:
    """TPE over one common space and ASHA over one common race, by accuracy at the rungs; then three
    seeds of the best three. A trial uses its whole budget unless the race stops it."""
    seed = int(world.chance.integers(2**31))
    rungs = [world.table.budget / 9, world.table.budget / 3]
    recorded: list[list[float]] = [[] for _ in rungs]
    history: list[tuple[Cell, float]] = []
    for k in range(TRIALS):
        cell = joint(world, seed + k, history)
        most, accuracy = float(world.table.budget), 0.0
        curve = world.table.curves.get((*cell, world.seeds[0]), ())
        for rung, of in zip(rungs, recorded, strict=True):
            accuracy = max((a for e, a in curve if e <= rung * 1.2), default=0.0)
            of.append(accuracy)
            if accuracy < np.quantile(of, 1 - 1 / 3):
                most = rung
                break
        row = world.run(cell, 0, most, whole=True)
        lacked = world.target - max((a for e, a in curve if e <= row.examples_seen), default=0.0)
        history.append((cell, row.time_to_target_seconds or 1e6 * (1 + max(0.0, lacked))))
    return confirmed(world, history, whole=True)


def confirmed(world: World, history: Sequence[tuple[Cell, float]], whole: bool) -> Chosen:
    """Three seeds of the best three cells; the least median."""
    best: list[Cell] = []
    for cell, _ in sorted(history, key=lambda h: h[1]):
        if cell not in best:
            best.append(cell)
    took = {
        cell: float(np.median([
            world.run(cell, s, world.table.budget, whole=whole).time_to_target_seconds or math.inf
            for s in range(SEEDS)
        ]))
        for cell in best[:3]
    }  # fmt: skip
    return Chosen(min(took, key=lambda c: took[c]))


def random(world: World) -> Chosen:
    cells = world.table.cells
    drawn = [cells[int(i)] for i in world.chance.choice(len(cells), TRIALS, replace=False)]
    return confirmed(world, [(cell, world.took(cell, 0)) for cell in drawn], whole=False)


def grid(world: World) -> Chosen:
    took = {cell: world.took(cell, 0) for cell in world.table.cells}
    return Chosen(min(took, key=lambda c: took[c]))


def one_epoch(world: World) -> Chosen:
    """Every cell to a tenth of the budget; the eight of most accuracy there to their end."""
    tenth = world.table.budget / 10
    seen = {}
    for cell in world.table.cells:
        row = world.run(cell, 0, tenth, whole=True)
        points = world.curves[row.trial_id]
        seen[cell] = max((p.val_accuracy or 0.0 for p in points), default=0.0)
    best = sorted(seen, key=lambda c: -seen[c])[:8]
    took = {cell: world.took(cell, 0) for cell in best}
    return Chosen(min(took, key=lambda c: took[c]))


STRATEGIES: dict[str, Callable[[World], Chosen]] = {
    "ours": by("structured"), "stock": stock, "random": random, "grid": grid,
    "one-epoch": one_epoch,
}  # fmt: skip
# The last needs the noise scale, which a table does not tell.
REPLAYED = ("tpe", "random", "grid", "rules", "evolution", "theory")
STRATEGIES |= {f"by-{way}": by(way) for way in REPLAYED}
SUBJECTS = ("ours", "stock", "random", "grid", "one-epoch")


@dataclass(frozen=True)
class Truth:
    """Log seconds of each cell's typical run, and the two standard errors of that."""

    seconds: dict[Cell, float]
    error: float

    @classmethod
    def of(cls, table: Table, target: float, a: float, b: float) -> Truth:
        found, spread = {}, []
        for cell in table.cells:
            needs = np.log([table.needs(cell, s, target) for s in table.seeds])
            found[cell] = float(needs.mean()) + math.log(a / cell[0] + b)
            if np.isfinite(needs).all() and len(needs) > 1:
                spread.append(float(needs.var(ddof=1)))
        error = 2 * math.sqrt(float(np.median(spread)) / len(table.seeds)) if spread else 0.0
        return cls(found, error)

    def regret(self, cell: Cell) -> float:
        return self.seconds[cell] - min(self.seconds.values())

    def good(self, cell: Cell) -> bool:
        return self.regret(cell) <= max(math.log1p(NEAR), self.error)


def dealt(table: Table, repeat: int) -> np.random.Generator:
    """What a repeat draws from: the same for all strategies."""
    return np.random.default_rng([repeat, len(table.sizes)])


def replayed(
    table: Table,
    name: str,
    target: float,
    a: float,
    b: float,
    repeats: int,
    profiles: Sequence[BatchSizeProfile] = (),
    noise: Sequence[NoiseScale] = (),
) -> dict[str, Any]:
    """One strategy on one table at one target; `profiles` and `noise` are what was measured."""
    truth = Truth.of(table, target, a, b)
    spent, first, regrets, held, good = [], [], [], [], []
    runs, sizes, seconds = [], [], []
    rates: dict[int, list[float]] = {}
    for repeat in range(repeats):
        world = World(table, target, a, b, dealt(table, repeat), profiles, noise)
        chosen = STRATEGIES[name](world)
        cell = chosen.cell
        regret = truth.regret(cell)
        spent.append(world.spent)
        runs.append(len(world.trials))
        sizes.append(cell[0])
        rates.setdefault(cell[0], []).append(table.rates[cell[0]][cell[1]])
        seconds.append(sum(t.train_seconds for t in world.trials))
        first.append(next((at for asked, at in world.asked if truth.good(asked)), world.spent))
        regrets.append(min(regret, 10.0))
        good.append(truth.good(cell))
        if chosen.bound is not None:
            held.append(regret <= math.log1p(chosen.bound) + 1e-9)
    return {
        "workload": table.workload,
        "target": target,
        "a_over_b": round(a / b, 3),
        "strategy": name,
        "repeats": repeats,
        "runs": round(float(np.mean(runs)), 1),
        "seconds": round(float(np.mean(seconds)), 1),
        "batch_sizes": {str(s): sizes.count(s) for s in sorted(set(sizes))},
        "learning_rates": {str(s): float(np.median(rates[s])) for s in sorted(rates)},
        "examples_total": round(float(np.mean(spent))),
        "examples_to_5_percent": round(float(np.mean(first))),
        "mean_regret": round(float(np.expm1(np.mean(regrets))), 4),
        "p90_regret": round(float(np.expm1(np.quantile(regrets, 0.9))), 4),
        "success": round(float(np.mean(good)), 3),
        "bound_holds": round(float(np.mean(held)), 3) if held else None,
        "grid_examples": grid_examples(table, target),
        "two_standard_errors": round(math.expm1(truth.error), 3),
    }


def grid_examples(table: Table, target: float) -> int:
    """What every run of the table sees, each ended at its target."""
    return round(sum(
        min(table.needs(cell, s, target), table.budget) for cell in table.cells for s in table.seeds
    ))  # fmt: skip


def targets_of(table: Table) -> list[float]:
    """Three that the middle batch size reaches at its best rate, evenly in the log of the error."""
    size = table.sizes[len(table.sizes) // 2]
    best = max(max(a for _, a in of) for key, of in table.curves.items() if key[0] == size and of)
    errors = np.geomspace(4 * (1 - best), 1.5 * (1 - best), 3)
    return [round(1 - float(e), 3) for e in errors]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--strategies", default=",".join(SUBJECTS))
    parser.add_argument("--target", type=float)
    parser.add_argument("--a", type=float, default=8.0)
    parser.add_argument("--b", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.strategies.split(",")
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        parser.error(f"--strategies {unknown[0]}: known are {', '.join(STRATEGIES)}")
    table = Table.read(options.table)
    found = []
    for target in [options.target] if options.target else targets_of(table):
        for name in names:
            row = replayed(table, name, target, options.a, options.b, options.repeats)
            found.append(row)
            if not options.json:
                print(json.dumps(row), flush=True)
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
