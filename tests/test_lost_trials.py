"""A trial that a killed driver had begun, and that Ray does not know: made again under another id.

1. its points are removed at resume, and only they;
2. MLflow's run of it is deleted at the end, and a run that had ended is not;
3. what is taken up again keeps its points.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tracked
from tests.tracked import (
    CURVE,
    PROFILES,
    copy_of,
    has_points,
    live_sweep,
    measurement,
    nested_runs,
    result,
    wait_for,
)
from tune_jobs.store import SweepStore

uri = tracked.uri


@pytest.mark.parametrize("merged", [False, True], ids=["in parts", "in one file"])
def test_points_of_a_lost_trial_are_removed_and_no_others(merged: bool, tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    store.write_trials([result("ended", 96), result("whole", 96, stage="confirm")])
    points, places = store.growing_measurements(), [
        ("ended", "search"), ("lost", "search"), ("going on", "search"), ("other", "confirm"),
    ]  # fmt: skip
    for trial_id, stage in places:
        points.add(measurement(trial_id, 96, stage=stage))
    points.merge() if merged else points.write()
    for _ in range(2):  # 1
        store.drop_lost(["search"], ["going on"])
        left = [m.trial_id for m in store.read_measurements()]
        assert left == ["ended", "going on", "other"]  # 3
    store.drop_lost(["confirm"], [])
    assert [m.trial_id for m in store.read_measurements()] == ["ended", "going on"]


def test_a_store_without_lost_points_is_left_as_it_is(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    store.write_trials([result("ended", 96)])
    store.write_measurements([measurement("ended", 96)])
    before = store.measurements.stat().st_mtime_ns
    store.drop_lost(["search"], [])
    assert store.measurements.stat().st_mtime_ns == before


def test_the_run_of_a_lost_trial_is_deleted_and_mlflow_lacks_nothing(
    uri: str, tmp_path: Path
) -> None:
    killed = live_sweep(uri, tmp_path, *PROFILES, *CURVE[:2])
    wait_for(lambda: has_points(killed, "t1"))
    again = [measurement("t9", m.examples_seen) for m in CURVE]
    resumed = copy_of(uri, tmp_path)
    resumed.start({}, {})
    assert resumed.complete([result("t9", 192)], again, PROFILES)
    assert resumed.finish("", {}, [])  # 2
    found = nested_runs(uri, resumed)
    assert {r.data.tags["trial_id"] for r in found if r.data.tags["stage"] == "search"} == {"t9"}
    assert len(found) == 1 + len(PROFILES)
    killed._outbox.close(0)
