"""The searcher that Ray Tune asks: every batch size gets its share, one finisher at least, and
learning rates on both sides of its best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ray import cloudpickle
from ray.tune.search import Searcher

from tune_jobs.planning.search_plan import Range, shares
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.tuning.space import Search, make_search

RESCUES = 2
RESCUE_STEP = 10.0
BRACKETS = 2
FEWEST_TO_BRACKET = 3


@dataclass
class _Share:
    """What one batch size has been given and what came of it."""

    search: Search
    trials: int
    given: int = 0
    rescues: int = 0
    brackets: int = 0
    finished: int = 0
    running: dict[str, float] = field(default_factory=dict)
    scores: list[tuple[float, float]] = field(default_factory=list)

    def wants_rescue(self) -> bool:
        """True when all its trials have ended and none of them reached its budget."""
        over = self.given >= self.trials and not self.running
        return over and not self.finished and self.rescues < RESCUES

    def open_side(self) -> int:
        """+1 or -1 where the best rate is the highest or lowest tried and may be searched on.

        The optimum may then lie beyond. Rates that diverged or scored worse close a side.
        """
        over = self.given >= self.trials and not self.running
        tried = self.trials >= FEWEST_TO_BRACKET and self.brackets < BRACKETS
        if not (over and tried and self.finished):
            return 0
        score, best = max(self.scores)
        if score <= 0:
            return 0
        rates = [base for _, base in self.scores]
        return int(best >= max(rates)) - int(best <= min(rates))

    def settled(self) -> bool:
        """Nothing running and nothing left to try."""
        if self.given < self.trials or self.running:
            return False
        if not self.finished:
            return self.rescues >= RESCUES
        return self.open_side() == 0


class BatchSizeShares(Searcher):  # type: ignore[misc]
    """Proposes trials in turn over the batch sizes, each from a search of its own.

    When all trials of a batch size were stopped or diverged, its best learning rate (a tenth of the
    lowest, had all diverged) is run once more outside the race, so that none ends without a
    finisher. When the best of its learning rates is the highest or the lowest that was tried, up to
    `BRACKETS` further trials go on in that direction, past the range where need be.
    """

    def __init__(
        self,
        search: str,
        batch_sizes: tuple[int, ...],
        trials: int,
        within: Range,
        optimizer: str,
        seed: int,
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.optimizer = optimizer
        self.seed = seed
        self.step = math.sqrt(within.span)
        self.shares = {
            size: _Share(make_search(search, within, count, seed + size), count)
            for size, count in shares(trials, batch_sizes).items()
        }
        self.batch_size_of: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        open_sizes = [b for b, s in self.shares.items() if s.given < s.trials]
        if open_sizes:
            size = min(open_sizes, key=lambda b: self.shares[b].given / self.shares[b].trials)
            share = self.shares[size]
            share.given += 1
            return self._start(trial_id, size, share.search.propose(trial_id), races=True)
        for size, share in self.shares.items():
            if share.wants_rescue():
                share.rescues += 1
                return self._start(trial_id, size, _rescue_rate(share), races=False)
        for size, share in self.shares.items():
            side = share.open_side()
            if side:
                share.brackets += 1
                return self._start(trial_id, size, _further(share, self.step, side), races=True)
        if all(share.settled() for share in self.shares.values()):
            return str(Searcher.FINISHED)
        return None

    def _start(self, trial_id: str, size: int, base: float, *, races: bool) -> dict[str, Any]:
        self.shares[size].running[trial_id] = base
        self.batch_size_of[trial_id] = size
        return {
            "batch_size": size,
            "base_learning_rate": base,
            "learning_rate": scaled_learning_rate(self.optimizer, base, size),
            "seed": self.seed,
            "races": races,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        size = self.batch_size_of.get(trial_id)
        if size is None or trial_id not in self.shares[size].running:
            return
        share = self.shares[size]
        base = share.running.pop(trial_id)
        score = 0.0 if error or not result else float(result.get("score", 0.0))
        share.scores.append((score, base))
        share.finished += bool(result and result.get("outcome") == "finished")
        share.search.observe(trial_id, score)

    def save(self, checkpoint_path: str) -> None:
        with open(checkpoint_path, "wb") as file:
            cloudpickle.dump(self.__dict__, file)

    def restore(self, checkpoint_path: str) -> None:
        with open(checkpoint_path, "rb") as file:
            self.__dict__.update(cloudpickle.load(file))


def _further(share: _Share, step: float, side: int) -> float:
    """One step beyond the best rate."""
    return float(max(share.scores)[1] * step**side)


def _rescue_rate(share: _Share) -> float:
    score, best = max(share.scores)
    lowest = min(base for _, base in share.scores)
    return best if score > 0 and share.rescues == 1 else lowest / RESCUE_STEP
