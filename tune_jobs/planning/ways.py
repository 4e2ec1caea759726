"""The ways to choose what the search tries, by name (`--search`), on one contract.

A way is a pure function from the configuration, the batch sizes that fit and what is known to the
next trial; None where it has none, now or at all. A driver that was killed asks it again. Adding
one: write the function, name it in `WAYS`, and it passes the contract in tests/test_ways.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tune_jobs.config import SweepConfig
from tune_jobs.planning import evolution, learning_rates, rules, shares, theory
from tune_jobs.planning.known import Known, Proposal, known_now
from tune_jobs.records import BatchSizeProfile
from tune_jobs.store import SweepStore

Propose = Callable[[SweepConfig, Sequence[int], Known], Proposal | None]


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        about: what it does, in a line.
        propose: the next trial; the same for the same rows.
        shares: what it gives each batch size, for whoever reads the plan.
        extends: batch sizes are added beyond a leader at the edge.
        measured: it goes by what was measured, which has to be whole before the first trial.
        told: what is said before the first trial; `after` once a batch size to use is named.
    """

    about: str
    propose: Propose
    shares: str
    extends: bool = False
    measured: bool = False
    told: Callable[[SweepConfig, Sequence[int], Known], list[str]] = lambda *_: []
    after: Callable[[SweepConfig, Known, int | None], list[str]] = lambda *_: []


WAYS: dict[str, Way] = {
    "structured": Way(
        "one model of all batch sizes, trials where they may win, one in five TPE's own",
        learning_rates.propose,
        "a trial, and more while it may win",
        extends=True,
        after=learning_rates.after,
    ),
    "tpe": Way(
        "HyperOpt's TPE for each batch size by itself",
        shares.in_turn(shares.tree_parzen),
        "{share} trials",
    ),
    "random": Way(
        "rates drawn evenly on the log", shares.in_turn(shares.log_uniform), "{share} trials"
    ),
    "grid": Way(
        "rates given, or evenly spaced on the log", shares.in_turn(shares.grid), "{share} trials"
    ),
    "rules": Way(
        "no search: rates carried from one reference by the scaling rules",
        rules.propose,
        "a trial by each scaling rule",
        told=rules.told,
        after=rules.after,
    ),
    "evolution": Way(
        "CMA-ES over batch size and rate together; NSGA-II for a pair of goals",
        evolution.propose,
        "trials as its generations fall",
        after=evolution.after,
    ),
    "theory": Way(
        "only batch sizes about the best that measuring predicts, sqrt(a B_crit / b)",
        theory.propose,
        "trials where it is next to the predicted best",
        measured=True,
        told=theory.told,
        after=theory.after,
    ),
}


# The structured search, then runs of a batch schedule beside the batch size to use.
_THEN = {
    "grow": "the batch doubled where a step schedule would halve the rate",
    "seesaw": "the batch doubled there, the rate divided by the root of 2",
    "late-switch": "a switch from the batch size to use to a large one, near the end",
    "follow": "a batch that follows the noise scale along the run",
    "pbt": "a population that changes batch size and rate while it trains",
}
for name, then in _THEN.items():
    WAYS[name] = replace(WAYS["structured"], about=f"the structured search, then {then}")


def way_of(config: SweepConfig) -> Way:
    """The way that a sweep searches by."""
    return WAYS[config.search]


def known_of(
    config: SweepConfig, store: SweepStore, profiles: Sequence[BatchSizeProfile] | None = None
) -> Known:
    """What the store holds that a proposal is made from."""
    curves = store.read_measurements() if config.structured else []
    rows = store.read_trials(), curves
    measured = store.read_noise_scale(), store.read_range_test()
    return known_now(config, *rows, profiles or store.read_profiles(), *measured)
