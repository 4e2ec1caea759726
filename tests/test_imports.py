"""The house: who may import whom, read from the syntax trees."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CORE = {
    f"tune_jobs.{name}"
    for name in ("errors", "records", "verdicts", "config", "formatting", "recipe", "space", "uris")
}
# From the ground to the top: a room imports from floors below its own, never from above.
FLOORS = (
    ("errors", "records", "verdicts", "formatting", "environment"),
    ("uris", "durable", "tables", "private", "recipe", "few_lines"),
    ("space",),
    ("config", "new_workload", "remote_folder", "workload"),
    ("own_loop",),
    ("lightning_loop",),
    ("data", "store", "command_line"),
    ("workload_source",),
    ("training", "holding", "interrupts"),
    ("measure", "tracking", "preparing"),
    ("reading",),
    ("judging",),
    ("planning",),
    ("tuning",),
    ("reporting", "doctor"),
    ("one_sweep",),
    ("sweep", "report"),
)
FRAMEWORKS = {"torch", "ray", "mlflow"}
# Part -> what it must never import, by prefix.
NEVER = {
    "tune_jobs/errors.py": FRAMEWORKS | {"tune_jobs"},
    "tune_jobs/records.py": FRAMEWORKS | {"tune_jobs"},
    "tune_jobs/verdicts.py": FRAMEWORKS | {"tune_jobs"},
    "tune_jobs/formatting.py": FRAMEWORKS | {"tune_jobs"},
    "tune_jobs/config.py": FRAMEWORKS,
    "tune_jobs/store.py": FRAMEWORKS,
    "tune_jobs/preparing.py": FRAMEWORKS,
    "tune_jobs/data": {"ray", "mlflow", "tune_jobs.training"},
    "tune_jobs/workload.py": {"ray", "mlflow", "tune_jobs.training"},
    "tune_jobs/workload_source.py": {"ray", "mlflow", "tune_jobs.training"},
    "models": {"ray", "mlflow", "tune_jobs.training"},
    "tune_jobs/training": {"ray", "mlflow", "tune_jobs.tuning", "tune_jobs.tracking"},
    "tune_jobs/measure": {"ray", "mlflow", "tune_jobs.tuning", "tune_jobs.tracking"},
    "tune_jobs/tuning": {"mlflow", "tune_jobs.tracking", "tune_jobs.reporting"},
    "tune_jobs/tracking": {"torch", "tune_jobs.training", "tune_jobs.tuning"},
    "tune_jobs/reporting": FRAMEWORKS | {"tune_jobs.tuning", "tune_jobs.tracking"},
    **{
        f"tune_jobs/{room}": FRAMEWORKS
        | {"tune_jobs.tuning", "tune_jobs.tracking", "tune_jobs.reporting"}
        for room in ("reading", "judging", "planning")
    },
}
FILES = sorted([*ROOT.glob("tune_jobs/**/*.py"), *ROOT.glob("models/**/*.py")])
ROOMS_OF_ONE = {
    "ray": "tune_jobs/tuning/",
    "mlflow": "tune_jobs/tracking/",
    "matplotlib": "tune_jobs/reporting/figures/",
}


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


def floor_of(name: str) -> int | None:
    """The floor of a module's dotted name; None for what is not of this house."""
    parts = name.split(".")
    if parts[0] != "tune_jobs" or len(parts) == 1:
        return None
    return next((n for n, rooms in enumerate(FLOORS) if parts[1] in rooms), None)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_part_imports_only_what_the_table_allows(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for part, never in NEVER.items():
        if place == part or place.startswith(part + "/"):
            for name in imported(path):
                assert not any(begins(name, bad) for bad in never), f"{place} imports {name}"
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    here = floor_of(own)
    for name in imported(path):
        there = floor_of(name)
        if here is not None and there is not None and not name.startswith(own):
            same_room = name.split(".")[1] == own.split(".")[1]
            assert same_room or there < here, f"{place} imports {name}, which is not below it"


def test_every_room_has_a_floor() -> None:
    rooms = {p.relative_to(ROOT / "tune_jobs").parts[0].removesuffix(".py") for p in FILES
             if p.is_relative_to(ROOT / "tune_jobs")}  # fmt: skip
    assert rooms - {"__init__"} == {room for rooms in FLOORS for room in rooms}


def test_each_framework_is_imported_by_its_own_room_alone() -> None:
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        for framework, room in ROOMS_OF_ONE.items():
            if any(begins(n, framework) for n in imported(path)):
                assert place.startswith(room), f"{place} imports {framework}"


def test_core_uses_the_standard_library_and_a_writer_of_toml_alone() -> None:
    small = sys.stdlib_module_names | {"tomli_w"}
    for name in CORE:
        for imports in imported(ROOT / (name.replace(".", "/") + ".py")):
            assert imports.split(".")[0] in small or any(begins(imports, c) for c in CORE)


def test_no_module_bears_a_standard_library_name() -> None:
    for path in [*ROOT.glob("tune_jobs/*.py"), *ROOT.glob("tune_jobs/*/")]:
        assert path.stem not in sys.stdlib_module_names, path


def test_a_room_says_what_it_is_for_and_hands_nothing_on() -> None:
    for room in ("reading", "judging", "planning", "reporting"):
        (said,) = ast.parse((ROOT / "tune_jobs" / room / "__init__.py").read_text()).body
        assert isinstance(said, ast.Expr), f"{room}: its face holds a docstring alone"
