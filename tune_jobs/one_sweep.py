"""One sweep: its stages in their order. `sweep.py` is its command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from tune_jobs import environment
from tune_jobs.command_line import Action
from tune_jobs.config import PBT, SCHEDULES, SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.measure.clock import chosen
from tune_jobs.measure.fresh import FreshProcesses
from tune_jobs.measure.profiling import to_time_again
from tune_jobs.planning import learning_rates
from tune_jobs.planning.allowance import FURTHER, SEARCH, Allowance
from tune_jobs.planning.confirm_plan import most_runs, run_anew, seeds_looked_at, unbracketed
from tune_jobs.planning.extending import TRIALS, next_size
from tune_jobs.planning.lengthening import longer_budget
from tune_jobs.planning.looks import (
    MOST_TRIALS,
    goes_on,
    last_look,
    look_of,
    searched,
    with_look,
)
from tune_jobs.planning.next_step import Step, next_step
from tune_jobs.planning.population import members_of
from tune_jobs.planning.schedule_runs import given_now, runs_made, runs_missing, schedule_known
from tune_jobs.planning.timing import worth_timing
from tune_jobs.planning.ways import known_of, way_of
from tune_jobs.preparing import data_facts
from tune_jobs.records import BatchSizeProfile, ConfirmRun
from tune_jobs.reporting.answer import answer_of_sweep, as_json, write_page
from tune_jobs.reporting.costs import print_costs, report_costs
from tune_jobs.reporting.progress import Progress
from tune_jobs.reporting.standing import Rows
from tune_jobs.reporting.summary import note_of, tags_of
from tune_jobs.reporting.table import places, print_places, say
from tune_jobs.reporting.terminal import print_verdicts
from tune_jobs.store import SweepStore
from tune_jobs.tracking.of_sweep import SweepCopy
from tune_jobs.tuning import keeper, population, stages, waiting
from tune_jobs.tuning.aside import Aside
from tune_jobs.tuning.cluster import Cluster, job_facts
from tune_jobs.tuning.joining import join
from tune_jobs.tuning.measuring import (
    is_here,
    measure_noise_here,
    profile_devices,
    time_again,
)
from tune_jobs.tuning.planned import TRIES, Asked
from tune_jobs.tuning.stages import Stage

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """What the stages of one sweep work with; `uri` is MLflow's store, None without one;
    `data_path` the data set's file, None for a user's workload; `fresh` are processes to measure in
    that were begun ahead; `aside` is what goes on beside the stages."""

    config: SweepConfig
    store: SweepStore
    data_path: Path | None
    uri: str | None
    console: Console
    action: Action
    progress: Progress
    allowance: Allowance
    fresh: FreshProcesses | None = None
    aside: Aside = field(default_factory=Aside)

    def say(self, line: str) -> None:
        say(self.console, line)

    @property
    def for_fixed(self) -> Allowance:
        """What measuring, searching and confirming fixed batch sizes may use."""
        scheduled = self.config.search in SCHEDULES
        return self.allowance.for_fixed() if scheduled else self.allowance


def sweep(job: Job) -> None:
    """Measure, search, confirm, judge; everything is left in the store and in MLflow."""
    try:
        _sweep(job)
    finally:
        job.aside.close()


def _sweep(job: Job) -> None:
    config, store = job.config, job.store
    of_data = data_facts(config, job.data_path, store)
    cluster = join(config, store, ROOT, job.say)
    store.write_config(config)
    facts = environment.describe(ROOT) | job_facts(cluster) | of_data
    store.write_environment(facts)
    begin = partial(SweepCopy.begin, config, store, job.uri, facts)
    begun: list[Future[SweepCopy]] = []
    try:  # MLflow takes seconds to import and to make its store
        profiles = measure(job, cluster, facts, lambda: begun.append(job.aside.begin(begin)))
    except UserError:
        store.take_back()
        raise
    copy = begun[0].result() if begun else begin()
    copy.profiles(profiles)
    if job.action.only == "measure":
        lacks = copy.finish("Profiles only.", {"verdict": "measured"})
    else:
        stage = Stage.of(config, store, job.data_path, cluster, profiles)
        job, stage = choose(job, stage, copy, facts)
        job.aside.wait()
        if config.search == PBT:
            evolve(job, stage, copy)
        if config.search in SCHEDULES:
            run_schedule(job, stage, copy)
        if job.allowance.is_over():
            job.say(f"the {config.minutes:g} minutes are used: this is the answer so far")
        lacks = conclude(job, copy, facts)
    print_places(places(store, job.uri, lacks), job.console)


def measure(
    job: Job, cluster: Cluster, facts: Mapping[str, object], when_timed: Callable[[], object]
) -> list[BatchSizeProfile]:
    """Stage 1, unless the store holds its rows already; they are told either way.

    Where nothing waits for it the noise scale is measured, and the page drawn, beside the search.
    """
    config, store = job.config, job.store
    whole = job.action.only == "measure" or way_of(config).measured
    aside = None if whole else job.aside
    profiles = store.read_profiles()
    if {p.batch_size for p in profiles} < set(config.batch_sizes):
        seconds = job.for_fixed.left_to_measure(config.profile_seconds)
        profiles = profile_devices(
            replace(config, profile_seconds=seconds), store, job.data_path, cluster, job.say,
            fresh=job.fresh, when_timed=when_timed, aside=aside,
        )  # fmt: skip
    print_costs(profiles, config.memory_margin, int(str(facts["train_examples"])), job.console)
    lacks = config.noise_scale and not store.read_noise_scale() and is_here(profiles)
    drawn = partial(report_costs, config, store, facts, job.say)
    if aside is None or not chosen(profiles):
        drawn()
    elif lacks:
        measure_noise_here(
            config, store, job.data_path, profiles, job.say, job.fresh, aside, then=drawn
        )
    else:
        aside.later(drawn)
    return profiles


def choose(
    job: Job, stage: Stage, copy: SweepCopy, facts: Mapping[str, object]
) -> tuple[Job, Stage]:
    """Stages 2 and 3, search and confirm; begun again with the next batch size while that beyond a
    leader at the edge may be better, and with a longer budget while no trial reaches the target."""
    config, resume = job.config, job.action.resume
    if not confirmed(job):
        known = known_of(config, job.store)
        for line in way_of(config).told(config, stage.sizes, known):
            job.say(line)
    runs = Runs(job, stage, facts, config.trials - config.members)
    while True:
        if runs([]) or resume:
            with heard(job, copy, "search", runs.trials):
                stages.run(stage, runs, most_trials(job.config), resume=resume)
        resume = False
        if runs.longer is not None:
            job, stage = lengthened(job, stage, runs.longer)
            runs = Runs(job, stage, facts, runs.trials, runs.among, runs.widens)
            continue
        if (size := runs.wider) is None:
            return job, stage
        job, stage, added = widened(job, stage, copy, size)
        wanted = searched(job.store.read_trials()) + TRIALS if added else runs.trials
        runs = Runs(job, stage, facts, wanted, (size,) if added else None, widens=added)


def confirmed(job: Job) -> bool:
    """Whether a confirm run stands in the store: the first search is over then."""
    return any(t.stage == "confirm" for t in job.store.read_trials())


def widened(job: Job, stage: Stage, copy: SweepCopy, size: int) -> tuple[Job, Stage, bool]:
    """The batch size measured, and taken among the others; False where it does not fit."""
    config, store = job.config, job.store
    job.say(f"{2 * size if size < max(config.batch_sizes) else size // 2} leads at the edge: "
            f"{size} may be better, and is measured and tried")  # fmt: skip
    if (found := profiled(job, stage, copy, (size,))) is None:
        return job, stage, False
    config = replace(config, batch_sizes=tuple(sorted((*config.batch_sizes, size))))
    store.write_config(config)
    job, stage = replace(job, config=config), replace(found, config=config)
    return job, stage, size in stage.requests


def profiled(job: Job, stage: Stage, copy: SweepCopy, sizes: tuple[int, ...]) -> Stage | None:
    """The stage once further batch sizes are profiled; None where none fits."""
    config, rows = job.config, job.store.read_profiles()
    cpus = config.cpus_per_trial
    if not any(row.gpus for row in rows):  # as many threads as the others
        cpus = f"{chosen(rows)[0].cpus:g}"
    alone = replace(config, batch_sizes=sizes, noise_scale=False, cpus_per_trial=cpus)
    try:
        found = profile_devices(
            alone, job.store, job.data_path, stage.cluster, job.say, beside=rows, fresh=job.fresh
        )
    except UserError as error:  # those that do go on
        job.say(f"{' and '.join(map(str, sizes))} left out: {error}")
        return None
    if chosen(found):
        copy.profiles(found)
    return Stage.of(config, job.store, job.data_path, stage.cluster, [*rows, *found])


def lengthened(job: Job, stage: Stage, budget: int) -> tuple[Job, Stage]:
    """The sweep with a budget of so many examples."""
    before, config = job.config, replace(job.config, budget_examples=budget)
    job.say(f"no trial reached {before.target:g} within {before.budget_examples:,} examples: the "
            f"budget is {budget:,} from here on")  # fmt: skip
    job.store.write_config(config)
    return replace(job, config=config), replace(stage, config=config)


@dataclass
class Runs:
    """The plan of stages 2 and 3, from the rows of the store: what to run next, given what runs.

    Attributes:
        trials: of the first search, in all; `among` these batch sizes alone, where they are named.
        widens: whether a further batch size may be tried: before anything is confirmed the plan
            ends where one may be better, and `wider` names it. It ends as well where the budget is
            to be `longer`.
        bases: base learning rates to confirm, as they were after so many trials of the search.
        goes_whole: whether it was told that runs go on for accuracy and curves alone.
        anew: at which learning rates it was told that batch sizes are run anew.
    """

    job: Job
    stage: Stage
    facts: Mapping[str, object]
    trials: int
    among: tuple[int, ...] | None = None
    widens: bool = True
    wider: int | None = None
    longer: int | None = None
    bases: tuple[int, dict[int, float]] = (-1, {})
    goes_whole: bool = False
    anew: dict[int, float] = field(default_factory=dict)

    def __call__(self, under_way: Sequence[Asked]) -> list[Asked]:
        job, self.wider, self.longer = self.job, None, None
        if confirmed(job) or any(asked["stage"] == "confirm" for asked in under_way):
            return self._confirm(under_way)
        if not job.for_fixed.is_over(SEARCH):
            self.longer = self._longer_budget()
            if self.longer is not None:
                return []
            found = stages.searched_next(self.stage, self.trials, under_way, self.among)
            if found or under_way:
                return found
        if under_way:
            return []
        job.aside.wait()  # the noise scale
        self.wider = self.next_size()
        if self.wider is not None:
            return []
        self._time_again()
        return self._confirm(under_way)

    def _longer_budget(self) -> int | None:
        config, store = self.job.config, self.job.store
        if not way_of(config).extends:
            return None
        return longer_budget(config, known_of(config, store, self.stage.profiles))

    def next_size(self) -> int | None:
        """The batch size beyond a leader at the edge that may be better."""
        config, stage = self.job.config, self.stage
        late = self.job.allowance.is_over(FURTHER)
        if not (self.widens and way_of(config).extends) or late:
            return None
        known = known_of(config, self.job.store, stage.profiles)
        most = min(config.budget_examples, int(str(self.facts["train_examples"])))
        return next_size(config, stage.sizes, known, most)

    def _time_again(self) -> None:
        """Batch sizes that may win, timed further before their runs are confirmed."""
        job, stage = self.job, self.stage
        rows, trials = job.store.read_profiles(), job.store.read_trials()
        sizes = worth_timing(job.config, trials)
        if not is_here(rows) or not {r.batch_size for r in to_time_again(rows)} & sizes:
            return
        job.say(f"{', '.join(map(str, sorted(sizes)))} may be the fastest, and are timed further")
        seconds = job.for_fixed.left_to_time(job.config.profile_seconds)
        rows = time_again(job.config, job.data_path, rows, sizes, seconds, job.say, job.fresh)
        job.store.write_profiles(rows)
        self.stage = replace(stage, profiles=rows)

    def _confirm(self, under_way: Sequence[Asked]) -> list[Asked]:
        """Confirm runs, a block at a time and a look after each; back to the search where learning
        rates, and no seeds, are what a look leaves open."""
        job, may_search, count = self.job, True, searched(self.job.store.read_trials())
        if self.bases[0] != count:
            self.bases = count, bases_to_confirm(job)
        while True:
            step = step_of(job, self.bases[1], may_search)
            if step.look:
                look(job)
            elif step.trials:
                among = self._search_goes_on(step.trials)
                found = stages.searched_next(self.stage, step.trials, under_way, among)
                if found or under_way:
                    return found
                may_search = False  # nothing is left to try
            else:
                self._tell_of_search()
                self._tell_of_anew(step.runs)
                self._tell_of_whole(step.runs)
                job.progress.turn_to("confirm", wanted=step.runs)
                return [stages.asked_of(run) for run in step.runs]

    def _tell_of_search(self) -> None:
        """Which best rates are the last of those tried, where no model goes beyond them."""
        job = self.job
        if job.progress.stage == "search" and not job.config.structured:
            for line in unbracketed(job.config, job.store.read_trials()):
                job.say(line)

    def _tell_of_anew(self, runs: Sequence[ConfirmRun]) -> None:
        """That batch sizes are run at a better learning rate than before."""
        trials = self.job.store.read_trials()
        for size in sorted(run_anew(runs, trials)):
            (rate,) = {run.learning_rate for run in runs if run.batch_size == size}
            if self.anew.get(size) != rate:
                self.job.say(f"{size} is run anew at learning rate {rate:.2g}, a better one")
            self.anew[size] = rate

    def _tell_of_whole(self, runs: Sequence[ConfirmRun]) -> None:
        """That the answer is there, and what the last runs are for."""
        last = last_look(self.job.store.read_looks())
        if last is None or not runs or self.goes_whole or not all(run.late for run in runs):
            return
        self.goes_whole, told = True, ["that is the answer"]
        for whole, what in (
            (True, "go on to the whole budget, for accuracy and curves"),
            (False, "are run as well, for the critical batch size"),
        ):
            sizes = sorted({run.batch_size for run in runs if run.whole is whole})
            told += [f"{', '.join(map(str, sizes))} {what}"] if sizes else []
        self.job.say("; ".join(told))

    def _search_goes_on(self, wanted: int) -> tuple[int, ...]:
        """The batch sizes whose rates the last look left open."""
        job, last = self.job, last_look(self.job.store.read_looks())
        assert last is not None
        if job.progress.stage != "search":
            more = wanted - searched(job.store.read_trials())
            job.say(
                "search goes on: what is open is the best learning rates of "
                f"{', '.join(map(str, last.rates))}; {more} more trials"
            )
        job.progress.turn_to("search", wanted)
        return last.rates


def most_trials(config: SweepConfig) -> int:
    """No plan has more runs, search and confirm together."""
    return math.ceil(MOST_TRIALS * config.trials) + TRIALS + most_runs(config)


def evolve(job: Job, stage: Stage, copy: SweepCopy) -> None:
    """The population of `--search pbt`, unless its rows stand already."""
    config, given = job.config, given_now(job.config, job.store)
    made = sum(t.stage == "pbt" for t in job.store.read_trials())
    if given is None or made >= config.members or job.allowance.is_over():
        return
    members = members_of(config, given, bases_to_confirm(job))
    with heard(job, copy, "pbt", len(members)):
        population.evolve(stage, given, members, job.say, resume=job.action.resume)


def run_schedule(job: Job, stage: Stage, copy: SweepCopy) -> None:
    """Runs of a batch schedule beside those of the batch size to use, with the same seeds."""
    config, store = job.config, job.store
    given = given_now(config, store)
    schedule = schedule_known(config, given, store.read_trials())
    if schedule.lacks and not job.allowance.is_over():
        larger = " and ".join(map(str, schedule.lacks))
        job.say(f"{schedule.name} needs batch size {larger}, to be measured")
        stage = profiled(job, stage, copy, schedule.lacks) or stage
        given = given_now(config, store)
        schedule = schedule_known(config, given, store.read_trials())
    if schedule.told:
        job.say(schedule.told)

    of, resume = stages.SCHEDULE, job.action.resume

    def plan(_: Sequence[Asked]) -> list[Asked]:
        if given is None or job.allowance.is_over():
            return []
        missing = runs_missing(config, schedule, store.read_trials(), given)
        return [stages.asked_of(run, of) for run in missing]

    made, first = len(runs_made(store.read_trials())), plan([])
    if first or (made and resume):
        with heard(job, copy, "schedule", made + len(first)):
            stages.run(stage, plan, TRIES * config.seeds, resume=resume, named=of)


def bases_to_confirm(job: Job) -> dict[int, float]:
    """The model's base learning rates by batch size; none where a search's best trial counts."""
    config, store = job.config, job.store
    if not config.structured:
        return {}
    known = known_of(config, store)
    confirmed = [t for t in store.read_trials() if t.stage == "confirm"]
    return learning_rates.bases_to_confirm(config, config.batch_sizes, known, confirmed)


def step_of(job: Job, bases: Mapping[int, float], may_search: bool = True) -> Step:
    """What comes next by the store's rows, in the time that is left."""
    allowance, rows = job.for_fixed, (job.store.read_trials(), job.store.read_looks())
    may_search = may_search and not allowance.is_over(FURTHER)
    may_run = not allowance.is_over()
    return next_step(job.config, *rows, bases, may_search=may_search, may_run=may_run)


def look(job: Job) -> None:
    """Judge the confirm runs, and keep what that leaves open: the next block is planned by it."""
    answer, looks = answer_of_sweep(job.config, job.store), job.store.read_looks()
    seeds = seeds_looked_at(job.config, looks, answer.trials)
    found = look_of(answer.verdicts[0], job.config, answer.trials, seeds)
    again = any(other.runs == found.runs for other in looks)
    job.store.write_looks(with_look(looks, found))
    job.progress.judged(answer.verdicts[0], goes_on(found, job.config))
    after = f", {searched(answer.trials)} trials" if again else ""
    made = {t.seed for t in answer.trials if t.stage == "confirm" and t.batch_size == found.used}
    # A block that the minutes ended is not whole.
    job.say(f"{min(seeds, len(made) or seeds)} seeds{after}: {answer.verdicts[0].answer}")


@contextmanager
def heard(job: Job, copy: SweepCopy, stage: str, trials: int = 0) -> Iterator[None]:
    """While a stage makes its runs, terminal and MLflow's copy hear of their records."""
    waiting.SAY[job.config.name] = job.say
    store = job.store
    rows = Rows(store.read_trials(), store.read_measurements(), store.read_profiles())
    with job.progress.watching(job.config, stage, rows, trials):
        keeper.LISTENERS[job.config.name] = [job.progress, copy, job.aside.go]
        yield


def conclude(job: Job, copy: SweepCopy, facts: Mapping[str, object]) -> str | None:
    """Stages 4 and 5: judge the records, draw, copy, print. What MLflow's copy lacks, or None."""
    config, store = job.config, job.store
    answer = answer_of_sweep(config, store)
    store.write_text(store.verdict, as_json(answer.verdicts))
    write_page(answer, store.folder, config, config.name, facts)
    first = answer.verdicts[0]
    lacks = copy.finish(note_of(first), tags_of(first))
    store.publish()
    for note in answer.notes:
        job.say(f"note: {note}")
    job.console.print()
    print_verdicts(answer.verdicts, job.console)
    return lacks
