"""The measure stage on Ray: each device type, taken whole, profiled in fresh processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_jobs.config import SweepConfig, custom_resources, requested_cpus, requested_gpus
from tune_jobs.errors import SweepError
from tune_jobs.measure.clock import chosen
from tune_jobs.measure.fresh import FreshProcesses, Outcome
from tune_jobs.measure.probe import NoiseRequest, Subject, measure_noise
from tune_jobs.measure.profiling import (
    FEWEST_ROUNDS,
    DeviceProfiler,
    ProfilePlan,
    few_rounds,
    threads_per_trial,
    timed_again,
    to_profiles,
    to_time_again,
)
from tune_jobs.measure.range_test import RangeRequest, measure_range
from tune_jobs.planning.rules import needs_range_test
from tune_jobs.planning.search_plan import base_learning_rate
from tune_jobs.planning.timing import seconds_decide
from tune_jobs.records import BatchSizeProfile, NoiseScale, RangePoint
from tune_jobs.store import SweepStore
from tune_jobs.training.scaling import scaled_learning_rate
from tune_jobs.tuning.aside import Aside
from tune_jobs.tuning.cluster import Cluster, Shape, accelerator, alive, in_a_cluster
from tune_jobs.tuning.requests import LABEL, SHARE_OF_LABEL
from tune_jobs.workload_source import source_of

NOISE_SECONDS = 20.0
Row = TypeVar("Row", NoiseScale, RangePoint)
RANGE_SECONDS = 600.0  # that a range test may take at the most


@dataclass(frozen=True)
class DeviceType:
    """One kind of device in the cluster, and a node that has it.

    Attributes:
        name: Ray's accelerator type, `GPU` where it names none, or `cpu`.
        cpus: all CPUs of the node, which a CPU profile takes whole.
    """

    name: str
    node_id: str
    cpus: int
    gpus: float


def device_types(
    config: SweepConfig, cluster: Cluster, say: Callable[[str], None]
) -> list[DeviceType]:
    """The types that trials may land on: GPUs where a trial asks for one, else CPUs.

    Where no node has what a trial asks for, the autoscaler is asked for one first, and waited for.
    """
    asked = custom_resources(config) | (
        {LABEL + config.accelerator: SHARE_OF_LABEL} if config.accelerator else {}
    )
    if requested_gpus(config, cluster.could_have("GPU")) > 0:
        found = {accelerator(n): n for n in _nodes_with(asked | {"GPU": 1.0}, say)}
        return [DeviceType(name, n["NodeID"], _cpus(n), 1.0) for name, n in found.items()]
    node = max(_nodes_with(asked | {"CPU": requested_cpus(config) or 1.0}, say), key=_cpus)
    return [DeviceType("cpu", node["NodeID"], _cpus(node), 0.0)]


def _nodes_with(asked: Shape, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The living nodes that hold so much; there is one at least on return."""

    def holding() -> list[dict[str, Any]]:
        return [
            node
            for node in alive()
            if all(node["Resources"].get(name, 0.0) >= amount for name, amount in asked.items())
        ]

    if not holding():
        say("measure: waits for a node with " + ", ".join(f"{v:g} {k}" for k, v in asked.items()))
        group = placement_group([dict(asked)])
        ray.get(group.ready())
        remove_placement_group(group)
    return holding()


def _cpus(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))


class ProbeHost:
    """Lives on the device's node, holds the device, and starts the fresh processes."""

    def __init__(self, data_path: str | None, data: list[Any]) -> None:
        self.began_at = time.time()
        self.data_path = data_path
        if data_path is not None and not Path(data_path).exists():
            with tempfile.NamedTemporaryFile(suffix=".arrow", delete=False) as file:
                file.write(ray.get(data[0]))
            self.data_path = file.name
        self.fresh = FreshProcesses()

    def describe(self) -> tuple[str, str | None, float]:
        """Node, the data's path there, and when the host began."""
        return ray.util.get_node_ip_address(), self.data_path, self.began_at

    def call(
        self, function: Callable[[Any], Any], argument: Any, timeout_seconds: float, copies: int
    ) -> list[Outcome]:
        return self.fresh.call(function, argument, timeout_seconds, copies)


class LocalCaller:
    """A `Caller` on this machine, which the sweep has for itself: without Ray, and its processes.

    `fresh` were begun before, so that what they import is there by now; they are left running for
    whoever measures next.
    """

    def __init__(self, data_path: Path | None, fresh: FreshProcesses | None = None) -> None:
        self.given = fresh
        self.fresh = fresh if fresh and fresh.alive else FreshProcesses(shows=False)
        self.node, self.waited_seconds = ray.util.get_node_ip_address(), 0.0
        self.data_path = None if data_path is None else str(data_path)
        self.closed = False

    def call(
        self, function: Callable[[Any], Any], argument: Any, timeout_seconds: float, copies: int = 1
    ) -> list[Outcome]:
        try:
            return self.fresh.call(function, argument, timeout_seconds, copies)
        except SweepError as error:  # as the kernel does where memory ends
            if not self.closed:
                self.fresh = FreshProcesses(shows=False)
            return [Outcome(None, "killed", str(error), out_of_memory=True)] * copies

    def close(self) -> None:
        if self.fresh is not self.given:
            self.fresh.close()

    def stop(self) -> None:
        """End what is under way; nothing is told of it."""
        self.closed = True
        self.fresh.close()


class RayCaller:
    """A `Caller` whose fresh processes run on one device of the cluster, exclusively.

    A host that Ray's memory monitor or the kernel ends is an out-of-memory outcome of the call that
    was running; the next call begins on a new host.
    """

    def __init__(self, kind: DeviceType, data_path: Path | None, data: list[Any]) -> None:
        self.kind = kind
        self.closed = False
        self.arguments = (None if data_path is None else str(data_path), data)
        self._start()

    def _start(self) -> None:
        asked_at = time.time()
        host = ray.remote(ProbeHost).options(
            num_cpus=self.kind.cpus if not self.kind.gpus else 1,
            num_gpus=self.kind.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self.kind.node_id, soft=False),
        )
        self.host = host.remote(*self.arguments)
        self.node, self.data_path, began_at = ray.get(self.host.describe.remote())
        self.waited_seconds = max(0.0, began_at - asked_at)

    def call(
        self, function: Callable[[Any], Any], argument: Any, timeout_seconds: float, copies: int = 1
    ) -> list[Outcome]:
        try:
            outcomes: list[Outcome] = ray.get(
                self.host.call.remote(function, argument, timeout_seconds, copies)
            )
        except (ray.exceptions.OutOfMemoryError, ray.exceptions.ActorDiedError) as error:
            reason = f"the host of the probe was ended: {type(error).__name__}"
            self._start()
            return [Outcome(None, "killed", reason, str(error), out_of_memory=True)] * copies
        return outcomes

    def close(self) -> None:
        """Give the device back."""
        self.closed = True
        ray.kill(self.host)


def profile_devices(
    config: SweepConfig,
    store: SweepStore,
    data_path: Path | None,
    cluster: Cluster,
    say: Callable[[str], None],
    beside: Sequence[BatchSizeProfile] = (),
    fresh: FreshProcesses | None = None,
    when_timed: Callable[[], object] = lambda: None,
    aside: Aside | None = None,
) -> list[BatchSizeProfile]:
    """Profile every device type that trials may land on; the rows are in the store on return, those
    of other batch sizes `beside` them.

    `when_timed` is called once batch sizes are profiled, where what is left is not timed and may
    share the machine; not where another device type is still to come. `fresh` are processes that
    were begun on this machine. With `aside`, where this machine's CPUs are measured, the noise
    scale is left to be measured there, and further rounds where seconds decide to `time_again`.

    Errors:
        UserError: the model fails at the smallest batch size, or no batch size fits.
    """
    kinds = device_types(config, cluster, say)
    data = [ray.put(data_path.read_bytes())] if cluster.spread_out and data_path else []
    rows: list[BatchSizeProfile] = []
    here = is_here(kinds)
    first_alone = here and aside is not None and seconds_decide(config)
    if fresh is not None and not here:
        fresh.close()
    for kind in kinds:
        caller = LocalCaller(data_path, fresh) if here else RayCaller(kind, data_path, data)
        try:
            found = _profile(config, kind, caller, say, first_alone)
            if len(kinds) == 1:
                when_timed()
            if ways := chosen(found):
                at = Middle(kind.gpus, caller, ways[len(ways) // 2])
                ranges = needs_range_test(config) and not store.read_range_test()
                noise = config.noise_scale and not (store.read_noise_scale() or (here and aside))
                if ranges and (rising := _range_test(config, at, say)):
                    store.write_range_test(rising)
                if noise and (along := _noise(config, at, say)):
                    store.write_noise_scale(along)
        finally:
            caller.close()
        rows += found
    store.write_profiles([*beside, *rows])
    return rows


def is_here(of: Sequence[DeviceType] | Sequence[BatchSizeProfile]) -> bool:
    """Whether it is this machine's CPUs that are measured."""
    return not in_a_cluster() and not any(one.gpus for one in of)


def measure_noise_here(
    config: SweepConfig,
    store: SweepStore,
    data_path: Path | None,
    rows: Sequence[BatchSizeProfile],
    say: Callable[[str], None],
    fresh: FreshProcesses | None,
    aside: Aside,
    then: Callable[[], object],
) -> None:
    """The noise scale, on this machine, beside what goes on; `then` is called once it is in the
    store."""
    ways = chosen(rows)
    caller = LocalCaller(data_path, fresh)
    at = Middle(0.0, caller, ways[len(ways) // 2])

    def measured() -> None:
        try:
            found = _noise(config, at, say)
        finally:
            caller.close()
        if found:
            store.write_noise_scale(found)
        if not caller.closed:
            then()

    aside.later(measured, caller.stop)


def time_again(
    config: SweepConfig,
    data_path: Path | None,
    rows: Sequence[BatchSizeProfile],
    sizes: Collection[int],
    cap_seconds: float,
    say: Callable[[str], None],
    fresh: FreshProcesses | None,
) -> list[BatchSizeProfile]:
    """All rows, those of `sizes` that were timed in one round alone with further ones, on this
    machine."""
    again = [row for row in to_time_again(rows) if row.batch_size in sizes]
    caller = LocalCaller(data_path, fresh)
    subject = _subject(config, caller.data_path, 0.0)
    subject = replace(subject, threads=max(1, int(again[0].cpus)))
    try:
        timed = timed_again(caller, subject, again, cap_seconds)
    finally:
        caller.stop()
    if (fewest := min(row.rounds for row in timed)) < FEWEST_ROUNDS:
        say(few_rounds(fewest, cap_seconds))
    now = {(row.batch_size, row.micro_batch_size): row for row in timed}
    return [now.get((row.batch_size, row.micro_batch_size), row) for row in rows]


def _profile(
    config: SweepConfig,
    kind: DeviceType,
    caller: LocalCaller | RayCaller,
    say: Callable[[str], None],
    first_alone: bool,
) -> list[BatchSizeProfile]:
    sizes = sorted(config.batch_sizes)
    subject = _subject(config, caller.data_path, kind.gpus)
    threads = requested_cpus(config)
    if threads is None:
        threads = 1.0
        if not kind.gpus:
            middle = min(64, sizes[len(sizes) // 2])
            threads, totals = threads_per_trial(caller, subject, middle, kind.cpus)
            told = ", ".join(f"{t} each: {total:.0f}" for t, total in totals.items())
            say(f"CPU threads for a trial: {threads:g} (examples/s in all with {told})")
    subject = replace(subject, threads=max(1, int(threads)))
    plan = ProfilePlan(
        config.batch_sizes, config.micro_batch, config.profile_seconds, config.memory_margin,
        first_alone,
    )  # fmt: skip
    seen = DeviceProfiler(caller, subject, plan, say).run()
    rows = to_profiles(seen, subject, sizes, caller.node, caller.waited_seconds)
    named = kind.name if kind.gpus and kind.name != "GPU" else None
    return [replace(row, accelerator=named) for row in rows]


def _noise(config: SweepConfig, at: Middle, say: Callable[[str], None]) -> list[NoiseScale]:
    """The noise scale along one run; a property of model and data, so one device type is enough."""
    request = NoiseRequest(*at.of(config), config.budget_examples, NOISE_SECONDS)
    return at.call(measure_noise, request, 10 * NOISE_SECONDS, "noise scale: not measured", say)


def _range_test(config: SweepConfig, at: Middle, say: Callable[[str], None]) -> list[RangePoint]:
    """The range test about the centre of the rates."""
    base, size = base_learning_rate(config), at.way.batch_size
    centre = scaled_learning_rate(config.optimizer, base, size)
    request = RangeRequest(*at.of(config), centre)
    return at.call(measure_range, request, RANGE_SECONDS, "range test: not made", say)


@dataclass(frozen=True)
class Middle:
    """Where what takes one run is measured: at the middle feasible batch size of a device
    type, which has so many `gpus`."""

    gpus: float
    caller: LocalCaller | RayCaller
    way: BatchSizeProfile

    def of(self, config: SweepConfig) -> tuple[Subject, int, int]:
        """Subject, on as many threads as a trial has, batch size and micro-batch size."""
        subject = _subject(config, self.caller.data_path, self.gpus)
        subject = replace(subject, threads=max(1, int(self.way.cpus)))
        return subject, self.way.batch_size, self.way.micro_batch_size

    def call(
        self,
        measure: Callable[[Any], list[Row]],
        request: object,
        timeout_seconds: float,
        failed: str,
        say: Callable[[str], None],
    ) -> list[Row]:
        """The rows measured; none, and `failed` with the reason told, where that cannot be."""
        outcome = self.caller.call(measure, request, timeout_seconds)[0]
        if outcome.ended != "returned":
            if not self.caller.closed:
                say(f"{failed}: {outcome.reason}")
            return []
        rows: list[Row] = outcome.value
        return rows


def _subject(config: SweepConfig, data_path: str | None, gpus: float) -> Subject:
    return Subject(
        source=source_of(config, data_path),
        optimizer=config.optimizer,
        base_learning_rate=base_learning_rate(config),
        validation_examples=config.validation_examples,
        split_seed=config.split_seed,
        threads=1,
        gpus=gpus,
        memory_limit_mib=config.memory_limit_mib,
        recipe=config.training,
    )
