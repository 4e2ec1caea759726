"""What may be asked, and what is refused before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tune_jobs.command_line import flag_names, parse
from tune_jobs.config import (
    SweepConfig,
    requested_gpus,
    resolve,
    resumed,
    to_toml,
    validate_against_data,
)
from tune_jobs.errors import UserError
from tune_jobs.store import SweepStore

ROOT = Path(__file__).resolve().parents[1]

BAD = [
    ({"optimizer": "adm"}, "Did you mean 'adam'"),
    ({"search": "tpee"}, "known: evolution, follow, grid, grow, late-switch, pbt, random, rules"),
    ({"goal": "speed"}, "known:"),
    ({"preset": "quik"}, "Did you mean 'quick'"),
    ({"batch_sizes": (16, 0)}, "0 is not a positive integer"),
    ({"batch_sizes": (16, "x")}, "'x' is not a positive integer"),
    ({"batch_sizes": (16, 16)}, "16 stands twice"),
    ({"batch_sizes": ()}, "is empty"),
    ({"trials": 5}, "fewer than the 6 batch sizes"),
    ({"target": 0.0}, "in \\(0, 1\\]"),
    ({"target": 1.5}, "in \\(0, 1\\]"),
    ({"target": float("nan")}, "target"),
    ({"budget_examples": 511}, "smaller than the largest batch"),
    ({"name": "a/b"}, "a sweep's name"),
    ({"seeds": 0}, "greater than 0"),
    ({"cpus_per_trial": "-1"}, "greater than 0"),
    ({"cpus_per_trial": "some"}, "must be auto or a number"),
    ({"micro_batch": "0"}, "must be auto, whole, or a positive integer"),
    ({"micro_batch": "half"}, "must be auto, whole, or a positive integer"),
    ({"memory_limit_mib": 0.0}, "greater than 0"),
    ({"memory_margin": 1.0}, "in \\[0, 1\\)"),
    ({"goal": "cost"}, "give --price-per-device-hour"),
    ({"gpus_per_trial": "1.5"}, "share of one GPU"),
    ({"gpus_per_trial": "many"}, "share of one GPU"),
    ({"trials": True}, "must be int"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[str(b[0]) for b in BAD])
def test_bad_settings_are_refused_by_value_rule_and_remedy(flags: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(None, flags)


def test_flags_override_the_file_which_overrides_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('preset = "full"\ntrials = 40\ntarget = 0.9\n')
    config = resolve(file, {"target": 0.8})
    assert (config.preset, config.seeds, config.trials, config.target) == ("full", 13, 40, 0.8)


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('# mine\nmodel = "mlp"\n\nbatchsizes = [16]\n')
    with pytest.raises(UserError, match=r"line 4: key 'batchsizes'.*Did you mean 'batch_sizes'"):
        resolve(file, {})


def test_a_wrong_type_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('trials = "many"\n')
    with pytest.raises(UserError, match="trials = 'many': must be int"):
        resolve(file, {})


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text("trials = = 3\n")
    with pytest.raises(UserError, match="not valid TOML"):
        resolve(file, {})
    file.write_bytes(b'name = "\xff"\n')
    with pytest.raises(UserError, match="not valid TOML: 'utf-8' codec"):
        resolve(file, {})
    with pytest.raises(UserError, match="No such file"):
        resolve(tmp_path / "none.toml", {})


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = resolve(None, {"name": "x", "batch_sizes": (8, 32), "gpus_per_trial": "0.5"})
    file = tmp_path / "sweep.toml"
    file.write_text(to_toml(config))
    assert resolve(file, {}) == config
    assert tomllib.loads(to_toml(config))["batch_sizes"] == [8, 32]


@given(st.text())
@example("two\nlines")
@example("\"quoted\"\\ and 'quoted'\r\n\t")
@example("\x00\x1b\x7f\x85\u2028 ünï \N{SNOWMAN} \N{GRINNING FACE}")
def test_any_text_reads_back_as_itself_and_what_is_missing_is_left_out(text: str) -> None:
    config = replace(SweepConfig(), data_dir=text, accelerator=text)
    written = {k: v for k, v in asdict(config).items() if v is not None}
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in written.items()}
    assert tomllib.loads(to_toml(config)) == written
    assert written.keys() < asdict(config).keys()


def test_a_file_that_an_earlier_version_wrote_still_resolves(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        'name = "x"\nbatch_sizes = [8, 32]\nfirst_rung_fraction = 0.3333333333333333\n'
        'noise_scale = true\ndata_dir = "a\\\\b \\"c\\""\nlearning_rate_span = 1e+01\n'
    )
    config = resolve(file, {})
    assert (config.batch_sizes, config.data_dir) == ((8, 32), 'a\\b "c"')
    assert (config.first_rung_fraction, config.learning_rate_span) == (1 / 3, 10.0)


def test_a_sweep_taken_up_is_the_one_that_was_begun() -> None:
    before = resolve(None, {"trials": 12, "seeds": 3})
    assert resumed(before, {"seeds": 5, "tracking_uri": "x"}).seeds == 5
    assert resumed(before, {"trials": 12}) == before
    for flags in ({"trials": 13}, {"seeds": 2}, {"model": "mlp"}):
        with pytest.raises(UserError, match=r"--resume with .* the sweep was begun with"):
            resumed(before, flags)


def test_a_batch_size_over_the_training_split_is_refused() -> None:
    config = resolve(None, {"batch_sizes": (16, 2048), "budget_examples": 4096, "trials": 2})
    with pytest.raises(UserError, match="2048 exceeds the training split of mnist"):
        validate_against_data(config, 4000)


def test_gpus_are_taken_where_there_are_any() -> None:
    assert requested_gpus(resolve(None, {}), available=0) == 0
    assert requested_gpus(resolve(None, {}), available=2) == 1
    assert requested_gpus(resolve(None, {"gpus_per_trial": "0.25"}), available=2) == 0.25


def test_the_flags_are_the_frozen_ones() -> None:
    frozen = """
        --accelerator --batch-sizes --budget-examples --config --cpus-per-trial --data --data-dir
        --dry-run --goal --gpus-per-trial --lightning --memory-limit-mib --micro-batch --minutes
        --model --name --new-workload --only --optimizer --preset --price-per-device-hour --resume
        --runs-dir --scheduler --search --seeds --target --tracking-required --tracking-uri --train
        --trainings-to-come --trials --workload
    """
    assert flag_names() == frozen.split()


def test_flags_are_parsed_to_what_was_given_and_nothing_else() -> None:
    invocation = parse(["--batch-sizes", "16,32", "--target", "0.9", "--resume"])
    assert invocation.flags == {"batch_sizes": (16, 32), "target": 0.9}
    assert invocation.action.resume


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "simple_cn"], "Did you mean 'simple_cnn'"),
        (["--model", "no.such:thing"], "no.such"),
        (["--data", "mnst"], "Did you mean 'mnist'"),
        (["--batch-sizes", "16,16"], "stands twice"),
        (["--resume", "--name", "never"], "there is no sweep"),
    ],
)
def test_the_command_refuses_with_status_2_and_one_message(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tune_jobs" / "sweep.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def dry_run(model: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "tune_jobs" / "sweep.py"), "--dry-run",
         "--model", model],
        capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


def test_a_dry_run_needs_neither_ray_nor_torch_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')")
    for model in ("simple_cnn", "mine:build"):
        done = dry_run(model, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "races decide at 3072 of 9216 examples" in done.stdout
        imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not imports & {"ray", "torch", "mlflow", "hyperopt", "matplotlib", "mine"}
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("model", ["simple_cn", "no.such:thing", ".:build", "mine:not a name"])
def test_a_dry_run_tells_of_a_model_that_is_not_there(model: str, tmp_path: Path) -> None:
    done = dry_run(model, tmp_path)
    assert done.returncode == 2
    assert "error: " in done.stderr and model in done.stderr


def test_a_runs_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="give another --runs-dir"):
        SweepStore(tmp_path / "file" / "it").create()
