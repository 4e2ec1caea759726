"""Bad tables, data files, checkpoints, records, modules and addresses: the second half of the table
that begins in test_bad_input.py, and random settings, flags and tables.

1. each is told in a message of its own, with what is at fault, in under 1,500 characters;
2. nothing gives a traceback, an escape sequence, or a status other than 0 or 2.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models import registry
from tests import rows
from tune_jobs import preparing, report
from tune_jobs.command_line import parse
from tune_jobs.config import SweepConfig
from tune_jobs.data import sources
from tune_jobs.errors import exit_status
from tune_jobs.recipe import Recipe
from tune_jobs.space import FIELDS
from tune_jobs.store import SweepStore
from tune_jobs.tracking.of_sweep import reachable_uri
from tune_jobs.training import checkpoint, optimizers
from tune_jobs.workload_source import users_loop, users_workload

DATASETS = importlib.util.find_spec("datasets")
TEXTS = int(os.environ.get("RANDOM_TEXTS", "25"))

TABLES: list[tuple[bytes, dict[str, Any], str]] = [
    (b"", {}, "is empty"),
    (b"\n\n  \n", {}, "is empty"),
    (b"batch_size,seed,time_to_target_seconds\n", {}, "a header and no rows"),
    (b"batch_size,time_to_target_seconds\n32,\x00\n", {}, "zero bytes"),
    (b"batch_size,time_to_target_seconds\n32,\xff\xfe\n", {}, "line 2: byte 0xff is not UTF-8"),
    (b"PAR1 and no more", {}, "not a readable Parquet file"),
    (b"\x1f\x8b\x08\x00", {}, "gzip"),
    (b"<!DOCTYPE html>\n<table><tr><td>16</td></tr></table>", {}, "is a web page; write its table"),
    (b"% sizes\n\\begin{tabular}{lr}\n16 & 3 \\\\\n", {}, "is LaTeX; write its table as CSV"),
    (b"batch_size,updates_to_target\n8,5k\n", {}, "in 1000s or in 1024s; write the number"),
    (b"PK\x03\x04", {}, "is "),
    (b"batch_size,batch_size,time_to_target_seconds\n1,2,3\n", {}, "stands twice"),
    (b"batch_size,time_to_target_seconds\n32,5,6\n", {}, "3 cells for the 2 columns"),
    (b"batch_size,time_to_target_seconds\n32,soon\n", {}, "'soon'"),
    (b"batch_size,time_to_target_seconds\n-32,5\n", {}, "'-32' must be a positive integer"),
    (b"batch_size,time_to_target_seconds\n3.5,5\n", {}, "'3.5' must be a positive integer"),
    (b"batch_size,time_to_target_seconds\n32,-5\n", {}, "'-5'"),
    (
        b"batch_size,time_to_target_seconds\n,5\n16,4\n",
        {},
        "an empty cell must be",
    ),
    (b"size_of_it,minutes_it_took\n32,5\n", {}, "lacks the column"),
    (b"batch_size,val_accuracy\n32,1.5e3\n", {}, "val_accuracy"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"map": ("batch_size",)}, "must be OURS=THEIRS"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"map": ("bs=x",)}, "'bs' is unknown"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"map": ("seed=x",)}, "'x' is unknown"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"goal": "speed"}, "'speed' is unknown"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"confidence": 95.0}, "confidence 95"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"tolerance": -1.0}, "tolerance -1"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"goal": "cost"}, "--price-per-device-hour"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"rows": "point"}, "--rows point"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"sync_mlflow": True}, "--sync-mlflow"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"html": Path("no/such/place.html")}, "no/such"),
    (b"batch_size,time_to_target_seconds\n32,5\n", {"folder": "runs/it"}, "two sources"),
    (b'batch_size,time_to_target_seconds\n32,"5\n', {}, ""),
    (b"\xff\xfeb\x00a\x00t\x00c\x00h\x00\x00", {}, ""),
]
DATA: list[tuple[str, bytes | None, str]] = [
    ("digits.arrow", b"", "not a whole Arrow file"),
    ("digits.arrow", b"ARROW1\x00\x00" + b"\x00" * 64, "not a whole Arrow file"),
    ("digits.arrow", None, "digits.arrow"),
    ("mnist/train-images-idx3-ubyte", b"\x00\x00\x08\x03", "md5"),
    ("mnist/train-labels-idx1-ubyte.gz", b"\x1f\x8b\x08\x00broken", "train-labels-idx1-ubyte.gz"),
]
NAMES: list[tuple[str, str]] = [
    ("digit", "Did you mean 'digits'?"),
    ("folder:", "names no path"),
    ("zip:a", "'zip' is unknown"),
    ("folder:no/such", "there is no folder"),
    ("parquet:no/such.parquet", "there is no file"),
    ("parquet:a?label", "there is no file"),
    ("parquet:a?colour=red", "'colour' is unknown"),
    ("hf:no/such", "hf: needs" if DATASETS is None else "no/such"),
]
CHECKPOINTS: list[tuple[bytes | None, str]] = [
    (None, "cannot be read"),
    (b"", "cannot be read"),
    (b"PK\x03\x04torn", "cannot be read"),
    (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "cannot be read"),
]
RECORDS: list[tuple[str, bytes, str]] = [
    ("trials.parquet", b"PAR1", "trials.parquet is damaged"),
    ("measurements.parquet", b"", "measurements.parquet is damaged"),
    ("profiles.parquet", b"no table", "profiles.parquet is damaged"),
    ("environment.json", b"[1, 2", "environment.json is damaged"),
    ("environment.json", b"[1, 2]", "not an object of JSON"),
    ("looks.json", b'{"a": 1}', "looks.json is damaged"),
    ("sweep.toml", b"", "settings are missing at its end"),
    ("sweep.toml", b"\xff", "sweep.toml is damaged"),
]


def made(name: str) -> object:
    return users_workload(name, {})


def optimized(name: str) -> object:
    return optimizers.make(name, torch.nn.Linear(1, 1), 0.1)


MODULES: list[tuple[Callable[[str], object], str, str, str]] = [
    (registry.resolve, "{m}:model", "import sys\nsys.exit('no licence')", "SystemExit: no licence"),
    (registry.resolve, "{m}:model", "raise KeyboardInterrupt2", "NameError"),
    (registry.resolve, "{m}:model", "def model(:", "SyntaxError"),
    (registry.resolve, "{m}:model", "model = 3", "is not callable"),
    (registry.resolve, "{m}:model", "", "does not exist"),
    (registry.resolve, "no_such_module_of_mine:model", "", "PYTHONPATH"),
    (registry.resolve, "{m}.model", "", "is unknown"),
    (registry.resolve, ":model", "", "package.module:function"),
    (registry.resolve, "{m}:2", "", "package.module:function"),
    (made, "{m}:make", "def make(width): ...", "missing a required"),
    (
        lambda n: users_workload(n, {}),
        "{m}:make",
        "def make(): return 3",
        "gave int, not a Workload",
    ),
    (made, "{m}:make", "def make(): exit(7)", "SystemExit"),
    (made, "{m}:make", "def make(): return make()", "RecursionError"),
    (made, "{m}.py:make", "def other(): ...", "it has: other"),
    (made, "nowhere.py:make", "", "there is no file nowhere.py"),
    (made, "{m}", "", "names no function"),
    (users_loop, "{m}:train", "def train(settings, report): ...", "@own_loop"),
    (users_loop, "{m}:train", "1 / 0", "ZeroDivisionError"),
    (optimized, "torch.optim:Nothing", "", "Nothing"),
    (optimized, "no_such_module_of_mine:Kind", "", "no_such_module_of_mine"),
    (optimized, "{m}:Kind", "import sys; sys.exit(1)", "{m}"),
]
URIS: list[tuple[str, str]] = [
    ("http://127.0.0.1:9", "refused"),
    ("sqlite:////no/such/folder/mlflow.db", "/no/such/folder does not exist"),
    ("postgresql://user:secret@127.0.0.1:9/it", "***"),
    ("file:///tmp/mlruns", "is a folder"),
    ("./mlruns", "is a folder"),
    ("http://u:secret@127.0.0.1:9", "***"),
]
PLACES: list[tuple[str, str]] = [
    ("gopher://a/runs", "gopher"),
    ("s3://key:word@bucket/runs", "credentials do not belong in a URI"),
    ("/dev/null/runs", "cannot be written"),
]


def refused(action: Callable[[], object], *statuses: int) -> str:
    """What is said, with one of these statuses."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = exit_status(lambda: bool(action()) and 0)
    told = said.getvalue()
    assert status in statuses, told
    assert told.startswith("error: ") and len(told) < 1_500 and "\x1b" not in told  # 1
    return told


def shortened(value: object) -> str:
    """The same in every process: no address."""
    return getattr(value, "__name__", str(value))[:40]


@pytest.mark.parametrize(("content", "asked", "says"), TABLES, ids=shortened)
def test_a_table_that_cannot_be_judged_is_refused(
    content: bytes, asked: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / "it.csv").write_bytes(content)
    options = report.Options(table=tmp_path / "it.csv", **asked)
    assert says in refused(lambda: report.run(options), 2)


@pytest.mark.parametrize("place", ["folder", "nothing", "pipe"])
def test_what_is_no_file_is_no_table(place: str, tmp_path: Path) -> None:
    path = tmp_path / "it.csv"
    if place == "folder":
        path.mkdir()
    elif place == "pipe":
        os.mkfifo(path)
    assert "it.csv" in refused(lambda: report.run(report.Options(table=path)), 2)


@pytest.mark.parametrize(("file", "content", "says"), DATA, ids=shortened)
def test_a_data_file_that_is_damaged_is_named(
    file: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    name = Path(file).parts[0].removesuffix(".arrow")
    assert says in refused(lambda: sources.prepare(name, tmp_path), 2)


@pytest.mark.parametrize(("name", "says"), NAMES)
def test_data_that_cannot_be_had_is_told(name: str, says: str, tmp_path: Path) -> None:
    assert says in refused(lambda: sources.prepare(name, tmp_path), 2)


@pytest.mark.parametrize(("content", "says"), CHECKPOINTS, ids=shortened)
def test_a_checkpoint_that_is_damaged_is_no_fresh_start(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / checkpoint.FILE).write_bytes(content)
    assert says in refused(lambda: checkpoint.load(tmp_path), 1)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    torch.save({"state": Runs()}, tmp_path / checkpoint.FILE)
    assert "cannot be read" in refused(lambda: checkpoint.load(tmp_path), 1)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(("name", "content", "says"), RECORDS, ids=shortened)
def test_a_record_that_is_damaged_is_named(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    store = SweepStore(tmp_path)
    store.write_config(SweepConfig())
    store.write_profiles([rows.profile()])
    store.write_trials([rows.result(stage="search")])
    (tmp_path / name).write_bytes(content)
    assert says in refused(lambda: read_whole(store), 1)


def read_whole(store: SweepStore) -> None:
    store.read_config()
    store.read_environment()
    store.read_looks()
    store.read_profiles()
    store.read_trials()
    store.read_measurements()


@pytest.mark.parametrize(("take", "name", "text", "says"), MODULES, ids=shortened)
def test_a_users_module_that_cannot_be_used_is_told(
    take: Callable[[str], object], name: str, text: str, says: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    module = f"bad_{abs(hash((name, text)))}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    said = refused(lambda: take(name.replace("{m}", module)), 2)
    assert says.replace("{m}", module) in said


@pytest.mark.parametrize(("uri", "says"), URIS)
@pytest.mark.parametrize("given", ["flag", "environment"])
def test_a_tracking_store_that_cannot_be_had_is_told(
    uri: str, says: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    config = SweepConfig(tracking_uri=uri if given == "flag" else None, tracking_required=True)
    told = refused(lambda: reachable_uri(config, lambda _: None), 2)
    assert says in told and "secret" not in told


@pytest.mark.parametrize(("runs_dir", "says"), PLACES)
def test_a_place_that_cannot_keep_sweeps_is_refused(runs_dir: str, says: str) -> None:
    assert says in refused(lambda: SweepStore.open(runs_dir, "it").create(), 2)


WORDS = st.text(string.printable + "\x00\x1b²٣é", max_size=12)
VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.floats(), WORDS, st.dates(),
        st.sampled_from(["auto", "digits", "mlp", "time", "", "16,32", "nan", "1e400", "-0"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
KEYS = st.sampled_from(sorted(SweepConfig.__dataclass_fields__)) | WORDS
RECIPE_KEYS = st.sampled_from(sorted(Recipe.__dataclass_fields__))
FLAGS = sorted(
    "--" + name.replace("_", "-")
    for name, of in SweepConfig.__dataclass_fields__.items()
    if of.metadata.get("flag")
)
FREELY = settings(max_examples=TEXTS, deadline=None, suppress_health_check=list(HealthCheck))


@given(
    st.dictionaries(KEYS, VALUES, max_size=4)
    | st.fixed_dictionaries({"recipe": st.dictionaries(RECIPE_KEYS, VALUES, max_size=4)})
    | st.fixed_dictionaries({"space": st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES)})
)
@example({"scaling_rules": [[]]})
@example({"scaling_rules": ["linear", 2]})
@FREELY
def test_no_settings_end_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    told_or_taken("--config", str(path))


@given(st.text(max_size=60) | st.binary(max_size=60))
@FREELY
def test_no_text_in_the_place_of_settings_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    told_or_taken("--config", str(path))


@given(st.lists(st.sampled_from(FLAGS) | WORDS | st.integers().map(str), max_size=6))
@FREELY
def test_no_flags_end_in_a_traceback(flags: list[str]) -> None:
    told_or_taken(*flags)


@given(st.binary(max_size=120) | st.text(max_size=120).map(lambda t: ("batch_size," + t).encode(
    "utf-8", "surrogatepass")))  # fmt: skip
@FREELY
def test_no_bytes_in_the_place_of_a_table_end_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    quiet(lambda: report.run(report.Options(table=path)))


@pytest.mark.parametrize("flag", ["\x1b", "--\x1b[31mname", "\x9b31m"])
def test_flags_that_would_steer_a_terminal_are_told_without_it(flag: str) -> None:
    told_or_taken(flag)


def told_or_taken(*arguments: str) -> None:
    """Only what is named `module:function` or `FILE.py:function` is imported, and none is here."""
    quiet(lambda: bool(preparing.configuration(parse(arguments))) and 0)


def quiet(action: Callable[[], int]) -> None:  # 2
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: object = exit_status(action)
        except SystemExit as end:
            status = end.code or 0
    assert status in (0, 2), err.getvalue()
    assert "Traceback" not in err.getvalue() and "\x1b" not in err.getvalue()
