"""What was run: rows that pass between the stages and into the store, as frozen dataclasses.

Every field is a plain number, string or None. A missing value is None, never a sentinel. Units
stand in the names. The words are those of the README.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("measure", "search", "confirm", "schedule", "pbt")
OUTCOMES = ("finished", "stopped", "diverged", "out_of_memory", "failed")


def _as_metric(row: Measurement | TrialResult) -> None:
    """Rows of accuracy alone, as earlier tables are, hold it as the metric as well."""
    for split in ("val", "test", "train"):
        known = getattr(row, f"{split}_accuracy")
        if known is not None and getattr(row, f"{split}_metric") is None:
            object.__setattr__(row, f"{split}_metric", known)


@dataclass(frozen=True)
class BatchSizeProfile:
    """What one update costs at one batch size, run alone on a device. One row each, also for a
    batch size that does not fit: that is an outcome, with its reason.

    A batch size may have two rows: whole (`micro_batch_size` equals `batch_size`) and accumulated.
    `chosen` marks the one that trials use; the others inform the fits.

    Attributes:
        device: the device's type, such as `cpu` or the GPU's name; costs hold for this type alone.
        step_seconds: median over rounds of the median timed update, what slowed all of a round
            taken off; `_low` and `_high` bound it at 95 % over the rounds, `_min` is the fastest
            update seen (noise only ever adds).
        step_deviation: of its log beside that of the other batch sizes: what slows all of a round
            alike is no part of it. None where no round was repeated.
        examples_per_second: batch_size / step_seconds.
        optimizer_seconds: median of the optimizer's step alone, part of `step_seconds`.
        peak_memory_mib: largest peak over the rounds, optimizer state and an evaluation included;
            on CPU the process's resident set, on CUDA the allocator's allocated bytes.
        training_memory_mib: the same without the evaluation: what grows with the micro-batch.
        reserved_memory_mib: on CUDA, the allocator's reserved peak; None on CPU.
        base_memory_mib: what the process holds before the model is made (libraries, data).
        allocator_retries: on CUDA, times the allocator flushed its cache to go on: the thrash
            before the crash.
        requested_mib: the allocation that failed, where the error tells.
        waited_seconds: how long the stage waited for the device to be free.
        accelerator: the type of GPU as Ray names it, by which trials ask for it.
        loader_workers: processes that load examples, where they go through a loader; it is part of
            `step_seconds`. `loading_examples_per_second` is of loading alone and
            `model_examples_per_second` of training alone on what is loaded.
    """

    batch_size: int
    micro_batch_size: int
    chosen: bool
    outcome: str
    reason: str | None
    model: str
    data: str
    optimizer: str
    node: str | None
    device: str
    cpus: float
    gpus: float
    rounds: int
    timed_updates: int
    step_seconds: float | None
    step_seconds_low: float | None
    step_seconds_high: float | None
    step_seconds_min: float | None
    optimizer_seconds: float | None
    examples_per_second: float | None
    evaluation_examples_per_second: float | None
    peak_memory_mib: float | None
    training_memory_mib: float | None
    reserved_memory_mib: float | None
    base_memory_mib: float | None
    memory_limit_mib: float | None
    allocator_retries: int | None
    requested_mib: float | None
    waited_seconds: float
    accelerator: str | None = None
    loader_workers: int | None = None
    loading_examples_per_second: float | None = None
    model_examples_per_second: float | None = None
    step_deviation: float | None = None


@dataclass(frozen=True)
class NoiseScale:
    """One estimate of the gradient noise scale, at one point of one training run.

    Attributes:
        kind: `raw`, or `preconditioned` by the optimizer's second-moment estimate.
        gradient_squared: |G|^2, the squared norm of the true gradient; the unbiased estimate may
            be negative.
        gradient_variance: tr(Sigma), the summed variance of a single example's gradient.
        noise_scale: tr(Sigma) / |G|^2 in examples, None when it cannot be told.
        low, high: 95 % bootstrap interval; `high` None when it has no upper end.
        useful: whether the interval says anything; if not, `reason` says why.
        draws: independent pairs of gradients averaged.
    """

    examples_seen: int
    updates: int
    batch_size: int
    learning_rate: float
    kind: str
    small_batch: int
    large_batch: int
    draws: int
    gradient_squared: float
    gradient_variance: float
    noise_scale: float | None
    low: float | None
    high: float | None
    useful: bool
    reason: str | None


@dataclass(frozen=True)
class RangePoint:
    """One update of a learning-rate range test: its rate, and the loss before it was made."""

    batch_size: int
    examples_seen: int
    learning_rate: float
    train_loss: float


@dataclass(frozen=True)
class Measurement:
    """One report of one trial: a point of its learning curve.

    `rung` is the index of the race's rung whose budget this report stands at, or None.
    `train_seconds` are without contention (see TrialResult); `wall_time_seconds` are the clock's.
    `val_metric`, `test_metric` and `train_metric` are the workload's own metric; where that is
    accuracy, `val_accuracy`, `test_accuracy` and `train_accuracy` are the same. Those of test and
    training (on a sample of the training split as large as the validation split, without dropout)
    are present at some reports only, and decide nothing.
    `val_examples` are those that validation is read from: it ends once the target is known to be
    missed.
    """

    trial_id: str
    stage: str
    batch_size: int
    examples_seen: int
    updates: int
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_accuracy: float | None
    train_accuracy: float | None
    examples_to_target: int | None
    train_seconds: float
    wall_time_seconds: float
    rung: int | None
    val_examples: int | None = None
    val_metric: float | None = None
    test_metric: float | None = None
    train_metric: float | None = None

    def __post_init__(self) -> None:
        _as_metric(self)


@dataclass(frozen=True)
class TrialResult:
    """One trial of the search, one confirm run, or one run of a batch schedule, when it has ended.

    Attributes:
        schedule: of a run whose batch size and learning rate change on the way: its segments, as
            `0:32@0.0016 1536:64@0.0016` (from which example on, the batch size, the rate); None
            for one fixed batch size. Such a row says nothing of a fixed batch size. Of the stage
            `schedule` it has the batch size and rate that it is judged against, of the stage `pbt`
            (a member of a population) those that it trained with last.
        learning_rate: the rate the optimizer used; `base_learning_rate` is that rate carried to
            the reference batch of 256 by the optimizer's scaling rule.
        examples_to_target: examples seen when the validation metric first reached `target`, read
            between the evaluation that saw it reached and the one before, to the next whole update;
            None if it never did (the run is censored at `examples_seen`).
        train_seconds: training time without contention: updates times the profiled step seconds of
            this batch size on this device type; evaluation left out. Without a profile of the
            device it is `measured_train_seconds`.
        time_to_target_seconds: `train_seconds` at the update that reached the target.
        measured_train_seconds: the clock around the trial's updates, whatever contention it had.
            For a run that was `alone` on its device it checks `train_seconds`.
        wall_time_seconds: what the clock said of the trial, contention and evaluation included.
        waited_seconds: how long the trial waited for its device, where that was measured.
        evaluation_seconds: None where a training function of the user's own does not tell them:
            then they are part of the train seconds.
        energy_joules: energy of the device during the updates, where there is a counter.
        peak_memory_mib: the trial's own peak; on CPU the process's peak resident set since the
            trial began, on CUDA the allocator's peak.
        recipe: what differs from the plainest one, in words; None where nothing does.
        space: values searched beside the rate, as JSON; None where there were none.
        metric, mode: the workload's own metric, and whether larger is better: `max` or `min`.
        val_metric, test_metric, train_metric: the last ones measured, at `examples_seen`.
        val_accuracy, test_accuracy, train_accuracy: the same where the metric is accuracy.
    """

    trial_id: str
    name: str
    sweep: str
    stage: str
    outcome: str
    reason: str | None
    batch_size: int
    micro_batch_size: int
    base_learning_rate: float
    learning_rate: float
    optimizer: str
    seed: int
    model: str
    data: str
    node: str | None
    device: str | None
    cpus: float
    gpus: float
    budget_examples: int
    target: float
    examples_seen: int
    updates: int
    examples_to_target: int | None
    updates_to_target: int | None
    time_to_target_seconds: float | None
    train_seconds: float
    measured_train_seconds: float
    measured_time_to_target_seconds: float | None
    evaluation_seconds: float | None
    wall_time_seconds: float
    waited_seconds: float | None
    energy_joules: float | None
    examples_per_second: float | None
    peak_memory_mib: float | None
    val_accuracy: float | None
    test_accuracy: float | None
    train_accuracy: float | None
    alone: bool | None = None
    metric: str = "accuracy"
    mode: str = "max"
    val_metric: float | None = None
    test_metric: float | None = None
    train_metric: float | None = None
    recipe: str | None = None
    schedule: str | None = None
    space: str | None = None

    def __post_init__(self) -> None:
        _as_metric(self)


@dataclass(frozen=True)
class ConfirmRun:
    """A run that the confirm stage has to make, or one of a batch schedule.

    Attributes:
        most_examples: where it ends, its target not reached.
        whole: it goes on past the target, to the whole budget.
        alone: it leaves no room on its device for a neighbour, so that its clock can be trusted.
        late: it is made once the answer stands, and decides nothing.
        schedule: its segments, as in `TrialResult`; None for one fixed batch size.
        space: as in `TrialResult`.
    """

    batch_size: int
    base_learning_rate: float
    learning_rate: float
    seed: int
    most_examples: int
    whole: bool = False
    alone: bool = False
    late: bool = False
    schedule: str | None = None
    space: str | None = None


@dataclass(frozen=True)
class Begun:
    """A run that has begun, for whoever watches; kept nowhere.

    Attributes:
        why: what a search makes it for, where it says; `whole`, `alone` as in `ConfirmRun`.
    """

    trial_id: str
    name: str
    stage: str
    batch_size: int
    seed: int
    why: str | None = None
    whole: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Look:
    """One judging of a sweep's confirm runs.

    Attributes:
        runs: confirm runs that there were; `seeds` of each batch size that was alive.
        alive: batch sizes that it left open; none where the answer stood.
        used: the batch size to use, as it stood.
        worth: whether further seeds were worth what they cost; None where that is not known.
        asked: the most seeds that the sweep was allowed then.
        rates: batch sizes whose learning rates are to be searched further before any seed.
        searched: search trials that there were.
    """

    runs: int
    seeds: int
    alive: tuple[int, ...]
    used: int | None = None
    worth: bool | None = None
    asked: int = 0
    rates: tuple[int, ...] = ()
    searched: int = 0


@dataclass(frozen=True)
class TargetRun:
    """One run judged at one target: what a verdict is made of, from a sweep or anyone's table.

    A run has one row for each target it is judged at. A run that did not reach the target has None
    in the three `_to_target` columns and is censored at `examples_seen`, `updates` and
    `train_seconds`, each None where not known.

    Attributes:
        workload: what was trained; verdicts are made for each workload apart.
        seed: runs of several batch sizes that share a seed are compared in pairs; None if unknown.
        target: the validation metric to reach, None if the table names none.
        interpolated: the crossing was read between two evaluations, not found by the run itself.
        measured_time_to_target_seconds: by the clock; checks the first. `alone` is whether nothing
            ran beside it on its device (None: not told, taken to be).
        energy_joules: of the whole run where `examples_seen` is known, else to the target.
        val_accuracy, train_accuracy, test_accuracy: at the end of the run (the budget common to
            all). Test accuracy is shown and decides nothing.
        test_accuracy_at_equal_updates: when the run had made as many updates as the largest batch
            size makes in the whole budget.
        resolution: within what part of itself `examples_to_target` is known; None where not told.
        metric, mode, unit: the metric's own name, whether larger is better (`max` or `min`), and
            what stands beside its numbers.
        val_metric, test_metric, train_metric, test_metric_at_equal_updates: of a metric that is no
            accuracy, what the accuracies are of one.
        examples_unit: what `examples_to_target` and `examples_seen` count: `examples`, `tokens`, or
            `epochs` where a table does not tell how many examples an epoch has.
    """

    workload: str
    batch_size: int
    seed: int | None
    target: float | None
    time_to_target_seconds: float | None
    examples_to_target: float | None
    updates_to_target: float | None
    interpolated: bool
    examples_seen: int | None
    updates: int | None
    train_seconds: float | None
    measured_time_to_target_seconds: float | None
    learning_rate: float | None
    examples_per_second: float | None
    peak_memory_mib: float | None
    energy_joules: float | None
    val_accuracy: float | None
    train_accuracy: float | None
    test_accuracy: float | None
    test_accuracy_at_equal_updates: float | None
    device: str | None
    resolution: float | None = None
    metric: str = "accuracy"
    mode: str = "max"
    val_metric: float | None = None
    examples_unit: str = "examples"
    test_metric: float | None = None
    train_metric: float | None = None
    test_metric_at_equal_updates: float | None = None
    unit: str = ""
    alone: bool | None = None
