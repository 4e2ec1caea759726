"""Plausible records for tests; each names only the fields that it is about."""

from __future__ import annotations

from typing import Any

from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TargetRun, TrialResult

_MEASUREMENT: dict[str, Any] = {
    "trial_id": "t", "stage": "search", "batch_size": 32, "examples_seen": 320, "updates": 10,
    "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9, "test_accuracy": None,
    "train_accuracy": None, "examples_to_target": None, "train_seconds": 1.0,
    "wall_time_seconds": 2.0, "rung": None,
}  # fmt: skip
_RESULT: dict[str, Any] = {
    "trial_id": "t", "name": "n", "sweep": "first", "stage": "search", "outcome": "finished",
    "reason": None, "batch_size": 32, "micro_batch_size": 32, "base_learning_rate": 1e-3,
    "learning_rate": 1e-3, "optimizer": "adam", "seed": 0, "model": "m", "data": "d",
    "node": None, "device": "cpu", "cpus": 1.0, "gpus": 0.0, "budget_examples": 900,
    "target": 0.9, "examples_seen": 900, "updates": 28, "examples_to_target": 500,
    "updates_to_target": 16, "time_to_target_seconds": 5.0, "train_seconds": 9.0,
    "measured_train_seconds": 9.5, "measured_time_to_target_seconds": 5.5,
    "evaluation_seconds": 1.0, "wall_time_seconds": 11.0, "waited_seconds": None,
    "energy_joules": None, "examples_per_second": 100.0, "peak_memory_mib": 500.0,
    "val_accuracy": 0.95, "test_accuracy": 0.94, "train_accuracy": None,
}  # fmt: skip
_PROFILE: dict[str, Any] = {
    "batch_size": 32, "micro_batch_size": 32, "chosen": True, "outcome": "finished",
    "reason": None, "model": "m", "data": "d", "optimizer": "adam", "node": None, "device": "cpu",
    "cpus": 1.0, "gpus": 0.0, "rounds": 3, "timed_updates": 30, "step_seconds": 0.05,
    "step_seconds_low": 0.049, "step_seconds_high": 0.051, "step_seconds_min": 0.048,
    "optimizer_seconds": 0.002, "examples_per_second": 640.0,
    "evaluation_examples_per_second": 1700.0, "peak_memory_mib": 500.0,
    "training_memory_mib": 480.0, "reserved_memory_mib": None, "base_memory_mib": 400.0,
    "memory_limit_mib": None, "allocator_retries": None, "requested_mib": None,
    "waited_seconds": 0.0,
}  # fmt: skip
_NOISE_SCALE: dict[str, Any] = {
    "examples_seen": 1024, "updates": 16, "batch_size": 64, "learning_rate": 1e-3, "kind": "raw",
    "small_batch": 16, "large_batch": 256, "draws": 32, "gradient_squared": 0.1,
    "gradient_variance": 10.0, "noise_scale": 100.0, "low": 80.0, "high": 130.0, "useful": True,
    "reason": None,
}  # fmt: skip

_TARGET_RUN: dict[str, Any] = {
    "workload": "w", "batch_size": 32, "seed": 0, "target": 0.9, "time_to_target_seconds": 5.0,
    "examples_to_target": 640.0, "updates_to_target": 20.0, "interpolated": False,
    "examples_seen": 960, "updates": 30, "train_seconds": 7.5,
    "measured_time_to_target_seconds": None, "learning_rate": 1e-3, "examples_per_second": 128.0,
    "peak_memory_mib": 500.0, "energy_joules": None, "val_accuracy": None, "train_accuracy": None,
    "test_accuracy": None, "test_accuracy_at_equal_updates": None, "device": "cpu",
}  # fmt: skip


def measurement(**changes: Any) -> Measurement:
    return Measurement(**(_MEASUREMENT | changes))


def result(**changes: Any) -> TrialResult:
    return TrialResult(**(_RESULT | changes))


def profile(**changes: Any) -> BatchSizeProfile:
    return BatchSizeProfile(**(_PROFILE | changes))


def noise_scale(**changes: Any) -> NoiseScale:
    return NoiseScale(**(_NOISE_SCALE | changes))


def target_run(**changes: Any) -> TargetRun:
    return TargetRun(**(_TARGET_RUN | changes))
