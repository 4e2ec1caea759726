"""Fills the copy from the store's rows: what is missing, not closed, or says something else."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

from tune_jobs.records import BatchSizeProfile, Measurement, NoiseScale, TrialResult
from tune_jobs.tracking.client import log_batch
from tune_jobs.tracking.fields import Clock, Item, identity
from tune_jobs.tracking.parent import Parent
from tune_jobs.tracking.writer import Writer


def fill(
    writer: Writer,
    clock: Clock,
    results: Sequence[TrialResult],
    measurements: Sequence[Measurement],
    profiles: Sequence[BatchSizeProfile],
    noise: Sequence[NoiseScale],
) -> None:
    """Make MLflow hold every row given. Idempotent; raises what MLflow raises."""
    curves: dict[str, list[Measurement]] = {}
    for row in measurements:
        curves.setdefault(row.trial_id, []).append(row)
    _fill_profiles(writer, clock, profiles)
    _delete_lost(writer, {result.trial_id for result in results})
    for result in results:
        _fill_trial(writer, clock, result, curves.get(result.trial_id, []))
    _fill_noise(writer.nested.parent, clock, noise)


def _fill_profiles(writer: Writer, clock: Clock, profiles: Sequence[BatchSizeProfile]) -> None:
    """Each profile of the store; runs of profiles that it no longer holds are deleted."""
    held = {identity(profile) for profile in profiles}
    for key, run in list(writer.nested.known.items()):
        if held and run.tags.get("stage") == "measure" and key not in held:
            writer.nested.delete(key)
    for profile in profiles:
        writer.profile(profile, clock.now_ms())
    writer.incomplete.difference_update(held)


def _delete_lost(writer: Writer, held: Set[str]) -> None:
    """Runs of trials that a killed driver had begun and nobody took up: the store has no row."""
    for key, run in list(writer.nested.known.items()):
        if held and run.tags.get("stage") != "measure" and not run.closed and key not in held:
            writer.nested.delete(key)


def _fill_trial(
    writer: Writer, clock: Clock, result: TrialResult, curve: Sequence[Measurement]
) -> None:
    run = writer.nested.known.get(result.trial_id)
    if run is not None and not (run.says(result) or run.can_be_filled(curve)):
        writer.nested.delete(result.trial_id)
    run = writer.nested.of(result)
    if not run.closed:
        writer.curve(run, [Item(row, clock.now_ms()) for row in curve])
        writer.close(run, result, clock.now_ms())
    writer.incomplete.discard(result.trial_id)


def _fill_noise(parent: Parent, clock: Clock, rows: Sequence[NoiseScale]) -> None:
    """The noise scale along training, on the parent; a point that is there stays alone."""
    points = [
        (f"noise_scale_{row.kind}", row.noise_scale, row.examples_seen)
        for row in rows
        if row.noise_scale is not None and math.isfinite(row.noise_scale)
    ]
    there = {
        (name, point.value, point.step)
        for name in {name for name, _, _ in points}
        for point in parent.client.get_metric_history(parent.run_id, name)
    }
    missing = [point for point in points if point not in there]
    metrics = [(name, value, clock.now_ms(), step) for name, value, step in missing]
    log_batch(parent.client, parent.run_id, metrics=metrics)
