"""Entry: sweep the batch size. The command line, and the stages in their order; nothing else.

python tune_jobs/sweep.py [options]          on this machine
ray job submit -- python tune_jobs/sweep.py  on a cluster
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from rich.console import Console

from tune_jobs import environment
from tune_jobs.command_line import Action, Invocation, parse
from tune_jobs.config import SweepConfig, resolve, resumed, to_toml, validate_against_data
from tune_jobs.errors import SweepError, TrackingUnreachable, UserError
from tune_jobs.planning.confirm_plan import missing_runs, unbracketed
from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.reporting.table import print_places, wide_console
from tune_jobs.store import SweepStore
from tune_jobs.tracking.mlflow_copy import MlflowCopy, check_reachable, default_uri

if TYPE_CHECKING:
    from tune_jobs.tuning.cluster import Cluster
    from tune_jobs.tuning.stages import Stage

CONFIRM_ROUNDS = 3  # what the machine failed is tried again so often


def main() -> int:
    invocation = parse()
    console = wide_console()
    try:
        config = configuration(invocation)
        return run(config, invocation, console)
    except (UserError, TrackingUnreachable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; take it up again with --resume and the same --name", file=sys.stderr)
        return 130


def configuration(invocation: Invocation) -> SweepConfig:
    """The resolved configuration; with --resume that of the sweep's own folder."""
    config = resolve(invocation.action.config, invocation.flags)
    if not invocation.action.resume:
        return config
    store = SweepStore.open(config.runs_dir, config.name)
    if not store.exists():
        raise UserError(f"--resume: there is no sweep in {store.address}; check --name, --runs-dir")
    return resumed(resolve(store.config, {}), invocation.flags)


def run(config: SweepConfig, invocation: Invocation, console: Console) -> int:
    """Check everything that can be checked, then the stages. Returns the exit status."""
    store = SweepStore.open(config.runs_dir, config.name)
    resume = invocation.action.resume
    if store.exists() and not resume and not invocation.action.dry_run:
        raise UserError(
            f"--name {config.name}: {store.address} holds a sweep already; add --resume to take it "
            "up, or choose another name"
        )
    check_names(config)
    if invocation.action.dry_run:
        print_plan(config, console)
        return 0
    store.create()
    uri = tracking_uri(config, console)
    data_path = prepare_data(config, console)
    return sweep(Job(config, store, data_path, uri, console, invocation.action))


def check_names(config: SweepConfig) -> None:
    """Model and data must be known before anything starts."""
    from models import registry
    from tune_jobs.data import sources
    from tune_jobs.errors import unknown_name

    registry.resolve(config.model)
    if config.data not in sources.known():
        raise unknown_name("--data", config.data, sources.known())


def tracking_uri(config: SweepConfig, console: Console) -> str | None:
    """The store MLflow is copied to, or None when it does not answer (told at once)."""
    uri = config.tracking_uri or default_uri()
    try:
        check_reachable(uri)
    except TrackingUnreachable as error:
        if config.tracking_required:
            raise
        console.print(f"note: {error}", highlight=False, soft_wrap=True)
        console.print("note: going on with the records alone", highlight=False)
        return None
    return uri


def prepare_data(config: SweepConfig, console: Console) -> Path:
    """The data set as one Arrow file on this host, checked against the configuration."""
    from tune_jobs.data.dataset import open_dataset
    from tune_jobs.data.sources import prepare

    path = prepare(config.data, Path(config.data_dir)).resolve()
    validate_against_data(config, len(open_dataset(path).train.labels))
    return path


def print_plan(config: SweepConfig, console: Console) -> None:
    """--dry-run: the configuration, the trials, and what each will ask of Ray."""
    from tune_jobs.tuning import stages
    from tune_jobs.tuning.space import shares

    within = stages.learning_rate_range(config)
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
    console.print(to_toml(config), **plain)
    console.print(
        f"base learning rate {within.low:.2g} to {within.high:.2g} (at batch 256); races decide at "
        f"{', '.join(map(str, stages.rungs_of(config)))} of {config.budget_examples} examples",
        **plain,
    )
    for size, count in shares(config.trials, config.batch_sizes).items():
        console.print(
            f"batch size {size:>6}: {count} trials, each asking Ray for {config.cpus_per_trial} "
            f"CPU and {config.gpus_per_trial} GPU",
            **plain,
        )


@dataclass(frozen=True)
class Job:
    """What the stages of one sweep work with; `uri` is MLflow's store, None without one."""

    config: SweepConfig
    store: SweepStore
    data_path: Path
    uri: str | None
    console: Console
    action: Action

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def train_examples(self) -> int:
        """What is left to train on once validation is carved off: no batch is larger."""
        from tune_jobs.data.dataset import open_dataset

        return len(open_dataset(self.data_path).train.labels) - self.config.validation_examples


def sweep(job: Job) -> int:
    """Measure, search, confirm, judge; everything is left in the store and in MLflow."""
    from tune_jobs.tuning import cluster as clusters
    from tune_jobs.tuning.energy import check_energy
    from tune_jobs.tuning.stages import Stage

    config, store = job.config, job.store
    if not clusters.in_a_cluster():
        clusters.check_request(config, clusters.this_machine())
    cluster = clusters.start_ray(ROOT)
    clusters.check_request(config, cluster)
    clusters.check_storage(store, cluster)
    check_energy(config, cluster, job.say)
    store.write_text(store.config, to_toml(config))
    facts = environment.describe(ROOT) | clusters.job_facts(cluster)
    facts |= {"train_examples": job.train_examples()}
    store.write_environment(facts)
    copy = start_copy(job, facts)
    profiles = measure(job, cluster)
    if copy is not None:
        for profile in profiles:
            copy.profile(profile)
    if job.action.only == "measure":
        whole = copy is None or finish_copy(copy, store, "Profiles only.", {"verdict": "measured"})
        print_places(places(job, whole), job.console)
        return 0
    stage = Stage.of(config, store, job.data_path, cluster, profiles)
    search(job, stage, copy)
    confirm(job, stage, copy)
    return conclude(job, copy, facts)


def places(job: Job, whole: bool) -> list[tuple[str, str]]:
    """Where to look further."""
    address = job.store.address
    ui = f"scripts/mlflow_ui (store: {job.uri})" if job.uri else "no tracking store was reachable"
    if job.uri and job.uri.startswith("http"):
        ui = job.uri
    return [
        ("records", address),
        ("report", f"{job.store.folder}/report.html, python tune_jobs/report.py {address}"),
        ("MLflow UI", ui if whole else f"{ui}; some rows are missing, --resume completes them"),
    ]


def measure(job: Job, cluster: Cluster) -> list[BatchSizeProfile]:
    """Stage 1, unless the store holds its rows already; its table is printed either way."""
    from tune_jobs.reporting.costs import noise_lines, print_costs
    from tune_jobs.reporting.page.html import write_report
    from tune_jobs.tuning.measuring import profile_devices

    config, store = job.config, job.store
    profiles = store.read_profiles()
    if {p.batch_size for p in profiles} < set(config.batch_sizes):
        profiles = profile_devices(config, store, job.data_path, cluster, job.say)
    examples = job.train_examples()
    print_costs(profiles, config.memory_margin, examples, job.console)
    noise = store.read_noise_scale()
    for line in noise_lines(noise):
        job.say(line)
    if not store.verdict.exists():
        write_report(
            store.folder,
            [],
            [],
            profiles,
            noise,
            title=config.name,
            facts=environment.describe(ROOT),
            margin=config.memory_margin,
            train_examples=examples,
        )
    return profiles


def search(job: Job, stage: Stage, copy: MlflowCopy | None) -> None:
    """Stage 2, over once a confirm run stands in the store."""
    from tune_jobs.tuning import stages

    trials = job.store.read_trials()
    if any(t.stage == "confirm" for t in trials):
        return
    with told(job, "search", job.config.trials, copy):
        stages.search(stage, resume=job.action.resume)
    for line in unbracketed(job.config, job.store.read_trials()):
        job.say(line)


def confirm(job: Job, stage: Stage, copy: MlflowCopy | None) -> None:
    """Stage 3: until no run is missing; runs that an earlier driver left come first."""
    from tune_jobs.tuning import stages

    resume = job.action.resume
    for _ in range(CONFIRM_ROUNDS):
        trials = job.store.read_trials()
        runs = missing_runs(job.config, trials)
        if not runs:
            return
        made = sum(t.stage == "confirm" for t in trials)
        with told(job, "confirm", made + len(runs), copy):
            stages.confirm(stage, runs, resume=resume)
        resume = False


@contextmanager
def told(job: Job, stage: str, count: int, copy: MlflowCopy | None) -> Iterator[None]:
    """While a stage runs, its records are heard by the terminal and by MLflow's copy."""
    from tune_jobs.reporting.progress import Progress
    from tune_jobs.tuning import keeper, waiting

    waiting.SAY[job.config.name] = job.say
    with Progress(stage, job.config.batch_sizes, count, job.console) as progress:
        progress.already([t for t in job.store.read_trials() if t.stage == stage])
        keeper.LISTENERS[job.config.name] = [progress, *([hearing(copy)] if copy else [])]
        yield


def conclude(job: Job, copy: MlflowCopy | None, facts: Mapping[str, object]) -> int:
    """Stages 4 and 5: judge the records, print, draw, and close MLflow's parent run."""
    from tune_jobs.reporting.answer import answer_of_sweep, as_json, write_page
    from tune_jobs.reporting.summary import note_of, tags_of
    from tune_jobs.reporting.terminal import print_verdicts

    config, store = job.config, job.store
    answer = answer_of_sweep(config, store)
    store.write_text(store.verdict, as_json(answer.verdicts))
    write_page(answer, store.folder, config, config.name, facts)
    verdict = answer.verdicts[0]
    whole = copy is None or finish_copy(copy, store, note_of(verdict), tags_of(verdict))
    store.publish()
    for note in answer.notes:
        job.say(f"note: {note}")
    job.console.print()
    print_verdicts(answer.verdicts, job.console)
    print_places(places(job, whole), job.console)
    return 0


def start_copy(job: Job, facts: Mapping[str, object]) -> MlflowCopy | None:
    """MLflow's copy of the records, its thread running; None without a store to copy to."""
    if job.uri is None:
        return None
    config, state = job.config, job.store.folder / "mlflow.json"
    copy = MlflowCopy(job.uri, config.experiment, config.name, state)
    params = {f.name: str(getattr(config, f.name)) for f in fields(SweepConfig)}
    told = ("commit", "cluster", "ray_job_id", "submission_id")
    tags = {name: str(facts[name]) for name in told if facts.get(name) is not None}
    copy.start(params, {"sweep": config.name, **tags})
    return copy


def hearing(copy: MlflowCopy) -> Callable[[Measurement | TrialResult], None]:
    """A listener that queues each record for MLflow."""
    return lambda r: copy.measurement(r) if isinstance(r, Measurement) else copy.result(r)


def finish_copy(copy: MlflowCopy, store: SweepStore, note: str, tags: Mapping[str, str]) -> bool:
    """Fill what is missing from the store, then close the parent run. True when it is whole."""
    profiles, noise = store.read_profiles(), store.read_noise_scale()
    copy.complete(store.read_trials(), store.read_measurements(), profiles, noise)
    files = [store.config, store.environment, store.profiles, store.noise_scale, store.trials]
    files += [store.measurements, store.verdict]
    files += [store.folder / "report.html", store.folder / "figures"]
    return bool(copy.finish(note, tags, [f for f in files if f.exists()]))


if __name__ == "__main__":
    raise SystemExit(main())
