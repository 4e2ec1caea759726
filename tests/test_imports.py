"""The direction of imports, read from the syntax trees."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CORE = {"tune_jobs.errors", "tune_jobs.records", "tune_jobs.config"}
# Part -> what it must never import, by prefix.
NEVER = {
    "tune_jobs/errors.py": {"torch", "ray", "mlflow", "tune_jobs"},
    "tune_jobs/records.py": {"torch", "ray", "mlflow", "tune_jobs"},
    "tune_jobs/config.py": {"torch", "ray", "mlflow"},
    "tune_jobs/store.py": {"torch", "ray", "mlflow"},
    "tune_jobs/data": {"tune_jobs.training", "tune_jobs.tuning", "ray", "mlflow"},
    "models": {"tune_jobs.training", "tune_jobs.tuning", "ray", "mlflow"},
    "tune_jobs/training": {"ray", "mlflow", "tune_jobs.tuning", "tune_jobs.tracking"},
    "tune_jobs/measure": {"ray", "mlflow", "tune_jobs.tuning", "tune_jobs.tracking"},
    "tune_jobs/tuning": {"mlflow", "tune_jobs.analysis", "tune_jobs.tracking"},
    "tune_jobs/tracking": {"torch", "tune_jobs.training", "tune_jobs.tuning"},
    "tune_jobs/analysis": {"torch", "ray", "mlflow", "tune_jobs.tuning", "tune_jobs.tracking"},
}
FILES = sorted([*ROOT.glob("tune_jobs/**/*.py"), *ROOT.glob("models/**/*.py")])


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_part_imports_only_what_the_table_allows(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for part, never in NEVER.items():
        if place == part or place.startswith(part + "/"):
            for name in imported(path):
                assert not any(begins(name, bad) for bad in never), f"{place} imports {name}"
    if not place.endswith(("sweep.py", "report.py")):
        entries = ("tune_jobs.sweep", "tune_jobs.report")
        assert not any(begins(n, e) for n in imported(path) for e in entries)


def test_only_tuning_imports_ray_and_only_tracking_imports_mlflow() -> None:
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        names = imported(path)
        if any(begins(n, "ray") for n in names):
            assert place.startswith("tune_jobs/tuning/"), place
        if any(begins(n, "mlflow") for n in names):
            assert place.startswith("tune_jobs/tracking/"), place


def test_core_uses_the_standard_library_alone() -> None:
    for name in CORE:
        for imports in imported(ROOT / (name.replace(".", "/") + ".py")):
            top = imports.split(".")[0]
            assert top in sys.stdlib_module_names or any(begins(imports, c) for c in CORE)


def test_no_module_bears_a_standard_library_name() -> None:
    for path in [*ROOT.glob("tune_jobs/*.py"), *ROOT.glob("tune_jobs/*/")]:
        assert path.stem not in sys.stdlib_module_names, path
