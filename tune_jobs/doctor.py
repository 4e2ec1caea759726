"""`scripts/doctor`: versions, devices, data, tracking server. Exit status 1 if one is amiss."""

from __future__ import annotations

import os
from pathlib import Path

from tune_jobs import environment
from tune_jobs.config import SweepConfig
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.tracking.reachable import check_reachable, default_uri
from tune_jobs.uris import shown


def main() -> int:
    import torch

    amiss = 0
    for name, version in environment.versions().items():
        print(f"{name:<14} {version}")
        amiss += version == "not installed"
    print(f"{'CPUs':<14} {os.cpu_count()}")
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    print(f"{'GPUs':<14} {', '.join(gpus) or 'none'}")
    folder = Path(SweepConfig.data_dir)
    found = sorted(p.stem for p in folder.glob("*.arrow"))
    print(f"{'data':<14} {', '.join(found) or 'none yet; the first sweep fetches it'} ({folder})")
    uri = default_uri()
    try:
        check_reachable(uri)
        print(f"{'tracking':<14} {shown(uri)} answers")
    except TrackingUnreachable as error:
        print(f"{'tracking':<14} {error}")
        amiss += 1
    return 1 if amiss else 0


if __name__ == "__main__":
    raise SystemExit(main())
