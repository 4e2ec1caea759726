"""HyperOpt's TPE over base learning rates, asked anew each time: its history is the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tune_jobs.planning.search_plan import Range

STARTUP = 5  # trials before TPE proposes; drawn from the range until then
NAME = "base_learning_rate"


def draw(within: Range, tried: Sequence[tuple[float, float]], seed: int) -> float:
    """TPE's next base learning rate.

    Args:
        tried: base learning rates and their losses, less being better.
        seed: the same history and seed give the same rate.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, tpe
    from hyperopt.base import Domain

    space = {NAME: hp.loguniform(NAME, math.log(within.low), math.log(within.high))}
    history = Trials()
    docs = [
        _document(k, base, loss, JOB_STATE_DONE, STATUS_OK) for k, (base, loss) in enumerate(tried)
    ]
    if docs:
        history.insert_trial_docs(docs)
        history.refresh()
    found = tpe.suggest(
        [len(docs)], Domain(lambda _: None, space), history, seed, n_startup_jobs=STARTUP
    )
    return float(np.ravel(found[0]["misc"]["vals"][NAME])[0])


def _document(tid: int, base: float, loss: float, state: int, status: str) -> dict[str, Any]:
    return {
        "state": state, "tid": tid, "spec": None, "exp_key": None, "owner": None, "version": 0,
        "book_time": None, "refresh_time": None, "result": {"status": status, "loss": loss},
        "misc": {"tid": tid, "cmd": None, "workdir": None, "idxs": {NAME: [tid]},
                 "vals": {NAME: [base]}},
    }  # fmt: skip
