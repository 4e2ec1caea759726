"""A file to begin a workload of one's own from: it runs as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune_jobs.errors import UserError

TEXT = '''"""A workload of your own. Change the five parts, keep the names.

{command}
"""

import math

from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional as F

from tune_jobs.workload import Metric, Workload, squared_error


def workload(width: int = 64) -> Workload:
    # Arguments such as `width` are set in the TOML file: [workload_arguments] width = 128

    # 1. Data: tuples (or dicts) of arrays or tensors of one length, or anything with `len` and
    #    `[i]`, such as a torch Dataset; then `collate=` and `workers=` are those of a DataLoader.
    features, wanted = load_diabetes(return_X_y=True)
    features, wanted = features / features.std(axis=0), (wanted - wanted.mean()) / wanted.std()

    # 2. Model: made anew for each run, after its seed is set.
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 1))

    # 3. Loss: one for each example of a batch, not their mean; or (losses, weights).
    def loss(model, batch):
        features, wanted = batch
        return F.mse_loss(model(features)[:, 0], wanted, reduction="none")

    return Workload(
        name="{name}",
        build=build,
        train=(features[80:], wanted[80:]),
        validation=None,  # None: carved from `train`
        test=(features[:80], wanted[:80]),  # None: there is none; it decides nothing anyway
        loss=loss,
        # 4. Metric: what runs are compared by. Ready-made: accuracy, squared_error, perplexity.
        metric=Metric("rmse", mode="min", of=squared_error, finish=math.sqrt),
        # 5. Target: the metric that is worth reaching, and the examples a run may take to it.
        target=0.76,
        budget_examples=4_608,
    )
'''


def write(path: Path) -> str:
    """Write the file; gives the command that sweeps it.

    Errors:
        UserError: the name does not end in .py, the file is there already or cannot be written.
    """
    command = f"./scripts/sweep --workload {shlex.quote(f'{path}:workload')}"
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"--new-workload {path}: name a Python file that can be imported, such as mine.py"
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEXT.format(command=command, name=path.stem))
    except FileExistsError as error:
        raise UserError(
            f"--new-workload {path}: there is such a file already; name another"
        ) from error
    except OSError as error:
        raise UserError(f"--new-workload {path}: {error.strerror}; name another place") from error
    return command
