"""Data by its place: folders of images, Parquet, what `datasets` saved; and what is wrong with it.

1. What is at the place is what is trained on, to the last pixel and digit.
2. It is decoded once, and anew once it has changed.
3. Metric, direction, validation and batch sizes follow the data; the target is asked for.
4. What cannot be trained on is told in one message, by name, before anything starts.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from tests.test_sweep import QUICKLY, run
from tests.trained import CPU
from tune_jobs import preparing
from tune_jobs.command_line import parse
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.data.dataset import Dataset, open_dataset
from tune_jobs.data.examples import splits_of
from tune_jobs.data.sources import prepare
from tune_jobs.data.tables import Table
from tune_jobs.errors import UserError
from tune_jobs.store import SweepStore
from tune_jobs.training.loop import RunSettings, TrainingRun
from tune_jobs.workload_source import source_of

ROOT = Path(__file__).resolve().parents[1]


def images_in(folder: Path, classes: dict[str, int], shape: tuple[int, ...] = (6, 5)) -> None:
    """So many random images for each class."""
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n}.png")


def table_in(path: Path, **columns: Any) -> str:
    """20 rows of x, and whatever else."""
    rows: dict[str, Any] = {"x": np.arange(20.0), "y": np.arange(20.0) ** 2}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**rows, **columns}), path)
    return f"parquet:{path}?label=y"


def scikit_table(load: Callable[..., Any], path: Path) -> str:
    frame = load(as_frame=True).frame
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return f"parquet:{path}?label=target"


def opened(name: str, folder: Path, **arguments: Any) -> Any:
    return open_dataset(prepare(name, folder / "data", arguments))


def asked(folder: Path, *arguments: str) -> SweepConfig:
    """The configuration of a command line."""
    return preparing.configuration(parse(["--data-dir", str(folder / "data"), *arguments]))


def told(folder: Path, *arguments: str) -> str:
    with pytest.raises(UserError) as found:
        asked(folder, *arguments)
    return str(found.value)


# Images.


@pytest.mark.parametrize("sub", ["", "train"])
def test_a_folder_of_images_holds_each_of_them_under_its_class(tmp_path: Path, sub: str) -> None:
    place = tmp_path / "my images"  # 1, with a blank in its path
    images_in(place / sub, {"cat": 3, "dog": 2})
    dataset = opened(f"folder:{place}", tmp_path)
    assert isinstance(dataset, Dataset) and dataset.test is None and dataset.validation is None
    assert dataset.train.images.shape == (5, 1, 6, 5)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    wanted = np.asarray(Image.open(place / sub / "dog" / "1.png"))
    assert np.array_equal(dataset.train.images[4, 0], wanted)


def test_splits_of_a_folder_are_its_own_and_colour_stays(tmp_path: Path) -> None:  # 1
    for title, count in (("train", 8), ("val", 3), ("test", 2)):
        images_in(tmp_path / "images" / title, {"a": count, "b": count}, (4, 6, 3))
    dataset = opened(f"folder:{tmp_path}/images", tmp_path)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [16, 6, 4]
    assert dataset.train.images.shape[1:] == (3, 4, 6)
    config = asked(tmp_path, "--data", f"folder:{tmp_path}/images", "--target", "0.99",
                   "--model", "mlp", "--batch-sizes", "16")  # fmt: skip
    path = preparing.data(config)
    known = preparing.data_facts(config, path, SweepStore(tmp_path / "runs" / "it"))
    assert (config.validation_examples, known["train_examples"]) == (6, 16)


def test_images_of_unequal_size_are_fitted_where_a_size_is_given(tmp_path: Path) -> None:
    images_in(tmp_path / "images", {"a": 3, "b": 3})
    images_in(tmp_path / "images", {"c": 1}, (9, 8))
    dataset = opened(f"folder:{tmp_path}/images?size=5x6", tmp_path)
    assert dataset.train.images.shape == (7, 1, 6, 5)
    assert opened(f"folder:{tmp_path}/images", tmp_path, size=4).train.images.shape[2:] == (4, 4)


def test_what_is_at_a_place_is_decoded_once_and_anew_when_it_has_changed(tmp_path: Path) -> None:
    images_in(tmp_path / "images", {"a": 2, "b": 2})  # 2
    name, data = f"folder:{tmp_path}/images", tmp_path / "data"
    first = prepare(name, data)
    before = first.stat().st_mtime_ns
    assert prepare(name, data) == first and first.stat().st_mtime_ns == before
    images_in(tmp_path / "images", {"b": 3})
    assert len(open_dataset(prepare(name, data)).train) == 5


# Tables.


def test_a_table_is_standardised_by_its_train_split(tmp_path: Path) -> None:  # 1
    place = tmp_path / "parts"
    table_in(place / "train.parquet", n=[7] * 20)
    table_in(place / "test.parquet", n=[8] * 20, y=np.arange(20.0))
    table = opened(f"parquet:{place}?label=y", tmp_path)
    assert isinstance(table, Table) and table.classes is None and table.test is not None
    x, y = np.arange(20.0), np.arange(20.0) ** 2
    np.testing.assert_allclose(table.train.features[:, 0], (x - x.mean()) / x.std(), rtol=1e-6)
    np.testing.assert_allclose(table.train.labels, (y - y.mean()) / y.std(), rtol=1e-5)
    np.testing.assert_allclose(table.test.labels, (x - y.mean()) / y.std(), rtol=1e-5)
    assert table.train.features[:, 1].tolist() == [0] * 20  # a column that is constant
    assert table.label_std == pytest.approx(y.std())


@pytest.mark.parametrize(
    ("labels", "arguments", "classes"),
    [
        (["a", "b"] * 10, {}, 2),
        ([True, False] * 10, {}, 2),
        ([3, 1, 7, 1] * 5, {}, 3),
        ([3, 1, 7, 1] * 5, {"task": "regression"}, None),
        (range(20), {"task": "regression"}, None),
        (np.arange(20) % 2 / 2, {}, None),
        (np.arange(20) % 2 / 2, {"task": "classification"}, 2),
        (pa.array(["a", "b"] * 10).dictionary_encode(), {}, 2),
    ],
)
def test_the_label_says_whether_classes_are_told_or_a_number(
    labels: Any, arguments: Any, classes: int | None, tmp_path: Path
) -> None:  # 3
    table = opened(table_in(tmp_path / "t.parquet", y=labels), tmp_path, **arguments)
    assert table.classes == classes
    assert table.train.labels.dtype == (np.float32 if classes is None else np.int64)


def test_many_integers_are_no_classes(tmp_path: Path) -> None:  # 3
    columns = {"x": np.arange(50.0), "y": np.arange(50)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert opened(f"parquet:{tmp_path}/t.parquet?label=y", tmp_path).classes is None


def test_columns_that_are_dropped_are_no_features(tmp_path: Path) -> None:
    name = table_in(tmp_path / "t.parquet", town=["a"] * 20, z=[None] * 20)
    assert opened(f"{name}&drop=town,z", tmp_path).train.features.shape == (20, 1)
    assert opened(name, tmp_path, drop=["town", "z"]).train.features.shape == (20, 1)


def test_the_index_of_a_frame_is_no_feature(tmp_path: Path) -> None:
    frame = load_diabetes(as_frame=True).frame.sort_values("target")
    frame.to_parquet(tmp_path / "t.parquet")
    assert "__index_level_0__" in pq.read_table(tmp_path / "t.parquet").column_names
    table = opened(f"parquet:{tmp_path}/t.parquet?label=target", tmp_path)
    assert table.train.features.shape == (442, 10)


def test_columns_and_paths_may_have_any_signs(tmp_path: Path) -> None:
    table = pa.table({"a b/c&d": np.arange(20.0), "x": np.arange(20.0)})
    pq.write_table(table, tmp_path / "what? x=1.parquet")
    name = f"parquet:{tmp_path}/what? x=1.parquet"
    assert len(opened(f"{name}?label=a b/c%26d", tmp_path).train) == 20
    assert len(opened(name, tmp_path, label="a b/c&d").train) == 20


def test_a_regression_is_judged_in_the_unit_of_its_label(tmp_path: Path) -> None:  # 1, 3
    name = scikit_table(load_diabetes, tmp_path / "d.parquet")
    config = asked(tmp_path, "--data", name, "--target", "60")
    assert (config.model, config.metric, config.mode) == ("mlp", "rmse", "min")
    assert (config.validation_examples, config.batch_sizes) == (88, (16, 32, 64, 128))
    workload = source_of(config, preparing.data(config)).open()
    splits = splits_of(workload, 88, 0, CPU)
    run = TrainingRun(RunSettings(32, 32, 3e-3, "adam", 0, 3000, 0.0), workload, splits, CPU)
    while not run.advance().done:
        pass
    inputs, _ = splits.validation.examples.fetch(splits.validation.indices)
    raw = load_diabetes().target
    output = run.model(inputs).detach().numpy()[:, 0] * raw.std() + raw.mean()
    wanted = math.sqrt(np.mean((output - raw[splits.validation.indices]) ** 2))
    assert run.evaluate(run.validation).metric == pytest.approx(wanted, rel=1e-4)
    assert wanted < 62


def test_what_suits_data_of_ones_own_follows_it_and_a_target_is_asked_for(tmp_path: Path) -> None:
    name = scikit_table(load_breast_cancer, tmp_path / "c.parquet")  # 3
    assert "names no target; give --target, a validation accuracy" in told(tmp_path, "--data", name)
    assert "untrained it has 0." in told(tmp_path, "--data", name)
    config = asked(tmp_path, "--data", name, "--target", "0.95")
    assert (config.metric, config.mode, config.validation_examples) == ("accuracy", "max", 113)


def test_arguments_may_stand_in_the_toml(tmp_path: Path) -> None:
    name = table_in(tmp_path / "t.parquet").partition("?")[0]
    file = tmp_path / "t.toml"
    file.write_text(f'data = "{name}"\ntarget = 20\n[data_arguments]\nlabel = "y"\n')
    config = asked(tmp_path, "--config", str(file), "--batch-sizes", "8")
    assert config.metric == "rmse" and config.data_arguments == {"label": "y"}
    assert preparing.data(config) is not None


# What `datasets` saves, where it is installed.


def test_what_datasets_saved_is_read_as_images_or_as_a_table(tmp_path: Path) -> None:  # 1
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 5)).astype(np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = {"image": [Image.fromarray(p) for p in pixels], "label": [0, 1] * 6}
    parts = datasets.DatasetDict(
        {t: datasets.Dataset.from_dict(rows, features=features) for t in ("train", "test")}
    )
    parts.save_to_disk(str(tmp_path / "images"))
    images = opened(f"hf:{tmp_path}/images", tmp_path)
    assert np.array_equal(images.train.images[:, 0], pixels) and len(images.test) == 12
    columns = {"x": np.arange(20.0), "y": np.arange(20.0) ** 2}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "table"))
    assert opened(f"hf:{tmp_path}/table?label=y", tmp_path).train.features.shape == (20, 1)
    with pytest.raises(UserError, match="no data set that datasets' save_to_disk wrote"):
        opened(f"hf:{tmp_path}", tmp_path)


def test_datasets_that_is_not_installed_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in told(tmp_path, "--data", f"hf:{tmp_path}")  # 4


# What is wrong.

GONE = [None, float("nan"), float("inf")] + [1.0] * 17
BAD_TABLES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "lable=x", "argument 'lable' is unknown; known: drop, label, task"),
    ({}, "label=z", "column 'z' is unknown; known: x, y"),
    ({}, "label=y&drop=x", "no column is left for features"),
    ({}, "label=y&task=ranking", "task 'ranking' is unknown"),
    ({"y": [3] * 20}, "label=y", "the label 'y' is 3 in all 20 rows of train"),
    ({"y": list("abcdefghijklmnopqrst")}, "label=y", "takes 20 values in 20 rows"),
    ({"town": ["a"] * 20}, "label=y", "1 columns are not numeric: 'town' (string); make"),
    ({"z": GONE}, "label=y", "1 columns have missing or infinite values in 20 rows: 'z' (3)"),
    ({"y": GONE}, "label=y", "'y' (3)"),
    (
        {"y": ["a", "b"] * 10},
        "label=y&task=regression",
        "the label 'y' is not numeric in every split",
    ),
    ({"y": [[1.0]] * 20}, "label=y", "is list"),
]


@pytest.mark.parametrize(("columns", "arguments", "words"), BAD_TABLES)
def test_a_table_that_cannot_be_trained_on_is_told(
    columns: Any, arguments: str, words: str, tmp_path: Path
) -> None:  # 4
    name = table_in(tmp_path / "t.parquet", **columns).partition("?")[0]
    assert words in told(tmp_path, "--data", f"{name}?{arguments}", "--target", "0.9")


def test_a_label_that_is_not_named_is_asked_for_with_the_columns(tmp_path: Path) -> None:  # 4
    name = table_in(tmp_path / "t.parquet").partition("?")[0]
    said = told(tmp_path, "--data", name)
    assert "which column is the label?" in said and "its columns: x, y" in said


def test_splits_that_do_not_fit_each_other_are_told(tmp_path: Path) -> None:  # 4
    place = tmp_path / "parts"
    table_in(place / "train.parquet", y=["a", "b"] * 10)
    table_in(place / "test.parquet", y=["a", "c"] * 10)
    assert "test has the label 'c'" in told(tmp_path, "--data", f"parquet:{place}?label=y")
    table_in(place / "train.parquet")
    assert "not numeric in every split" in told(tmp_path, "--data", f"parquet:{place}?label=y")
    pq.write_table(pa.table({"y": ["a", "b"] * 10}), place / "test.parquet")
    assert "the column 'x' of train is not there" in told(
        tmp_path, "--data", f"parquet:{place}?label=y"
    )


def test_a_table_of_few_rows_and_a_file_of_another_kind_are_told(tmp_path: Path) -> None:  # 4
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]}), tmp_path / "few.parquet")
    said = told(tmp_path, "--data", f"parquet:{tmp_path}/few.parquet?label=y")
    assert "2 rows; it needs at least 10" in said
    (tmp_path / "text.parquet").write_text("x,y\n1,2\n")
    said = told(tmp_path, "--data", f"parquet:{tmp_path}/text.parquet?label=y")
    assert "text.parquet cannot be read as Parquet" in said


def bad_folder(folder: Path, what: str) -> None:
    if what == "empty":
        folder.mkdir()
    elif what == "files":
        images_in(folder, {"": 3})
    elif what == "class":
        images_in(folder, {"a": 3, "b": 3, "nothing here": 0})
    elif what == "text":
        images_in(folder, {"a": 3, "b": 3})
        (folder / "b" / "notes.txt").write_text("no image")
    elif what == "cut":
        images_in(folder, {"a": 3, "b": 3}, (60, 50))
        file = folder / "b" / "1.png"
        file.write_bytes(file.read_bytes()[:1000])
    elif what == "size":
        images_in(folder, {"a": 3, "b": 3})
        images_in(folder, {"c": 1}, (9, 8))
    elif what == "few":
        images_in(folder, {"a": 2, "b": 2}, (8, 8))
    elif what == "16 bits":
        images_in(folder, {"a": 3, "b": 3})
        Image.fromarray(np.ones((6, 5), np.uint16)).save(folder / "a" / "0.png")
    elif what == "new class":
        images_in(folder / "train", {"a": 3, "b": 3})
        images_in(folder / "test", {"a": 3, "b": 3, "c": 3})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "there is no folder"),
        ("empty", "holds 0 folders; it needs one folder of images for each class"),
        ("files", "holds 0 folders"),
        ("class", "class 'nothing here' has no image in"),
        ("text", "notes.txt cannot be read as an image"),
        ("cut", "1.png cannot be read as an image"),
        ("size", "0.png has 8x9 pixels, 6 of 7 images have 5x6; let all be of one size, or have "
         "them scaled and cut to it with size=5x6"),
        ("new class", "has the class 'c', which train has not"),
        ("16 bits", "0.png has pixels of mode I;16, not of 8 bits; convert it"),
        ("few", "of 4 training examples a fifth is none"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_trained_on_is_told(
    what: str, words: str, tmp_path: Path
) -> None:  # 4
    bad_folder(tmp_path / "images", what)
    said = told(tmp_path, "--data", f"folder:{tmp_path}/images", "--target", "0.9")
    assert words in said and str(tmp_path / "images") in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder:", "names no path; write it as folder:PATH, parquet:PATH, hf:PATH"),
        ("folder:  ", "names no path"),
        ("foldr:x", "kind 'foldr' is unknown; known: folder, hf, parquet. Did you mean 'folder'?"),
        ("parquet:x?label", "there is no file"),
        ("parquet:x?label=", "'label=' is not of the form ARGUMENT=VALUE"),
        ("folder:x?size=big", "there is no folder"),
    ],
)
def test_a_place_that_is_not_written_as_one_is_told(name: str, words: str, tmp_path: Path) -> None:
    assert words in told(tmp_path, "--data", name, "--target", "0.9")  # 4


def test_a_size_that_is_none_is_told(tmp_path: Path) -> None:  # 4
    images_in(tmp_path / "images", {"a": 2, "b": 2})
    for size in ("big", "0", "5x", "x5", "-3", "5x0"):
        said = told(tmp_path, "--data", f"folder:{tmp_path}/images?size={size}")
        assert "is no size in pixels; write it as 64 or 64x48" in said


def test_images_that_do_not_fit_the_memory_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # 4
    images_in(tmp_path / "images", {"a": 2, "b": 2})
    monkeypatch.setattr("tune_jobs.data.folders.MOST_MEMORY", 1e-12)
    said = told(tmp_path, "--data", f"folder:{tmp_path}/images")
    assert "4 images of 5x6 take 0.0 GiB decoded" in said and "--workload" in said


def test_a_model_that_does_not_suit_the_data_is_told(tmp_path: Path) -> None:  # 4
    name = scikit_table(load_diabetes, tmp_path / "d.parquet")
    for model, words in (
        ("simple_cnn", "takes images (c, h, w) and tells classes"),
        ("simple_cn", "Did you mean 'simple_cnn'"),
        ("tests.test_models:a_model", "TypeError"),
    ):
        assert words in told(tmp_path, "--data", name, "--model", model, "--target", "60")


def too_many(input_shape: tuple[int, ...], classes: int) -> Any:
    from models.mlp import MLP

    return MLP(input_shape, classes + 3)


def test_a_last_layer_that_does_not_fit_the_classes_is_told_with_both_shapes(
    data_dir: Path,
) -> None:  # 4
    given = {"data": "digits", "model": "tests.test_named_data:too_many"}
    with pytest.raises(UserError, match=r"gives \(3, 13\), the data's classes ask for \(3, 10\)"):
        preparing.data(resolve(None, {**given, "data_dir": str(data_dir)}))


def test_what_is_wrong_ends_with_one_line_and_status_2(tmp_path: Path) -> None:  # 4
    entry = [sys.executable, str(ROOT / "tune_jobs" / "sweep.py")]
    done = subprocess.run(
        [*entry, "--data", "folder:no such", "--target", "1"], cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no folder") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Whole sweeps.


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_a_table_ends_in_an_answer(tmp_path: Path) -> None:
    name = scikit_table(load_wine, tmp_path / "wine.parquet")
    (tmp_path / "small.toml").write_text(QUICKLY)
    run(tmp_path, tmp_path / "data", "--config", "small.toml", "--data", name, "--target", "0.9",
        "--batch-sizes", "8,32", "--trials", "4", "--seeds", "2")  # fmt: skip
    store = SweepStore(tmp_path / "runs" / "it")
    (verdict,) = json.loads(store.read_text(store.verdict) or "")
    assert verdict["answer"].startswith("Use batch size")
    assert all(row.metric == "accuracy" for row in store.read_trials())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_digits_needs_nothing_but_their_name(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "small.toml").write_text(QUICKLY)
    run(tmp_path, data_dir, "--config", "small.toml", "--data", "digits", "--model", "mlp",
        "--seeds", "2")  # fmt: skip
    trials = SweepStore(tmp_path / "runs" / "it").read_trials()
    first = {t.batch_size: t.examples_to_target for t in trials if t.examples_to_target}
    assert len(first) > 3 and min(first.values()) > 9216 / 32
