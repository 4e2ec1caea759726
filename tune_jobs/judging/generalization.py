"""Does the batch size matter for test accuracy at all? Shown beside the verdict; decides nothing.

One F test over all batch sizes for each of three quantities: the two-way layout batch size + seed,
seeds being what runs share. With three to five seeds a rank or permutation test cannot answer: two
batch sizes at three seeds have 8 relabellings, so no p value under 1/4, and Friedman's chi-square
is far from its limit. Accuracies are means over thousands of test examples and near enough to
normal for F; its false-alarm rate, also with unequal spreads, is held by a test.

The error of the test split itself is common to all runs and is in none of the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tune_jobs.formatting import ACCURACY, on_split, quantity
from tune_jobs.judging.posterior import QUICKLY, Floats, Ints, Layout, posterior
from tune_jobs.records import TargetRun
from tune_jobs.verdicts import Estimate, Generalization, GeneralizationRow

# The posterior is made for logs: a walk of 5 points of accuracy a doubling here, and for any other
# metric of five deviations of all its runs.
SCALE, SPREAD = 10.0, 0.1
EXACT = 1e-18

Value = Callable[[TargetRun], float | None]


def tested(run: TargetRun) -> float | None:
    """The test metric at the end of the run."""
    return run.test_accuracy if run.test_metric is None else run.test_metric


def gap(run: TargetRun) -> float | None:
    """How much better the metric is on the training split than on test, at the end of the run."""
    train = run.train_accuracy if run.train_metric is None else run.train_metric
    test = tested(run)
    if train is None or test is None:
        return None
    return train - test if run.mode == "max" else test - train


def at_equal_updates(run: TargetRun) -> float | None:
    """The test metric after as many updates as the largest batch size makes."""
    known = run.test_metric_at_equal_updates
    return run.test_accuracy_at_equal_updates if known is None else known


def quantities(metric: str) -> dict[str, Value]:
    """What is told of the test split, by its name."""
    name = on_split("test", metric)
    return {name: tested, "train-to-test gap": gap, f"{name} at equal updates": at_equal_updates}


def generalization(runs: Sequence[TargetRun], confidence: float) -> Generalization | None:
    """Each batch size's test metrics with intervals, and one test of each over all of them.

    `runs` are those of one workload, each once. None where no run has a test metric.
    """
    metric, unit = _name_and_unit(runs)
    found = {name: observed(runs, of) for name, of in quantities(metric).items()}
    at_end, _, at_updates = found.values()
    if not len(at_end.value) and not len(at_updates.value):
        return None
    sizes = sorted({run.batch_size for run in runs})
    tables = {
        name: estimates(of, confidence, of_accuracy=metric == ACCURACY)
        for name, of in found.items()
    }
    nothing = Estimate(None, None, None)
    rows = tuple(
        GeneralizationRow(size, *(table.get(size, nothing) for table in tables.values()))
        for size in sizes
    )
    chances = holm([difference_p(of) for of in found.values()])
    known = [p for p in chances if p is not None]
    apart = min(known) <= 1 - confidence if known else None
    sentence = _sentence(dict(zip(found, chances, strict=True)), rows, unit, confidence)
    return Generalization(rows, chances[0], chances[1], chances[2], apart, sentence, metric)


def _name_and_unit(runs: Sequence[TargetRun]) -> tuple[str, str]:
    """Of what was measured on the test split: a table may hold its accuracy beside another
    validation metric."""
    own = [r for r in runs if (r.test_metric, r.test_metric_at_equal_updates) != (None, None)]
    return (own[0].metric, own[0].unit) if own else (ACCURACY, "")


@dataclass(frozen=True)
class Observed:
    """One quantity of N runs: batch size, seed's index (unknown seeds have one each) and value."""

    batch_size: Ints
    seed: Ints
    value: Floats


def observed(runs: Sequence[TargetRun], of: Value) -> Observed:
    known = [(run, value) for run in runs if (value := of(run)) is not None]
    names = [
        run.seed if run.seed is not None else f"unknown {n}" for n, (run, _) in enumerate(known)
    ]
    index = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return Observed(
        np.array([run.batch_size for run, _ in known], dtype=np.int64),
        np.array([index[name] for name in names], dtype=np.int64),
        np.array([value for _, value in known], dtype=np.float64),
    )


def estimates(of: Observed, confidence: float, *, of_accuracy: bool = True) -> dict[int, Estimate]:
    """Mean and interval of each batch size, from noise that borrows from each other's."""
    sizes, cell = np.unique(of.batch_size, return_inverse=True)
    if not len(sizes):
        return {}
    counts = np.bincount(cell)
    means = np.bincount(cell, of.value) / counts
    if counts.max() < 2:
        return {int(s): Estimate(float(m), None, None) for s, m in zip(sizes, means, strict=True)}
    layout = Layout(tuple(map(int, sizes)), cell.astype(np.int64), of.seed)
    scale = SCALE if of_accuracy else SPREAD / (float(of.value.std()) or 1.0)
    value = scale * of.value[None]
    draws = posterior(layout, value, np.zeros(value.shape, dtype=bool), kept=QUICKLY).middle[0]
    ends = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0) / scale
    most = 1.0 if of_accuracy else np.inf
    return {
        int(size): Estimate(float(mean), float(min(low, mean)), float(min(max(high, mean), most)))
        for size, mean, low, high in zip(sizes, means, *ends, strict=True)
    }


def difference_p(of: Observed) -> float | None:
    """p value of equal means over all batch sizes, seeds that runs share taken out.

    F = (what batch sizes explain beside seeds) / (what neither explains), for any missing runs.
    None without a degree of freedom on either side.
    """
    if not len(of.value):
        return None
    seeds = np.hstack([np.ones((len(of.value), 1)), _shared_seeds(of)])
    every = np.hstack([seeds, (of.batch_size[:, None] == np.unique(of.batch_size)).astype(float)])
    (reduced, less), (full, more) = _left_over(seeds, of.value), _left_over(every, of.value)
    between, within = more - less, len(of.value) - more
    if between < 1 or within < 1:
        return None
    if full <= EXACT * len(of.value):
        return 1.0 if reduced <= EXACT * len(of.value) else 0.0
    return float(stats.f.sf((reduced - full) / between / (full / within), between, within))


def _shared_seeds(of: Observed) -> Floats:
    """Indicators (N, seeds) of the seeds that several runs share."""
    repeated = np.flatnonzero(np.bincount(of.seed) > 1)
    return np.equal(of.seed[:, None], repeated).astype(np.float64)


def _left_over(design: Floats, value: Floats) -> tuple[float, int]:
    """Residual sum of squares of a least-squares fit, and the design's rank."""
    fitted, _, rank, _ = np.linalg.lstsq(design, value, rcond=None)
    return float(((value - design @ fitted) ** 2).sum()), int(rank)


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """p values corrected for how many there are (Holm 1979); None stays and does not count."""
    tested = sorted((p, n) for n, p in enumerate(chances) if p is not None)
    corrected: list[float | None] = [None] * len(chances)
    largest = 0.0
    for rank, (p, n) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[n] = largest
    return corrected


def _sentence(
    chances: Mapping[str, float | None],
    rows: Sequence[GeneralizationRow],
    unit: str,
    confidence: float,
) -> str:
    tested = next(iter(chances))
    known = [(p, name) for name, p in chances.items() if p is not None]
    if not known:
        return (
            f"Whether {tested} differs between batch sizes cannot be told: that needs two "
            "batch sizes with two seeds each."
        )
    apart = [f"{name} (p = {p:.2g})" for p, name in known if p <= 1 - confidence]
    if not apart:
        names = ", ".join(name for _, name in known)
        least = min(p for p, _ in known)
        return (
            f"Differences between batch sizes in {names} cannot be told from the noise between "
            f"seeds (least p = {least:.2g})."
        )
    told = f"Batch sizes differ by more than noise in {' and '.join(apart)}."
    return told + _ends(tested, chances[tested], rows, unit, confidence)


def _ends(
    tested: str,
    chance: float | None,
    rows: Sequence[GeneralizationRow],
    unit: str,
    confidence: float,
) -> str:
    """From which batch size the test metric is least to where it is most, if that differs."""
    known = [
        (r.test_accuracy.value, r.batch_size) for r in rows if r.test_accuracy.value is not None
    ]
    if chance is None or chance > 1 - confidence or not known:
        return ""
    (least, low), (most, high) = min(known), max(known)
    return (
        f" {tested[0].upper()}{tested[1:]} goes from {quantity(least, unit=unit, digits=4)} at "
        f"{low} to {quantity(most, unit=unit, digits=4)} at {high}."
    )
