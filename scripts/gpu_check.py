"""What only a GPU shows, measured and written as a record.

1. SimpleCNN and torchvision's ResNet-18 are profiled at batch sizes up to out-of-memory.
2. The largest batch predicted from the memory line is compared with the largest that really runs.
3. Trials are packed: examples per second of 1, 2, 4 ... of them at once on the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import torch

from tune_jobs import environment
from tune_jobs.data.sources import prepare
from tune_jobs.measure import cost_model
from tune_jobs.measure.fresh import FreshProcesses
from tune_jobs.measure.probe import ProbeRequest, Subject, measure_update
from tune_jobs.measure.profiling import DeviceProfiler, ProfilePlan, to_profiles
from tune_jobs.workload_source import WorkloadSource

MODELS = ("simple_cnn", "scripts.gpu_check:resnet18")
BATCH_SIZES = tuple(2**k for k in range(5, 16))
COPIES = (1, 2, 4)
PACKED_BATCH_SIZE = 64
EXACT = 0.01


def resnet18(input_shape: tuple[int, int, int], classes: int) -> torch.nn.Module:
    """torchvision's ResNet-18 for images of `input_shape` (c, h, w)."""
    from torchvision.models import resnet18 as original

    model = original(num_classes=classes)
    model.conv1 = torch.nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False)
    return torch.nn.Sequential(model, torch.nn.LogSoftmax(1))


def fits(fresh: FreshProcesses, subject: Subject, size: int) -> bool:
    """Whether two updates of `size` examples run in a process of their own."""
    request = ProbeRequest(subject, size, size, 0.0, 2)
    return fresh.call(measure_update, request, 300)[0].ended == "returned"


def true_largest(fresh: FreshProcesses, subject: Subject, low: int, high: int) -> int:
    """The largest batch that runs, to a part of `EXACT`; `low` runs and `high` does not."""
    while high - low > max(1, EXACT * low):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(fresh, subject, middle) else (low, middle)
    return low


def check_memory(fresh: FreshProcesses, subject: Subject, seconds: float) -> dict[str, Any]:
    """The profile up to out-of-memory; predicted and true largest batch, without a margin."""
    plan = ProfilePlan(BATCH_SIZES, "whole", seconds, 0.0)
    seen = DeviceProfiler(fresh, subject, plan, print).run()
    rows = to_profiles(seen, subject, BATCH_SIZES, None, 0.0)
    ran = [r for r in rows if r.outcome == "finished"]
    refused = [r.batch_size for r in rows if r.outcome == "out_of_memory"]
    whole = [r for r in ran if r.batch_size in BATCH_SIZES]
    known = cost_model.limits(whole, 0.0, 10**9)
    found: dict[str, Any] = {"profiles": [asdict(r) for r in rows]}
    found |= {"predicted_largest": known.predicted_largest}
    if refused:
        largest = max(r.batch_size for r in ran)
        true = true_largest(fresh, subject, largest, min(refused))
        found |= {"true_largest": true}
        if known.predicted_largest:
            found |= {"predicted_over_true": known.predicted_largest / true}
    return found


def check_packing(fresh: FreshProcesses, subject: Subject) -> dict[int, float | None]:
    """Examples per second in total, by the number of trials at once."""
    totals: dict[int, float | None] = {}
    for copies in COPIES:
        request = ProbeRequest(subject, PACKED_BATCH_SIZE, PACKED_BATCH_SIZE, 5.0, 50)
        outcomes = fresh.call(measure_update, request, 300, copies)
        steps = [statistics.median(o.value.update_seconds) for o in outcomes if o.value]
        whole = len(steps) == copies
        totals[copies] = sum(PACKED_BATCH_SIZE / s for s in steps) if whole else None
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("out", type=Path, help="the record to write, JSON")
    parser.add_argument("--memory-limit-mib", type=float, default=8192.0)
    parser.add_argument("--profile-seconds", type=float, default=90.0)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: no CUDA device is visible here; run this where one is", file=sys.stderr)
        return 2
    data = prepare("mnist", ROOT / ".data").resolve()
    source = WorkloadSource("", "mnist", str(data))
    subject = Subject(source, "adam", 3e-3, 2500, 0, 2, 1.0, asked.memory_limit_mib)
    found: dict[str, Any] = {"memory_limit_mib": asked.memory_limit_mib}
    with FreshProcesses() as fresh:
        for model in MODELS:
            own = replace(subject, source=replace(source, model=model))
            memory = check_memory(fresh, own, asked.profile_seconds)
            found[model] = memory | {"packed_examples_per_second": check_packing(fresh, own)}
            shown = {k: v for k, v in found[model].items() if k != "profiles"}
            print(model, json.dumps(shown), flush=True)
    facts = environment.describe(ROOT)
    facts.pop("host")
    found["machine"] = facts | {"device": torch.cuda.get_device_name(0)}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
