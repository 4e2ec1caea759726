"""The callback that turns Ray's results into records: store first, then whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from tune_jobs.config import SweepConfig
from tune_jobs.measure.clock import ProfiledClock
from tune_jobs.records import BatchSizeProfile, Begun, Measurement, TrialResult
from tune_jobs.space import applied, from_text
from tune_jobs.store import SweepStore
from tune_jobs.training.segments import segments_of
from tune_jobs.tuning.failures import reason_of
from tune_jobs.tuning.requests import Requests, TrialRequest

WRITE_SECONDS = 2.0
SPLITS = ("val", "test", "train")
Listener = Callable[[Begun | Measurement | TrialResult], None]

# Ray pickles callbacks when the Tuner is made; what holds threads and clients is kept out of them.
LISTENERS: dict[str, list[Listener]] = {}


class RecordKeeper(Callback):  # type: ignore[misc]
    """Writes each trial's row when it ends, and its reports at rungs and every two seconds.

    A driver that was killed after it wrote a trial's row and before Tune noted the trial's end has
    that trial run again on resume: the row that stands is kept. Rows that were lost with a file of
    the store are written again from what Ray kept, each with the last point of its curve.
    """

    def __init__(
        self,
        config: SweepConfig,
        store: SweepStore,
        profiles: Sequence[BatchSizeProfile],
        requests: Requests,
        stage: str,
    ) -> None:
        self.config = config
        self.stage = stage  # of trials whose configuration names none
        self.store = store
        self.clock = ProfiledClock(profiles)
        self.timed_for = stage
        self.requests = requests
        self.written_at = 0.0

    def setup(self, stop: Any = None, num_samples: Any = None, **info: Any) -> None:
        self.results = self.store.growing_trials()
        self.points = self.store.growing_measurements()
        rows = self.store.read_trials()
        self.ended = {row.trial_id: row for row in rows if row.outcome != "failed"}
        self.missing_looked_for = False

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Once, after a restore: every trial that Ray knows to have ended has its row."""
        if self.missing_looked_for:
            return
        self.missing_looked_for = True
        for trial in trials:
            last = trial.last_result or {}
            over = trial.status == Trial.TERMINATED and "outcome" in last
            if over and trial.trial_id not in self.ended:
                self.on_trial_result(iteration, trials, trial, last)
                self._keep(trial, last["outcome"], last.get("reason"))

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        if self._stage(trial) != self.timed_for:  # batch sizes may have been timed again since
            self.timed_for = self._stage(trial)
            self.clock = ProfiledClock(self.store.read_profiles())
        if trial.trial_id not in self.ended:
            self._tell(begun(trial.trial_id, self._stage(trial), trial.config))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        if trial.trial_id in self.ended:
            return
        named = (trial.config, result, self.clock, self.config.metric)
        point = to_measurement(trial.trial_id, self._stage(trial), *named)
        self.points.add(point)
        urgent = point.rung is not None or result.get("done")
        if urgent or time.monotonic() - self.written_at > WRITE_SECONDS:
            self._write_points()
        self._tell(point)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        last = trial.last_result
        self._keep(trial, last["outcome"], last.get("reason"))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._keep(trial, "failed", reason_of(trial.get_pickled_error()))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self.points.merge()
        self.results.merge()

    def _keep(self, trial: Trial, outcome: str, reason: str | None) -> None:
        if trial.trial_id in self.ended:
            self._tell(self.ended[trial.trial_id])
            return
        request = self.requests.of(trial.config)
        of = self._stage(trial)
        row = to_result(self.config, of, trial, outcome, reason, request, self.clock)
        self.results.add(row)
        self._write_points()
        self.results.write()
        let_go(trial)
        self._tell(row)

    def _stage(self, trial: Trial) -> str:
        return str(trial.config.get("stage", self.stage))

    def _write_points(self) -> None:
        self.points.write()
        self.written_at = time.monotonic()

    def _tell(self, record: Begun | Measurement | TrialResult) -> None:
        for listener in LISTENERS.get(self.config.name, []):
            listener(record)


def let_go(trial: Trial) -> None:
    """Forget the running means that Ray keeps of each number of an ended trial: 64 KiB that nobody
    reads, and a sweep has many trials."""
    trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps = {}, {}


def begun(trial_id: str, stage: str, asked: dict[str, Any]) -> Begun:
    """What is told of a run when it begins, from its configuration."""
    return Begun(
        trial_id, readable_name(asked), stage, asked["batch_size"], asked["seed"],
        asked.get("why"), bool(asked.get("whole")), bool(asked.get("alone")),
    )  # fmt: skip


def to_measurement(
    trial_id: str,
    stage: str,
    asked: Mapping[str, Any],
    result: dict[str, Any],
    clock: ProfiledClock,
    metric: str = "accuracy",
) -> Measurement:
    """One report as Ray handed it over, its train seconds by the contention-free clock."""
    profiled = profiled_seconds(clock, asked, result, result["updates"])
    return Measurement(
        trial_id=trial_id,
        stage=stage,
        batch_size=asked["batch_size"],
        examples_seen=result["examples_seen"],
        updates=result["updates"],
        train_loss=result["train_loss"],
        val_loss=result["val_loss"],
        **of_metric(metric, result),
        examples_to_target=result["examples_to_target"],
        train_seconds=result["train_seconds"] if profiled is None else profiled,
        wall_time_seconds=result["wall_time_seconds"],
        rung=result["rung"],
        val_examples=result.get("val_examples"),
    )


def to_result(
    config: SweepConfig,
    stage: str,
    trial: Trial,
    outcome: str,
    reason: str | None,
    request: TrialRequest,
    clock: ProfiledClock,
) -> TrialResult:
    """The row of a trial that has ended, from its configuration and last report."""
    last, asked = trial.last_result or {}, trial.config
    size, device = asked["batch_size"], last.get("device_name")
    seen, measured = last.get("examples_seen", 0), last.get("train_seconds", 0.0)
    measured_to_target = last.get("train_seconds_to_target")
    profiled = profiled_seconds(clock, asked, last, last.get("updates", 0))
    to_target = profiled_seconds(clock, asked, last, last.get("updates_to_target"))
    speed = None if asked.get("schedule") else clock.examples_per_second(device, size)
    own_speed = seen / measured if measured > 0 else None
    return TrialResult(
        trial_id=trial.trial_id,
        name=readable_name(asked),
        sweep=config.name,
        stage=stage,
        outcome=outcome,
        reason=reason,
        batch_size=size,
        micro_batch_size=last.get("micro_batch_size", size),
        base_learning_rate=asked["base_learning_rate"],
        learning_rate=asked["learning_rate"],
        optimizer=config.optimizer,
        seed=asked["seed"],
        model=config.model,
        data=config.data,
        node=last.get("node"),
        device=device,
        cpus=request.cpus,
        gpus=request.gpus,
        budget_examples=config.budget_examples,
        target=config.target,
        examples_seen=seen,
        updates=last.get("updates", 0),
        examples_to_target=last.get("examples_to_target"),
        updates_to_target=last.get("updates_to_target"),
        time_to_target_seconds=measured_to_target if profiled is None else to_target,
        train_seconds=measured if profiled is None else profiled,
        measured_train_seconds=measured,
        measured_time_to_target_seconds=measured_to_target,
        evaluation_seconds=last.get("evaluation_seconds", 0.0),
        wall_time_seconds=last.get("wall_time_seconds", 0.0),
        waited_seconds=last.get("waited_seconds"),
        energy_joules=last.get("energy_joules"),
        examples_per_second=speed or own_speed,
        peak_memory_mib=last.get("peak_memory_mib"),
        alone=bool(asked.get("alone")),
        metric=config.metric,
        mode=config.mode,
        recipe=str(applied(config.training, from_text(asked.get("space")))) or None,
        space=asked.get("space"),
        schedule=asked.get("schedule"),
        **of_metric(config.metric, last),
    )


def profiled_seconds(
    clock: ProfiledClock,
    asked: Mapping[str, Any],
    result: Mapping[str, Any],
    updates: int | None,
) -> float | None:
    """Train seconds of `updates` of the run that was asked for, on the device that it ran on."""
    device = result.get("device_name")
    if asked.get("schedule"):
        return clock.seconds_of(device, segments_of(asked["schedule"]), updates)
    return clock.seconds(device, asked["batch_size"], updates)


def of_metric(metric: str, result: dict[str, Any]) -> dict[str, Any]:
    """The metric of each split, and once more as accuracy where it is that."""
    named = {f"{split}_metric": result.get(f"{split}_metric") for split in SPLITS}
    known = {f"{split}_accuracy": named[f"{split}_metric"] for split in SPLITS}
    return named | (known if metric == "accuracy" else dict.fromkeys(known))


def readable_name(config: dict[str, Any]) -> str:
    """`b128-lr0.002-s1`: batch size, learning rate, seed; `schedule-` before it of a schedule that
    begins so. `member3` of a population."""
    if "member" in config:
        return f"member{config['member']}"
    what = "schedule-" if config.get("schedule") else ""
    return what + f"b{config['batch_size']}-lr{config['learning_rate']:.2g}-s{config['seed']}"
