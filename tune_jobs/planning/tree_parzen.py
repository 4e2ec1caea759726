"""HyperOpt's TPE over base learning rates, asked anew each time: its history is the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_jobs.planning.search_plan import Range

STARTUP = 5  # trials before TPE proposes; drawn from the range until then
NAME = "base_learning_rate"


def draw(within: Range, tried: Sequence[tuple[float, float]], seed: int) -> float:
    """TPE's next base learning rate; `tried` are base learning rates and their losses."""
    places = [({NAME: math.log(base)}, loss) for base, loss in tried]
    axes = {NAME: (math.log(within.low), math.log(within.high))}
    return math.exp(draw_all(axes, places, seed)[NAME])


def draw_all(
    axes: Mapping[str, tuple[float, float]],
    tried: Sequence[tuple[Mapping[str, float], float]],
    seed: int,
) -> dict[str, float]:
    """TPE's next place, each axis evenly searched between its ends.

    Args:
        tried: places and their losses, less being better.
        seed: the same history and seed give the same rate.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, tpe
    from hyperopt.base import Domain

    space = {name: hp.uniform(name, low, high) for name, (low, high) in axes.items()}
    history = Trials()
    docs = [
        _document(k, place, loss, JOB_STATE_DONE, STATUS_OK)
        for k, (place, loss) in enumerate(tried)
    ]
    if docs:
        history.insert_trial_docs(docs)
        history.refresh()
    found = tpe.suggest(
        [len(docs)], Domain(lambda _: None, space), history, seed, n_startup_jobs=STARTUP
    )
    return {name: float(np.ravel(found[0]["misc"]["vals"][name])[0]) for name in axes}


def _document(
    tid: int, place: Mapping[str, float], loss: float, state: int, status: str
) -> dict[str, Any]:
    return {
        "state": state, "tid": tid, "spec": None, "exp_key": None, "owner": None, "version": 0,
        "book_time": None, "refresh_time": None, "result": {"status": status, "loss": loss},
        "misc": {"tid": tid, "cmd": None, "workdir": None, "idxs": {name: [tid] for name in place},
                 "vals": {name: [value] for name, value in place.items()}},
    }  # fmt: skip
