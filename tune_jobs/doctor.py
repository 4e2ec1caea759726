"""`scripts/doctor`: versions, devices, data, tracking server, and what listens to whom.

Exit status 1 if one is amiss.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

import psutil

from tune_jobs import environment
from tune_jobs.config import SweepConfig
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.private import is_open_to_others, token_path
from tune_jobs.tracking.reachable import check_reachable, default_uri
from tune_jobs.uris import shown

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
OF_RAY_OR_MLFLOW = (
    "sweep.py",
    "gcs_server",
    "raylet",
    "ray::",
    "ray/dashboard",
    "ray/_private",
    "mlflow",
)
INSIDE = "reached from this machine alone"
# Ray's dashboard and job server run what they are sent, by design (CVE-2023-48022).
OUTSIDE = (
    "reached from the network: who gets in runs code as you, so it wants a token or password, and "
    "a firewall"
)


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
    said, open_to_others = token()
    print(f"{'Ray token':<14} {said}")
    lines, strangers = listening()
    for line in lines or ["nothing of Ray or MLflow"]:
        print(f"{'listens':<14} {line}")
    return 1 if amiss + open_to_others + strangers else 0


def token() -> tuple[str, int]:
    """What is to be said of Ray's token, and whether it is amiss."""
    path = token_path(os.environ)
    if is_open_to_others(path):
        remedy = f"chmod 600 {shlex.quote(str(path))}"
        return f"{path} can be read by others, who run code as you with it: {remedy}", 1
    return (f"{path}, yours alone" if path.exists() else "none yet; the first sweep makes it"), 0


def listening() -> tuple[list[str], int]:
    """Every port on which Ray or MLflow listens on this machine, and how many to the network."""
    lines, strangers = set[str](), 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            what = next((name for name in OF_RAY_OR_MLFLOW if name in _words(process)), None)
            for at in process.net_connections("tcp") if what else ():
                if at.status == psutil.CONN_LISTEN:
                    inside = at.laddr.ip in LOOPBACK
                    strangers += not inside
                    address = f"{at.laddr.ip}:{at.laddr.port}"
                    lines.add(
                        f"{address:<24} {what} ({process.pid}): {INSIDE if inside else OUTSIDE}"
                    )
    return sorted(lines), strangers


def _words(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


if __name__ == "__main__":
    raise SystemExit(main())
