"""Where each batch size's learning rates come from: searches by name, one for every batch size.

A search proposes base learning rates within `centre/span .. centre*span` and is told a score for
each. Adding one: write a class with `propose` and `observe`, name it in `SEARCHES`, and it passes
the contract in tests/test_search.py.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from ray.tune.search.hyperopt import HyperOptSearch

from tune_jobs.errors import unknown_name
from tune_jobs.planning.search_plan import Range


class Search(Protocol):
    """One batch size's search. `observe` gets a score, the larger the better."""

    def propose(self, trial_id: str) -> float: ...

    def observe(self, trial_id: str, score: float) -> None: ...


class TreeParzen:
    """HyperOpt's TPE on the logarithm of the base learning rate."""

    def __init__(self, within: Range, trials: int, seed: int) -> None:
        from hyperopt import hp

        low, high = math.log(within.low), math.log(within.high)
        self.inner = HyperOptSearch(
            {"base_learning_rate": hp.loguniform("base_learning_rate", low, high)},
            metric="score",
            mode="max",
            points_to_evaluate=[{"base_learning_rate": p} for p in within.first_points(trials)],
            n_initial_points=3,
            random_state_seed=seed,
        )

    def propose(self, trial_id: str) -> float:
        return float(self.inner.suggest(trial_id)["base_learning_rate"])

    def observe(self, trial_id: str, score: float) -> None:
        self.inner.on_trial_complete(trial_id, {"score": score})


class LogUniform:
    """Independent draws, uniform on the logarithm, after the scaling rule's own value."""

    def __init__(self, within: Range, trials: int, seed: int) -> None:
        self.within = within
        self.generator = np.random.default_rng(seed)
        self.given = 0

    def propose(self, trial_id: str) -> float:
        self.given += 1
        if self.given == 1:
            return self.within.centre
        low, high = math.log(self.within.low), math.log(self.within.high)
        return math.exp(self.generator.uniform(low, high))

    def observe(self, trial_id: str, score: float) -> None:
        """A random search learns nothing."""


class Grid:
    """As many values as trials, evenly spaced on the logarithm, the centre among the odd ones."""

    def __init__(self, within: Range, trials: int, seed: int) -> None:
        edges = np.geomspace(within.low, within.high, trials + 2)[1:-1]
        by_distance = sorted(edges, key=lambda value: abs(math.log(value / within.centre)))
        self.values = [float(value) for value in by_distance]
        self.given = 0

    def propose(self, trial_id: str) -> float:
        value = self.values[self.given % len(self.values)]
        self.given += 1
        return value

    def observe(self, trial_id: str, score: float) -> None:
        """A grid learns nothing."""


SEARCHES: dict[str, type[TreeParzen] | type[LogUniform] | type[Grid]] = {
    "tpe": TreeParzen,
    "random": LogUniform,
    "grid": Grid,
}


def make_search(name: str, within: Range, trials: int, seed: int) -> Search:
    """The named search for one batch size; raises UserError for an unknown name."""
    if name not in SEARCHES:
        raise unknown_name("--search", name, SEARCHES)
    return SEARCHES[name](within, trials, seed)
