"""Entry: sweep the batch size. The command line, and the stages in their order; nothing else.

python tune_jobs/sweep.py [options]          on this machine
ray job submit -- python tune_jobs/sweep.py  on a cluster
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from rich.console import Console

from tune_jobs import environment
from tune_jobs.analysis.choosing import judge
from tune_jobs.analysis.table import print_places, print_verdict, wide_console
from tune_jobs.command_line import Action, Invocation, parse
from tune_jobs.config import SweepConfig, resolve, to_toml, validate_against_data
from tune_jobs.errors import SweepError, TrackingUnreachable, UserError
from tune_jobs.records import BatchSizeProfile, Measurement, TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.tracking.mlflow_copy import MlflowCopy, check_reachable, default_uri

if TYPE_CHECKING:
    from tune_jobs.tuning.stages import Cluster


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
    store = SweepStore(Path(config.runs_dir) / config.name)
    if not invocation.action.resume:
        return config
    if not store.exists():
        raise UserError(f"--resume: there is no sweep in {store.folder}; check --name, --runs-dir")
    return resumed(resolve(store.config, {}), invocation.flags)


def resumed(before: SweepConfig, flags: Mapping[str, Any]) -> SweepConfig:
    """What the sweep was begun with; a flag that says otherwise is refused, but for tracking."""
    free = {"tracking_uri", "tracking_required", "runs_dir"}
    for f in fields(SweepConfig):
        given = flags.get(f.name)
        if f.name not in free and given is not None and given != getattr(before, f.name):
            raise UserError(
                f"--resume with {f.name} {given!r}: the sweep was begun with "
                f"{getattr(before, f.name)!r}; leave it out, or begin a sweep with another --name"
            )
    return replace(before, **{name: flags[name] for name in free if name in flags})


def run(config: SweepConfig, invocation: Invocation, console: Console) -> int:
    """Check everything that can be checked, then data, search, verdict. Returns the exit status."""
    store = SweepStore(Path(config.runs_dir) / config.name)
    resume = invocation.action.resume
    if store.exists() and not resume and not invocation.action.dry_run:
        raise UserError(
            f"--name {config.name}: {store.folder} holds a sweep already; add --resume to take it "
            "up, or choose another name"
        )
    check_names(config)
    if invocation.action.dry_run:
        print_plan(config, console)
        return 0
    store.create()
    uri = tracking_uri(config, console)
    data_path = prepare_data(config, console)
    return sweep(config, store, data_path, uri, console, invocation.action)


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


def sweep(
    config: SweepConfig,
    store: SweepStore,
    data_path: Path,
    uri: str | None,
    console: Console,
    action: Action,
) -> int:
    """Measure, search, judge, and leave everything in the store and in MLflow."""
    from tune_jobs.tuning import stages

    if not stages.in_a_cluster():
        stages.check_request(config, stages.this_machine())
    cluster = stages.start_ray(ROOT)
    stages.check_request(config, cluster)
    if not action.resume:
        store.write_text(store.config, to_toml(config))
    facts = environment.describe(ROOT)
    store.write_environment(facts)
    copy = start_copy(config, store, uri, facts)
    profiles = measure(config, store, data_path, console)
    if copy is not None:
        for profile in profiles:
            copy.profile(profile)
    if action.only == "measure":
        whole = copy is None or finish_copy(copy, store, "Profiles only.", "measured")
        print_places(places(store, uri, whole), console)
        return 0
    search(config, store, data_path, cluster, profiles, copy, console, resume=action.resume)
    trials = store.read_trials()
    verdict = judge(config.name, config.goal, config.target, trials, config.batch_sizes)
    store.write_verdict(verdict)
    whole = copy is None or finish_copy(copy, store, verdict.reason, verdict.status)
    console.print()
    print_verdict(verdict, console)
    print_places(places(store, uri, whole), console)
    return 0


def places(store: SweepStore, uri: str | None, whole: bool) -> list[tuple[str, str]]:
    """Where to look further."""
    ui = f"scripts/mlflow_ui (store: {uri})" if uri else "no tracking store was reachable"
    return [
        ("records", str(store.folder)),
        ("report", f"python tune_jobs/report.py {store.folder}"),
        ("MLflow UI", ui if whole else f"{ui}; some rows are missing, --resume completes them"),
    ]


def measure(
    config: SweepConfig, store: SweepStore, data_path: Path, console: Console
) -> list[BatchSizeProfile]:
    """Stage 1, unless the store holds its rows already; its table is printed either way."""
    from tune_jobs.analysis.costs import noise_lines, print_costs
    from tune_jobs.analysis.html import write_report
    from tune_jobs.data.dataset import open_dataset
    from tune_jobs.tuning.measuring import profile_devices

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    profiles = store.read_profiles()
    if {p.batch_size for p in profiles} < set(config.batch_sizes):
        profiles = profile_devices(config, store, data_path, say)
    examples = len(open_dataset(data_path).train.labels) - config.validation_examples
    print_costs(profiles, config.memory_margin, examples, console)
    noise = store.read_noise_scale()
    for line in noise_lines(noise):
        say(line)
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


def search(
    config: SweepConfig,
    store: SweepStore,
    data_path: Path,
    cluster: Cluster,
    profiles: list[BatchSizeProfile],
    copy: MlflowCopy | None,
    console: Console,
    *,
    resume: bool,
) -> None:
    """Stage 2, its records heard by the terminal and by MLflow's copy."""
    from tune_jobs.progress import Progress
    from tune_jobs.tuning import keeper, stages

    with Progress(config.batch_sizes, config.trials, console) as progress:
        progress.already(store.read_trials())
        keeper.LISTENERS[config.name] = [progress, *([hearing(copy)] if copy else [])]
        stages.search(config, store, data_path, cluster, profiles, resume=resume)


def start_copy(
    config: SweepConfig, store: SweepStore, uri: str | None, facts: Mapping[str, object]
) -> MlflowCopy | None:
    """MLflow's copy of the records, its thread running; None without a store to copy to."""
    if uri is None:
        return None
    copy = MlflowCopy(uri, config.experiment, config.name, store.folder / "mlflow.json")
    params = {f.name: str(getattr(config, f.name)) for f in fields(SweepConfig)}
    copy.start(params, {"sweep": config.name, "commit": str(facts["commit"])})
    return copy


def hearing(copy: MlflowCopy) -> Callable[[Measurement | TrialResult], None]:
    """A listener that queues each record for MLflow."""
    return lambda r: copy.measurement(r) if isinstance(r, Measurement) else copy.result(r)


def finish_copy(copy: MlflowCopy, store: SweepStore, note: str, status: str) -> bool:
    """Fill what is missing from the store, then close the parent run. True when it is whole."""
    profiles, noise = store.read_profiles(), store.read_noise_scale()
    copy.complete(store.read_trials(), store.read_measurements(), profiles, noise)
    files = [store.config, store.environment, store.profiles, store.noise_scale, store.trials]
    files += [
        store.measurements,
        store.verdict,
        store.folder / "report.html",
        store.folder / "figures",
    ]
    return bool(copy.finish(note, {"verdict": status}, [f for f in files if f.exists()]))


if __name__ == "__main__":
    raise SystemExit(main())
