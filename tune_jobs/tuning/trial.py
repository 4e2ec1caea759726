"""The Trainable that Ray Tune runs: one trial in a process that later trials reuse.

Imports stay light: no torchvision, MLflow or matplotlib comes into the trial's process.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from tune_jobs.data.dataset import open_dataset, read_dataset
from tune_jobs.data.examples import splits_of
from tune_jobs.reading.choosing import WORST, score
from tune_jobs.recipe import PLAIN, Recipe
from tune_jobs.space import applied, from_text
from tune_jobs.training import allocator, checkpoint, device, energy
from tune_jobs.training.loop import Report, RunSettings, TrainingRun
from tune_jobs.training.out_of_memory import is_out_of_memory
from tune_jobs.training.own_process import OwnProcess, Room
from tune_jobs.training.own_run import OwnRun
from tune_jobs.training.segments import Segment, segments_of
from tune_jobs.tuning.guard import guarded
from tune_jobs.tuning.leaving import on_a_leaving_node
from tune_jobs.tuning.racing import TIME_ATTR
from tune_jobs.tuning.requests import Requests, TrialRequest
from tune_jobs.workload import Workload
from tune_jobs.workload_source import WorkloadSource

TEST_SAMPLE = 500  # of the test split, but for the end of a run that is trained to the budget


@dataclass(frozen=True)
class SharedByTrials:
    """What all trials of a sweep have in common. `data` is a one-element list so that Ray hands the
    reference on unresolved: a host that has the source's `data_path` never fetches it.

    `micro_batch_sizes` are by device type and batch size. `memory_growth_mib` is what a trial may
    allocate beyond what its process holds before it, on a CPU with a limit. `threads` are CPU
    threads by batch size; `evaluation_threads` those of a run that is alone on its device.
    `checkpoint_seconds` lie between two checkpoints of a trial; `report_seconds`, by batch size,
    are all that a trial may take to its next report. `began_at` is when this driver's stage began.
    The rest is as in `RunSettings`.
    """

    source: WorkloadSource
    optimizer: str
    target: float
    budget_examples: int
    rungs: tuple[int, ...]
    validation_examples: int
    split_seed: int
    data: list[Any]
    micro_batch_sizes: dict[tuple[str, int], int]
    requests: Requests
    threads: dict[int, int]
    memory_growth_mib: float | None
    checkpoint_seconds: float
    report_seconds: dict[int, float]
    began_at: float = 0.0
    recipe: Recipe = PLAIN
    goal: str = "time"
    stops_at_target: bool = False
    test_updates: tuple[int, ...] = ()
    train_sample: int = 0
    evaluation_threads: int | None = None


def open_workload(shared: SharedByTrials) -> Workload:
    """The host's own data file, memory-mapped, else one copy per node through Ray's object store;
    a user's workload brings its data itself."""
    source = shared.source
    if source.data_path is None:
        return source.open()
    here = Path(source.data_path).exists()
    return source.of_dataset(
        open_dataset(Path(source.data_path)) if here else read_dataset(ray.get(shared.data[0]))
    )


class BatchSizeTrial(tune.Trainable):  # type: ignore[misc]
    """One trial. `step` trains to the next evaluation and reports it."""

    run: TrainingRun | OwnRun | None = None
    waited_seconds: float | None = None

    def setup(self, config: dict[str, Any], shared: SharedByTrials) -> None:
        allocator.keep_pages()
        self.shared = shared
        request = shared.requests.of(config)
        torch.set_num_threads(shared.threads[config["batch_size"]])
        self.device = device.pick(request.gpus)
        if shared.source.train is None:
            self.workload = open_workload(shared)
            self.splits = splits_of(
                self.workload, shared.validation_examples, shared.split_seed, self.device
            )
            self._limit_memory(request)
        # The counter is of the whole GPU: a share of one has none of its own.
        self.joules = energy.counter(self.device) if request.gpus >= 1 else None
        self.node = ray.util.get_node_ip_address()
        self._begin(config)

    def _limit_memory(self, request: TrialRequest) -> None:
        """Inside its share of a GPU, or the limit that the user set for a CPU."""
        if self.device.type == "cuda":
            share = min(1.0, request.gpus) * device.total_memory_mib(self.device)
            device.limit_memory(self.device, share, 0.0)
        elif self.shared.memory_growth_mib is not None:
            device.limit_memory(self.device, self.shared.memory_growth_mib, 0.0)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        torch.set_num_threads(self.shared.threads[new_config["batch_size"]])
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        shared = self.shared
        # For a device and for its process; one taken up again waits since it was.
        asked_at = config.get("asked_at")
        since = asked_at and max(asked_at, shared.began_at)
        self.waited_seconds = since and max(0.0, time.time() - since)
        self.cleanup()  # lets the last trial's memory go before the next begins
        size = config["batch_size"]
        self.device_name = device.describe(self.device)
        self.micro_batch_size = self._micro_batch_size(size)
        segments = self._segments(config.get("schedule"))
        sizes = [size, *(segment.batch_size for segment in segments)]
        self.report_seconds = max(shared.report_seconds[s] for s in sizes)
        whole = config.get("whole", False)
        settings = RunSettings(
            batch_size=size,
            micro_batch_size=self.micro_batch_size,
            learning_rate=config["learning_rate"],
            optimizer=shared.optimizer,
            recipe=applied(shared.recipe, from_text(config.get("space"))),
            seed=config["seed"],
            budget_examples=shared.budget_examples,
            target=shared.target,
            segments=segments,
            rungs=shared.rungs if config.get("stage", "search") == "search" else (),
            stops_at_target=shared.stops_at_target and not whole,
            most_examples=config.get("most_examples"),
            test_updates=shared.test_updates if whole else (),
            test_examples=None if whole else TEST_SAMPLE,
            test_sample=TEST_SAMPLE,
            train_sample=shared.train_sample if whole else 0,
            evaluation_threads=shared.evaluation_threads if config.get("alone") else None,
        )
        with guarded(self.report_seconds):
            self.run = self._run(settings, shared.requests.of(config))
        self.saved_at = time.monotonic()

    def _micro_batch_size(self, batch_size: int) -> int:
        known = self.shared.micro_batch_sizes
        return known.get((self.device_name, batch_size), batch_size)

    def _segments(self, schedule: str | None) -> tuple[Segment, ...]:
        """Of a batch schedule, each cut into micro-batches as its batch size was profiled."""
        return tuple(
            replace(segment, micro_batch_size=self._micro_batch_size(segment.batch_size))
            for segment in segments_of(schedule or "")
        )

    def _run(self, settings: RunSettings, request: TrialRequest) -> TrainingRun | OwnRun:
        shared = self.shared
        if shared.source.train is None:
            self.mode = self.workload.metric.mode
            return TrainingRun(settings, self.workload, self.splits, self.device, self.joules)
        room = Room(
            device="cpu" if self.device.type == "cpu" else "cuda:0",
            threads=shared.threads[settings.batch_size],
            memory_limit_mib=shared.memory_growth_mib,
            gpu_share=min(1.0, request.gpus),
            log=sys.stdout.fileno(),  # Ray's log of this process
        )
        process = OwnProcess(shared.source, room)
        self.mode = process.mode
        return OwnRun(settings, process)

    def step(self) -> dict[str, Any]:
        assert self.run is not None
        # By its title Ray's dashboard lists a process; it serves one trial after the other.
        ray._raylet.setproctitle(f"ray::{self.trial_name}")
        try:
            with guarded(self.report_seconds):
                return self._result(self.run.advance())
        except Exception as error:
            if not is_out_of_memory(error):
                self.cleanup()
                raise
            return self._out_of_memory(error)

    def _out_of_memory(self, error: Exception) -> dict[str, Any]:
        """An outcome, not a failure: what was seen so far, and the reason."""
        assert self.run is not None
        result = self._result(self.run.ended_report())
        self.cleanup()
        reason = str(error).splitlines()[0]
        return result | {"outcome": "out_of_memory", "reason": reason, "done": True, "score": WORST}

    def _result(self, report: Report) -> dict[str, Any]:
        result = asdict(report)
        result["micro_batch_size"] = self.micro_batch_size
        to_target = None if self.shared.goal == "accuracy" else report.examples_to_target
        budget, mode = self.shared.budget_examples, self.mode
        result["score"] = score(report.val_metric, to_target, budget, mode)
        result["waited_seconds"] = self.waited_seconds
        ended = "diverged" if report.diverged else "finished"
        result["outcome"] = ended if report.done else "stopped"
        if isinstance(self.run, OwnRun) and report.done:
            self.run.stop()  # its memory is wanted; the files it keeps stay until the next trial
            result["reason"] = self.run.reason
        result["node"] = self.node
        result["device_name"] = self.device_name
        if report.rung is not None:
            result[TIME_ATTR] = self.shared.rungs[report.rung]
        due = time.monotonic() - self.saved_at > self.shared.checkpoint_seconds
        result[SHOULD_CHECKPOINT] = not report.done and (due or on_a_leaving_node())
        return result

    def cleanup(self) -> None:
        """Nothing of a run outlasts its trial."""
        if isinstance(self.run, OwnRun):
            self.run.close()
        self.run = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self.run is not None
        checkpoint.save(self.run.state(), Path(checkpoint_dir))
        self.saved_at = time.monotonic()

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        assert self.run is not None
        self.run.load_state(checkpoint.load(Path(checkpoint_dir)))
