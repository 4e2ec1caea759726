"""A sweep copied again, resumed or completed: each run once, each point once, as the store says."""

from __future__ import annotations

from pathlib import Path

from tests import tracked
from tests.tracked import (
    CURVE,
    END,
    EXPERIMENT,
    PROFILES,
    THIRD,
    check_curve,
    check_numbers,
    copy_of,
    has_points,
    live_sweep,
    measurement,
    nested_runs,
    profile,
    result,
    steps_of,
    wait_for,
)
from tune_jobs.tracking.mlflow_copy import MlflowCopy

uri = tracked.uri


def test_a_profile_is_found_again_and_a_changed_one_replaces_it(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *PROFILES)
    assert copy.finish("", {}, [])
    before = {run.info.run_name: run.info.run_id for run in nested_runs(uri, copy)}

    again = profile(128, 64, step_seconds=THIRD, reserved_memory_mib=1.5, base_memory_mib=None)
    gpu = profile(128, 128, device="H200")
    resumed = live_sweep(uri, tmp_path, PROFILES[0], again)
    for _ in range(2):
        assert resumed.complete([], [], [PROFILES[0], again, gpu])
    assert resumed.finish("", {}, [])
    assert resumed.parent_run_id == copy.parent_run_id
    runs = {run.data.tags["trial_id"]: run for run in nested_runs(uri, copy)}
    assert len(nested_runs(uri, copy)) == len(runs) == 3
    assert runs["profile-cpu-b128-m128"].info.run_id == before["b128-profile"]
    check_numbers(runs["profile-cpu-b128-m64"], again)
    check_numbers(runs["profile-H200-b128-m128"], gpu)


def test_a_late_row_never_replaces_a_newer_profile(uri: str, tmp_path: Path) -> None:
    copy = copy_of(uri, tmp_path)
    copy.profile(PROFILES[0])  # queued, and not written before the store is copied
    newer = profile(128, 128, step_seconds=THIRD)
    assert copy.complete([], [], [newer])
    copy.start({}, {})
    assert copy.finish("", {}, [])
    (run,) = nested_runs(uri, copy)
    check_numbers(run, newer)


def test_a_trial_whose_record_changed_is_written_anew(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    assert copy.finish("", {}, [])
    recomputed = result("t1", 192, train_seconds=THIRD, time_to_target_seconds=THIRD / 2)
    resumed = copy_of(uri, tmp_path)
    assert resumed.complete([recomputed], CURVE)
    (run,) = nested_runs(uri, resumed)
    check_numbers(run, recomputed)
    check_curve(uri, run, CURVE)


def test_completing_twice_holds_each_trial_and_each_point_once(uri: str, tmp_path: Path) -> None:
    copy = live_sweep(uri, tmp_path, *CURVE, END)
    other = [measurement("t2", 64), result("t2", 64)]
    for _ in range(2):
        assert copy.complete([END, other[1]], [*CURVE, other[0]])
    assert copy.finish("", {}, [])

    again = copy_of(uri, tmp_path)
    assert again.complete([END, other[1]], [*CURVE, other[0]])
    assert again.parent_run_id == copy.parent_run_id
    runs = {run.data.tags["trial_id"]: run for run in nested_runs(uri, copy)}
    assert len(nested_runs(uri, copy)) == len(runs) == 2
    assert steps_of(uri, runs["t1"], "val_accuracy") == [64, 128, 192]
    assert steps_of(uri, runs["t2"], "val_accuracy") == [64]


def test_a_killed_and_resumed_sweep_holds_each_trial_once_and_no_point_twice(
    uri: str, tmp_path: Path
) -> None:
    killed = live_sweep(uri, tmp_path, *CURVE[:2])
    wait_for(lambda: has_points(killed, "t1"))
    # The resumed trial starts again at its checkpoint and reports the second point once more.
    resumed = live_sweep(uri, tmp_path, *CURVE[1:], END)
    wait_for(lambda: "t1" in resumed._incomplete)
    assert resumed.complete([END], CURVE)
    assert resumed.finish("", {}, [])
    assert resumed.parent_run_id == killed.parent_run_id
    (run,) = nested_runs(uri, resumed)
    assert steps_of(uri, run, "val_loss") == [64, 128, 192]
    assert run.info.status == "FINISHED"
    killed._outbox.close(0)


def test_a_run_with_points_that_the_store_lacks_is_written_anew(uri: str, tmp_path: Path) -> None:
    killed = live_sweep(uri, tmp_path, *CURVE)
    wait_for(lambda: has_points(killed, "t1"))
    killed.finish("", {}, [])
    repaired = copy_of(uri, tmp_path)
    assert repaired.complete([result("t1", 128)], CURVE[:2])
    (run,) = nested_runs(uri, repaired)
    assert run.data.metrics["examples_seen"] == 128
    assert run.data.metrics["val_accuracy"] == CURVE[1].val_accuracy


def test_without_a_state_file_the_parent_is_found_by_its_sweep_tag(
    uri: str, tmp_path: Path
) -> None:
    parents = set()
    for _ in range(2):
        copy = MlflowCopy(uri, EXPERIMENT, "first", None)
        copy.start({}, {})
        assert copy.finish("", {}, [])
        parents.add(copy.parent_run_id)
    assert len(parents) == 1


def test_another_folder_s_sweep_of_the_same_name_has_a_parent_of_its_own(
    uri: str, tmp_path: Path
) -> None:
    parents = set()
    for folder in ("mine", "yours"):
        copy = copy_of(uri, tmp_path / folder)
        copy.start({}, {})
        assert copy.finish("", {}, [])
        parents.add(copy.parent_run_id)
    assert len(parents) == 2
