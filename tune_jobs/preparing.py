"""What has to be right, and at hand, before a sweep starts: configuration, folder, names, data."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models import registry
from tune_jobs.command_line import Action, Invocation
from tune_jobs.config import (
    SweepConfig,
    resolve,
    resumed,
    settings_of,
    validate_against_data,
)
from tune_jobs.data import sources
from tune_jobs.data.dataset import open_dataset
from tune_jobs.errors import UserError, unknown_name
from tune_jobs.store import SweepStore


def configuration(invocation: Invocation) -> SweepConfig:
    """The resolved configuration; with --resume that of the sweep's own folder."""
    file, flags = invocation.action.config, invocation.flags
    if not invocation.action.resume:
        return resolve(file, flags, of_workload(settings_of(file, flags)))
    config = resolve(file, flags)
    store = SweepStore.open(config.runs_dir, config.name)
    if not store.exists():
        raise UserError(f"--resume: there is no sweep in {store.address}; check --name, --runs-dir")
    return resumed(store.read_config(), invocation.flags)


def of_workload(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a user's workload says itself, once it has been tried on a few examples.

    Errors:
        UserError: it cannot be had or trained, or stands beside a named model or data set.
    """
    if not given.get("workload"):
        return {}
    for name in ("model", "data"):
        if name in given:
            raise UserError(
                f"--workload {given['workload']} brings its own {name}; leave --{name} out"
            )
    from tune_jobs.training.workload_facts import facts

    return facts(given)


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
    if config.workload:
        return
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


def data(config: SweepConfig) -> Path | None:
    """The data set as one Arrow file on this host, checked against the configuration; None for a
    user's workload, which brings its own."""
    if config.workload:
        return None
    path = sources.prepare(config.data, Path(config.data_dir)).resolve()
    validate_against_data(config, len(open_dataset(path).train.labels))
    return path


def train_examples(config: SweepConfig, data_path: Path | None) -> int:
    """What is left to train on once validation is carved off: no batch is larger."""
    if data_path is not None:
        return len(open_dataset(data_path).train.labels) - config.validation_examples
    from tune_jobs.training.workload_facts import train_examples

    return train_examples(config)
