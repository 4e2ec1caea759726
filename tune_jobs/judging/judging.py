"""The judge: recorded runs in, verdicts out. Pure functions; decisions/0005-judging.md says why.

Time to target decides for goal `time`, and so on for each goal; runs that never reached a target
are censored, never dropped; test accuracy is shown and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tune_jobs.judging.binding import binding_limit, refused
from tune_jobs.judging.cautions import warnings_of
from tune_jobs.judging.contest import Contest, hold
from tune_jobs.judging.critical_batch import closed_form, fit_critical_batch, noise_summaries
from tune_jobs.judging.devices import judged_on, main_device
from tune_jobs.judging.generalization import generalization
from tune_jobs.judging.learning_rate_rule import learning_rate_rule
from tune_jobs.judging.outlook import by_target, goal_answer, pareto, tied_sizes, unknown_goal
from tune_jobs.judging.per_batch_size import Shown, rows_of, shown_beside
from tune_jobs.judging.policy import GOALS, Policy
from tune_jobs.judging.samples import (
    Quantity,
    known_limits,
    quantity_of,
    variance_of_resolution,
)
from tune_jobs.judging.sentences import advice_of, reason_of
from tune_jobs.judging.speed import (
    examples_per_second,
    line_of_step_seconds,
    variance_of_seconds,
)
from tune_jobs.reading.table_of_runs import reached
from tune_jobs.records import BatchSizeProfile, NoiseScale, TargetRun, TrialResult
from tune_jobs.verdicts import ClosedForm, CriticalBatchSize, GoalAnswer, LearningRateRule, Verdict


@dataclass(frozen=True)
class Case:
    """Everything known of one workload.

    Attributes:
        runs: at all its targets.
        profiles: of the device type that is judged; `elsewhere` those of others.
    """

    workload: str
    runs: tuple[TargetRun, ...]
    policy: Policy
    profiles: tuple[BatchSizeProfile, ...]
    elsewhere: tuple[BatchSizeProfile, ...]
    noise: tuple[NoiseScale, ...]
    search: tuple[TrialResult, ...]

    def at(self, target: float | None) -> list[TargetRun]:
        """The runs at one target."""
        return [run for run in self.runs if run.target == target]

    @property
    def targets(self) -> list[float | None]:
        """Ascending; a table without a target has the one that is not named."""
        return sorted({run.target for run in self.runs}, key=lambda t: (t is not None, t or 0.0))


def judge_runs(
    runs: Sequence[TargetRun],
    policy: Policy,
    profiles: Sequence[BatchSizeProfile] = (),
    noise: Sequence[NoiseScale] = (),
    search: Sequence[TrialResult] = (),
) -> list[Verdict]:
    """One verdict for each workload and target, in the order of the workloads, targets ascending.

    Args:
        runs: one row for each run and target. No runs, no verdicts.
        profiles, noise, search: of the same workload; what they tell is left out without them.
    """
    verdicts = []
    for workload in dict.fromkeys(run.workload for run in runs):
        mine = tuple(run for run in runs if run.workload == workload)
        device = main_device(mine)
        own = tuple(p for p in profiles if p.device == device)
        others = tuple(p for p in profiles if p.device != device)
        case = Case(workload, mine, policy, own, others, tuple(noise), tuple(search))
        verdicts += _judged(case)
    return verdicts


def _judged(case: Case) -> list[Verdict]:
    contests = {target: contest_at(case, target, case.policy) for target in case.targets}
    return [_verdict(case, target, contests) for target in case.targets]


def contest_at(case: Case, target: float | None, policy: Policy) -> Contest:
    """The batch sizes compared at one target under a policy's goal."""
    quantity = quantity_of(policy)
    limits = known_limits(judged_on(case.runs, quantity), quantity)
    runs = judged_on(case.at(target), quantity)
    extra = variance_of_resolution(runs) if quantity.by_target else {}
    if policy.goal in ("time", "cost"):
        for size, variance in variance_of_seconds(case.profiles).items():
            extra[size] = extra.get(size, 0.0) + variance
    return hold(runs, quantity, limits, policy, extra)


def _verdict(case: Case, target: float | None, contests: Mapping[float | None, Contest]) -> Verdict:
    contest, policy, runs = contests[target], case.policy, case.at(target)
    shown = shown_beside(runs, case.runs, policy)
    rows = rows_of(contest, shown, case.profiles, policy)
    critical, why_not = fit_critical_batch(runs, policy.confidence)
    rates = examples_per_second(contest.runs, case.profiles)
    limit = binding_limit(contest, rows, rates, case.profiles, critical, policy)
    closed = _closed_form(case, contest, rates, critical)
    decision = contest.decision
    return Verdict(
        workload=case.workload,
        goal=policy.goal,
        quantity=contest.quantity.name,
        target=target,
        status=decision.status,
        recommended_batch_size=contest.size(decision.recommended),
        tied_batch_sizes=tied_sizes(contest),
        leading_batch_size=contest.size(decision.leading),
        risk=_risk(contest),
        more_seeds=decision.more_seeds,
        open_pair=_open_pair(contest),
        reason=reason_of(contest, rows, target, policy),
        advice=advice_of(contest, policy),
        binding_limit=limit.name,
        limit_reason=limit.reason,
        critical_batch_size=critical,
        critical_batch_size_reason=why_not,
        closed_form=closed,
        noise_scale=noise_summaries(case.noise),
        per_batch_size=rows,
        infeasible_batch_sizes=refused(case.profiles, rows),
        generalization=generalization(runs, policy.confidence),
        sensitivity=by_target(contests),
        by_goal=_by_goal(case, target, contest, shown),
        pareto=pareto(rows),
        learning_rate_rule=_rule(case),
        confidence=policy.confidence,
        tolerance=policy.tolerance,
        warnings=warnings_of(contest, rows, runs, case.elsewhere, case.search, closed, policy),
    )


def _risk(contest: Contest) -> float | None:
    decision = contest.decision
    index = decision.leading if decision.recommended is None else decision.recommended
    return None if index is None else min(1.0, float(decision.risk[index]))


def _open_pair(contest: Contest) -> tuple[int, int] | None:
    pair = contest.decision.open_pair
    return None if pair is None else (contest.batch_sizes[pair[0]], contest.batch_sizes[pair[1]])


def _closed_form(
    case: Case, contest: Contest, rates: Mapping[int, float], critical: CriticalBatchSize | None
) -> ClosedForm | None:
    """Of time alone: it is what step seconds and updates multiply to."""
    if case.policy.goal not in ("time", "cost"):
        return None
    line = line_of_step_seconds(rates, case.profiles)
    winner = contest.size(contest.decision.recommended)
    return closed_form(line, critical, winner, tied_sizes(contest), contest.batch_sizes)


def _rule(case: Case) -> LearningRateRule | None:
    return learning_rate_rule(case.search, case.policy.confidence) if case.search else None


def _by_goal(
    case: Case, target: float | None, own: Contest, shown: Shown
) -> tuple[GoalAnswer, ...]:
    return tuple(_under(goal, case, target, own, shown) for goal in GOALS)


def _under(goal: str, case: Case, target: float | None, own: Contest, shown: Shown) -> GoalAnswer:
    """The answer were another goal asked for."""
    if goal == "cost" and case.policy.price_per_device_hour is None:
        return unknown_goal(goal, "cost_to_target", "No price per device-hour was given.")
    policy = replace(case.policy, goal=goal)
    quantity = quantity_of(policy)
    if not _known(quantity, case.at(target)):
        return unknown_goal(goal, quantity.name, f"No {quantity.name} is known.")
    contest = own if goal == case.policy.goal else contest_at(case, target, policy)
    rows = rows_of(contest, shown, case.profiles, policy)
    return goal_answer(goal, contest, reason_of(contest, rows, target, policy))


def _known(quantity: Quantity, runs: Sequence[TargetRun]) -> bool:
    if any(quantity.of(run) is not None for run in runs):
        return True
    return quantity.by_target and not any(reached(run) for run in runs)
