"""Energy from a GPU's counter to the verdict. No GPU is needed: the counters are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import rows
from tune_jobs.config import SweepConfig
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.examples import splits_of
from tune_jobs.data.sources import prepare
from tune_jobs.errors import UserError
from tune_jobs.judging.judging import judge_runs
from tune_jobs.judging.policy import Policy
from tune_jobs.judging.samples import ENERGY
from tune_jobs.measure.clock import ProfiledClock
from tune_jobs.reading.sweep_runs import runs_of_sweep
from tune_jobs.training import device, energy
from tune_jobs.training.evaluating import Evaluation
from tune_jobs.training.loop import Report, RunSettings, TrainingRun
from tune_jobs.tuning import energy as asking
from tune_jobs.tuning.cluster import Cluster
from tune_jobs.tuning.keeper import to_result
from tune_jobs.tuning.measuring import DeviceType
from tune_jobs.tuning.requests import Requests, TrialRequest
from tune_jobs.tuning.trial import BatchSizeTrial
from tune_jobs.workload_source import WorkloadSource

ROOT = Path(__file__).resolve().parents[1]
AN_UPDATE, AN_EVALUATION = 3.0, 1000.0  # joules of the made-up device
GPU = torch.device("cuda", 0)


class Device:
    """A device whose counter is moved by what a run does on it."""

    def __init__(self) -> None:
        self.used = 12345.0

    def joules(self) -> float:
        return self.used

    def watch(self, run: TrainingRun) -> TrainingRun:
        update, evaluate = run.update, run.evaluate

        def updating(indices: np.ndarray[Any, Any]) -> torch.Tensor:
            self.used += AN_UPDATE
            return update(indices)

        def evaluating(*asked: Any, **how: Any) -> Evaluation:
            self.used += AN_EVALUATION
            return evaluate(*asked, **how)

        run.update, run.evaluate = updating, evaluating  # type: ignore[method-assign]
        return run


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Dataset:
    return open_dataset(prepare("digits", data_dir))


def make(digits: Dataset, on: Device | None) -> TrainingRun:
    settings = RunSettings(32, 32, 3e-3, "adam", 0, budget_examples=1600, target=0.8)
    workload, cpu = WorkloadSource("mlp", "digits", None).of_dataset(digits), torch.device("cpu")
    splits = splits_of(workload, 300, 0, cpu)
    run = TrainingRun(settings, workload, splits, cpu, on.joules if on else None)
    return on.watch(run) if on else run


def to_end(run: TrainingRun) -> Report:
    report = run.advance()
    while not report.done:
        report = run.advance()
    return report


def test_the_energy_is_that_of_the_updates_and_evaluation_is_left_out(digits: Dataset) -> None:
    report = to_end(make(digits, Device()))
    assert report.updates == 50
    assert report.energy_joules == pytest.approx(50 * AN_UPDATE)


def test_a_run_that_ends_for_want_of_memory_tells_what_it_used_until_then(digits: Dataset) -> None:
    run = make(digits, Device())
    run.advance()
    made = run.progress.updates
    run._prepared = lambda *_: (_ for _ in ()).throw(MemoryError())  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        run.advance()
    assert run.ended_report().energy_joules == pytest.approx((made + 1) * AN_UPDATE)


def test_a_device_without_a_counter_gives_none(digits: Dataset) -> None:
    assert to_end(make(digits, None)).energy_joules is None


def test_a_resumed_run_adds_to_what_it_had_used_on_another_device(digits: Dataset) -> None:
    first = make(digits, Device())
    first.advance()
    second = make(digits, Device())
    second.load_state(first.state())
    assert to_end(second).energy_joules == pytest.approx(50 * AN_UPDATE)


@pytest.mark.parametrize("counted", [(True, False, True), (False, True, True)])
def test_a_run_of_which_a_part_was_not_counted_has_no_energy(
    digits: Dataset, counted: tuple[bool, ...]
) -> None:
    run = make(digits, Device() if counted[0] else None)
    for has_counter in counted[1:]:
        run.advance()
        state, run = run.state(), make(digits, Device() if has_counter else None)
        run.load_state(state)
    assert to_end(run).energy_joules is None


def zeus_with(monkeypatch: pytest.MonkeyPatch, gpus: Any) -> None:
    """A package zeus of version 0.16's interface, as far as it is used."""
    package, devices, errors = (
        ModuleType(name) for name in ("zeus", "zeus.device", "zeus.device.exception")
    )
    devices.get_gpus = gpus  # type: ignore[attr-defined]
    errors.ZeusBaseGPUError = LookupError  # type: ignore[attr-defined]
    for module in (package, devices, errors):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(energy, "find_spec", lambda name: name)


def counting(millijoules: dict[int, int], supported: bool = True) -> Any:
    return lambda: SimpleNamespace(
        supports_get_total_energy_consumption=lambda index: supported,
        get_total_energy_consumption=millijoules.__getitem__,
    )


def test_a_counter_is_read_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    zeus_with(monkeypatch, counting({0: 2_500, 1: 7_000}))
    first, second = energy.counter(GPU), energy.counter(torch.device("cuda", 1))
    assert first is not None and second is not None
    assert (first(), second()) == (2.5, 7.0)


def failing() -> Any:
    raise LookupError("no driver")


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [(counting({}, supported=False), "no energy counter"), (failing, "no driver")],
)
def test_a_gpu_that_cannot_be_read_has_no_counter_and_says_why(
    monkeypatch: pytest.MonkeyPatch, gpus: Any, reason: str
) -> None:
    zeus_with(monkeypatch, gpus)
    assert energy.counter(GPU) is None
    assert reason in str(energy.why_not(GPU))


def test_without_zeus_and_on_a_cpu_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "find_spec", lambda name: None)
    assert energy.counter(GPU) is None and "zeus is not installed" in str(energy.why_not(GPU))
    assert "CPU" in str(energy.why_not(torch.device("cpu")))


@pytest.mark.parametrize(("gpus", "counts"), [(0.25, False), (0.5, False), (1.0, True)])
def test_only_a_trial_with_a_whole_gpu_counts_energy(
    monkeypatch: pytest.MonkeyPatch, gpus: float, counts: bool
) -> None:
    monkeypatch.setattr(energy, "counter", lambda device: lambda: 1.0)
    monkeypatch.setattr(device, "pick", lambda gpus: GPU)
    for part in ("_limit_memory", "_begin"):
        monkeypatch.setattr(BatchSizeTrial, part, lambda self, given: None)
    workload = SimpleNamespace(metric=SimpleNamespace(mode="max"))
    monkeypatch.setattr("tune_jobs.tuning.trial.open_workload", lambda shared: workload)
    monkeypatch.setattr("tune_jobs.tuning.trial.splits_of", lambda *asked: None)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "here")
    trial = object.__new__(BatchSizeTrial)
    request, threads = TrialRequest(1.0, gpus, None), torch.get_num_threads()
    shared: Any = SimpleNamespace(
        requests=Requests({32: request}, {}),
        threads={32: threads},
        began_at=None,
        validation_examples=0,
        source=SimpleNamespace(train=None),
        split_seed=0,
    )
    trial.setup({"batch_size": 32}, shared)
    assert (trial.joules is not None) == counts


def test_the_record_of_a_trial_has_the_energy_of_its_last_report() -> None:
    asked = {"batch_size": 32, "base_learning_rate": 1e-3, "learning_rate": 1e-3, "seed": 0}
    trial: Any = SimpleNamespace(trial_id="t", config=asked, last_result={"energy_joules": 7.0})
    told = (SweepConfig(), "confirm", trial, "finished", None, TrialRequest(1.0, 1.0, None))
    assert to_result(*told, ProfiledClock([])).energy_joules == 7.0


def refused(
    monkeypatch: pytest.MonkeyPatch, kinds: list[DeviceType], judged: str | None, **changes: Any
) -> str | None:
    """What `check_energy` says of a cluster with these devices."""
    monkeypatch.setattr(asking, "device_types", lambda config, cluster, say: kinds)
    monkeypatch.setattr(asking, "main_accelerator", lambda config: judged)
    try:
        config = replace(SweepConfig(), **{"goal": "energy", **changes})
        asking.check_energy(config, Cluster(()), lambda line: None)
    except UserError as error:
        return str(error)
    return None


def test_goal_energy_is_refused_on_cpus_and_other_goals_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = [DeviceType("cpu", "n", 2, 0.0)]
    message = str(refused(monkeypatch, cpu, None))
    assert "--goal energy" in message and "CPU" in message and "another goal" in message
    assert refused(monkeypatch, cpu, None, goal="time") is None


def test_goal_energy_needs_a_counter_on_the_gpus_that_are_judged_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = [DeviceType("A100", "n", 8, 1.0), DeviceType("P100", "m", 8, 1.0)]
    reasons = {"A100": None, "P100": "the package zeus is not installed there"}
    monkeypatch.setattr(asking, "why_not", lambda kind: reasons[kind.name])
    assert refused(monkeypatch, kinds, "A100") is None
    assert "zeus is not installed" in str(refused(monkeypatch, kinds, "P100"))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may count its energy")
def test_a_sweep_for_energy_on_cpus_ends_before_it_measures(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "it.toml").write_text("validation_examples = 300\n")
    asked = ["--name", "it", "--model", "mlp", "--data", "digits", "--goal", "energy"]
    asked += ["--config", "it.toml"]
    asked += ["--data-dir", str(data_dir), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), *asked],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: --goal energy: the energy of cpu is not counted" in done.stderr
    assert not (tmp_path / "runs" / "it").exists()


def confirmed(batch_size: int, seed: int, joules: float, **changes: Any) -> Any:
    """A confirm run: its energy is of its whole budget of 6400 examples."""
    named = {"trial_id": f"{batch_size}-{seed}", "stage": "confirm", "device": "GPU"}
    budget = {"budget_examples": 6400, "examples_seen": 6400, "updates": 6400 // batch_size}
    return rows.result(batch_size=batch_size, seed=seed, energy_joules=joules,
                       **(named | budget | changes))  # fmt: skip


def test_energy_to_target_is_the_runs_own_in_proportion_to_its_examples() -> None:
    config = replace(SweepConfig(), target=0.9)
    trials = [confirmed(64, 0, 640.0, examples_to_target=1600)]
    (run,) = runs_of_sweep(config, trials, [])
    assert ENERGY.of(run) == pytest.approx(160.0)


def test_a_run_that_diverged_is_over_the_energy_of_its_whole_budget() -> None:
    config = replace(SweepConfig(), target=0.9)
    gone = confirmed(64, 0, 64.0, outcome="diverged", examples_seen=640, updates=10,
                     examples_to_target=None, updates_to_target=None,
                     time_to_target_seconds=None)  # fmt: skip
    (run,) = runs_of_sweep(config, [gone], [])
    assert run.energy_joules == ENERGY.limit(run) == pytest.approx(640.0)


def test_the_batch_size_that_reaches_the_target_on_least_energy_is_recommended() -> None:
    """64 takes more energy for its budget than 16, and less to the target."""
    trials = [
        confirmed(size, seed, whole * (1 + 0.01 * seed), examples_to_target=needs + 8 * seed)
        for size, whole, needs in ((16, 600.0, 3200), (64, 800.0, 1280), (256, 900.0, 5120))
        for seed in range(4)
    ]
    runs = runs_of_sweep(replace(SweepConfig(), target=0.9), trials, [])
    (verdict,) = judge_runs(runs, Policy("energy"))
    assert verdict.quantity == "energy_joules"
    assert verdict.use is not None and verdict.use.batch_size == 64
    row = next(r for r in verdict.per_batch_size if r.batch_size == 64)
    assert row.energy_joules.value == pytest.approx(164, rel=0.02)
