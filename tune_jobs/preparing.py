"""What has to be right, and at hand, before a sweep starts: configuration, folder, names, data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from models import registry
from tune_jobs.command_line import Action, Invocation
from tune_jobs.config import SweepConfig, resolve, resumed, validate_against_data
from tune_jobs.data import sources
from tune_jobs.data.dataset import open_dataset
from tune_jobs.errors import UserError, unknown_name
from tune_jobs.store import SweepStore


def configuration(invocation: Invocation) -> SweepConfig:
    """The resolved configuration; with --resume that of the sweep's own folder."""
    config = resolve(invocation.action.config, invocation.flags)
    if not invocation.action.resume:
        return config
    store = SweepStore.open(config.runs_dir, config.name)
    if not store.exists():
        raise UserError(f"--resume: there is no sweep in {store.address}; check --name, --runs-dir")
    return resumed(resolve(store.config, {}), invocation.flags)


def folder(config: SweepConfig, action: Action) -> SweepStore:
    """The sweep's folder, not made yet; one that holds a sweep is opened by --resume alone."""
    store = SweepStore.open(config.runs_dir, config.name)
    if store.exists() and not action.resume and not action.dry_run:
        raise UserError(
            f"--name {config.name}: {store.address} holds a sweep already; add --resume to take it "
            "up, or choose another name"
        )
    return store


def check_names(config: SweepConfig, *, importing: bool) -> None:
    """Model and data must be known. Raises UserError.

    Without `importing` a module of the user's own is looked for, and not run.
    """
    module, _, function = config.model.partition(":")
    if importing or not (function.isidentifier() and _is_there(module)):
        registry.resolve(config.model)
    if config.data not in sources.known():
        raise unknown_name("--data", config.data, sources.known())


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # no such package, or no name of a module
        return False


def data(config: SweepConfig) -> Path:
    """The data set as one Arrow file on this host, checked against the configuration."""
    path = sources.prepare(config.data, Path(config.data_dir)).resolve()
    validate_against_data(config, len(open_dataset(path).train.labels))
    return path


def train_examples(config: SweepConfig, data_path: Path) -> int:
    """What is left to train on once validation is carved off: no batch is larger."""
    return len(open_dataset(data_path).train.labels) - config.validation_examples
