"""The search stage: Ray Tune over every batch size, fresh or taken up again."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Read by Ray when it is imported.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune

from tune_jobs.config import SweepConfig, requested_cpus, requested_gpus
from tune_jobs.errors import UserError
from tune_jobs.measure.clock import chosen, micro_batch_sizes
from tune_jobs.records import BatchSizeProfile
from tune_jobs.store import SweepStore
from tune_jobs.training import optimizers
from tune_jobs.training.schedule import rung_budgets
from tune_jobs.tuning.keeper import RecordKeeper, readable_name
from tune_jobs.tuning.racing import BatchSizeRaces
from tune_jobs.tuning.requests import TrialRequest, trial_requests
from tune_jobs.tuning.searcher import RESCUES, BatchSizeShares
from tune_jobs.tuning.space import Range
from tune_jobs.tuning.trial import BatchSizeTrial, SharedByTrials

EXPERIMENT = "search"


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give: CPUs and GPUs in all, and nodes alive."""

    cpus: float
    gpus: float
    nodes: int


def start_ray(root: Path) -> Cluster:
    """Join the cluster of the job, or start Ray on this machine; never twice."""
    if not ray.is_initialized():
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        options: dict[str, object] = {"logging_level": "warning", "log_to_driver": False}
        if not in_a_cluster():
            options |= {"include_dashboard": False}
            options |= {"runtime_env": {"env_vars": {"PYTHONPATH": str(root)}}}
        ray.init(**options)
    total = ray.cluster_resources()
    alive = [node for node in ray.nodes() if node["Alive"]]
    return Cluster(total.get("CPU", 0.0), total.get("GPU", 0.0), len(alive))


def in_a_cluster() -> bool:
    """True inside a Ray job, or where RAY_ADDRESS names a cluster to join."""
    return "RAY_JOB_SUBMISSION_ID" in os.environ or "RAY_ADDRESS" in os.environ


def this_machine() -> Cluster:
    """What a Ray started here will have: told without starting it."""
    return Cluster(float(os.cpu_count() or 1), float(torch.cuda.device_count()), 1)


def check_request(config: SweepConfig, cluster: Cluster) -> float:
    """GPUs per trial; raises UserError when a trial asks for more than the cluster has."""
    gpus = requested_gpus(config, cluster.gpus)
    cpus = requested_cpus(config) or 1.0
    if cpus > cluster.cpus:
        raise UserError(
            f"--cpus-per-trial {cpus:g}: the cluster has {cluster.cpus:g} CPUs, "
            "so no trial could ever start; lower it"
        )
    if gpus > cluster.gpus:
        raise UserError(
            f"--gpus-per-trial {gpus:g}: the cluster has {cluster.gpus:g} GPUs, so no trial could "
            "ever start; lower it, or give 0 to train on CPUs"
        )
    return gpus


def learning_rate_range(config: SweepConfig) -> Range:
    """The range of base learning rates: the user's centre, or the optimizer's own."""
    own = optimizers.entry(config.optimizer).base_learning_rate
    return Range(config.base_learning_rate or own, config.learning_rate_span)


def rungs_of(config: SweepConfig) -> tuple[int, ...]:
    """Budgets at which the races of this sweep decide."""
    return rung_budgets(config.budget_examples, config.first_rung_fraction, config.reduction_factor)


def search(
    config: SweepConfig,
    store: SweepStore,
    data_path: Path,
    cluster: Cluster,
    profiles: Sequence[BatchSizeProfile],
    *,
    resume: bool,
) -> None:
    """Search over the batch sizes that fit; the records are in the store when this returns."""
    check_request(config, cluster)
    requests = trial_requests(config, profiles, cluster.gpus)
    shared = SharedByTrials(
        model=config.model,
        optimizer=config.optimizer,
        target=config.target,
        budget_examples=config.budget_examples,
        rungs=rungs_of(config),
        validation_examples=config.validation_examples,
        split_seed=config.split_seed,
        data_path=str(data_path),
        data=[ray.put(data_path.read_bytes())] if cluster.nodes > 1 else [],
        micro_batch_sizes=micro_batch_sizes(profiles),
        requests=requests,
        memory_growth_mib=_memory_growth_mib(config, profiles),
    )
    trainable = tune.with_resources(
        tune.with_parameters(BatchSizeTrial, shared=shared),
        lambda asked: tune.PlacementGroupFactory([requests[asked["batch_size"]].bundle()]),
    )
    path = (store.ray / EXPERIMENT).resolve()
    if resume and tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable, resume_unfinished=True)
    else:
        tuner = _fresh(config, store, trainable, cluster, profiles, requests)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its summary looks for result files of loggers that are off; the records are the store's.
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
        tuner.fit()


def _memory_growth_mib(config: SweepConfig, profiles: Sequence[BatchSizeProfile]) -> float | None:
    """What a trial may allocate under the user's limit, the libraries' own memory left out."""
    if config.memory_limit_mib is None:
        return None
    return config.memory_limit_mib - max(p.base_memory_mib or 0.0 for p in chosen(profiles))


def at_once(requests: Iterable[TrialRequest], cluster: Cluster) -> int:
    """Trials that fit the cluster side by side, were all as small as the smallest."""
    least_gpus = min(request.gpus for request in requests)
    if least_gpus:
        return max(1, int(cluster.gpus / least_gpus))
    return max(1, int(cluster.cpus / min(request.cpus for request in requests)))


def _fresh(
    config: SweepConfig,
    store: SweepStore,
    trainable: object,
    cluster: Cluster,
    profiles: Sequence[BatchSizeProfile],
    requests: Mapping[int, TrialRequest],
) -> tune.Tuner:
    sizes = tuple(size for size in config.batch_sizes if size in requests)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=config.trials + RESCUES * len(sizes),
            max_concurrent_trials=at_once(requests.values(), cluster),
            reuse_actors=True,
            search_alg=BatchSizeShares(
                config.search,
                sizes,
                config.trials,
                learning_rate_range(config),
                config.optimizer,
                config.seed,
            ),
            scheduler=BatchSizeRaces(
                rungs_of(config),
                config.reduction_factor,
                config.target,
                config.budget_examples,
                store,
            ),
            trial_name_creator=lambda trial: readable_name(trial.config),
            trial_dirname_creator=lambda trial: f"{readable_name(trial.config)}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(store.ray.resolve()),
            callbacks=[RecordKeeper(config, store, profiles, requests)],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=1),
            sync_config=tune.SyncConfig(sync_period=2),
            verbose=0,
        ),
    )
