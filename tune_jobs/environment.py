"""Where a sweep runs: cluster or this machine, versions, host, devices, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

COMMIT = "SWEEP_COMMIT"  # set for a job, whose upload has no .git
PACKAGES = ("torch", "torchvision", "ray", "hyperopt", "pyarrow", "mlflow", "numpy", "scipy")


def cluster_address(environment: Mapping[str, str]) -> str | None:
    """What RAY_ADDRESS names to be joined (Ray sets it for every job); None: a Ray of one's own."""
    address = environment.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe(root: Path) -> dict[str, object]:
    """What `environment.json` holds."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "commit": os.environ.get(COMMIT) or commit_of(root),
        "versions": versions(),
    }


def commit_of(root: Path) -> str | None:
    """The commit that `root` is at, marked `-dirty` with changes; None outside git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
