"""Bad input: one message with the value, the rule and the remedy; status 2; nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune_jobs import preparing
from tune_jobs.command_line import parse
from tune_jobs.errors import exit_status

FLAGS = [
    (["--trials", "0"], "--trials 0"),
    (["--target", "0"], "--target 0.0"),
    (["--seeds", "0"], "seeds 0"),
    (["--budget-examples", "0"], "--budget-examples 0"),
    (["--memory-limit-mib", "0"], "--memory-limit-mib 0.0"),
    (["--price-per-device-hour", "0"], "--price-per-device-hour 0.0"),
    (["--trainings-to-come", "0"], "--trainings-to-come 0"),
    (["--target", "inf"], "target = inf"),
    (["--target", "nan"], "target = nan"),
    (["--batch-sizes", "16,³"], "'³' is not a positive integer"),
    (["--batch-sizes", "١٦,32"], "'١٦' is not a positive integer"),
    (["--batch-sizes", "--16"], "batch-sizes"),
    (["--batch-sizes", "16," + "9" * 5000], "is not a positive integer"),
    (["--batch-sizes", ","], "is empty"),
    (["--micro-batch", "²"], "--micro-batch '²'"),
    (["--micro-batch", "٣"], "--micro-batch '٣'"),
    (["--micro-batch", "9" * 5000], "--micro-batch"),
    (["--trials", "9" * 5000], "--trials"),
    (["--tracking-uri", "http://a b"], "--tracking-uri 'http://a b'"),
    (["--tracking-uri", "http://"], "--tracking-uri 'http://'"),
    (["--tracking-uri", "http://[::1"], "--tracking-uri 'http://[::1'"),
    (["--tracking-uri", "http://a:port"], "--tracking-uri 'http://a:port'"),
    (["--tracking-uri", "gopher://a"], "--tracking-uri 'gopher://a'"),
    (["--tracking-uri", ""], "--tracking-uri ''"),
    (["--name", "a\x1b[31m"], "--name"),
    (["--data-dir", "a\nb"], "--data-dir"),
    (["--accelerator", ""], "--accelerator ''"),
]
TOML: list[tuple[bytes, str]] = [
    (b'accelerator = ""', "--accelerator ''"),
    (b"memory_limit_mib = 1", "--memory-limit-mib 1"),
    (b"seed = -1", "seed -1"),
    (b"split_seed = -1", "split_seed -1"),
    (b"seed = 18446744073709551616", "seed 18446744073709551616"),
    (b"split_seed = 99999999999999999999999", "split_seed 9999"),
    (b"base_learning_rate = -1", "base_learning_rate -1"),
    (b"base_learning_rate = 0", "base_learning_rate 0"),
    (b"base_learning_rate = 1e308", "base_learning_rate 1e+308"),
    (b"learning_rate_span = 1e308", "learning_rate_span 1e+308"),
    (b"learning_rate_span = 1", "learning_rate_span 1"),
    (b'experiment = ""', "experiment ''"),
    (b'experiment = "  "', "experiment '  '"),
    (b"budget_examples = 1000000000000000", "--budget-examples 1000000000000000"),
    (b"trials = 1000000000000000", "--trials 1000000000000000"),
    (b"seeds = 1000000000000000", "seeds 1000000000000000"),
    (b"validation_examples = 0", "validation_examples 0"),
    (b"profile_seconds = 1e300", "profile_seconds 1e+300"),
    (b"preset = []", "preset"),
    (b"preset = {}", "preset"),
    (b"batch_sizes = [[16]]", "[16] is not a positive integer"),
    (b"batch_sizes = 16", "batch_sizes = 16"),
    (b"batch_sizes = [99999999999999999999]", "99999999999999999999"),
    (b'batch_sizes = ["16"]', "'16' is not a positive integer"),
    (b"trials = inf", "trials = inf"),
    (b"trials = 18.0", "trials = 18.0"),
    ('name = "x"'.encode("utf-16"), "UTF-8"),
    ('name = "Größe"'.encode("latin-1"), "UTF-8"),
    (b'name = "a\x01b"', "not valid TOML"),
    (b'runs_dir = "a\\u0000b"', "--runs-dir"),
    (b'model = "\\u001b[31m"', "--model"),
    (b"x = " + b"[" * 3000 + b"]" * 3000, "nested"),
    (b"trials = " + b"9" * 5000, "digits"),
    (b"trials = 1\ntrials = 2", "not valid TOML"),
    (b'tracking_uri = "http://a b"', "--tracking-uri 'http://a b'"),
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said to a command line that is refused."""
    try:
        status = exit_status(lambda: bool(preparing.configuration(parse(arguments))) and 0)
    except SystemExit as exit:
        status = int(exit.code or 0)
    said = capsys.readouterr().err
    assert status == 2, said
    assert "Traceback" not in said
    return said


def shortened(value: object) -> str:
    return str(value)[:50]


@pytest.mark.parametrize(("flags", "says"), FLAGS, ids=shortened)
def test_flags_that_cannot_be_are_refused(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, *flags)


@pytest.mark.parametrize(("text", "says"), TOML, ids=shortened)
def test_settings_that_cannot_be_are_refused(
    text: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "it.toml").write_bytes(text)
    said = refused(capsys, "--config", str(tmp_path / "it.toml"))
    assert says in said and len(said) < 1_000


def test_a_flag_of_value_0_is_told_apart_from_one_that_was_not_given() -> None:
    assert parse(["--trials", "0"]).flags == {"trials": 0}
    assert parse(["--target", "0"]).flags == {"target": 0.0}
    assert parse([]).flags == {}
    assert parse(["--tracking-required"]).flags == {"tracking_required": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--cpus-per-trial", "1000"], {}, "--cpus-per-trial 1000"),
        ([], {"MLFLOW_TRACKING_URI": "http://a b"}, "tracking URI 'http://a b'"),
        (["--batch-sizes", "2000", "--trials", "1"], {}, "exceeds the training split"),
        (["--tracking-required", "--tracking-uri", "http://127.0.0.1:9"], {}, "127.0.0.1:9"),
    ],
)
def test_what_is_refused_late_leaves_nothing_behind(
    arguments: list[str], environment: dict[str, str], says: str, tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "it.toml").write_text("validation_examples = 300\n")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "tune_jobs" / "sweep.py"), "--config",
         "it.toml", "--model", "mlp", "--data", "digits", "--data-dir", str(data_dir), *arguments],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path / "home"), **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {"it.toml", "home", "mlflow.db"}
