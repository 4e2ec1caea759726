"""Stage 1: what one update costs at every batch size, alone on a device, in fresh processes.

Batch sizes are interleaved over rounds, so that a noisy minute does not fall on one of them. The
first round, each probe in a process of its own, finds what fits; from it micro-batches are chosen
where accumulation is needed or faster. Further rounds, one process each, time updates alone, until
every median is known to 3 %, six rounds are made, or the time cap is reached. A sweep makes those
once the search has told which batch sizes are worth timing, in one process: `timed_again`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from tune_jobs.config import probe_seconds
from tune_jobs.errors import UserError
from tune_jobs.measure import cost_model
from tune_jobs.measure.clock import A_ROUND
from tune_jobs.measure.fresh import Caller, Outcome
from tune_jobs.measure.input_pipeline import InputPipeline
from tune_jobs.measure.probe import (
    ENOUGH_SPREAD,
    WARM_UPDATES,
    ProbeReading,
    ProbeRequest,
    RoundsRequest,
    Subject,
    measure_round,
    measure_rounds,
    measure_update,
)
from tune_jobs.records import BatchSizeProfile

SECONDS_OF_A_PROBE, SECONDS_IN_A_ROUND = 1.0, 0.5
FEWEST_UPDATES = 2
FEWEST_ROUNDS, MOST_ROUNDS = 3, 6
TURNS, SECONDS_OF_A_TURN = 10, 0.12  # rounds of all in turn in one process, and of each in a round
WORTH_ACCUMULATING = 0.05
CLEARLY_SLOWER = 1.1
AS_ROUNDS = 2  # that A_ROUND counts for
MUCH = 12  # degrees of freedom that a median of deviations needs
NORMAL_MAD = 1.4826  # a normal deviation over the median of its absolute ones
SECONDS_TO_BEGIN = 1.5
VERIFICATIONS = 3
USERS = "UserError: "  # of a reason: told in words of its own
Variant = tuple[int, int]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProfilePlan:
    """What to profile and how long.

    Attributes:
        micro_batch: `auto`, `whole`, or a number as text.
        cap_seconds: no further round begins that would pass it; the first round is always whole.
        margin: part of the memory that the largest batch must leave free.
        first_alone: no further rounds, where all that was read may be timed again later.
    """

    batch_sizes: tuple[int, ...]
    micro_batch: str
    cap_seconds: float
    margin: float
    first_alone: bool = False


@dataclass
class Variants:
    """What has been read so far, by (batch size, micro-batch size)."""

    readings: dict[Variant, list[ProbeReading]] = field(default_factory=dict)
    refusals: dict[Variant, Outcome] = field(default_factory=dict)

    def add(self, variant: Variant, outcome: Outcome) -> None:
        if outcome.ended == "returned":
            self.readings.setdefault(variant, []).append(outcome.value)
        else:
            self.readings.pop(variant, None)
            self.refusals[variant] = outcome

    def add_round(self, variant: Variant, seconds: tuple[float, ...]) -> None:
        """Updates timed again; all else is as it was read first."""
        readings = self.readings[variant]
        readings.append(replace(readings[0], update_seconds=seconds))

    def step_seconds(self, variant: Variant) -> float:
        return statistics.median(_round_medians(self.readings[variant]))

    def noise(self) -> RoundNoise:
        return round_noise([_round_medians(readings) for readings in self.readings.values()])


class DeviceProfiler:
    """Profiles one device through a `Caller`, which runs probes in fresh processes on it."""

    def __init__(
        self, caller: Caller, subject: Subject, plan: ProfilePlan, say: Callable[[str], None]
    ) -> None:
        self.caller = caller
        self.subject = subject
        self.plan = plan
        self.say = say
        self.began = time.monotonic()
        self.seen = Variants()

    def run(self) -> Variants:
        """The first round, the largest batch by a probe of its own, then further rounds.

        Errors:
            UserError: the model itself fails, or takes too long, at the smallest batch size, or
                none fits.
        """
        self._first_round()
        if not self.seen.readings:
            raise self._nothing_fits()
        self._verify_largest()
        later = self.plan.first_alone and all(map(self._shares_a_process, self.seen.readings))
        if not later:
            self._further_rounds()
        return self.seen

    def left_seconds(self) -> float:
        return self.plan.cap_seconds - (time.monotonic() - self.began)

    def _first_round(self) -> None:
        sizes = sorted(self.plan.batch_sizes)
        refused: int | None = None
        for size in sizes:
            variant = (size, self._first_micro_batch(size))
            if refused is not None and variant[1] >= refused:
                self.seen.refusals[variant] = _not_tried(refused)
                continue
            outcome = self._probe(variant)
            own = outcome.ended in ("raised", "timed_out") and not outcome.out_of_memory
            if own and not self.seen.readings:
                raise _models_own_error(self.subject.source.model, size, outcome)
            if outcome.out_of_memory:
                refused = variant[1]
        self._halve(sizes[0])
        for size in sizes if self.seen.readings else ():
            self._accumulate(size)

    def _halve(self, size: int) -> None:
        """Where nothing fits whole, passes of half as many examples, and half again."""
        micro = size
        while micro > 1 and not self.seen.readings and self.plan.micro_batch == "auto":
            micro = math.ceil(micro / 2)
            outcome = self._probe((size, micro))
            if outcome.ended == "returned" and outcome.value.batch_norm:
                self.seen.add((size, micro), NEVER_CUT)
                return

    def _nothing_fits(self) -> UserError:
        sizes = ", ".join(map(str, self.plan.batch_sizes))
        why = next(reversed(self.seen.refusals.values())).reason
        return UserError(
            f"none of the batch sizes {sizes} fits: {why}; give smaller ones, or more with "
            "--memory-limit-mib"
        )

    def _first_micro_batch(self, size: int) -> int:
        return (
            balanced(size, int(self.plan.micro_batch)) if self.plan.micro_batch.isdigit() else size
        )

    def _accumulate(self, size: int) -> None:
        """Add a variant of this batch size in passes, where needed or promising to be faster."""
        readings = self.seen.readings
        if self.plan.micro_batch != "auto" or _any(readings).batch_norm:
            return
        fits = (size, size) in readings
        costs = {m: self._predicted(size, m) for b, m in readings if b == m < size}
        if not costs and (size, size) in self.seen.refusals:  # nothing fits whole
            costs = {m: math.inf for b, m in readings if b != size}
        if not costs:
            return
        micro = min(costs, key=lambda m: costs[m])
        gain = 1 - costs[micro] / self.seen.step_seconds((size, size)) if fits else math.inf
        if gain > WORTH_ACCUMULATING:
            self._probe((size, balanced(size, micro)))

    def _predicted(self, size: int, micro: int) -> float:
        """Seconds of an update in passes of `micro`: the passes, and one optimizer step."""
        optimizer = _median(r.optimizer_seconds for r in self.seen.readings[micro, micro])
        assert optimizer is not None  # a function of the user's own is never cut into passes
        one_pass = self.seen.step_seconds((micro, micro)) - optimizer
        return math.ceil(size / micro) * one_pass + optimizer

    def _further_rounds(self) -> None:
        rounds, open_variants = 1, sorted(self.seen.readings)
        while rounds < MOST_ROUNDS:
            open_variants = [v for v in open_variants if self._is_open(v)]
            if not open_variants:
                return
            together = [v for v in open_variants if self._shares_a_process(v)]
            alone = [v for v in open_variants if v not in together]
            expected = sum(map(self._expected_seconds, alone)) + self._expected_together(together)
            if expected > self.left_seconds():
                break
            self._round(together)
            for variant in alone:
                self._probe(variant)
            rounds += 1
        if rounds < FEWEST_ROUNDS:
            self.say(few_rounds(rounds, self.plan.cap_seconds))

    def _shares_a_process(self, variant: Variant) -> bool:
        """Loaders have workers to start, and a function of the user's own a process to itself."""
        reading = self.seen.readings[variant][0]
        return reading.pipeline is None and reading.optimizer_seconds is not None

    def _expected_together(self, variants: Sequence[Variant]) -> float:
        steps = [self.seen.step_seconds(v) for v in variants]
        each = [WARM_UPDATES * s + max(SECONDS_IN_A_ROUND, FEWEST_UPDATES * s) for s in steps]
        return SECONDS_TO_BEGIN + sum(each) if each else 0.0

    def _round(self, variants: Sequence[Variant]) -> None:
        """Updates of all timed once more; each by a probe of its own where one process fails."""
        requests = [
            ProbeRequest(self.subject, *v, SECONDS_IN_A_ROUND, FEWEST_UPDATES) for v in variants
        ]
        limit = len(variants) * probe_seconds(self.plan.cap_seconds)
        outcome = self.caller.call(measure_round, requests, limit)[0] if variants else None
        for place, variant in enumerate(variants):
            if outcome is not None and outcome.ended == "returned":
                self.seen.add_round(variant, outcome.value[place])
            else:
                self._probe(variant)

    def _expected_seconds(self, variant: Variant) -> float:
        step = self.seen.step_seconds(variant)
        timed = max(SECONDS_OF_A_PROBE, FEWEST_UPDATES * step)
        begin = _median(r.begin_seconds for r in self.seen.readings[variant])
        return (begin or SECONDS_TO_BEGIN + WARM_UPDATES * step) + timed

    def _is_open(self, variant: Variant) -> bool:
        """Whether another round should tell more of it; a way that is clearly slower is done."""
        step = self.seen.step_seconds
        best = min(step(v) for v in self.seen.readings if v[0] == variant[0])
        if step(variant) > CLEARLY_SLOWER * best:
            return False
        if variant[0] not in self.plan.batch_sizes:
            return False
        rounds = len(self.seen.readings[variant])
        return not _is_known(self.seen.noise(), rounds)

    def _verify_largest(self) -> None:
        """Probe the batch that the memory line calls the largest, lower when it does not fit."""
        rows = to_profiles(self.seen, self.subject, self.plan.batch_sizes, None, 0.0)
        reading = _any(self.seen.readings)
        train_examples, limit = reading.train_examples, reading.memory_limit_mib
        known = cost_model.limits(rows, self.plan.margin, train_examples)
        size, seconds = known.predicted_largest, known.step_seconds
        for _ in range(VERIFICATIONS):
            if not size or seconds is None or size <= (known.largest_batch_size or 0):
                return
            if seconds.at(size) * (FEWEST_UPDATES + 3) > self.left_seconds():
                self.say(
                    f"profile: batch size {size} is predicted to fit in {limit:.0f} MiB; not "
                    "verified, its probe would take longer than profile_seconds leaves"
                )
                return
            if self._probe((size, size)).ended == "returned":
                return
            size = int(size * 0.9)

    def _probe(self, variant: Variant) -> Outcome:
        request = ProbeRequest(self.subject, *variant, SECONDS_OF_A_PROBE, FEWEST_UPDATES)
        limit = probe_seconds(self.plan.cap_seconds)
        outcome = self.caller.call(measure_update, request, timeout_seconds=limit)[0]
        self.seen.add(variant, outcome)
        return outcome


def balanced(size: int, micro: int) -> int:
    """The pass size of at most `micro` that cuts `size` most evenly: no short last pass."""
    return math.ceil(size / math.ceil(size / micro))


def to_time_again(rows: Sequence[BatchSizeProfile]) -> list[BatchSizeProfile]:
    """The chosen rows of which a first round alone was made, to be followed by `timed_again`."""
    return [
        row
        for row in rows
        if row.chosen and row.rounds < FEWEST_ROUNDS and row.step_seconds is not None
        if row.optimizer_seconds is not None and row.loader_workers is None
    ]


def timed_again(
    caller: Caller, subject: Subject, rows: Sequence[BatchSizeProfile], cap_seconds: float
) -> list[BatchSizeProfile]:
    """The rows with the seconds of further rounds, side by side in one process, in place of what
    they had; as they are where it fails, or not even one would fit into the cap."""
    steps = [row.step_seconds or 0.0 for row in rows]
    requests = tuple(
        ProbeRequest(subject, row.batch_size, row.micro_batch_size, SECONDS_OF_A_TURN, 1)
        for row in rows
    )
    if not requests or sum(steps) * (WARM_UPDATES + 1) > cap_seconds:
        return list(rows)
    asked = RoundsRequest(requests, TURNS, cap_seconds)
    outcome = caller.call(measure_rounds, asked, 2 * probe_seconds(cap_seconds))[0]
    if outcome.ended != "returned":
        return list(rows)
    timed: list[list[tuple[float, ...]]] = outcome.value  # by round, then by row
    noise = round_noise([statistics.median(of) for of in row] for row in zip(*timed, strict=True))
    by_row = zip(rows, zip(*timed, strict=True), strict=True)
    return [replace(row, **_of_rounds(row.batch_size, of, noise)) for row, of in by_row]


def few_rounds(rounds: int, cap_seconds: float) -> str:
    """What is said of so few."""
    return (
        f"profile: {rounds} of {FEWEST_ROUNDS} rounds fitted in {cap_seconds:g} s, so intervals "
        "are wide or missing; raise profile_seconds for narrower ones"
    )


def _of_rounds(size: int, rounds: Sequence[tuple[float, ...]], noise: RoundNoise) -> dict[str, Any]:
    """What rounds of timed updates tell of a batch size's seconds."""
    medians = [statistics.median(seconds) for seconds in rounds]
    step = noise.middle(medians)
    low, high = noise.interval(medians)
    return {
        "rounds": len(rounds),
        "timed_updates": sum(map(len, rounds)),
        "step_seconds": step,
        "step_seconds_low": low,
        "step_seconds_high": high,
        "step_deviation": noise.beside(len(rounds)),
        "step_seconds_min": min(map(min, rounds)),
        "examples_per_second": size / step,
    }


def threads_per_trial(
    caller: Caller, subject: Subject, batch_size: int, cpus: int, seconds: float = 3.0
) -> tuple[int, dict[int, float]]:
    """CPU threads for each trial, by the total throughput of as many trials as then fit: the fewest
    that none is clearly faster than, since small batches gain nothing by threads.

    Returns:
        The threads, and examples per second in total for each number tried (1, 2, 4 ... all).
    """
    tried = sorted({2**k for k in range(cpus.bit_length()) if 2**k <= cpus} | {cpus})
    totals: dict[int, float] = {}

    def probe(threads: int) -> None:
        request = ProbeRequest(
            replace(subject, threads=threads), batch_size, batch_size, seconds, FEWEST_UPDATES
        )
        outcomes = caller.call(
            measure_update, request, timeout_seconds=120.0, copies=cpus // threads
        )
        steps = [statistics.median(o.value.update_seconds) for o in outcomes if o.value]
        if len(steps) == len(outcomes):
            found = sum(batch_size / step for step in steps)
            totals[threads] = max(found, totals.get(threads, 0.0))

    def best() -> int:
        most = max(totals.values(), default=0.0)
        return min((t for t in totals if CLEARLY_SLOWER * totals[t] >= most), default=1)

    for threads in tried:
        probe(threads)
    if (first := best()) > tried[0]:  # a neighbour may have slowed down one of the two
        probe(tried[0])
        probe(first)
    return best(), totals


def to_profiles(
    seen: Variants,
    subject: Subject,
    batch_sizes: Sequence[int],
    node: str | None,
    waited_seconds: float,
) -> list[BatchSizeProfile]:
    """One row for each variant, those that failed included; the best of each size is chosen.

    A probe at a size outside `batch_sizes`, which verified a prediction, is never chosen.
    """
    base = _blank(subject, node, _any(seen.readings).device, waited_seconds)
    noise = seen.noise()
    rows = [_finished(base, v, readings, noise) for v, readings in seen.readings.items()]
    rows += [
        replace(
            base,
            batch_size=size,
            micro_batch_size=micro,
            outcome="out_of_memory" if outcome.out_of_memory else "failed",
            reason=outcome.reason,
            memory_limit_mib=_any(seen.readings).memory_limit_mib,
            requested_mib=outcome.requested_mib,
        )
        for (size, micro), outcome in seen.refusals.items()
    ]
    rows.sort(key=lambda r: (r.batch_size, r.micro_batch_size))
    best = [_best([r for r in rows if r.batch_size == size]) for size in batch_sizes]
    return [replace(r, chosen=any(r is b for b in best)) for r in rows]


def _best(rows: Sequence[BatchSizeProfile]) -> BatchSizeProfile | None:
    """The fastest; the whole batch unless accumulating is faster by more than the spread."""
    finished = [r for r in rows if r.outcome == "finished" and r.step_seconds is not None]

    def cost(row: BatchSizeProfile) -> float:
        whole = row.micro_batch_size == row.batch_size
        return (row.step_seconds or math.inf) * (1 - ENOUGH_SPREAD if whole else 1)

    return min(finished, key=cost, default=None)


def _finished(
    base: BatchSizeProfile,
    variant: Variant,
    readings: Sequence[ProbeReading],
    noise: RoundNoise,
) -> BatchSizeProfile:
    size, micro = variant
    last = readings[-1]
    pipelines = [r.pipeline for r in readings if r.pipeline is not None]
    return replace(
        base,
        batch_size=size,
        micro_batch_size=micro,
        outcome="finished",
        **_of_rounds(size, [r.update_seconds for r in readings], noise),
        optimizer_seconds=_median(r.optimizer_seconds for r in readings),
        evaluation_examples_per_second=_median(r.evaluation_examples_per_second for r in readings),
        peak_memory_mib=_largest(r.peak_memory_mib for r in readings),
        training_memory_mib=_largest(r.training_memory_mib for r in readings),
        reserved_memory_mib=_largest(r.reserved_memory_mib for r in readings),
        base_memory_mib=last.base_memory_mib,
        memory_limit_mib=last.memory_limit_mib,
        allocator_retries=last.allocator_retries,
        **_of_loader(size, pipelines),
    )


def _of_loader(size: int, pipelines: Sequence[InputPipeline]) -> dict[str, Any]:
    """Examples per second of loading alone and of training alone; nothing without a loader."""
    if not pipelines:
        return {}
    return {
        "loader_workers": pipelines[0].workers,
        "loading_examples_per_second": size
        / statistics.median(p.loading_seconds for p in pipelines),
        "model_examples_per_second": size
        / statistics.median(p.training_seconds for p in pipelines),
    }


def _largest(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _blank(
    subject: Subject, node: str | None, device: str, waited_seconds: float
) -> BatchSizeProfile:
    names = BatchSizeProfile.__dataclass_fields__
    empty = dict.fromkeys(names)
    known = {
        "chosen": False,
        "outcome": "failed",
        "model": subject.source.model,
        "data": subject.source.data,
        "optimizer": subject.optimizer,
        "node": node,
        "device": device,
        "cpus": float(subject.threads),
        "gpus": subject.gpus,
        "rounds": 0,
        "timed_updates": 0,
        "waited_seconds": waited_seconds,
    }
    return BatchSizeProfile(**{**empty, **known})  # type: ignore[arg-type]


def _round_medians(readings: Sequence[ProbeReading]) -> list[float]:
    return [statistics.median(r.update_seconds) for r in readings]


@dataclass(frozen=True)
class RoundNoise:
    """How much a cost varies from round to round, on the log scale.

    Pooled over all variants, since rounds are few and the device's neighbours are common to all.
    What slows a whole round says nothing of one batch size beside another.

    Attributes:
        deviation: of a round's median about its variant's, with `free` degrees of freedom.
        apart: of what is left once all of a round moved together, with `apart_free`.
        rounds: the log by which each round was slower than the mean one.
    """

    deviation: float
    free: int
    apart: float
    apart_free: int
    rounds: Floats

    def middle(self, medians: Sequence[float]) -> float:
        """The median over rounds, each as it would be at the mean round's pace."""
        return float(np.median(np.array(medians) * np.exp(-self.rounds[: len(medians)])))

    def interval(self, medians: Sequence[float]) -> tuple[float | None, float | None]:
        """95 % t-interval of the median over rounds; (None, None) where no round was repeated."""
        if self.free < 1:
            return None, None
        half = float(special.stdtrit(self.free, 0.975)) * _of_median(self.deviation, len(medians))
        middle = self.middle(medians)
        return middle * math.exp(-half), middle * math.exp(half)

    def beside(self, rounds: int) -> float | None:
        """The deviation of the log of a median over so many rounds beside those of other variants,
        as wide as a normal's that holds as much at 95 %; None where no round was repeated.

        All noise of a variant by itself is its own; few rounds are taken to be about A_ROUND off.
        """
        if self.free < 1:
            return None
        deviation, free = self.apart, self.apart_free
        if not free:
            free = self.free + AS_ROUNDS
            told = self.free * self.deviation**2 + AS_ROUNDS * A_ROUND**2
            deviation = math.sqrt(told / free)
        return float(special.stdtrit(free, 0.975) / special.ndtri(0.975)) * _of_median(
            deviation, rounds
        )


def _is_known(noise: RoundNoise, rounds: int) -> bool:
    """Whether so many rounds tell seconds to 3 %, one batch size beside another."""
    error = noise.beside(rounds)
    return rounds >= FEWEST_ROUNDS and error is not None and 2 * error <= ENOUGH_SPREAD


def _of_median(deviation: float, number: int) -> float:
    return 1.2533 * deviation / math.sqrt(number)


def round_noise(medians: Iterable[Sequence[float]]) -> RoundNoise:
    """Of each variant's medians over rounds, by least squares: each variant has its cost, and each
    round its pace."""
    logs = [np.log(of) for of in medians]
    variant = np.repeat(np.arange(len(logs)), [len(each) for each in logs])
    number = np.concatenate([np.arange(len(each)) for each in logs])
    costs, paces = np.eye(len(logs))[variant], np.eye(number.max() + 1)[number]
    y = np.concatenate(logs)
    whole = np.hstack([costs, paces[:, 1:]])
    found = np.linalg.lstsq(whole, y, rcond=None)[0]
    free, apart_free = len(y) - len(logs), len(y) - int(np.linalg.matrix_rank(whole))
    pace = np.array([0.0, *found[len(logs) :]])
    pace = pace - pace.mean() if apart_free else np.zeros(len(pace))  # one variant has none
    alone = y - costs @ np.array([each.mean() for each in logs])
    apart = _deviation(y - whole @ found, apart_free)
    return RoundNoise(_deviation(alone, free), free, apart, apart_free, pace)


def _deviation(left: Floats, free: int) -> float:
    """Of what is left of a fit; where that is much, of its middle half: medians over rounds do not
    hear the few that a neighbour bent."""
    if free >= MUCH:
        return NORMAL_MAD * float(np.median(np.abs(left))) * math.sqrt(len(left) / free)
    return math.sqrt(float(left @ left) / free) if free else math.inf


def _any(readings: dict[Variant, list[ProbeReading]]) -> ProbeReading:
    return next(iter(readings.values()))[0]


NEVER_CUT = Outcome(
    None, "raised", "it does not fit whole, and is never cut (batch normalisation, or a loop of "
    "the user's own)", None, True,
)  # fmt: skip


def _not_tried(refused: int) -> Outcome:
    return Outcome(
        None, "raised", f"not tried: {refused} examples in one pass did not fit", None, True
    )


def _models_own_error(model: str, size: int, outcome: Outcome) -> UserError:
    if outcome.ended == "timed_out":
        return UserError(
            f"model {model!r} at batch size {size}: timing a few updates {outcome.reason}; raise "
            "profile_seconds, of which the limit is twice, or leave the batch size out"
        )
    if str(outcome.reason).startswith(USERS):
        return UserError(str(outcome.reason).removeprefix(USERS))
    remedy = "correct the model"
    if "more than 1 value per channel" in str(outcome.reason):
        remedy = "batch normalisation cannot train on one example: leave 1 out of --batch-sizes"
    return UserError(
        f"model {model!r} fails at batch size {size}, and not for want of memory: "
        f"{outcome.reason}; {remedy}. Its traceback:\n{outcome.trace}"
    )
