"""What has to be right, and at hand, before a sweep starts: configuration, folder, names, data."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models import registry
from tune_jobs.command_line import Action, Invocation
from tune_jobs.config import (
    NEEDS,
    SweepConfig,
    resolve,
    resumed,
    settings_of,
    validate_against_data,
)
from tune_jobs.data import sources
from tune_jobs.data.dataset import open_dataset
from tune_jobs.data.places import names_a_place
from tune_jobs.data.tables import Table
from tune_jobs.errors import UserError
from tune_jobs.few_lines import few_lines
from tune_jobs.store import SweepStore

BROUGHT = ("workload", "train", "lightning")  # each is model and data in one


def configurations(invocation: Invocation) -> list[SweepConfig]:
    """The sweeps to make: one, or one for each of several optimizers, `NAME-OPTIMIZER`, the minutes
    in equal parts."""
    given = settings_of(invocation.action.config, invocation.flags)
    names = [name.strip() for name in str(given.get("optimizer", "")).split(",")]
    if len(names) < 2:
        return [configuration(invocation)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--optimizer: {twice!r} stands twice; name each optimizer once")
    if given.get("base_learning_rate") is not None:
        raise UserError(
            "base_learning_rate with several optimizers: each has a range of its own; leave it out"
        )
    return [_of_optimizer(invocation, given, name, len(names)) for name in names]


def _of_optimizer(
    invocation: Invocation, given: Mapping[str, Any], optimizer: str, of: int
) -> SweepConfig:
    """One of several optimizers' sweeps; with --resume one that was not begun yet is begun."""
    name = f"{given.get('name', SweepConfig.name)}-{optimizer.replace(':', '.')}"
    flags = {**invocation.flags, "optimizer": optimizer, "name": name}
    if given.get("minutes"):
        flags["minutes"] = given["minutes"] / of
    there = SweepStore.open(str(given.get("runs_dir", SweepConfig.runs_dir)), name).exists()
    action = replace(invocation.action, resume=invocation.action.resume and there)
    return configuration(Invocation(action, flags))


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


@few_lines()
def of_workload(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a user's workload or data says itself, once it has been tried on a few examples.

    Errors:
        UserError: it cannot be had or trained, or stands beside a named model or data set.
    """
    brought = next((name for name in BROUGHT if given.get(name)), None)
    if brought is None:
        return of_data(given) if names_a_place(str(given.get("data", ""))) else {}
    for name in ("model", "data", *BROUGHT):
        if given.get(name) and name != brought:
            raise UserError(
                f"--{brought} {given[brought]} brings its own {name}; leave --{name} out"
            )
    if brought != "workload":
        from tune_jobs.training.own_facts import facts as facts_of_loop

        return facts_of_loop(given, brought)
    from tune_jobs.training.workload_facts import facts

    return facts(given)


def of_data(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a model on a user's data says, as `of_workload`.

    Errors:
        UserError: the data cannot be had, the model is unknown or cannot be trained on it.
    """
    name, folder = given["data"], Path(given.get("data_dir", SweepConfig.data_dir))
    if "model" in given:
        registry.resolve(given["model"])
    path = sources.prepare(name, folder, given.get("data_arguments", {}))
    dataset = open_dataset(path)
    model = given.get("model", "mlp" if isinstance(dataset, Table) else SweepConfig.model)
    from tune_jobs.training.workload_facts import facts_of
    from tune_jobs.workload_source import WorkloadSource

    workload = WorkloadSource(model, name, str(path)).of_dataset(dataset)
    return {"model": model, **facts_of(workload, given)}


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
    missing = [
        name for name in NEEDS.get(config.search, ()) if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(
            f"--search {config.search} needs {' and '.join(missing)}, not installed here: "
            f".venv/bin/uv pip install -c scripts/constraints.txt {' '.join(missing)}"
        )
    if config.workload or config.own_loop:
        return
    module, _, function = config.model.partition(":")
    if importing or not (function.isidentifier() and _is_there(module)):
        registry.resolve(config.model)
    sources.check_name(config.data, config.data_arguments)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # no such package, or no name of a module
        return False


@few_lines()
def data(config: SweepConfig) -> Path | None:
    """The data set as one Arrow file on this host, checked against the configuration; None for a
    user's workload, which brings its own. The model is checked against the configuration as well.
    """
    if config.own_loop:
        return None
    from tune_jobs.training.batch_norm import check_cut
    from tune_jobs.training.workload_facts import check_trains
    from tune_jobs.workload_source import source_of

    if config.workload:
        check_cut(source_of(config, None).open().build(), config)
        return None
    folder = Path(config.data_dir)
    path = sources.prepare(config.data, folder, config.data_arguments).resolve()
    dataset = open_dataset(path)
    validate_against_data(config, len(dataset.train), carved=dataset.validation is None)
    workload = source_of(config, path).of_dataset(dataset)
    if config.data in sources.known():  # a user's own has been tried to say what suits it
        check_trains(workload, config)
    check_cut(workload.build(), config)
    return path


@few_lines()
def data_facts(config: SweepConfig, data_path: Path | None, store: SweepStore) -> dict[str, Any]:
    """`train_examples`, what is left to train on once validation is carved off (no batch is
    larger), and `data_digest`, by which a sweep's data are known again.

    Errors:
        UserError: the sweep began with other data.
    """
    if config.own_loop:
        return {"train_examples": config.budget_examples}  # how many there are is its own
    from tune_jobs.training.workload_facts import data_facts

    found = data_facts(config, data_path)
    if store.read_data_digest() not in (None, found["data_digest"]) and store.read_profiles():
        raise UserError(
            f"--resume: {config.data} gives other examples than when this sweep began, so its runs "
            "could not be compared; give it the data of then (its random draws a seed), or begin "
            "another sweep with --name"
        )
    return found
