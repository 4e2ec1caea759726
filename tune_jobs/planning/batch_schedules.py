"""From what a sweep knows of the batch size to use, to the segments of a batch schedule. Pure.

Each schedule begins as the fixed batch size that it is judged against, but for `follow`, and takes
only batch sizes that were profiled and fit: the seconds of others are not known. Those that it
lacks are named, so that they can be profiled.

- `grow` doubles the batch and keeps the rate where a step schedule would halve the rate (Smith et
  al. 2018, "Don't Decay the Learning Rate, Increase the Batch Size").
- `seesaw` doubles the batch there and divides the rate by the square root of 2 (Meterez et al.
  2025).
- `late-switch` stays small and switches once, near the end, to a large batch (Wang et al. 2026,
  "Fast Catch-Up, Late Switching").
- `follow` has the batch follow the noise scale along the run. The fixed batch size that takes least
  is in proportion to the root of the critical one, sqrt(a B_crit / b), so it follows the root of
  how far the noise scale is from its average, its rate by the optimizer's rule (McCandlish et al.
  2018, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from tune_jobs.measure.noise_scale import AVERAGE
from tune_jobs.records import NoiseScale
from tune_jobs.training.scaling import scaling_of
from tune_jobs.training.segments import Segment

CUTS = (1 / 2, 3 / 4)  # of the examples to target: where a step schedule would cut the rate
LATE, LARGEST = 3 / 4, 8  # when the switch comes, and to how many times the batch at the most
FEWEST_POINTS = 2  # of the noise scale along a run, below which nothing can be followed


@dataclass(frozen=True)
class Given:
    """What a schedule is made of.

    Attributes:
        batch_size, learning_rate, examples_to_target: of the fixed batch size to use.
        fitting: batch sizes that were profiled and fit.
        refused: those that do not fit, with the reason.
        noise: the noise scale along a run.
        most: examples that a batch can hold: all of the training split; None where not known.
    """

    batch_size: int
    learning_rate: float
    examples_to_target: float
    optimizer: str
    fitting: Sequence[int]
    refused: Mapping[int, str] = field(default_factory=dict)
    noise: Sequence[NoiseScale] = ()
    most: int | None = None

    def lacks(self, size: int) -> bool:
        """Whether the batch size may fit, and was not profiled."""
        fits = all(size < other for other in self.refused)
        return size not in self.fitting and fits and self.holds(size)

    def holds(self, size: int) -> bool:
        """Whether there are as many examples."""
        return self.most is None or size <= self.most


@dataclass(frozen=True)
class Schedule:
    """Its segments, none where there is no such schedule; `told` says why, or what was left out.

    `lacks` are the batch sizes by which it would go further, were they profiled.
    """

    name: str
    segments: tuple[Segment, ...]
    told: str | None = None
    lacks: tuple[int, ...] = ()


def schedule_of(name: str, given: Given) -> Schedule:
    """The named schedule, from rows alone: the same rows give the same one."""
    return WAYS[name](given)


def grow(given: Given) -> Schedule:
    return _doubled("grow", given, 1.0)


def seesaw(given: Given) -> Schedule:
    return _doubled("seesaw", given, 1 / math.sqrt(2))


def _doubled(name: str, given: Given, factor: float) -> Schedule:
    """Twice the batch at every cut, the rate times `factor`, for as long as that fits."""
    segments, told, lacks = [_first(given)], None, ()
    for made, cut in enumerate(CUTS):
        last = segments[-1]
        size = 2 * last.batch_size
        if size not in given.fitting:
            told = f"{name} {_ends(len(segments), last)}: {_why_not(size, given)}"
            further = (size * 2**k for k in range(len(CUTS) - made))
            lacks = tuple(larger for larger in further if given.lacks(larger))
            break
        at = math.ceil(cut * given.examples_to_target)
        segments.append(Segment(at, size, last.learning_rate * factor))
    return replace(_scheduled(name, segments, told), lacks=lacks)


def late_switch(given: Given) -> Schedule:
    most = LARGEST * given.batch_size
    large = max((s for s in given.fitting if given.batch_size < s <= most), default=None)
    if large is None:
        doubled = [given.batch_size * 2**k for k in range(1, LARGEST.bit_length())]
        lacks = [size for size in doubled if given.lacks(size)][-1:]
        why = _why_not(lacks[0] if lacks else doubled[0], given)
        return replace(left_out("late-switch", why), lacks=tuple(lacks))
    at = math.ceil(LATE * given.examples_to_target)
    beyond = [s for s in {*given.refused, 2 * large} if large < s <= most]
    kept_from = [s for s in beyond if s in given.refused or not given.holds(s)]
    told = f"late-switch goes to {large}: {_why_not(min(kept_from), given)}" if kept_from else None
    return _scheduled("late-switch", [_first(given), Segment(at, large, given.learning_rate)], told)


def follow(given: Given) -> Schedule:
    points, average = _noise(given.noise)
    if len(points) < FEWEST_POINTS or average is None:
        reasons = {n.reason for n in given.noise if not n.useful and n.reason}
        why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
        return left_out(
            "follow",
            f"the noise scale is known at {len(points)} points of a run, and "
            f"{FEWEST_POINTS} are needed{why}; set noise_scale = true and raise profile_seconds in "
            "the TOML, or take --search grow, which needs none",
        )
    wanted = [given.batch_size * math.sqrt(value / average) for _, value in points]
    sizes = [min(given.fitting, key=lambda s: abs(math.log(s / want))) for want in wanted]
    starts = [0, *(math.ceil((a + b) / 2) for (a, _), (b, _) in pairwise(points))]
    segments = [
        Segment(at, size, _rate(size, given)) for at, size in zip(starts, sizes, strict=True)
    ]
    return _scheduled("follow", segments)


def _noise(rows: Sequence[NoiseScale]) -> tuple[list[tuple[int, float]], float | None]:
    """The useful points (examples seen, noise scale) and their average over the run: of what the
    optimizer makes of gradients where that was measured, else of the gradients as they are."""
    for kind in ("preconditioned", "raw"):
        points = {
            n.examples_seen: n.noise_scale
            for n in rows
            if n.kind == kind and n.useful and n.noise_scale
        }
        average = next((n.noise_scale for n in rows if n.kind == kind + AVERAGE and n.useful), None)
        if len(points) >= FEWEST_POINTS and average:
            return sorted(points.items()), average
    return sorted(points.items()), None


def _rate(size: int, given: Given) -> float:
    """The rate to use, carried to another batch size by the optimizer's rule."""
    if size == given.batch_size:
        return given.learning_rate
    power = scaling_of(given.optimizer).power
    return float(given.learning_rate * (size / given.batch_size) ** power)


def _first(given: Given) -> Segment:
    return Segment(0, given.batch_size, given.learning_rate)


def _ends(made: int, last: Segment) -> str:
    return "is left out" if made == 1 else f"stays at {last.batch_size}"


def _why_not(size: int, given: Given) -> str:
    if size in given.refused:
        return f"batch size {size} does not fit ({given.refused[size]})"
    if not given.holds(size):
        return f"batch size {size} is more than the {given.most} training examples"
    return f"batch size {size} was not profiled"


def _scheduled(name: str, segments: Sequence[Segment], told: str | None = None) -> Schedule:
    kept = changing(segments)
    if len(kept) > 1:
        return Schedule(name, kept, told)
    if told:
        return Schedule(name, (), told)
    return left_out(name, f"it stays at batch size {segments[0].batch_size} all along")


def left_out(name: str, why: str) -> Schedule:
    """No schedule, and the reason."""
    return Schedule(name, (), f"{name} is left out: {why}")


def changing(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Those that change nothing, or would begin where the last one did, left out."""
    kept = list(segments[:1])
    for segment in segments[1:]:
        last = kept[-1]
        same = (segment.batch_size, segment.learning_rate) == (last.batch_size, last.learning_rate)
        if not same and segment.from_examples > last.from_examples:
            kept.append(segment)
    return tuple(kept)


WAYS: dict[str, Callable[[Given], Schedule]] = {
    "grow": grow,
    "seesaw": seesaw,
    "late-switch": late_switch,
    "follow": follow,
}
