"""What judging says and the report tells: the verdict of a workload at a target, and its parts.

Frozen dataclasses, as in `records.py`: a missing value is None, units stand in the names.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 3
STATUSES = ("decided", "tied", "undecided", "unproven", "unreached")
BINDING_LIMITS = ("memory", "throughput", "statistics", "range", "input pipeline")
STANDINGS = ("used", "tied", "open", "slower", "unreached")


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at the verdict's confidence.

    An end that is open, and a value that cannot be told, is None: most runs censored leave value
    and high None; a single run has a value and neither end.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BatchSizeVerdict:
    """What the runs say of one batch size. `median`, `low`, `high` are of the verdict's quantity.

    Attributes:
        standing: `used` is the answer; `tied` is shown to be equal to it within the tolerance;
            `open` may or may not be worse; `slower` is told to be worse; `unreached` did not reach
            the target in most of its runs, and is told to be worse.
        expected_regret, regret_bound: by what part it is expected to be worse than the best, at the
            learning rate that it ran at, and what that will not exceed at the confidence; None
            where runs were not repeated.
        ratio_to_best: its typical quantity over that of the best other batch size, runs paired by
            seed; below 1 for the best itself. Of error rates, for an accuracy.
        seeds: runs judged; `reached` of them reached the target.
        median, low, high: the median over runs, a run that never reached counting as slower than
            every observed one, and the interval of the typical (median) run.
        measured_time_to_target_seconds: median by the clock alone on the device;
            `measured_to_predicted` is its ratio to the contention-free seconds of the same runs.
        train_seconds: median over the whole of its runs, whatever they reached.
        val_metric, test_metric: of a metric that is no accuracy, at the end of its runs.
        fits: whether the profile says that it fits (accumulated or whole); None without a profile.
    """

    batch_size: int
    standing: str
    expected_regret: float | None
    regret_bound: float | None
    ratio_to_best: Estimate
    seeds: int
    reached: int
    median: float | None
    low: float | None
    high: float | None
    time_to_target_seconds: Estimate
    examples_to_target: Estimate
    updates_to_target: Estimate
    measured_time_to_target_seconds: float | None
    measured_to_predicted: float | None
    learning_rate: float | None
    examples_per_second: float | None
    peak_memory_mib: float | None
    energy_joules: Estimate
    val_accuracy: Estimate
    test_accuracy: Estimate
    val_metric: Estimate
    train_seconds: float | None
    micro_batch_size: int | None
    fits: bool | None
    test_metric: Estimate = Estimate(None, None, None)


@dataclass(frozen=True)
class CriticalBatchSize:
    """Fit of updates to target = s_min (1 + value / B) (McCandlish et al. 2018, equation 2.11).

    Attributes:
        value, low, high: the critical batch size in examples, and its profile-likelihood interval;
            `low` is 0 and `high` None where the runs leave that end open. Both are None where the
            lack of fit rejects the curve: no interval about a wrong curve means anything.
        s_min_updates: updates that no batch size can go below.
        r_squared: of the batch sizes' log updates; 1 is a perfect fit.
        residual: root mean square of the batch sizes' log residuals: 0.05 is about 5 %.
        lack_of_fit_p: chance of residuals this large were the curve true; None without repeats.
        batch_sizes, runs: how many the fit was made from.
    """

    value: float
    low: float | None
    high: float | None
    s_min_updates: float
    r_squared: float
    residual: float
    lack_of_fit_p: float | None
    batch_sizes: int
    runs: int


@dataclass(frozen=True)
class ClosedForm:
    """The best batch size by sqrt(a B_crit / b), from step seconds a + b B; checks the winner.

    `low` is 0 and `high` None where an end is open.
    """

    batch_size: float
    low: float
    high: float | None
    fixed_seconds: float
    seconds_per_example: float
    agrees: bool | None
    sentence: str


@dataclass(frozen=True)
class NoiseScaleSummary:
    """The noise scale of one kind along a run: tr(Sigma) and |G|^2 averaged apart, then divided.

    `low` and `high` are the interval of that average; `first` and `last` the scale at the run's
    first and last useful point. Without a useful average the three are None and `reason` says why.
    """

    kind: str
    value: float | None
    low: float | None
    high: float | None
    first: float | None
    last: float | None
    points: int
    reason: str | None


@dataclass(frozen=True)
class GeneralizationRow:
    """How well one batch size's runs do on the test split. Shown; decides nothing."""

    batch_size: int
    test_accuracy: Estimate
    train_to_test_gap: Estimate
    test_accuracy_at_equal_updates: Estimate


@dataclass(frozen=True)
class Generalization:
    """The test metric over batch sizes, and whether its differences are more than noise. Fields
    say `accuracy` whatever the `metric` is.

    Each p value is of one test over all batch sizes (paired by seed where seeds are shared),
    Holm-corrected for the three tests; `distinguishable` is None when nothing could be tested.
    """

    rows: tuple[GeneralizationRow, ...]
    test_accuracy_p: float | None
    train_to_test_gap_p: float | None
    test_accuracy_at_equal_updates_p: float | None
    distinguishable: bool | None
    sentence: str
    metric: str = "accuracy"


@dataclass(frozen=True)
class TargetAnswer:
    """Sensitivity: the answer at one target of the workload."""

    target: float | None
    status: str
    use: int | None
    regret_bound: float | None
    tied_batch_sizes: tuple[int, ...]
    open_batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class GoalAnswer:
    """The answer under one goal. `reason` says why a goal has none."""

    goal: str
    quantity: str
    status: str
    use: int | None
    regret_bound: float | None
    tied_batch_sizes: tuple[int, ...]
    open_batch_sizes: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Pareto:
    """Batch sizes that no other one beats on every axis; axes without data are left out."""

    axes: tuple[str, ...]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class RuleCost:
    """What a scaling rule, trusted from the anchor's best rate, would have cost at a batch size.

    `examples_ratio` is examples to target at the tried rate nearest to the rule's over those at
    the best rate; None when no rate near it was tried or that trial did not reach the target,
    which `reason` tells.
    """

    rule: str
    exponent: float
    anchor_batch_size: int
    batch_size: int
    learning_rate: float
    nearest_learning_rate: float | None
    examples_ratio: float | None
    reason: str | None


@dataclass(frozen=True)
class LearningRateRule:
    """Exponent p of best learning rate ~ B^p, by log-log regression over batch sizes."""

    exponent: Estimate
    batch_sizes: int
    linear_plausible: bool | None
    square_root_plausible: bool | None
    costs: tuple[RuleCost, ...]
    sentence: str


@dataclass(frozen=True)
class SearchCost:
    """What the search of a sweep cost, and what following its best trial blindly would have cost.

    Attributes:
        way: as `--search` names it.
        examples_seen, train_seconds: of all its trials together.
        blind_batch_size, blind_learning_rate: of its best trial; None where none reached.
        blind_regret: by what part that batch size is expected to be worse than the best.
        sentence: this in words, and what the way adds: what it predicted, what each rule missed.
    """

    way: str
    trials: int
    examples_seen: int
    train_seconds: float
    blind_batch_size: int | None
    blind_learning_rate: float | None
    blind_regret: float | None
    sentence: str


@dataclass(frozen=True)
class Use:
    """The batch size to train with now, and what that choice can cost.

    Attributes:
        learning_rate: at this batch size; None where the runs do not tell.
        expected_regret: by what part it is expected to be worse than the best at that learning
            rate; `regret_bound` is what that will not exceed at the verdict's confidence. None
            where nothing was repeated.
        runs: of this batch size, that the verdict is made of.
    """

    batch_size: int
    learning_rate: float | None
    expected_regret: float | None
    regret_bound: float | None
    runs: int


@dataclass(frozen=True)
class Settling:
    """What it would take to know better.

    Attributes:
        batch_sizes: those that need further runs: the one to use, and those that are open at the
            learning rates that they ran at; none where the batch size stands and its learning rate
            alone is open.
        seeds: runs of each, in all, that would settle it in four cases of five; None where no
            number of seeds would: what is left is shared by all runs of a batch size.
        device_seconds: what the further runs take; None where seconds are not known.
        trainings: from how many trainings to come on the saving pays for it; None where unknown.
        worth_it: whether that is within the trainings that are to come.
        rates: those whose best learning rate is what the bound is wide by.
        tightens: whether further runs make the bound tighter: how runs scatter is more of it, for
            one of these batch sizes, than what all its runs share.
    """

    batch_sizes: tuple[int, ...]
    seeds: int | None
    device_seconds: float | None
    trainings: int | None
    worth_it: bool | None
    rates: tuple[int, ...] = ()
    tightens: bool = False


@dataclass(frozen=True)
class ScheduleVerdict:
    """What a batch schedule takes to the target, against the fixed batch size to use.

    Attributes:
        name: as `--search` has it; `schedule` its segments, as `TrialResult.schedule`. None where
            there is no such schedule, which `told` explains.
        batch_size: the fixed one that it is judged against, in pairs of runs that share a seed.
        ratio: times what the fixed batch size takes; `high` is None where a run of it was cut.
        pairs: of runs that are compared; `reached` of the schedule's runs reached the target.
        better: shown to take less (True) or more (False); None where not told apart.
        told: what was left out of it, and why.
    """

    name: str
    schedule: str | None
    batch_size: int | None
    ratio: Estimate
    pairs: int
    reached: int
    better: bool | None
    sentence: str
    told: str | None


@dataclass(frozen=True)
class Verdict:
    """The answer for one workload at one target: what to use now, how sure that is, and why.

    `verdict.json` is a list of these. A missing number is null; batch sizes are in examples.

    Attributes:
        goal: what was to be least, or best (`accuracy`: the metric at the end of the budget);
            `quantity` names the column judged.
        metric, mode, unit: of the target; whether larger is better (`max` or `min`).
        target: None where the runs name none.
        status: `decided`: the one to use is shown to be within the tolerance of the best; `tied`:
            so are others, equal for every practical purpose; `undecided`: more runs could change
            it; `unproven`: nothing was repeated; `unreached`: no run reached the target.
        answer: the first line; `change` the second, what could change it and what that costs.
        use: None only where `unreached`; `why_not` then says why.
        risk: the chance that it is worse than the best by more than the tolerance; an answer was
            given at `risk_allowed`, which is less where earlier looks at the runs left it open.
        tied_batch_sizes: shown to be equal to the one to use; `open_batch_sizes` may be as good.
        settling: None where nothing is open.
        reason: the answer's grounds, in numbers; `advice` the command that is worth its price.
        binding_limit: one of BINDING_LIMITS or None; `limit_reason` says it in numbers.
        sensitivity: the answer at every target of the workload, ascending.
        rate_deviation: by batch size as text, the deviation (log) that the choice of its learning
            rate leaves; empty where no search tells.
        search_cost: None of a table.
        left_out: how many runs are no part of this, and why.
        schedule: what a batch schedule takes; None where none was asked for.
        front: of a pair of goals, the trials than which none was better in both; else None.
        examples_unit: what `examples_to_target` counts; of a table also `tokens`, `epochs`.
        warnings: everything a careful reader should know before trusting the numbers.
    """

    workload: str
    goal: str
    quantity: str
    metric: str
    target: float | None
    status: str
    answer: str
    change: str | None
    use: Use | None
    why_not: str | None
    risk: float | None
    risk_allowed: float
    tied_batch_sizes: tuple[int, ...]
    open_batch_sizes: tuple[int, ...]
    settling: Settling | None
    reason: str
    advice: str | None
    binding_limit: str | None
    limit_reason: str | None
    critical_batch_size: CriticalBatchSize | None
    critical_batch_size_reason: str | None
    closed_form: ClosedForm | None
    noise_scale: tuple[NoiseScaleSummary, ...]
    per_batch_size: tuple[BatchSizeVerdict, ...]
    infeasible_batch_sizes: tuple[int, ...]
    generalization: Generalization | None
    sensitivity: tuple[TargetAnswer, ...]
    by_goal: tuple[GoalAnswer, ...]
    pareto: Pareto
    learning_rate_rule: LearningRateRule | None
    rate_deviation: dict[str, float]
    confidence: float
    tolerance: float
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    examples_unit: str = "examples"
    mode: str = "max"
    unit: str = ""
    search_cost: SearchCost | None = None
    schedule: ScheduleVerdict | None = None
    front: str | None = None
    schema_version: int = SCHEMA_VERSION
