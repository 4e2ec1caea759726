"""The critical batch size from the runs themselves, and two checks on it.

Updates to target = s_min (1 + B_crit / B), McCandlish et al. 2018, "An Empirical Model of
Large-Batch Training", equation 2.11; runs scatter about it log-normally. For every B_crit on a grid
the best s_min is found, so that its deviance is the profile likelihood's; the interval is where the
deviance stays under an F quantile. A run that never reached the target enters as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_jobs.formatting import count
from tune_jobs.judging.likelihood import Deviance, loss, most_likely
from tune_jobs.judging.posterior import LEAST_DEVIATION, QUICKLY, Floats, Layout, posterior
from tune_jobs.judging.samples import UPDATES, Sample, known_limits, sample_of
from tune_jobs.measure.cost_model import LineFit
from tune_jobs.records import NoiseScale, TargetRun
from tune_jobs.verdicts import ClosedForm, CriticalBatchSize, NoiseScaleSummary

FEWEST_SIZES = 3
GRID = 401
BEYOND = 1e3  # how far past the batch sizes tried the grid goes, on both sides
AVERAGE = "_average"  # what a kind of noise scale is called when averaged over a run
BAD_FIT = 0.2  # lack-of-fit p value under which the curve is not believed to be exact
# Under 1 - confidence it is rejected: there is no interval then (of such, 0 to 1 % held the truth).


def fit_critical_batch(
    runs: Sequence[TargetRun], confidence: float
) -> tuple[CriticalBatchSize | None, str | None]:
    """The fit over runs of one workload at one target, or None and why there is none."""
    sample = sample_of(runs, UPDATES, known_limits(runs, UPDATES))
    sample = sample.only(sample.known)
    sizes = int((sample.observed > 0).sum())
    if sizes < FEWEST_SIZES:
        return None, (
            f"{sizes} batch size{'' if sizes == 1 else 's'} reached the target with updates known; "
            f"the curve needs {FEWEST_SIZES}."
        )
    noise = _noise(sample)
    curve = _profile(sample, noise.deviation, _grid(sample))
    return _told(sample, noise, _refined(sample, noise.deviation, curve), confidence)


def _grid(sample: Sample) -> Floats:
    """Logs of the critical batch sizes looked at (G,)."""
    first, last = min(sample.batch_sizes), max(sample.batch_sizes)
    return np.linspace(math.log(first / BEYOND), math.log(last * BEYOND), GRID)


@dataclass(frozen=True)
class _Noise:
    """Standard deviation of one run's log updates (K,), and its degrees of freedom.

    `repeated` is false where no batch size has two runs: it is then the deviation about the curve.
    """

    deviation: Floats
    freedom: int
    repeated: bool


def _noise(sample: Sample) -> _Noise:
    """From repeats where there are any. Batch sizes share one deviation: weights by variances of
    their own, from three seeds, would themselves be noise and leave 95 % intervals with 91 %.

    Every run counts as of a seed of its own: what seeds have in common would be taken out of the
    noise, but not of the residuals, and one true curve in nine would be rejected at 5 %.
    """
    own = np.maximum(sample.observed - 1, 0)
    if own.any():
        apart = Layout(sample.batch_sizes, sample.cell, np.arange(len(sample.cell)))
        found = posterior(apart, sample.value[None], sample.censored[None], kept=QUICKLY)
        variance = float(np.average(np.median(found.variance[0], axis=0), weights=own))
        return _Noise(np.full(len(sample), math.sqrt(variance)), int(own.sum()), True)
    alone = sample.only(~sample.censored)
    unit = np.ones(len(sample))
    left = float(_profile(alone, unit, _grid(alone)).loss.min())
    freedom = len(alone.value) - 2
    return _Noise(unit * max(math.sqrt(left / freedom), LEAST_DEVIATION), freedom, False)


def _middles(sample: Sample, deviation: Floats) -> Floats:
    """Maximum-likelihood log updates of each batch size (K,), infinite where every run was cut."""
    found = np.full(len(sample), np.inf)
    for index in np.flatnonzero(sample.observed):
        of = sample.only(sample.cell == index)
        start = np.array([of.value.mean()])
        sigma = deviation[of.cell]
        found[index] = most_likely(of.value[None], sigma, of.censored, start)[0]
    return found


@dataclass(frozen=True)
class _Curve:
    """Per critical batch size of a grid (G,), ascending: the best log s_min, and minus twice the
    log-likelihood there."""

    log_critical: Floats
    log_least: Floats
    loss: Floats


def _profile(sample: Sample, deviation: Floats, log_critical: Floats) -> _Curve:
    sizes = np.array(sample.batch_sizes, dtype=np.float64)[sample.cell]
    sigma, seen = deviation[sample.cell], ~sample.censored
    rest = sample.value - np.log1p(np.exp(log_critical)[:, None] / sizes)
    weight = seen / sigma**2
    least = rest @ weight / weight.sum()
    least = most_likely(rest, sigma, sample.censored, least)
    return _Curve(log_critical, least, loss((rest - least[:, None]) / sigma, sample.censored))


def _refined(sample: Sample, deviation: Floats, curve: _Curve) -> _Curve:
    """The curve with a finer grid about its lowest point."""
    best = int(np.argmin(curve.loss))
    at = curve.log_critical
    first, last = float(at[max(best - 1, 0)]), float(at[min(best + 1, len(at) - 1)])
    finer = _profile(sample, deviation, np.linspace(first, last, 41))
    joined = [np.concatenate([a, b]) for a, b in zip(_columns(curve), _columns(finer), strict=True)]
    order = np.unique(joined[0], return_index=True)[1]
    return _Curve(*(column[order] for column in joined))


def _columns(curve: _Curve) -> tuple[Floats, Floats, Floats]:
    return curve.log_critical, curve.log_least, curve.loss


def _told(
    sample: Sample, noise: _Noise, curve: _Curve, confidence: float
) -> tuple[CriticalBatchSize | None, str | None]:
    best = int(np.argmin(curve.loss))
    sizes = int((sample.observed > 0).sum())
    middle = _middles(sample, noise.deviation)
    z = (sample.value - middle[sample.cell]) / noise.deviation[sample.cell]
    lack = max(0.0, float(curve.loss[best] - loss(z, sample.censored)))
    limit, chance = _limit(lack, sizes - 2, noise, confidence)
    deviance = Deviance(curve.log_critical, curve.loss - curve.loss[best])
    low, high = (math.exp(end) for end in deviance.within(limit))
    if best in (0, len(curve.loss) - 1):
        return None, _no_bend(best == 0, low, high, sample)
    value = math.exp(curve.log_critical[best])
    fitted = curve.log_least[best] + np.log1p(value / np.array(sample.batch_sizes))
    seen = sample.observed > 0
    off = (middle - fitted)[seen]
    total = float(((middle[seen] - middle[seen].mean()) ** 2).sum())
    rejected = chance is not None and chance < 1 - confidence
    return CriticalBatchSize(
        value=value,
        low=None if rejected else low,
        high=None if rejected or not math.isfinite(high) else high,
        s_min_updates=math.exp(curve.log_least[best]),
        r_squared=1 - float((off**2).sum()) / total if total > 0 else 0.0,
        residual=math.sqrt(float((off**2).mean())),
        lack_of_fit_p=chance,
        batch_sizes=sizes,
        runs=len(sample.value),
    ), None


def _limit(lack: float, free: int, noise: _Noise, confidence: float) -> tuple[float, float | None]:
    """The deviance that bounds the interval, and the p value of the lack of fit.

    A curve that fits within the repeats lends its residuals to the noise. One that does not is off
    by more than repeats could mend: its residuals alone, few as they are, then are the noise.
    """
    if not noise.repeated:
        return float(special.fdtri(1, noise.freedom, confidence)), None
    seen = math.isfinite(lack)
    chance = float(special.fdtrc(free, noise.freedom, lack / free)) if seen else 0.0
    if chance < BAD_FIT:
        return lack / free * float(special.fdtri(1, free, confidence)), chance
    pooled = (lack + noise.freedom) / (free + noise.freedom)
    return pooled * float(special.fdtri(1, free + noise.freedom, confidence)), chance


def _no_bend(flat: bool, low: float, high: float, sample: Sample) -> str:
    """Why the fit has no critical batch size: it lies beyond what was tried."""
    if flat:
        bound = f" (below {count(high)})" if math.isfinite(high) else ""
        return (
            "a larger batch size saves no updates: the critical batch size lies below all that "
            f"were tried{bound}; try smaller ones than {min(sample.batch_sizes)}."
        )
    bound = f" (above {count(low)})" if low > 0 else ""
    return (
        "updates to target fall in proportion up to the largest batch size: the critical batch "
        f"size lies beyond{bound}; try larger ones than {max(sample.batch_sizes)}."
    )


def closed_form(
    step_seconds: LineFit | None,
    critical: CriticalBatchSize | None,
    winner: int | None,
    tied: Sequence[int],
    batch_sizes: Sequence[int],
) -> ClosedForm | None:
    """B* = sqrt(a B_crit / b): where (a + b B) s_min (1 + B_crit / B) is least.

    Independent of the times to target: from the profile's line and the updates alone. It agrees
    when the winner or a batch size tied with it lies within one step of `batch_sizes`. None without
    a fit of both, or where an update has no fixed cost.
    """
    if step_seconds is None or critical is None or not step_seconds.good:
        return None
    if critical.low is None:  # the curve that it rests on is rejected
        return None
    if step_seconds.intercept <= 0:
        return None
    value = math.sqrt(step_seconds.intercept * critical.value / step_seconds.slope)
    low, high = _propagated(value, step_seconds, critical)
    answers = sorted({*tied, *([winner] if winner is not None else [])})
    agrees = _within_a_step(value, answers, sorted(batch_sizes)) if answers else None
    return ClosedForm(
        batch_size=value,
        low=low,
        high=high,
        fixed_seconds=step_seconds.intercept,
        seconds_per_example=step_seconds.slope,
        agrees=agrees,
        sentence=_closed_sentence(value, low, high, agrees, answers),
    )


def _propagated(
    value: float, line: LineFit, critical: CriticalBatchSize
) -> tuple[float, float | None]:
    """Interval of B* on the log scale: the line's two ends add up, since a and b are estimated
    from the same points with opposite errors; the critical batch size is independent of them."""
    down = _halves(
        _drop(line.intercept_low, line.intercept) + _drop(line.slope, line.slope_high),
        _drop(critical.low, critical.value),
    )
    up = _halves(
        _drop(line.intercept, line.intercept_high) + _drop(line.slope_low, line.slope),
        math.inf if critical.high is None else _drop(critical.value, critical.high),
    )
    return value * math.exp(-down), value * math.exp(up) if math.isfinite(up) else None


def _drop(lower: float | None, upper: float | None) -> float:
    """log(upper / lower); 0 where an end is not known, infinite where the lower is not above 0."""
    if lower is None or upper is None:
        return 0.0
    return math.log(upper / lower) if lower > 0 else math.inf


def _halves(of_line: float, of_critical: float) -> float:
    return math.hypot(of_line, of_critical) / 2


def _within_a_step(value: float, answers: Sequence[int], grid: Sequence[int]) -> bool:
    if len(grid) < 2:
        return value == grid[0] if grid else False
    logs = np.log(np.array(grid, dtype=np.float64))
    place = float(np.interp(math.log(value), logs, np.arange(len(grid))))
    return any(abs(place - grid.index(answer)) <= 1 for answer in answers if answer in grid)


def _closed_sentence(
    value: float, low: float, high: float | None, agrees: bool | None, answers: Sequence[int]
) -> str:
    shown = count(value, low, high)
    told = f"The closed form sqrt(a B_crit / b) puts the fastest batch size at {shown}"
    if agrees is None:
        return f"{told}."
    names = " and ".join(str(a) for a in answers)
    if agrees:
        return f"{told}, which agrees with {names} to within one step."
    return (
        f"{told}, which disagrees with {names}: seconds per update or updates to target do not "
        "follow their fits; look at both figures before trusting either."
    )


def noise_summaries(noise: Sequence[NoiseScale]) -> tuple[NoiseScaleSummary, ...]:
    """One summary for each kind measured, over the points of a run and their average."""
    kinds = dict.fromkeys(row.kind.removesuffix(AVERAGE) for row in noise)
    return tuple(_summary(kind, noise) for kind in kinds)


def _summary(kind: str, noise: Sequence[NoiseScale]) -> NoiseScaleSummary:
    points = sorted((r for r in noise if r.kind == kind), key=lambda row: row.examples_seen)
    useful = [row for row in points if row.useful and row.noise_scale is not None]
    average = next((row for row in noise if row.kind == kind + AVERAGE), None)
    if average is None and len(points) == 1:
        average = points[0]
    told = average is not None and average.useful
    return NoiseScaleSummary(
        kind=kind,
        value=average.noise_scale if average and told else None,
        low=average.low if average and told else None,
        high=average.high if average and told else None,
        first=useful[0].noise_scale if useful else None,
        last=useful[-1].noise_scale if useful else None,
        points=len(points),
        reason=average.reason if average else "no average over the run was made",
    )
