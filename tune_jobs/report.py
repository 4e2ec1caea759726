"""Entry: rebuild the verdict of a finished (or interrupted) sweep from its records alone.

    python tune_jobs/report.py runs/<name> [--json]

Needs neither Ray nor torch nor MLflow.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from tune_jobs.analysis.choosing import judge
from tune_jobs.analysis.table import print_verdict, wide_console
from tune_jobs.config import resolve
from tune_jobs.errors import SweepError, UserError
from tune_jobs.records import SearchSummary
from tune_jobs.store import SweepStore


@dataclass(frozen=True)
class Options:
    """Rebuild verdict and table from a sweep's folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """the sweep's folder, such as runs/first"""
    json: bool = False
    """print the verdict as JSON"""


def verdict_of(store: SweepStore) -> SearchSummary:
    """Judge what the folder holds; raises UserError when it is not a sweep's folder."""
    if not store.exists():
        raise UserError(f"{store.folder} holds no {store.config.name}: give a sweep's folder")
    config = resolve(store.config, {})
    trials = store.read_trials()
    return judge(config.name, config.goal, config.target, trials, config.batch_sizes)


def main() -> int:
    options = tyro.cli(Options, prog="report.py", config=(tyro.conf.FlagCreatePairsOff,))
    try:
        verdict = verdict_of(SweepStore(options.folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(verdict), indent=2))
    else:
        print_verdict(verdict, wide_console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
