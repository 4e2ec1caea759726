"""What passes between the stages and into the store: frozen dataclasses, one row each.

Every field is a plain number, string or None. A missing value is None, never a sentinel. Units
stand in the names. The words are those of the README.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("measure", "search", "confirm")
OUTCOMES = ("finished", "stopped", "diverged", "out_of_memory", "failed")


@dataclass(frozen=True)
class Measurement:
    """One report of one trial: a point of its learning curve.

    `rung` is the index of the race's rung whose budget this report stands at, or None.
    `test_accuracy` is present at rungs and at the end only, and decides nothing.
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
    examples_to_target: int | None
    train_seconds: float
    wall_time_seconds: float
    rung: int | None


@dataclass(frozen=True)
class TrialResult:
    """One trial of the search, or one confirm run, when it has ended.

    Attributes:
        learning_rate: the rate the optimizer used; `base_learning_rate` is that rate carried to
            the reference batch of 256 by the optimizer's scaling rule.
        examples_to_target: examples seen when validation accuracy first reached `target`, or None
            if it never did (the run is censored at `examples_seen`).
        train_seconds: seconds of training, evaluation left out.
        wall_time_seconds: what the clock said of the trial, contention and evaluation included.
        peak_memory_mib: the trial's own peak; on CPU the process's peak resident set since the
            trial began, on CUDA the allocator's peak.
        val_accuracy, test_accuracy: the last ones measured, at `examples_seen`.
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
    evaluation_seconds: float
    wall_time_seconds: float
    examples_per_second: float | None
    peak_memory_mib: float | None
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class BatchSizeRow:
    """One line of the closing table: what the sweep knows of one batch size."""

    batch_size: int
    base_learning_rate: float | None
    learning_rate: float | None
    examples_to_target: int | None
    time_to_target_seconds: float | None
    examples_per_second: float | None
    peak_memory_mib: float | None
    val_accuracy: float | None
    test_accuracy: float | None
    trials: int
    stopped: int
    failed: int


@dataclass(frozen=True)
class Verdict:
    """What the sweep answers: the table, and the fastest batch size that reached the target."""

    sweep: str
    goal: str
    target: float
    status: str
    fastest_batch_size: int | None
    reason: str
    rows: tuple[BatchSizeRow, ...]
    schema_version: int = 1
