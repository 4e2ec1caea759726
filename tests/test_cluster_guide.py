"""What a person types: every command and file that the cluster's files and guide name is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import submit_job
from tests.test_cluster_files import (
    CLUSTER,
    DOCKERFILE,
    GUIDE,
    KUBERNETES,
    RAY_UP,
    ROOT,
    SBATCH,
    SHIPPED,
    name_of,
)
from tune_jobs.command_line import flag_names


def typed(path: Path) -> Iterator[list[str]]:
    """The project's own command lines, in comments and code blocks; continued lines joined."""
    text = re.sub(r"\\\n[#\s]*", " ", path.read_text())
    for line in text.splitlines():
        bare = line.strip().lstrip("# `").partition("`")[0]
        entry = re.search(r"(scripts/(submit|sweep)|tune_jobs/sweep\.py|sweep\.sbatch) (.*)", bare)
        if entry:
            yield entry[0].split("#")[0].split()


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_every_flag_that_is_typed_is_one_that_the_program_has(path: Path) -> None:
    own = {option for action in submit_job.options()._actions for option in action.option_strings}
    for words in typed(path):
        known = {*flag_names(), "--help", *(own if "submit" in words[0] else ())}
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        assert flags <= known, words


def test_every_file_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text()
    named = set(re.findall(r"\b(?:cluster|scripts|tune_jobs|kuberay|slurm)/[\w./-]*\w", text))
    assert named
    for name in named:
        assert (ROOT / name).exists() or (CLUSTER / name).exists(), name


def test_the_guide_says_of_each_file_how_far_it_was_tried() -> None:
    text = GUIDE.read_text()
    for path in [*RAY_UP, *KUBERNETES, SBATCH, DOCKERFILE]:
        assert path.name in text, path
    assert "not built" in text
