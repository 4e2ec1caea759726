"""Search and confirm: trials on Ray Tune, fresh or taken up again."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_jobs.config import SweepConfig, requested_cpus, requested_gpus
from tune_jobs.errors import UserError
from tune_jobs.measure.clock import chosen, micro_batch_sizes
from tune_jobs.records import BatchSizeProfile, ConfirmRun
from tune_jobs.store import SweepStore
from tune_jobs.training import optimizers
from tune_jobs.training.loop import EVALUATION_BATCH
from tune_jobs.training.schedule import rung_budgets
from tune_jobs.tuning.confirming import Listed, alone, equal_updates
from tune_jobs.tuning.keeper import RecordKeeper, readable_name
from tune_jobs.tuning.racing import BatchSizeRaces
from tune_jobs.tuning.requests import TrialRequest, trial_requests
from tune_jobs.tuning.searcher import BRACKETS, RESCUES, BatchSizeShares
from tune_jobs.tuning.space import Range
from tune_jobs.tuning.trial import BatchSizeTrial, SharedByTrials

SEARCH, CONFIRM = "search", "confirm"
WORTH_SHARING = 0.01  # seconds of one evaluation batch on one thread


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
    """True where RAY_ADDRESS names a cluster to join; Ray sets it for every job."""
    return "RAY_ADDRESS" in os.environ


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


def check_storage(store: SweepStore, cluster: Cluster) -> None:
    """Raises UserError when the sweep's folder is not seen by every node of the cluster."""
    if cluster.nodes < 2 or store.remote is not None:
        return
    marker = store.folder.resolve() / ".seen-by-all-nodes"
    marker.write_text(word := secrets.token_hex(8))
    try:
        blind = [at for at, said in _read_everywhere(marker).items() if said != word]
    finally:
        marker.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"--runs-dir: {store.folder.resolve()} is not the same folder on the nodes "
            f"{', '.join(sorted(blind))}, where trials keep their checkpoints; give a folder that "
            "all nodes share, or a URI such as s3://bucket/runs"
        )


def _read_everywhere(path: Path) -> dict[str, str | None]:
    """What each node's file of this path says, by the node's address."""

    def read(path: Path) -> str | None:
        return path.read_text() if path.exists() else None

    there = ray.remote(num_cpus=0, max_retries=0)(read)
    asked = {
        n["NodeManagerAddress"] + ":" + n["NodeID"][:4]: there.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
        ).remote(path)
        for n in ray.nodes()
        if n["Alive"]
    }
    return {at: ray.get(answer) for at, answer in asked.items()}


def job_facts(cluster: Cluster) -> dict[str, object]:
    """The Ray job's ids and the cluster's shape, for `environment.json` and MLflow."""
    return {
        "ray_job_id": ray.get_runtime_context().get_job_id(),
        "submission_id": _submission_id(),
        "cluster": f"{cluster.nodes} nodes, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs",
    }


def _submission_id() -> str | None:
    """The name that `ray job` knows this driver by; None outside a job."""
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return (told.get("metadata") or {}).get("job_submission_id")


def learning_rate_range(config: SweepConfig) -> Range:
    """The range of base learning rates: the user's centre, or the optimizer's own."""
    own = optimizers.entry(config.optimizer).base_learning_rate
    return Range(config.base_learning_rate or own, config.learning_rate_span)


def rungs_of(config: SweepConfig) -> tuple[int, ...]:
    """Budgets at which the races of this sweep decide."""
    return rung_budgets(config.budget_examples, config.first_rung_fraction, config.reduction_factor)


@dataclass(frozen=True)
class Stage:
    """What both stages of trials need to run on Ray.

    Attributes:
        requests: what trials of each feasible batch size ask for while searching.
        memory_growth_mib: what a trial may allocate under the user's limit, libraries left out.
    """

    config: SweepConfig
    store: SweepStore
    data_path: Path
    cluster: Cluster
    profiles: Sequence[BatchSizeProfile]
    requests: dict[int, TrialRequest]
    memory_growth_mib: float | None

    @classmethod
    def of(
        cls,
        config: SweepConfig,
        store: SweepStore,
        data_path: Path,
        cluster: Cluster,
        profiles: Sequence[BatchSizeProfile],
    ) -> Stage:
        check_request(config, cluster)
        requests = trial_requests(config, profiles, cluster.gpus)
        growth = _memory_growth_mib(config, profiles)
        return cls(config, store, data_path, cluster, profiles, requests, growth)

    def shared(self) -> SharedByTrials:
        """What all trials have in common, as the search needs it."""
        config = self.config
        whole = [ray.put(self.data_path.read_bytes())] if self.cluster.nodes > 1 else []
        return SharedByTrials(
            model=config.model,
            optimizer=config.optimizer,
            goal=config.goal,
            target=config.target,
            budget_examples=config.budget_examples,
            rungs=rungs_of(config),
            validation_examples=config.validation_examples,
            split_seed=config.split_seed,
            data_path=str(self.data_path),
            data=whole,
            micro_batch_sizes=micro_batch_sizes(self.profiles),
            requests=self.requests,
            threads={size: max(1, int(r.cpus)) for size, r in self.requests.items()},
            memory_growth_mib=self.memory_growth_mib,
            stops_at_target=config.goal != "accuracy",
        )


def search(stage: Stage, *, resume: bool) -> None:
    """Search over the batch sizes that fit; the records are in the store when this returns."""
    config = stage.config
    sizes = tuple(size for size in config.batch_sizes if size in stage.requests)
    searcher = BatchSizeShares(
        config.search,
        sizes,
        config.trials,
        learning_rate_range(config),
        config.optimizer,
        config.seed,
    )
    races = BatchSizeRaces(
        rungs_of(config), config.reduction_factor, config.target, config.budget_examples,
        stage.store, goal=config.goal,
    )  # fmt: skip
    samples = config.trials + (RESCUES + BRACKETS) * len(sizes)
    tuner = _restored(stage, SEARCH, stage.shared()) if resume else None
    tuner = tuner or _fresh(stage, SEARCH, stage.shared(), searcher, races, samples)
    _fit(tuner)


def confirm(stage: Stage, runs: Sequence[ConfirmRun], *, resume: bool) -> None:
    """Make the runs, each alone on its device; their rows are in the store when this returns.

    With `resume` the runs that an earlier driver left unfinished are taken up instead, from their
    checkpoints; ask again which are missing then.
    """
    requests = alone(stage.requests, cpus_of_the_largest_node())
    shared = replace(
        stage.shared(),
        requests=requests,
        rungs=(),
        stops_at_target=False,
        test_updates=(equal_updates(stage.config.budget_examples, requests),),
        train_sample=stage.config.validation_examples,
        evaluation_threads=_evaluation_threads(stage.profiles, requests),
        began_at=time.time(),
    )
    done = _experiments(stage, CONFIRM)
    tuner = _restored(stage, f"{CONFIRM}-{done}", shared) if resume and done else None
    if tuner is None:
        name = f"{CONFIRM}-{done + 1}"
        tuner = _fresh(stage, name, shared, Listed(runs), FIFOScheduler(), len(runs))
    _fit(tuner)


def _evaluation_threads(
    profiles: Sequence[BatchSizeProfile], requests: Mapping[int, TrialRequest]
) -> int | None:
    """All CPUs of a run that is alone, where a batch is large enough to be shared out; else None.

    Evaluating is no part of what is timed. Small batches are slower on several threads.
    """
    speeds = [row.evaluation_examples_per_second or math.inf for row in chosen(profiles)]
    if any(r.gpus for r in requests.values()) or EVALUATION_BATCH / max(speeds) < WORTH_SHARING:
        return None
    return max(1, int(max(r.cpus for r in requests.values())))


def cpus_of_the_largest_node() -> float:
    """CPUs of the node that a CPU profile is taken on."""
    return float(max(n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]))


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


def _trainable(shared: SharedByTrials) -> object:
    return tune.with_resources(
        tune.with_parameters(BatchSizeTrial, shared=shared),
        lambda asked: tune.PlacementGroupFactory([shared.requests[asked["batch_size"]].bundle()]),
    )


def _experiments(stage: Stage, name: str) -> int:
    """How many experiments `name-1`, `name-2` ... there are."""
    path, filesystem = stage.store.ray_storage()
    count = 0
    while tune.Tuner.can_restore(f"{path}/{name}-{count + 1}", filesystem):
        count += 1
    return count


def _restored(stage: Stage, name: str, shared: SharedByTrials) -> tune.Tuner | None:
    """The experiment as an earlier driver left it, or None where there is none."""
    path, filesystem = stage.store.ray_storage()
    if not tune.Tuner.can_restore(f"{path}/{name}", filesystem):
        return None
    return tune.Tuner.restore(
        f"{path}/{name}",
        _trainable(shared),
        resume_unfinished=True,
        storage_filesystem=filesystem,
    )


def _fresh(
    stage: Stage,
    name: str,
    shared: SharedByTrials,
    searcher: Searcher,
    scheduler: TrialScheduler,
    samples: int,
) -> tune.Tuner:
    keeper = RecordKeeper(
        stage.config, stage.store, stage.profiles, shared.requests, name.split("-")[0]
    )
    path, filesystem = stage.store.ray_storage()
    return tune.Tuner(
        _trainable(shared),
        tune_config=tune.TuneConfig(
            num_samples=samples,
            max_concurrent_trials=at_once(shared.requests.values(), stage.cluster),
            reuse_actors=True,
            search_alg=searcher,
            scheduler=scheduler,
            trial_name_creator=lambda trial: readable_name(trial.config),
            trial_dirname_creator=lambda trial: f"{readable_name(trial.config)}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[keeper],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=1),
            sync_config=tune.SyncConfig(sync_period=2),
            verbose=0,
        ),
    )


def _fit(tuner: tune.Tuner) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its summary looks for result files of loggers that are off; the records are the store's.
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
        tuner.fit()
