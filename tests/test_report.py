"""report.py from its command line: tables with a planted truth, sweeps, MLflow, and bad input."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tune_jobs import report
from tune_jobs.config import SweepConfig, to_toml
from tune_jobs.store import SweepStore

ROOT = Path(__file__).resolve().parents[1]
SIZES = (16, 32, 64, 128, 256, 512)
FIRST, PER_EXAMPLE = 0.01, 0.0002  # seconds of an update: first + per example x batch size
REQUIRED = {
    "workload", "goal", "target", "status", "answer", "use", "tied_batch_sizes", "open_batch_sizes",
    "binding_limit", "reason", "critical_batch_size", "per_batch_size",
}  # fmt: skip


def seconds(size: int, critical: float, least_updates: float = 400) -> float:
    """The truth: updates by the hyperbola, times what an update costs."""
    return least_updates * (1 + critical / size) * (FIRST + PER_EXAMPLE * size)


def best(critical: float, sizes: Sequence[int] = SIZES) -> int:
    return min(sizes, key=lambda size: seconds(size, critical))


def simulated(
    workload: str,
    critical: float,
    *,
    seeds: int = 5,
    noise: float = 0.02,
    sizes: Sequence[int] = SIZES,
    budget: float = math.inf,
    target: float | str = "",
    least_updates: float = 400,
) -> list[dict[str, Any]]:
    """Rows of a table: log-normal around the truth, empty beyond the budget in seconds."""
    chance = random.Random(workload)
    table = []
    for size in sizes:
        for seed in range(seeds):
            took = seconds(size, critical, least_updates) * math.exp(chance.gauss(0, noise))
            table.append({
                "workload": workload, "batch_size": size, "seed": seed, "target": target,
                "time_to_target_seconds": took if took <= budget else "",
                "examples_per_second": size / (FIRST + PER_EXAMPLE * size),
                "peak_memory_mib": 400 + size, "train_seconds": max(took, 1) if budget == math.inf
                else budget, "test_accuracy": chance.uniform(0.9, 0.99),
            })  # fmt: skip
    return table


def six_workloads() -> list[dict[str, Any]]:
    return [
        *simulated("clear small", 20.0, noise=0.005),
        *simulated("clear large", 5000.0, noise=0.005),
        *simulated("two alike", 80.0, sizes=(32, 512, 128), noise=0.005),
        *simulated("one seed", 200.0, seeds=1),
        *simulated("never", 200.0, budget=1.0),
        *simulated("noisy", 60.0, seeds=2, noise=0.4),
    ]


def write_csv(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("table") / "six.csv", six_workloads())


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """report.py in this process: exit status, standard output, standard error."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        status = report.main()
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return called


def judged(run: Run, *arguments: object) -> list[dict[str, Any]]:
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    found: list[dict[str, Any]] = json.loads(out, parse_constant=lambda c: pytest.fail(c))
    return found


# Anyone's table


def test_six_workloads_get_the_verdicts_that_were_planted(run: Run, table: Path) -> None:
    verdicts = {v["workload"]: v for v in judged(run, "--table", table)}
    assert len(verdicts) == 6
    for verdict in verdicts.values():
        assert verdict.keys() >= REQUIRED
        assert verdict["goal"] == "time"
    small, large = verdicts["clear small"], verdicts["clear large"]
    for verdict, critical in ((small, 20.0), (large, 5000.0)):
        assert verdict["status"] in ("decided", "tied")
        chosen = verdict["use"]["batch_size"]
        assert seconds(chosen, critical) <= 1.05 * seconds(best(critical), critical)
        fit = verdict["critical_batch_size"]
        assert fit["low"] <= fit["value"] <= fit["high"]
        assert fit["value"] == pytest.approx(critical, rel=0.2)
    assert verdicts["one seed"]["status"] == "unproven"
    assert verdicts["noisy"]["status"] == "undecided"
    never = verdicts["never"]
    assert never["status"] == "unreached"
    assert never["critical_batch_size"] is None
    assert never["use"] is None and never["why_not"]
    for verdict in verdicts.values():
        assert verdict["reason"] and verdict["answer"]
        if verdict is not never:
            assert verdict["answer"].startswith(f"Use batch size {verdict['use']['batch_size']}")


def test_every_batch_size_is_listed_with_seeds_reached_and_interval(run: Run, table: Path) -> None:
    verdict = next(v for v in judged(run, "--table", table) if v["workload"] == "clear small")
    assert [r["batch_size"] for r in verdict["per_batch_size"]] == list(SIZES)
    for row in verdict["per_batch_size"]:
        assert (row["seeds"], row["reached"]) == (5, 5)
        assert row["low"] <= row["median"] <= row["high"]
        assert row["median"] == pytest.approx(seconds(row["batch_size"], 20.0), rel=0.05)


def test_test_accuracy_decides_nothing(run: Run, tmp_path: Path) -> None:
    plain = simulated("w", 100.0)
    planted = [row | {"test_accuracy": 0.999 if row["batch_size"] == 512 else 0.1} for row in plain]
    answers = []
    for name, rows_of in (("plain", plain), ("planted", planted)):
        verdict = judged(run, "--table", write_csv(tmp_path / f"{name}.csv", rows_of))[0]
        answers.append((verdict["status"], verdict["use"]))
    assert answers[0] == answers[1]


def test_each_target_is_judged_and_one_may_be_asked_for(run: Run, tmp_path: Path) -> None:
    easy = simulated("w", 20.0, target=0.9, least_updates=100)
    hard = simulated("w", 300.0, target=0.95)
    for row in easy:
        row["train_seconds"] = ""
    path = write_csv(tmp_path / "t.csv", easy + hard)
    assert [v["target"] for v in judged(run, "--table", path)] == [0.9, 0.95]
    only = judged(run, "--table", path, "--target", 0.95)
    assert [v["target"] for v in only] == [0.95]
    assert [a["target"] for a in only[0]["sensitivity"]] == [0.9, 0.95]
    status, _, err = run("--table", path, "--target", 0.97)
    assert status == 2
    assert "0.9, 0.95" in err


def test_a_target_may_be_named_for_a_table_that_names_none(run: Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", simulated("w", 100.0))
    assert [v["target"] for v in judged(run, "--table", path)] == [None]
    assert [v["target"] for v in judged(run, "--table", path, "--target", 0.95)] == [0.95]


def only_updates(tmp_path: Path) -> Path:
    head = "batch_size,seed,updates_to_target\n"
    body = "".join(
        f"{size},{seed},{400 * (1 + 100 / size) + seed}\n" for size in SIZES for seed in range(4)
    )
    path = tmp_path / "updates.csv"
    path.write_text(head + body)
    return path


def test_without_a_goal_the_best_quantity_that_is_there_is_judged(run: Run, tmp_path: Path) -> None:
    path = only_updates(tmp_path)
    verdict = judged(run, "--table", path)[0]
    assert (verdict["goal"], verdict["workload"]) == ("examples", "updates")
    assert verdict["use"]["batch_size"] == 16
    assert "judged on examples" in run("--table", path)[2]


@pytest.mark.parametrize(
    ("goal", "column"),
    [
        ("time", "time_to_target_seconds"),
        ("energy", "energy_joules"),
        ("memory", "peak_memory_mib"),
        ("accuracy", "val_accuracy"),
    ],
)
def test_a_goal_whose_column_is_missing_is_refused(
    run: Run, tmp_path: Path, goal: str, column: str
) -> None:
    status, out, err = run("--table", only_updates(tmp_path), "--goal", goal)
    assert (status, out) == (2, "")
    assert f"--goal {goal}" in err
    assert column in err
    assert "--goal examples" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to judge"),
        (("runs/x", "--table", "t.csv"), "two sources"),
        (("no/such/folder",), "holds no sweep.toml"),
        (("--table", "absent.csv"), "No such file"),
        (("--table", "TABLE", "--goal", "speed"), "'speed' is unknown"),
        (("--table", "TABLE", "--goal", "cost"), "--price-per-device-hour"),
        (("--table", "TABLE", "--confidence", 2), "confidence 2"),
        (("--table", "TABLE", "--tolerance", -1), "tolerance -1"),
        (("--table", "TABLE", "--map", "batch_size"), "must be OURS=THEIRS"),
        (("--table", "TABLE", "--map", "size=bs"), "'size' is unknown"),
        (("--table", "TABLE", "--map", "seed=sed"), "Did you mean 'seed'"),
        (("--table", "TABLE", "--html", "no/such/page.html"), "--html no/such/page.html"),
        (("--from-mlflow", "e", "--tracking-uri", "sqlite:///no/such.db"), "no such database"),
    ],
)
def test_what_is_asked_wrongly_ends_in_status_2_with_the_remedy(
    run: Run, table: Path, arguments: tuple[Any, ...], says: str
) -> None:
    status, _, err = run(*(table if a == "TABLE" else a for a in arguments))
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert says in err


def test_cost_is_judged_with_a_price(run: Run, table: Path) -> None:
    asked = ("--goal", "cost", "--price-per-device-hour", 2.5)
    verdict = next(
        v for v in judged(run, "--table", table, *asked) if v["workload"] == "clear small"
    )
    assert verdict["goal"] == "cost"
    assert verdict["use"] is not None


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_left_out_of_a_verdict_stands_below_it(run: Run, tmp_path: Path) -> None:
    text = "bs,seed,State,ttt\n" + "".join(
        f"{b},{s},{'crashed' if (b, s) == (16, 2) else 'finished'},{b + s}.5\n"
        for b in (16, 64) for s in range(4)
    )  # fmt: skip
    path = written(tmp_path / "t.csv", text)
    status, out, _ = run("--table", path)
    assert (status, out.count("1 of 8 runs left out: crashed (line 4)")) == (0, 1)
    status, out, _ = run("--table", path, "--json")
    (verdict,) = json.loads(out)
    assert "1 of 8 runs left out: crashed (line 4)" in verdict["left_out"][0]


def test_what_cannot_be_judged_gets_a_sentence_and_status_0(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "bs,img/s\n16,100\n64,300\n")
    status, out, _ = run("--table", path)
    assert status == 0
    assert out.startswith("t: throughput alone does not choose a batch size. 64 is the fastest")
    status, out, err = run("--table", path, "--json")
    assert json.loads(out) == []
    assert "throughput alone" in err


def test_how_a_table_is_read_may_be_said(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "bs,epochs,value\n16,5,3\n16,10,4\n64,5,3\n64,10,6\n")
    assert "--rows run or --rows point" in run("--table", path)[2]
    assert "--mode max" in run("--table", path, "--rows", "run")[2]
    status, _, err = run("--table", path, "--rows", "point", "--target", 4)
    assert status == 0
    assert "larger is better" in err
    assert run("--table", path, "--rows", "point", "--map", "metric=value", "--mode", "min")[0] == 0


# The terminal


def test_a_verdict_is_at_most_twelve_lines_and_a_table_of_at_most_100_columns(
    run: Run, table: Path
) -> None:
    status, out, _ = run("--table", table)
    assert status == 0
    assert "\x1b" not in out
    blocks = re.split(r"\n\n", out.strip())
    assert len(blocks) == 12  # six verdicts, six tables
    for verdict, below in zip(blocks[::2], blocks[1::2], strict=True):
        assert 2 <= len(verdict.splitlines()) <= 12
        assert "Use batch size" in verdict or "No batch size to use" in verdict
        assert "…" not in below
        assert len(below.splitlines()) in (5, 8)
    assert max(map(len, out.splitlines())) <= 100
    assert re.search(r"\d s \[[\d.]+, [\d.]+\]", out)


def test_help_documents_the_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("time_to_target_seconds", "peak_memory_mib", "--map", "--from-mlflow"):
        assert word in out


def test_a_table_is_judged_without_torch_ray_or_mlflow(table: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['report.py', '--table', {str(table)!r}, '--json']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'tune_jobs' / 'report.py')!r}, run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    loaded = {'torch', 'ray', 'mlflow', 'matplotlib'} & set(sys.modules)\n"
        "    sys.exit(ended.code or (f'loaded {loaded}' if loaded else 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 6


def test_the_page_is_one_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    table = write_csv(tmp_path / "one.csv", simulated("clear small", 15.0, sizes=(16, 64, 256)))
    page = tmp_path / "page" / "page.html"
    status, _, err = run("--table", table, "--html", page)
    assert status == 0, err
    text = page.read_text()
    assert "clear small" in text
    assert not re.search(r"(src|href)=[\"']https?:", text)
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("unit", ["epochs", "tokens"])
def test_what_is_no_example_is_called_what_it_is(run: Run, tmp_path: Path, unit: str) -> None:
    took = [(8, 3), (8, 4), (8, 3), (32, 9), (32, 8), (32, 9)]
    of = [{"batch_size": size, f"{unit}_to_loss": count} for size, count in took]
    status, out, _ = run("--table", write_csv(tmp_path / "taken.csv", of))
    assert status == 0
    out = " ".join(out.split())
    assert f"expected to be the fewest {unit}" in out and f"as many {unit}" in out
    assert out.count("examples") == 1 and f"batch {unit}" in out  # the goal of that name


# A sweep's folder


def sweep_folder(folder: Path, *, confirmed: bool, seeds: int = 4) -> SweepStore:
    """What a sweep leaves behind: accuracy rises with examples, the sooner the smaller B is."""
    folder.mkdir()
    store = SweepStore(folder)
    config = SweepConfig(name="first", target=0.9, batch_sizes=(16, 64, 256), trials=6)
    store.write_text(store.config, to_toml(config))
    chance = random.Random(0)
    trials, curves = [], []
    for size in config.batch_sizes:
        stages = [("search", 0)] + [("confirm", s) for s in range(seeds)] * confirmed
        for stage, seed in stages:
            needed = round(2000 * (1 + size / 60) * math.exp(chance.gauss(0, 0.02)))
            rate = size / (FIRST + PER_EXAMPLE * size)
            name = f"{stage}-{size}-{seed}"
            trials.append(rows.result(
                trial_id=name, stage=stage, sweep="first", batch_size=size, seed=seed,
                budget_examples=12288, examples_seen=12288, updates=12288 // size,
                examples_to_target=needed, updates_to_target=needed // size,
                time_to_target_seconds=needed / rate, train_seconds=12288 / rate,
                examples_per_second=rate, target=0.9,
            ))  # fmt: skip
            for seen in (256, 512, 1024, 2048, 4096, 12288):
                accuracy = 1 - 0.1 * (needed / seen) ** 0.8 if seen > needed / 9 else 0.1
                curves.append(rows.measurement(
                    trial_id=name, stage=stage, batch_size=size, examples_seen=seen,
                    updates=max(1, seen // size), val_accuracy=max(0.1, accuracy),
                ))  # fmt: skip
    store.write_trials(trials)
    store.write_measurements(curves)
    return store


def test_a_finished_sweeps_verdict_and_page_are_rebuilt_from_its_folder(
    run: Run, tmp_path: Path
) -> None:
    store = sweep_folder(tmp_path / "first", confirmed=True)
    verdicts = judged(run, store.folder)
    assert json.loads(store.verdict.read_text()) == verdicts
    (verdict,) = verdicts
    assert (verdict["target"], verdict["workload"]) == (0.9, "simple_cnn on mnist")
    assert verdict["status"] in ("decided", "tied")
    assert len(verdict["sensitivity"]) >= 5
    assert (store.folder / "report.html").exists()
    before = store.verdict.read_text()
    assert run(store.folder)[0] == 0
    assert store.verdict.read_text() == before


def test_a_sweep_asked_in_another_way_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    store = sweep_folder(tmp_path / "first", confirmed=True)
    (by_examples,) = judged(run, store.folder, "--goal", "examples")
    assert by_examples["use"]["batch_size"] == 16
    (at_another,) = judged(run, store.folder, "--target", 0.85)
    assert at_another["target"] == 0.85
    assert not store.verdict.exists()
    assert not (store.folder / "report.html").exists()


def test_an_interrupted_sweep_is_unproven_and_says_so(run: Run, tmp_path: Path) -> None:
    store = sweep_folder(tmp_path / "first", confirmed=False)
    (verdict,) = judged(run, store.folder)
    assert verdict["status"] == "unproven" and "unproven" in verdict["answer"]
    assert any("without confirm runs" in told for told in verdict["left_out"])
    assert "without confirm runs" in run(store.folder)[1]


def test_a_sweep_without_any_trial_says_how_to_go_on(run: Run, tmp_path: Path) -> None:
    store = sweep_folder(tmp_path / "first", confirmed=False)
    store.write_trials([])
    status, _, err = run(store.folder)
    assert status == 2
    assert "--resume --name first" in err


# An MLflow experiment


def test_an_mlflow_experiment_gets_the_verdict_of_the_same_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("w")
    table = simulated("w", 60.0, seeds=3, sizes=(16, 64, 256))
    for row in table:
        one = client.create_run(experiment)
        client.log_param(one.info.run_id, "bs", row["batch_size"])
        client.log_param(one.info.run_id, "seed", row["seed"])
        client.log_metric(one.info.run_id, "ttt", row["time_to_target_seconds"])
        client.log_metric(one.info.run_id, "peak_memory_mib", row["peak_memory_mib"])
        client.set_terminated(one.info.run_id)
    names = ("--map", "batch_size=params.bs", "--map", "time_to_target_seconds=metrics.ttt")
    (found,) = judged(run, "--from-mlflow", "w", "--tracking-uri", uri, *names)
    keep = ("workload", "batch_size", "seed", "time_to_target_seconds", "peak_memory_mib")
    path = write_csv(tmp_path / "w.csv", [{k: row[k] for k in keep} for row in table])
    (same,) = judged(run, "--table", path)
    assert found == same
    status, _, err = run("--from-mlflow", "w", "--tracking-uri", uri)
    assert status == 2
    assert "lacks the column batch_size" in err
    assert "params.bs" in err
