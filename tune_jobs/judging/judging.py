"""The judge: recorded runs in, verdicts out. Pure functions; decisions/0005-judging.md says why.

Time to target decides for goal `time`, and so on for each goal; runs that never reached a target
are censored, never dropped; test accuracy is shown and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tune_jobs.judging.binding import binding_limit, refused
from tune_jobs.judging.cautions import warnings_of
from tune_jobs.judging.contest import Contest, hold
from tune_jobs.judging.critical_batch import closed_form, fit_critical_batch, noise_summaries
from tune_jobs.judging.devices import judged_on, main_device
from tune_jobs.judging.generalization import generalization
from tune_jobs.judging.learning_rate_rule import learning_rate_rule
from tune_jobs.judging.outlook import by_target, goal_answer, pareto, part, unknown_goal
from tune_jobs.judging.per_batch_size import Shown, rows_of, shown_beside
from tune_jobs.judging.policy import GOALS, Policy
from tune_jobs.judging.posterior import KEPT, QUICKLY
from tune_jobs.judging.rate_luck import Shortfall, shortfalls
from tune_jobs.judging.samples import Quantity, known_limits, quantity_of, without_ratio
from tune_jobs.judging.schedules import judge_schedule
from tune_jobs.judging.sentences import (
    EXAMPLES,
    advice_of,
    answer_of,
    change_of,
    reason_of,
    why_not,
)
from tune_jobs.judging.settling import settling_of
from tune_jobs.judging.speed import (
    Clock,
    clock_of,
    examples_per_second,
    line_of_step_seconds,
    variance_of_seconds,
)
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import BatchSizeProfile, NoiseScale, TargetRun, TrialResult
from tune_jobs.verdicts import (
    BatchSizeVerdict,
    ClosedForm,
    CriticalBatchSize,
    GoalAnswer,
    LearningRateRule,
    ScheduleVerdict,
    Use,
    Verdict,
)


@dataclass(frozen=True)
class Scheduled:
    """A batch schedule that was asked for, and its runs at the sweep's target; `schedule` None, and
    `told` why, where there is none."""

    name: str
    schedule: str | None
    told: str | None
    batch_size: int | None
    runs: tuple[TargetRun, ...] = ()


@dataclass(frozen=True)
class Case:
    """Everything known of one workload.

    Attributes:
        runs: at all its targets; `searched` those of the search at the target that chose a rate.
        profiles: of the device type that is judged; `elsewhere` those of others.
    """

    workload: str
    runs: tuple[TargetRun, ...]
    policy: Policy
    profiles: tuple[BatchSizeProfile, ...] = ()
    elsewhere: tuple[BatchSizeProfile, ...] = ()
    noise: tuple[NoiseScale, ...] = ()
    search: tuple[TrialResult, ...] = ()
    searched: tuple[TargetRun, ...] = ()
    left_out: tuple[str, ...] = ()
    scheduled: Scheduled | None = None

    def at(self, target: float | None) -> list[TargetRun]:
        """The runs at one target."""
        return [run for run in self.runs if run.target == target]

    @property
    def targets(self) -> list[float | None]:
        """Ascending; a table without a target has the one that is not named."""
        return sorted({run.target for run in self.runs}, key=lambda t: (t is not None, t or 0.0))

    def shortfalls(self) -> dict[int, Shortfall]:
        """By batch size, what the choice of its learning rate leaves."""
        rates: dict[int, list[float]] = {}
        for run in self.runs:
            if run.learning_rate:
                rates.setdefault(run.batch_size, []).append(run.learning_rate)
        return shortfalls(self.searched, {size: median(of) for size, of in rates.items()})


def judge_runs(
    runs: Sequence[TargetRun],
    policy: Policy,
    profiles: Sequence[BatchSizeProfile] = (),
    noise: Sequence[NoiseScale] = (),
    search: Sequence[TrialResult] = (),
    *,
    searched: Sequence[TargetRun] = (),
    left_out: Sequence[str] = (),
    target: float | None = None,
    scheduled: Scheduled | None = None,
) -> list[Verdict]:
    """One verdict for each workload and target, in the order of the workloads, targets ascending.

    Args:
        runs: one row for each run and target. No runs, no verdicts.
        profiles, noise, search: of the same workload; what they tell is left out without them.
        searched: the runs that learning rates were chosen from, at one target.
        left_out: how many runs are no part of this, and why.
        target: the verdict at this one alone; the others show how the answer moves.
        scheduled: a batch schedule beside the fixed batch sizes.
    """
    verdicts = []
    for workload in dict.fromkeys(run.workload for run in runs):
        mine = tuple(run for run in runs if run.workload == workload)
        device = main_device(mine)
        own = tuple(p for p in profiles if p.device == device)
        others = tuple(p for p in profiles if p.device != device)
        tried = tuple(run for run in searched if run.workload == workload)
        told = (tuple(noise), tuple(search), tried, tuple(left_out), scheduled)
        verdicts += _judged(Case(workload, mine, policy, own, others, *told), target)
    return verdicts


def is_at(target: float | None, asked: float | None) -> bool:
    """Whether a target is the one that was asked for, rounding aside; any is where None was."""
    if asked is None:
        return True
    return target is not None and math.isclose(target, asked, rel_tol=1e-6)


def _judged(case: Case, asked: float | None) -> list[Verdict]:
    short = case.shortfalls()
    wanted = [target for target in case.targets if is_at(target, asked)]
    contests = {
        target: contest_at(case, target, case.policy, short, KEPT if target in wanted else QUICKLY)
        for target in case.targets
    }
    return [_verdict(case, target, contests, short) for target in wanted]


def contest_at(
    case: Case,
    target: float | None,
    policy: Policy,
    short: Mapping[int, Shortfall],
    kept: int = KEPT,
) -> Contest:
    """The batch sizes compared at one target under a policy's goal; `kept` draws of each chain."""
    quantity = quantity_of(policy, case.runs)
    limits = known_limits(judged_on(case.runs, quantity), quantity)
    runs = judged_on(case.at(target), quantity)
    short = short if quantity.by_target else {}
    clock = Clock({}, {})
    if policy.goal in ("time", "cost"):
        clock = clock_of(case.profiles, judged_on(case.runs, quantity))
    others = [typical for q in _goals_beside(policy, runs) if (typical := _typical(q, runs))]
    return hold(runs, quantity, limits, policy, clock.variance, short, others, kept, clock.off)


def _goals_beside(policy: Policy, runs: Sequence[TargetRun]) -> list[Quantity]:
    """The quantities of the other goals, by which equals must be equal as well."""
    goals = [g for g in ("time", "examples", "energy", "accuracy") if g != policy.goal]
    return [quantity_of(replace(policy, goal=goal), runs) for goal in goals]


def _typical(quantity: Quantity, runs: Sequence[TargetRun]) -> dict[int, float]:
    """By batch size, the median of the quantity on its own scale, less being better."""
    found: dict[int, list[float]] = {}
    for run in runs:
        value = quantity.of(run)
        if value is not None and (value > 0 or quantity.scale == "error"):
            found.setdefault(run.batch_size, []).append(math.exp(quantity.log(value)))
    return {size: median(values) for size, values in found.items()}


def _verdict(
    case: Case,
    target: float | None,
    contests: Mapping[float | None, Contest],
    short: Mapping[int, Shortfall],
) -> Verdict:
    contest, policy, runs = contests[target], case.policy, case.at(target)
    shown = shown_beside(runs, case.runs, policy)
    rows = rows_of(contest, shown, case.profiles, policy)
    critical, no_critical = fit_critical_batch(runs, policy.confidence)
    rates = examples_per_second(contest.runs, case.profiles)
    limit = binding_limit(contest, rows, rates, case.profiles, critical, policy)
    closed = _closed_form(case, contest, rates, critical)
    use, settling = _use(contest, rows), settling_of(contest, policy, short)
    decision, unit = contest.decision, case.runs[0].examples_unit
    warnings = warnings_of(contest, rows, runs, case.elsewhere, case.search, closed, policy, short)
    return Verdict(
        workload=case.workload,
        goal=policy.goal,
        quantity=contest.quantity.name,
        metric=case.runs[0].metric,
        target=target,
        status=decision.status,
        answer=answer_of(contest, rows, use, target, policy),
        change=change_of(contest, rows, settling, policy),
        use=use,
        why_not=None if use else why_not(rows, runs, target),
        risk=decision.risk,
        risk_allowed=policy.risk_allowed,
        tied_batch_sizes=contest.sizes(decision.tied),
        open_batch_sizes=contest.sizes(decision.open),
        settling=settling,
        reason=reason_of(contest, rows, runs, target, policy),
        advice=advice_of(contest, settling, policy),
        binding_limit=limit.name,
        limit_reason=limit.reason and limit.reason.replace(EXAMPLES, unit),
        critical_batch_size=critical,
        critical_batch_size_reason=no_critical,
        closed_form=closed,
        noise_scale=noise_summaries(case.noise),
        per_batch_size=rows,
        infeasible_batch_sizes=refused(case.profiles, rows),
        generalization=generalization(runs, policy.confidence),
        sensitivity=by_target(contests),
        by_goal=_by_goal(case, target, contest, shown, short),
        pareto=pareto(rows, case.runs[0].mode),
        learning_rate_rule=_rule(case),
        rate_deviation={str(size): math.sqrt(of.variance) for size, of in short.items()},
        confidence=policy.confidence,
        tolerance=policy.tolerance,
        left_out=case.left_out,
        examples_unit=unit,
        mode=case.runs[0].mode,
        unit=case.runs[0].unit,
        schedule=_schedule(case, target),
        warnings=tuple(told.replace(EXAMPLES, unit) for told in warnings),
    )


def _schedule(case: Case, target: float | None) -> ScheduleVerdict | None:
    """The batch schedule at the target that its runs were made for."""
    asked, policy = case.scheduled, case.policy
    if asked is None or any(not is_at(run.target, target) for run in asked.runs):
        return None
    quantity = quantity_of(policy, case.runs)
    fixed = [run for run in case.at(target) if run.batch_size == asked.batch_size]
    clock = variance_of_seconds(case.profiles) if policy.goal in ("time", "cost") else {}
    shown = (asked.name, asked.schedule, asked.told, asked.runs, fixed)
    return judge_schedule(*shown, quantity, policy, clock)


def _use(contest: Contest, rows: Sequence[BatchSizeVerdict]) -> Use | None:
    index = contest.decision.used
    if index is None:
        return None
    expected, bound = contest.decision.expected[index], contest.decision.bound[index]
    row = rows[index]
    return Use(row.batch_size, row.learning_rate, part(expected), part(bound), row.seeds)


def _closed_form(
    case: Case, contest: Contest, rates: Mapping[int, float], critical: CriticalBatchSize | None
) -> ClosedForm | None:
    """Of time alone: it is what step seconds and updates multiply to."""
    if case.policy.goal not in ("time", "cost"):
        return None
    line = line_of_step_seconds(rates, case.profiles)
    of = contest.decision
    alike = contest.sizes((*of.tied, *of.open))
    return closed_form(line, critical, contest.size(of.used), alike, contest.batch_sizes)


def _rule(case: Case) -> LearningRateRule | None:
    return learning_rate_rule(case.search, case.policy.confidence) if case.search else None


def _by_goal(
    case: Case,
    target: float | None,
    own: Contest,
    shown: Shown,
    short: Mapping[int, Shortfall],
) -> tuple[GoalAnswer, ...]:
    return tuple(_under(goal, case, target, own, shown, short) for goal in GOALS)


def _under(
    goal: str,
    case: Case,
    target: float | None,
    own: Contest,
    shown: Shown,
    short: Mapping[int, Shortfall],
) -> GoalAnswer:
    """The answer were another goal asked for."""
    if goal == "cost" and case.policy.price_per_device_hour is None:
        return unknown_goal(goal, "cost_to_target", "No price per device-hour was given.")
    policy = replace(case.policy, goal=goal)
    quantity = quantity_of(policy, case.runs)
    if not _known(quantity, case.at(target)):
        name = case.runs[0].metric if quantity.name == "val_metric" else quantity.name
        return unknown_goal(goal, quantity.name, f"No {name} is known.")
    metric = quantity.name == "val_metric" and goal != case.policy.goal
    if metric and without_ratio(quantity, case.runs):
        why = f"{case.runs[0].metric} is not above 0 in every run, so that it has no ratios."
        return unknown_goal(goal, quantity.name, why)
    contest = own if goal == case.policy.goal else contest_at(case, target, policy, short, QUICKLY)
    rows = rows_of(contest, shown, case.profiles, policy)
    return goal_answer(goal, contest, reason_of(contest, rows, case.at(target), target, policy))


def _known(quantity: Quantity, runs: Sequence[TargetRun]) -> bool:
    if any(quantity.of(run) is not None for run in runs):
        return True
    return quantity.by_target and not any(reached(run) for run in runs)
