"""Races, and the choosing that follows the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.planning.confirm_plan import unbracketed
from tune_jobs.reading.choosing import best_trial, score
from tune_jobs.records import Measurement, TrialResult
from tune_jobs.store import SweepStore
from tune_jobs.tuning.racing import METRIC, TIME_ATTR, BatchSizeRaces, races_of


def races(folder: Path, kind: str = "asha") -> BatchSizeRaces:
    return BatchSizeRaces((100, 300), 3, 0.9, 900, SweepStore(folder), kind=kind)


def trial(name: str, batch_size: int, *, in_race: bool = True, rate: float = 0.1) -> Any:
    config = {"batch_size": batch_size, "races": in_race, "learning_rate": rate}
    return SimpleNamespace(trial_id=name, config=config)


def at(rung: int, value: float) -> dict[str, Any]:
    return {TIME_ATTR: rung, METRIC: value}


def test_a_replayed_table_of_learning_curves_stops_what_it_should(tmp_path: Path) -> None:
    scheduler = races(tmp_path)
    table = [("a", 0.5, "CONTINUE"), ("b", 0.4, "STOP"), ("c", 0.6, "CONTINUE"),
             ("d", 0.52, "STOP"), ("e", 0.7, "CONTINUE")]  # fmt: skip
    for name, value, decision in table:
        scheduler.on_trial_add(None, trial(name, 16))
        assert scheduler.on_trial_result(None, trial(name, 16), at(100, value)) == decision, name


def test_a_trial_is_never_compared_across_batch_sizes(tmp_path: Path) -> None:
    scheduler = races(tmp_path)
    for name, size, value in (("a", 16, 0.9), ("b", 512, 0.1)):
        scheduler.on_trial_add(None, trial(name, size))
        result = scheduler.on_trial_result(None, trial(name, size), at(100, value))
        assert result == "CONTINUE"


def test_reports_between_rungs_decide_nothing(tmp_path: Path) -> None:
    scheduler = races(tmp_path)
    for name in ("a", "b"):
        scheduler.on_trial_add(None, trial(name, 16))
    scheduler.on_trial_result(None, trial("a", 16), at(100, 0.9))
    assert scheduler.on_trial_result(None, trial("b", 16), {METRIC: 0.1}) == "CONTINUE"


def test_a_trial_outside_the_race_is_not_stopped(tmp_path: Path) -> None:
    scheduler = races(tmp_path)
    scheduler.on_trial_add(None, trial("a", 16))
    scheduler.on_trial_result(None, trial("a", 16), at(100, 0.9))
    outside = trial("b", 16, in_race=False)
    scheduler.on_trial_add(None, outside)
    assert scheduler.on_trial_result(None, outside, at(100, 0.1)) == "CONTINUE"


def measurement(name: str, size: int, seen: int, accuracy: float, rung: int | None) -> Measurement:
    return rows.measurement(
        trial_id=name, batch_size=size, examples_seen=seen, val_accuracy=accuracy, rung=rung
    )


def test_a_new_driver_takes_the_rungs_up_from_the_store(tmp_path: Path) -> None:
    SweepStore(tmp_path).write_measurements(
        [measurement("a", 16, 100, 0.8, 0), measurement("b", 512, 100, 0.99, 0)]
    )
    scheduler = races(tmp_path)
    scheduler.on_trial_add(None, trial("c", 16))
    assert scheduler.on_trial_result(None, trial("c", 16), at(100, 0.7)) == "STOP"


def test_the_median_rule_stops_what_is_under_the_median_of_three_others(tmp_path: Path) -> None:
    table = [("a", 0.5, "CONTINUE"), ("b", 0.4, "CONTINUE"), ("c", 0.6, "CONTINUE"),
             ("d", 0.45, "STOP"), ("e", 0.55, "CONTINUE")]  # fmt: skip
    scheduler = races(tmp_path, "median")
    for name, value, decision in table:
        assert scheduler.on_trial_result(None, trial(name, 16), at(100, value)) == decision, name
    other = trial("elsewhere", 512)
    assert scheduler.on_trial_result(None, other, at(100, 0.1)) == "CONTINUE"


def test_a_new_driver_takes_the_median_up_from_the_store(tmp_path: Path) -> None:
    kept = [measurement(name, 16, 100, 0.8, 0) for name in ("a", "b", "c")]
    SweepStore(tmp_path).write_measurements(kept)
    scheduler = races(tmp_path, "median")
    assert scheduler.on_trial_result(None, trial("d", 16), at(100, 0.6)) == "STOP"


def test_hyperbands_later_brackets_do_not_stop_at_the_first_rung(tmp_path: Path) -> None:
    scheduler = races(tmp_path, "hyperband")
    rates = [0.1 + k / 100 for k in range(20)]
    by_bracket = {k: [r for r in rates if scheduler._bracket(r) == k] for k in (0, 1)}
    for bracket, stopped in ((0, "STOP"), (1, "CONTINUE")):
        better, worse = by_bracket[bracket][:2]
        scheduler.on_trial_result(None, trial(f"a{bracket}", 16, rate=better), at(100, 0.9))
        last = scheduler.on_trial_result(None, trial(f"b{bracket}", 16, rate=worse), at(100, 0.1))
        assert last == stopped


def test_without_a_scheduler_no_trial_is_stopped(tmp_path: Path) -> None:
    scheduler = races_of(replace(SweepConfig(), scheduler="none"), SweepStore(tmp_path))
    for name, worth in (("a", 0.9), ("b", 0.1)):
        assert scheduler.on_trial_result(None, trial(name, 16), at(100, worth)) == "CONTINUE"


def test_scores_put_reaching_the_target_first_and_divergence_last() -> None:
    assert score(0.99, 400, 900) > score(0.95, 800, 900) > score(0.94, None, 900)
    assert score(None, None, 900) == 0.0


def result(size: int, **changes: Any) -> TrialResult:
    return rows.result(batch_size=size, **changes)


def test_test_accuracy_never_chooses() -> None:
    planted = result(16, trial_id="planted", test_accuracy=1.0, val_accuracy=0.5,
                     examples_to_target=None, time_to_target_seconds=None)  # fmt: skip
    honest = result(16, trial_id="honest", test_accuracy=0.1)
    assert best_trial([planted, honest]) is honest


def test_for_accuracy_the_best_is_the_highest_at_the_whole_budget() -> None:
    soon = result(16, trial_id="soon", examples_to_target=100, val_accuracy=0.95)
    late = result(16, trial_id="late", examples_to_target=None, val_accuracy=0.97)
    cut = result(16, trial_id="cut", outcome="stopped", examples_seen=50, val_accuracy=0.99)
    assert best_trial([soon, late, cut], "accuracy") is late
    assert best_trial([soon, late, cut]) is soon


def test_a_run_that_ends_at_its_target_is_entered_at_the_rungs_it_never_came_to(
    tmp_path: Path,
) -> None:
    scheduler = races(tmp_path)
    scheduler.on_trial_add(None, trial("fast", 16))
    scheduler.on_trial_result(None, trial("fast", 16), at(100, 1.8))
    scheduler.on_trial_complete(None, trial("fast", 16), {METRIC: 1.8, "examples_to_target": 180})
    scheduler.on_trial_add(None, trial("slow", 16))
    assert scheduler.on_trial_result(None, trial("slow", 16), at(300, 0.7)) == "STOP"


def searched(size: int, rate: float, to_target: int | None, **changes: Any) -> TrialResult:
    return result(size, stage="search", learning_rate=rate, examples_to_target=to_target, **changes)


def test_a_best_rate_that_is_the_last_of_those_tried_is_told() -> None:
    config = replace(SweepConfig(), batch_sizes=(16, 64))
    inside = [searched(16, rate, seen) for rate, seen in ((0.1, 500), (0.2, 400), (0.3, None))]
    edge = [searched(64, rate, seen) for rate, seen in ((0.1, 500), (0.2, 400))]
    (line,) = unbracketed(config, [*inside, *edge])
    assert "batch size 64" in line and "highest of 2" in line
