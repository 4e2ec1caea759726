"""Tables as people have them, read as the runs that they are.

1. A table is accepted in one command, or refused as the user's with a remedy that runs as printed.
2. What was read as what is told, and how many runs are left out.
3. What is no seed is never taken for one.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tune_jobs.errors import UserError
from tune_jobs.reading.said import judgeable
from tune_jobs.reading.table_of_runs import Asked, TableOfRuns, runs_of_table
from tune_jobs.records import TargetRun


def read(
    tmp_path: Path, text: str | bytes, name: str = "t.csv", asked: Asked | None = None, **maps: str
) -> TableOfRuns:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return judgeable(runs_of_table(path, maps, asked))


def told(table: TableOfRuns) -> str:
    return "\n".join((*table.notes, *table.left_out, *table.said))


def by_size(table: TableOfRuns, name: str = "time_to_target_seconds") -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    for run in table.runs:
        found.setdefault(run.batch_size, []).append(getattr(run, name))
    return found


# Formats


def test_a_pandas_index_and_foreign_names_are_read(tmp_path: Path) -> None:
    table = read(tmp_path, ",BatchSize,Val Acc\n0,16,91.5\n1,32,92.5\n")
    assert by_size(table, "val_accuracy") == {16: [pytest.approx(0.915)], 32: [0.925]}
    assert table.goal == "accuracy"
    assert "'BatchSize' read as batch_size" in table.notes
    assert "t: val_accuracy read as per cent" in table.notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_semicolons_decimal_commas_and_encodings_of_spreadsheets(
    tmp_path: Path, encoding: str
) -> None:
    text = "bs;seed;time_to_target (min)\n16;0;1,5\n32;0;2,25\n"
    content = text.encode(encoding)
    table = read(tmp_path, b"\xfe\xff" + content if encoding == "utf-16-be" else content)
    assert by_size(table) == {16: [90], 32: [135]}
    assert "decimal commas read as points" in table.notes
    assert (
        "'time_to_target (min)' read as time_to_target_seconds, seconds (times 60)" in table.notes
    )


def test_comments_and_a_header_that_is_one(tmp_path: Path) -> None:
    plain = read(tmp_path, "# made by hand\nbs,ttt\n# small\n16,3\n32,4\n")
    assert by_size(plain) == {16: [3], 32: [4]}
    numpy = read(tmp_path, "# bs ttt\n16 3\n32 4\n")
    assert by_size(numpy) == {16: [3], 32: [4]}


def test_thousands_in_a_markdown_table(tmp_path: Path) -> None:
    text = "# Results\n\nAs run.\n\n| batch | [hours to 76 %](x) |\n|--:|:-:|\n| 8,192 | 1.5 |\n"
    table = read(tmp_path, text + "| **256** | 29 h |\n\nEnd.\n", "t.md")
    assert by_size(table) == {8192: [5400], 256: [104400]}


def test_repeats_in_columns_named_by_the_heading(tmp_path: Path) -> None:
    text = ("## Epochs to 90 % accuracy\n\n| size of batch | seed 1 | seed 2 |\n|---|---|---|\n"
            "| 4 | 8 | 9 |\n| 16 | 12 | did not converge within 20 |\n")  # fmt: skip
    table = read(tmp_path, text.replace("size of batch", "batch size"))
    assert by_size(table, "examples_to_target") == {4: [8, 9], 16: [12, None]}
    assert [run.seed for run in table.runs] == [1, 2, 1, 2]
    assert [run.examples_seen for run in table.runs] == [None, None, None, 20]
    assert {run.examples_unit for run in table.runs} == {"epochs"}
    assert [run.resolution for run in table.runs] == [1 / 8, 1 / 9, 1 / 12, None]


def test_quantities_in_rows_and_batch_sizes_in_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "batch size,16,64\naccuracy (%),91,92\ntime (min),30,20\n")
    assert by_size(table, "val_accuracy") == {16: [pytest.approx(0.91)], 64: [pytest.approx(0.92)]}
    assert by_size(table, "train_seconds") == {16: [1800], 64: [1200]}


def test_a_table_as_a_database_prints_it(tmp_path: Path) -> None:
    text = (
        " batch_size | seed | ttt \n------------+------+-----\n 16 | 0 | 4\n 32 | 0 | 3\n(2 rows)\n"
    )
    assert by_size(read(tmp_path, text)) == {16: [4], 32: [3]}


def test_rates_in_columns_and_sizes_in_k(tmp_path: Path) -> None:
    text = "batch_size,lr=0.1,lr=0.2\n1k,0.3,0.4\n2k,0.5,0.2\n"
    table = read(tmp_path, text, asked=Asked(mode="min"))
    assert by_size(table, "val_metric") == {1024: [0.3], 2048: [0.2]}
    assert by_size(table, "learning_rate") == {1024: [0.1], 2048: [0.2]}
    assert "k read as 1024" in table.notes
    tokens = "batch_size,final_loss\n64k,2.9\n0.5M,2.8\n"
    assert by_size(read(tmp_path, tokens), "val_metric") == {65536: [2.9], 524288: [2.8]}


def test_sizes_and_seeds_in_names(tmp_path: Path) -> None:
    text = "name,time_to_target\n" + "".join(
        f"net_bs_{b}_seed{s}_lr0.1,{b + s}\n" for b in (8, 16) for s in (1, 2)
    )
    table = read(tmp_path, text + "baseline,3\n")
    assert by_size(table) == {8: [9, 10], 16: [17, 18]}
    assert [run.seed for run in table.runs] == [1, 2, 1, 2]
    assert {run.learning_rate for run in table.runs} == {0.1}
    assert "1 of 5 rows have no batch size in their name (line 6)" in table.left_out


@pytest.mark.parametrize("cell", ["bs_32", "batch_size=32", "32", "32.0"])
def test_a_batch_size_inside_its_cell(tmp_path: Path, cell: str) -> None:
    assert set(by_size(read(tmp_path, f"batch_size,ttt\n{cell},3\n64,4\n"))) == {32, 64}


# Exports


def test_a_wandb_export_leaves_out_what_crashed(tmp_path: Path) -> None:
    text = '"Name","State","Created","Runtime","batch_size","val_acc"\n' + "".join(
        f'"run-{n}","{"crashed" if n == 2 else "finished"}","2026-01-0{n + 1}","{9 + n}",'
        f'"{16 * (1 + n % 2)}","0.9{n}"\n'
        for n in range(6)
    )
    table = read(tmp_path, text)
    assert by_size(table, "val_accuracy") == {16: [0.90, 0.94], 32: [0.91, 0.93, 0.95]}
    assert table.left_out == ("1 of 6 runs left out: crashed (line 4)",)


def test_a_wandb_chart_has_a_curve_in_each_column(tmp_path: Path) -> None:
    head = "Step,bs32 - val_loss,bs32 - val_loss__MIN,bs64 - val_loss,bs64 - val_loss__MIN\n"
    body = "".join(f"{n},{2 / n},0,{3 / n},0\n" for n in range(1, 6))
    table = read(tmp_path, head + body, asked=Asked(target=1.0))
    assert by_size(table, "updates_to_target") == {32: [2], 64: [3]}
    assert by_size(table, "examples_to_target") == {32: [64], 64: [192]}


def test_an_optuna_study_asks_for_the_direction_of_its_value(tmp_path: Path) -> None:
    text = ",number,value,duration,params_batch_size,params_lr,state\n" + "".join(
        f"{n},{n},0.9{n},0 days 00:12:0{n}.5,{32 * (1 + n % 2)},0.0{n + 1},"
        f"{'PRUNED' if n == 5 else 'COMPLETE'}\n"
        for n in range(6)
    )
    with pytest.raises(UserError, match="--mode max"):
        read(tmp_path, text)
    table = read(tmp_path, text, asked=Asked(mode="max"))
    assert by_size(table, "val_metric") == {32: [0.94], 64: [0.93]}
    assert len(table.searched) == 5
    assert "chosen by the very runs that are judged" in told(table)
    assert "1 of 6 runs left out: value: PRUNED (line 7)" in table.left_out


def test_an_mlflow_export(tmp_path: Path) -> None:
    text = "run_id,status,start_time,metrics.val_loss,params.batch_size,tags.mlflow.runName\n"
    rows = ["a,FINISHED,2026-01-01,0.3,16,x", "b,FAILED,2026-01-01,,16,y",
            "c,FINISHED,2026-01-01,0.4,32,z"]  # fmt: skip
    table = read(tmp_path, text + "\n".join(rows) + "\n")
    assert by_size(table, "val_metric") == {16: [0.3], 32: [0.4]}
    assert {run.mode for run in table.runs} == {"min"}
    assert "1 of 3 runs left out: FAILED (line 3)" in table.left_out


# What a row is


def epochs(sizes: tuple[int, ...] = (32, 64), first: int = 1, times: str = "10") -> str:
    """Accuracy 1 - 1/epoch, at 64 a tenth less."""
    return "batch_size,epoch,val_accuracy,time\n" + "".join(
        f"{b},{n},{(1 - 1 / (n - first + 1)) * (1 if b == 32 else 0.9)},{times.format(n=n)}\n"
        for b in sizes
        for n in range(first, first + 10)
    )


def test_a_row_an_epoch_is_a_curve_and_crosses_a_target(tmp_path: Path) -> None:
    table = read(tmp_path, epochs(), asked=Asked(target=0.79))
    assert by_size(table, "examples_to_target") == {32: [5], 64: [9]}
    assert by_size(table) == {32: [50], 64: [90]}
    assert [run.resolution for run in table.runs] == [pytest.approx(1 / 5), pytest.approx(1 / 9)]
    assert "20 points of 2 runs at 2 batch sizes" in told(table)
    assert "'time' does not rise: seconds of each point" in told(table)


def test_time_that_rises_is_that_since_the_beginning(tmp_path: Path) -> None:
    table = read(tmp_path, epochs(times="{n}1"), asked=Asked(target=0.79))
    assert by_size(table) == {32: [51], 64: [91]}


def test_epochs_of_keras_are_counted_from_zero(tmp_path: Path) -> None:
    table = read(tmp_path, epochs(first=0), asked=Asked(target=0.79))
    assert by_size(table, "examples_to_target") == {32: [5], 64: [9]}


def test_curves_without_a_target_are_judged_at_their_end(tmp_path: Path) -> None:
    table = read(tmp_path, epochs())
    assert by_size(table, "val_accuracy") == {32: [0.9], 64: [pytest.approx(0.81)]}
    assert by_size(table, "train_seconds") == {32: [100], 64: [100]}
    assert "no target is named" in told(table)
    assert "--target" in told(table)


def test_where_epochs_begin_again_a_further_run_begins(tmp_path: Path) -> None:
    text = epochs() + epochs().split("\n", 1)[1]
    table = read(tmp_path, text, asked=Asked(target=79))
    assert by_size(table, "examples_to_target") == {32: [5, 5], 64: [9, 9]}
    assert {run.target for run in table.runs} == {0.79}


def test_a_target_that_no_curve_reached_is_told(tmp_path: Path) -> None:
    table = read(tmp_path, epochs(), asked=Asked(target=0.99))
    assert {run.time_to_target_seconds for run in table.runs} == {None}
    assert {run.train_seconds for run in table.runs} == {100}
    assert "no run reached 0.99: the best is 0.9, at batch size 32" in told(table)


def test_what_can_be_read_both_ways_is_asked_for(tmp_path: Path) -> None:
    text = "batch_size,epochs,accuracy\n32,5,.9\n32,10,.95\n64,5,.88\n64,10,.94\n"
    with pytest.raises(UserError, match="--rows run or --rows point"):
        read(tmp_path, text)
    points = read(tmp_path, text, asked=Asked(rows="point"))
    assert by_size(points, "val_accuracy") == {32: [0.95], 64: [0.94]}
    runs = read(tmp_path, text, asked=Asked(rows="run"))
    assert {run.workload for run in runs.runs} == {"t: epochs 5", "t: epochs 10"}


def test_tensorboard_points_count_from_one_step_before_the_first(tmp_path: Path) -> None:
    text = "Run,Wall time,Step,Value\n" + "".join(
        f"bs{b}_seed{s}/eval,{1.7e9 + 1e5 * s + b * n},{100 * n},{10 * n - b / 8}\n"
        for b in (8, 16) for s in (1, 2) for n in range(1, 9)
    )  # fmt: skip
    table = read(tmp_path, text, asked=Asked(target=45))
    assert by_size(table) == {8: [40, 40], 16: [80, 80]}
    assert by_size(table, "updates_to_target") == {8: [500, 500], 16: [500, 500]}
    assert [run.seed for run in table.runs] == [1, 2, 1, 2]


def test_rows_between_evaluations_are_no_points_and_a_rate_may_follow_a_schedule(
    tmp_path: Path,
) -> None:
    text = "bs,seed,epoch,lr,val_loss\n" + "".join(
        f"{b},{s},{n},{0.1 * 0.9**n:.5f},\n{b},{s},{n},{0.1 * 0.9**n:.5f},{1 / n + b / 100}\n"
        for b in (16, 32) for s in (0, 1) for n in range(1, 9)
    )  # fmt: skip
    table = read(tmp_path, text, asked=Asked(target=0.5))
    assert by_size(table, "examples_to_target") == {16: [3, 3], 32: [6, 6]}
    assert {run.learning_rate for run in table.runs} == {0.09}
    assert "32 rows without 'val_loss' are no points" in told(table)


# What is no seed


def test_settings_are_judged_apart_and_repeats_are_unpaired(tmp_path: Path) -> None:
    text = "bs,opt,f1\n" + "".join(
        f"{b},{o},{0.8 + b / 1000}\n" for b in (16, 32) for o in ("sgd", "adam", "lion")
    )
    table = read(tmp_path, text)
    assert {run.workload for run in table.runs} == {"t: opt sgd", "t: opt adam", "t: opt lion"}
    assert "'opt' differs (sgd, adam, lion): no seeds, each is judged apart" in table.notes
    repeats = read(tmp_path, "bs,run,ttt\n16,1,3\n16,2,4\n32,1,5\n32,2,6\n")
    assert {run.seed for run in repeats.runs} == {None}
    assert "some runs name no seed: runs are not compared in pairs" in repeats.notes


def test_measured_words_and_names_of_runs_are_no_settings(tmp_path: Path) -> None:
    text = "bs,seed,ttt,temperature,logdir\n" + "".join(
        f"{b},{s},{b + s},{70 + (b * 7 + s * 3) % 5},runs/{b}-{s}\n"
        for b in (16, 32)
        for s in range(4)
    )
    table = read(tmp_path, text)
    assert {run.workload for run in table.runs} == {"t"}
    assert "columns not read: temperature, logdir" in table.notes


def test_devices_are_not_mixed_and_those_with_one_size_are_left_out(tmp_path: Path) -> None:
    text = "gpu,num_gpus,batch,seed,ttt\n" + "".join(
        f"{g},{n},{b},{s},{b / n + s}\n"
        for g, n, b in (("A", 1, 16), ("A", 1, 32), ("A", 4, 64), ("B", 1, 16))
        for s in (0, 1)
    )
    table = read(tmp_path, text)
    assert {run.workload for run in table.runs} == {"t: gpu A, num_gpus 1"}
    assert {run.device for run in table.runs} == {"A, num_gpus 1"}
    (line,) = table.left_out
    assert line.startswith("4 of 8 runs left out: no second batch size")
    assert "--map per_device_batch_size=batch" in told(table)
    each = read(tmp_path, text, per_device_batch_size="batch")
    assert {run.batch_size for run in each.runs} == {16, 32}


def test_sizes_that_each_ran_elsewhere_get_a_sentence(tmp_path: Path) -> None:
    table = read(tmp_path, "hardware,batchSize,top1\n1 K80,64,94.2\n8 V100,2048,94.1\n")
    assert table.runs == ()
    assert table.said[0].startswith("No batch sizes can be compared")


def test_aborted_runs_are_censored_where_the_column_speaks_of_success(tmp_path: Path) -> None:
    text = "batch,status,minutes to target\n16,success,2\n16,failed,9\n32,success,3\n32,aborted,\n"
    table = read(tmp_path, text)
    assert by_size(table) == {16: [120, None], 32: [180, None]}
    assert by_size(table, "train_seconds") == {16: [None, 540], 32: [None, None]}
    assert table.left_out == ()


def test_a_column_of_endings_is_known_by_its_words(tmp_path: Path) -> None:
    text = "bs,result,epochs_to_95\n16,ok,5\n16,ok,6\n32,failed,\n32,ok,9\n64,OOM,\n64,OOM,\n"
    table = read(tmp_path, text)
    assert by_size(table, "examples_to_target") == {16: [5, 6], 32: [None, 9], 64: [None, None]}
    assert {run.workload for run in table.runs} == {"t"}


def test_equal_seeds_are_told_and_stay_and_twins_do_not(tmp_path: Path) -> None:
    text = "bs,seed,ttt\n16,1,3.5\n16,1,4.5\n16,2,4.1\n32,1,5.5\n32,1,5.5\n"
    table = read(tmp_path, text)
    assert by_size(table) == {16: [3.5, 4.5, 4.1], 32: [5.5]}
    assert by_size(table, "seed") == {16: [None, None, 2], 32: [1]}
    assert "2 runs of batch size 16 drew the seed 1" in told(table)
    assert "1 of 5 rows left out: they repeat another word for word (line 6)" in table.left_out


# Learning rates


def test_each_size_is_judged_at_its_best_rate_chosen_by_other_seeds(tmp_path: Path) -> None:
    """At 16 the rate 0.1 is the best of two seeds; what seed 2 had by luck at 0.2 is not taken."""
    text = "bs,lr,seed,ttt\n" + "".join(
        f"16,{lr},{s},{t}\n"
        for lr, times in ((0.1, (10, 11, 12)), (0.2, (20, 21, 2)))
        for s, t in enumerate(times)
    )
    text += "".join(
        f"32,{lr},{s},{30 * (1 + (lr != 0.4)) + s}\n" for lr in (0.2, 0.4) for s in (0, 1, 2)
    )
    table = read(tmp_path, text)
    assert by_size(table)[16][2] == 12
    assert by_size(table, "learning_rate") == {16: [0.1, 0.1, 0.1], 32: [0.4, 0.4, 0.4]} or (
        by_size(table, "learning_rate")[16][2] == 0.1
    )
    assert len(table.searched) == 12
    assert "each batch size is judged at its best learning rate" in told(table)
    assert "6 of 12 runs left out: at other learning rates" in told(table)


# What can be judged


def test_a_final_metric_shows_whole_trainings_times(tmp_path: Path) -> None:
    table = read(tmp_path, "bs,time,error (%)\n16,2h08m,6.1\n32,44m38s,6.2\n")
    assert by_size(table, "val_metric") == {16: [pytest.approx(0.061)], 32: [pytest.approx(0.062)]}
    assert {(run.metric, run.mode) for run in table.runs} == {("error", "min")}
    assert by_size(table, "train_seconds") == {16: [7680], 32: [2678]}
    assert by_size(table) == {16: [None], 32: [None]}
    assert "whole trainings took, shown and not judged: 16: 128 min; 32: 44.6 min" in told(table)


def test_throughput_alone_and_times_alone_get_a_sentence(tmp_path: Path) -> None:
    table = read(tmp_path, "bs,img/s,loss_after_200_steps\n16,100,5\n32,180,4\n64,OOM,\n")
    assert table.runs == ()
    assert "32 is the fastest, 180 examples/s, 80% over 16; 64: OOM" in table.said[0]
    assert "at equal updates" in table.said[0]
    times = read(tmp_path, "bs,training time\n16,0:12:30\n32,0:10:00\n")
    assert "--map 'time_to_target_seconds=training time'" in times.said[0]
    hint = shlex.split(times.said[0].partition("--map ")[2].rstrip("."))[0]
    ours, _, theirs = hint.partition("=")
    mapped = read(tmp_path, "bs,training time\n16,0:12:30\n32,0:10:00\n", **{ours: theirs})
    assert by_size(mapped) == {16: [750], 32: [600]}


def test_rows_that_tell_nothing_get_a_sentence(tmp_path: Path) -> None:
    assert "no row tells how fast" in read(tmp_path, "bs,img/s\n16,\n32,-\n").said[0]


def test_a_single_batch_size_gets_a_sentence(tmp_path: Path) -> None:
    table = read(tmp_path, "bs,ttt\n16,3\n16,4\n")
    assert table.runs == ()
    assert "all 2 runs are of batch size 16" in table.said[0]


def test_epochs_are_never_taken_for_seconds(tmp_path: Path) -> None:
    text = "bs,epochs\n16,3\n32,4\n"
    with pytest.raises(UserError, match="--map epochs_to_target=epochs"):
        read(tmp_path, text)
    with pytest.raises(UserError, match="counts epochs, which are no seconds"):
        read(tmp_path, text, time_to_target_seconds="epochs")
    assert by_size(read(tmp_path, text, epochs_to_target="epochs"), "examples_to_target") == {
        16: [3], 32: [4],
    }  # fmt: skip


def test_a_target_cannot_be_asked_of_final_metrics(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave --target out"):
        read(tmp_path, "bs,acc\n16,.9\n32,.8\n", asked=Asked(target=0.85))
    with pytest.raises(UserError, match="--goal accuracy"):
        read(tmp_path, "bs,acc\n16,.9\n32,.8\n", asked=Asked(goal="time"))


def test_per_cent_beside_fractions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 and line 3.*95.1 is per cent and 0.962"):
        read(tmp_path, "bs,val_acc\n16,95.1\n32,0.962\n")
    mixed = read(tmp_path, "bs,seed,acc\n16,0,93.1 %\n32,0,94.2%\n")
    assert by_size(mixed, "val_accuracy") == {
        16: [pytest.approx(0.931)],
        32: [pytest.approx(0.942)],
    }


def test_whole_epochs_are_known_to_one_epoch(tmp_path: Path) -> None:
    table = read(tmp_path, "bs,target_epoch,seconds_per_epoch\n8,4,90\n8,5,90\n16,4,80\n16,4,80\n")
    assert by_size(table) == {8: [360, 450], 16: [320, 320]}
    assert by_size(table, "resolution") == {8: [0.25, 0.2], 16: [0.25, 0.25]}


def test_values_on_a_grid_are_known_to_its_step(tmp_path: Path) -> None:
    text = "bs,examples_to_target\n" + "".join(
        f"{b},{n * 500}\n" for b in (8, 16) for n in (4, 4, 5, 4)
    )
    runs: tuple[TargetRun, ...] = read(tmp_path, text).runs
    assert [run.resolution for run in runs[:3]] == [0.25, 0.25, 0.2]


@pytest.mark.parametrize("name", ["test/acc", "val/loss", "eval/accuracy", "valid/f1"])
def test_a_trackers_groups_are_no_units(tmp_path: Path, name: str) -> None:
    text = f"Name,Runtime,{name}\nb16-s0,30,0.91\nb32-s0,20,0.92\n".replace("b", "bs")
    table = read(tmp_path, text)
    assert [run.val_metric for run in table.runs] == [0.91, 0.92]
    rate = read(tmp_path, "bs,seed,time_to_target,train/learning_rate,images/s\n16,0,3,0.1,400\n"
                          "32,0,4,0.1,500\n")  # fmt: skip
    assert [run.learning_rate for run in rate.runs] == [0.1, 0.1]
    assert [run.examples_per_second for run in rate.runs] == [400, 500]


def test_rows_that_sum_up_and_marks_of_footnotes_are_no_runs_and_no_numbers(tmp_path: Path) -> None:
    text = "bs,seed,minutes to 95%\n16,0,12.1\n16,1,11.8*\n32,0,8 †\nmean,,9.5\nStd.,,1\n"
    table = read(tmp_path, text)
    assert by_size(table) == {16: [726, pytest.approx(708)], 32: [480]}
    assert "2 of 5 rows left out, which sum others up (line 5, line 6)" in told(table)


LIST = '[{"config": {"batch_size": 16}, "seed": 0, "time_to_target": 3},\n {"seed": 1, '
LIST += '"config": {"batch_size": 32}, "time_to_target": 5.5, "tags": ["a"]}]'


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        '{"batch_size": 16, "time_to_target": 3}\n\n{"batch_size": 32, "time_to_target": 5.5}\n',
        '{"bs": [16, 32], "time_to_target": [3, 5.5]}',
        '{"bs": {"a": 16, "b": 32}, "time_to_target": {"a": 3, "b": 5.5}}',
    ],
)
def test_json_is_read_in_the_shapes_that_tools_write(tmp_path: Path, text: str) -> None:
    assert by_size(read(tmp_path, text, "t.json")) == {16: [3.0], 32: [5.5]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 3000, "line 1: not valid JSON: .*recursion"),
        ('{"batch_size": ' + "9" * 5000 + "}", r"line 1: not valid JSON: Exceeds the limit"),
        ('{"batch_size": 16}\n{"batch_size"}\n', "line 2: not valid JSON"),
        ("[1, 2]", "no list of objects"),
        ("[]", "no rows"),
    ],
)
def test_json_that_is_no_table_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(tmp_path, text, "t.json")


def test_quantities_in_rows_and_batch_sizes_as_powers_are_read(tmp_path: Path) -> None:
    wide = read(tmp_path, "metric,16,32\ntest accuracy,0.91,0.92\ntraining time (s),30,20\n")
    assert by_size(wide, "test_accuracy") == {16: [0.91], 32: [0.92]}
    powers = read(tmp_path, "batch size,seed,time to target (s)\n2^4,0,3\n2**5,0,4\n")
    assert by_size(powers) == {16: [3.0], 32: [4.0]}
    products = read(
        tmp_path,
        "batch size,seed,time to target (s)\n8x32,0,3\n16 \N{MULTIPLICATION SIGN} 32,0,4\n",
    )
    assert by_size(products) == {256: [3.0], 512: [4.0]}


def test_tokens_a_second_tell_how_long_tokens_to_a_target_took(tmp_path: Path) -> None:
    text = "bs,seed,tokens_to_loss,tokens/s\n32,1,1000,10\n32,2,1100,10\n64,1,1500,30\n64,2,,30\n"
    assert by_size(read(tmp_path, text), "time_to_target_seconds") == {
        32: [100.0, 110.0],
        64: [50.0, None],
    }
