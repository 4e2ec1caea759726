"""Trials of a plan on Ray Tune, fresh or taken up again."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tune_jobs.config import SweepConfig, probe_seconds
from tune_jobs.errors import Terminated
from tune_jobs.measure.clock import chosen, micro_batch_sizes
from tune_jobs.planning.learning_rates import propose
from tune_jobs.planning.search_plan import rungs_of
from tune_jobs.planning.ways import known_of, way_of
from tune_jobs.records import BatchSizeProfile, ConfirmRun
from tune_jobs.space import as_text
from tune_jobs.store import SweepStore
from tune_jobs.training.device import EVALUATION_BATCH
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.tuning.cluster import (
    Cluster,
    check_request,
    cpus_of_the_largest_node,
    main_accelerator,
)
from tune_jobs.tuning.confirming import alone, equal_updates
from tune_jobs.tuning.failures import given_up
from tune_jobs.tuning.guard import allowed_seconds
from tune_jobs.tuning.keeper import RecordKeeper, readable_name
from tune_jobs.tuning.leaving import Leaving
from tune_jobs.tuning.planned import PLANS, Asked, Planned
from tune_jobs.tuning.racing import races_of
from tune_jobs.tuning.requests import Requests, TrialRequest, evened, trial_requests
from tune_jobs.tuning.trial import BatchSizeTrial, SharedByTrials
from tune_jobs.tuning.waiting import Waiting
from tune_jobs.workload_source import source_of

# Its summary looks for result files of loggers that are off; the records are the store's.
logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
# A trial's error stands in its record with its traceback, and in one line of the progress.
for name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

SEARCH, CONFIRM, SCHEDULE = "search", "confirm", "schedule"
TRIALS = "trials"  # search and confirm: trials of both follow each other in the same processes
CHECKPOINT_SECONDS = 8.0  # between two checkpoints of a trial, at the least
# Of all trials together, at the most: Tune saves its whole state at each.
CHECKPOINTS_A_SECOND = 4.0
MANY_TRIALS = 1_000  # a save of Tune's state takes a tenth of a millisecond for each
# Of an experiment, at the most: Tune keeps 50 KiB of each trial until its experiment is over.
EXPERIMENT_TRIALS = 200
TRIALS_A_PLACE = 10  # at the least, where many run side by side: they wait for each other's end
STATE_SECONDS = 2.0  # between two saves of it, at the least
WORTH_SHARING = 0.005  # seconds of one evaluation batch on one thread


@dataclass(frozen=True)
class Stage:
    """What both stages of trials need to run on Ray.

    Attributes:
        requests: what trials of each feasible batch size ask for while searching.
        accelerator: the type of GPU, as Ray names it, whose seconds the verdict is of; None where
            there is one type alone.
        memory_growth_mib: what a trial may allocate under the user's limit, libraries left out.
    """

    config: SweepConfig
    store: SweepStore
    data_path: Path | None
    cluster: Cluster
    profiles: Sequence[BatchSizeProfile]
    requests: dict[int, TrialRequest]
    accelerator: str | None
    memory_growth_mib: float | None

    @classmethod
    def of(
        cls,
        config: SweepConfig,
        store: SweepStore,
        data_path: Path | None,
        cluster: Cluster,
        profiles: Sequence[BatchSizeProfile],
    ) -> Stage:
        check_request(config, cluster)
        accelerator = main_accelerator(config)
        requests = trial_requests(config, profiles, cluster.could_have("GPU"), accelerator)
        requests = evened(requests, cluster.places_for)
        growth = _memory_growth_mib(config, profiles)
        return cls(config, store, data_path, cluster, profiles, requests, accelerator, growth)

    @property
    def sizes(self) -> list[int]:
        """The sweep's feasible batch sizes, ascending; a batch schedule may have further ones."""
        return [size for size in sorted(self.requests) if size in self.config.batch_sizes]

    @property
    def holds(self) -> bool:
        """Whether a run that wants a device for itself may keep all others waiting in place of
        asking Ray for more than they do, which would start a process for it, and theirs again."""
        return not self.cluster.spread_out and not any(r.gpus for r in self.requests.values())

    def alone(self) -> dict[int, TrialRequest]:
        """What runs ask for that want a device for themselves."""
        if self.holds:
            return self.requests
        return alone(self.requests, cpus_of_the_largest_node(), self.accelerator)

    def shared(self) -> SharedByTrials:
        """What all trials have in common."""
        config, requests = self.config, Requests(self.requests, self.alone())
        travels = self.data_path if self.cluster.spread_out else None
        whole = [ray.put(travels.read_bytes())] if travels else []
        return SharedByTrials(
            source=source_of(config, self.data_path),
            optimizer=config.optimizer,
            recipe=config.training,
            goal=config.compared_by,
            target=config.target,
            budget_examples=config.budget_examples,
            rungs=rungs_of(config),
            validation_examples=config.validation_examples,
            split_seed=config.split_seed,
            data=whole,
            micro_batch_sizes=micro_batch_sizes(self.profiles),
            requests=requests,
            threads={size: max(1, int(r.cpus)) for size, r in self.requests.items()},
            memory_growth_mib=self.memory_growth_mib,
            checkpoint_seconds=checkpoint_seconds(at_once(self.requests.values(), self.cluster)),
            report_seconds=report_seconds(config, self.profiles),
            stops_at_target=config.compared_by != "accuracy",
            test_updates=(equal_updates(config.budget_examples, self.sizes),),
            train_sample=config.validation_examples,
            evaluation_threads=_evaluation_threads(self.profiles, requests.alone),
            began_at=time.time(),
        )


Plan = Callable[[Sequence[Asked]], list[Asked]]


def run(stage: Stage, plan: Plan, most: int, *, resume: bool, named: str = TRIALS) -> None:
    """Make the trials of a plan, which is asked again whenever one ends, until it has none; their
    rows are in the store when this returns. More than an experiment takes are made in several, one
    after the other.

    With `resume` the trials that an earlier driver left unfinished are taken up, from their
    checkpoints.
    """
    PLANS[stage.config.name] = plan
    shared, done = stage.shared(), _experiments(stage, named)
    tuner = restored(stage, f"{named}-{done}", shared) if resume and done else None
    if tuner is not None:
        fit(tuner, most)
    places = at_once(stage.requests.values(), stage.cluster)
    whole = max(EXPERIMENT_TRIALS, TRIALS_A_PLACE * places)
    while most > 0 and plan([]):
        done += 1
        samples = min(most, whole)
        searcher = Planned(stage.config.name, stage.holds)
        scheduler = races_of(stage.config, stage.store, places)
        tuner = fresh(stage, f"{named}-{done}", shared, searcher, scheduler, samples)
        most = most - samples if fit(tuner, samples) == samples else 0
        gc.collect()  # an experiment's parts refer to each other: seldom found by themselves


def searched_next(
    stage: Stage, trials: int, under_way: Sequence[Asked], among: Sequence[int] | None = None
) -> list[Asked]:
    """The next trial of the search, given those under way; none once so many are made in all.
    `among` as `propose` takes it."""
    config = replace(stage.config, trials=trials)
    known = known_of(config, stage.store, stage.profiles)
    gone = given_up(known.trials)
    sizes = [size for size in stage.sizes if size not in gone]
    if not sizes:
        return []
    pending = [(asked["batch_size"], asked["base_learning_rate"]) for asked in under_way]
    known = replace(known, pending=pending)
    if among is None:
        found = way_of(config).propose(config, sizes, known)
    else:
        found = propose(config, sizes, known, [size for size in among if size in sizes])
    if found is None:
        return []
    size, base = found.batch_size, found.base_learning_rate
    return [
        {
            "stage": SEARCH,
            "batch_size": size,
            "base_learning_rate": base,
            "learning_rate": scaled_learning_rate(config.optimizer, base, size),
            "seed": config.seed,
            "races": found.races,
            "most_examples": found.most_examples,
            "whole": False,
            "why": found.why,
            "space": as_text(found.space),
        }
    ]


def asked_of(run: ConfirmRun, named: str = CONFIRM) -> Asked:
    """A run with a seed of its own, of the stage that is `named`."""
    return {"stage": named, **asdict(run), "races": False}


def _evaluation_threads(
    profiles: Sequence[BatchSizeProfile], requests: Mapping[int, TrialRequest]
) -> int | None:
    """All CPUs of a run that is alone, where a batch is large enough to be shared out; else None.

    Evaluating is no part of what is timed. Small batches are slower on several threads.
    """
    speeds = [row.evaluation_examples_per_second or math.inf for row in chosen(profiles)]
    batch_seconds = EVALUATION_BATCH["cpu"] / max(speeds)
    if any(r.gpus for r in requests.values()) or batch_seconds < WORTH_SHARING:
        return None
    return max(1, int(cpus_of_the_largest_node()))


def _memory_growth_mib(config: SweepConfig, profiles: Sequence[BatchSizeProfile]) -> float | None:
    """What a trial may allocate under the user's limit, the libraries' own memory left out."""
    if config.memory_limit_mib is None:
        return None
    return config.memory_limit_mib - max(p.base_memory_mib or 0.0 for p in chosen(profiles))


def at_once(requests: Iterable[TrialRequest], cluster: Cluster) -> int:
    """Trials that fit the cluster side by side, were all as small as the smallest.

    Nodes that the autoscaler may add count: it adds them for trials that wait.
    """
    return max(1, *(int(cluster.places_for(request.bundle())) for request in requests))


def report_seconds(config: SweepConfig, profiles: Sequence[BatchSizeProfile]) -> dict[int, float]:
    """How long a trial of each batch size may take to its next report before it counts as hung."""
    whole: dict[int, float] = {}
    for row in chosen(profiles):
        training = (row.step_seconds or 0.0) * config.budget_examples / row.batch_size
        evaluating = config.validation_examples / (row.evaluation_examples_per_second or math.inf)
        whole[row.batch_size] = max(whole.get(row.batch_size, 0.0), training + evaluating)
    # A process of its own begins with imports, which no profile tells.
    begin = probe_seconds(config.profile_seconds) if config.own_loop else 0.0
    return {size: begin + allowed_seconds(seconds) for size, seconds in whole.items()}


def checkpoint_seconds(trials_at_once: int) -> float:
    """Between two checkpoints of a trial; what a lost node may cost each of its trials."""
    return max(CHECKPOINT_SECONDS, trials_at_once / CHECKPOINTS_A_SECOND)


def _trainable(shared: SharedByTrials) -> object:
    return tune.with_resources(
        tune.with_parameters(BatchSizeTrial, shared=shared),
        lambda asked: tune.PlacementGroupFactory([shared.requests.of(asked).bundle()]),
    )


def _experiments(stage: Stage, name: str) -> int:
    """How many experiments `name-1`, `name-2` ... there are."""
    path, filesystem = stage.store.ray_storage()
    count = 0
    while tune.Tuner.can_restore(f"{path}/{name}-{count + 1}", filesystem):
        count += 1
    return count


def _made_in(name: str) -> tuple[str, ...]:
    """The stages whose trials an experiment makes."""
    kind = name.split("-")[0]
    return (SEARCH, CONFIRM) if kind == TRIALS else (kind,)


def restored(stage: Stage, name: str, shared: SharedByTrials) -> tune.Tuner | None:
    """The experiment as an earlier driver left it, or None where there is none."""
    path, filesystem = stage.store.ray_storage()
    if not tune.Tuner.can_restore(f"{path}/{name}", filesystem):
        return None
    known = tune.ExperimentAnalysis(f"{path}/{name}", storage_filesystem=filesystem).trials or []
    stage.store.drop_lost(_made_in(name), [trial.trial_id for trial in known])
    return tune.Tuner.restore(
        f"{path}/{name}",
        _trainable(shared),
        resume_unfinished=True,
        storage_filesystem=filesystem,
    )


def fresh(
    stage: Stage,
    name: str,
    shared: SharedByTrials,
    searcher: Searcher | None,
    scheduler: TrialScheduler,
    samples: int,
    *,
    keep: int = 1,
    space: dict[str, Any] | None = None,
) -> tune.Tuner:
    """An experiment of so many trials of a searcher, or, of all in a `space`; `keep` checkpoints
    of each."""
    of = _made_in(name)
    keeper = RecordKeeper(stage.config, stage.store, stage.profiles, shared.requests, of[0])
    stage.store.drop_lost(of, [])  # no trial of these stages is under way
    path, filesystem = stage.store.ray_storage()
    return tune.Tuner(
        _trainable(shared),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=samples,
            # All of a space are there at once, and wait for room: else Ray would not compare them.
            max_concurrent_trials=None
            if searcher is None
            else at_once(shared.requests.beside.values(), stage.cluster),
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
            callbacks=[keeper, Waiting(stage.config.name), Leaving(stage.config.name)],
            # At the end of a trial it makes Tune save its state: no ended trial is run again.
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=keep, checkpoint_at_end=samples <= MANY_TRIALS
            ),
            failure_config=tune.FailureConfig(max_failures=1),
            sync_config=tune.SyncConfig(sync_period=2),
            verbose=0,
        ),
    )


def fit(tuner: tune.Tuner, samples: int) -> int:
    """Make the trials of an experiment of at most so many; how many there were."""
    state_seconds = max(STATE_SECONDS, STATE_SECONDS * samples / MANY_TRIALS)
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", f"{state_seconds:g}")
    with warnings.catch_warnings(), _interruptible():
        warnings.simplefilter("ignore")
        return len(tuner.fit())


@contextmanager
def _interruptible() -> Iterator[None]:
    """On SIGINT Tune saves its state, and KeyboardInterrupt is raised here; Terminated on SIGTERM.

    By itself Tune returns from an interrupted experiment as from one that is over, and leaves
    SIGTERM to an abort. It listens to SIGUSR1 as well, so that is what it is sent.
    """
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGUSR1)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # until Tune listens
    try:
        yield
    except KeyboardInterrupt:
        if signal.SIGTERM in received:
            raise Terminated from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Terminated if signal.SIGTERM in received else KeyboardInterrupt
