"""What a cell says and what a column's name means, in the spellings that people use."""

from __future__ import annotations

import math

import pytest

from tune_jobs.reading import cells
from tune_jobs.reading.cells import SECONDS, Never
from tune_jobs.reading.names import meaning, meant_as, mode_of, split_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("1h17m", 4620), ("2h08m", 7680), ("44m38s", 2678), ("44m 38s", 2678),
        ("0:12:30", 750), ("12:30", 750), ("0 days 00:12:30.5", 750.5), ("1 day, 2:03:04", 93784),
        ("350 ms", 0.35), ("1.5 h", 5400), ("12 min", 720), ("PT1H17M", 4620), ("12.3 ± 0.4", 12.3),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert cells.amount(text, 1.0, SECONDS) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("-", None), ("OOM", None), ("out of memory", None), ("did not converge", None),
        ("DNF", None), ("diverged", None), ("> 30", 30), ("30+", 30), ("≥ 2 h", 7200),
        ("Did not converge within 30", 30), ("never", None), ("not reached", None),
    ],
)  # fmt: skip
def test_a_word_for_never_may_say_how_far_the_run_went(text: str, limit: float | None) -> None:
    found = cells.amount(text, 1.0, SECONDS)
    assert isinstance(found, Never)
    assert (found.word, found.limit) == (text, limit)


@pytest.mark.parametrize("text", ["fast", "4,5", "1_0", "0x10", "12 parsecs", "1:2:3:4"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        cells.amount(text, 1.0, SECONDS)


def test_per_cent_is_a_part_of_one_and_infinities_stay() -> None:
    assert cells.amount("93.1 %") == pytest.approx(0.931)
    assert cells.amount("inf") == math.inf


def test_what_steers_a_terminal_is_replaced() -> None:
    assert cells.printable("\x1b[31mred\x07\u202e\n") == "\ufffd[31mred\ufffd\ufffd "


@pytest.mark.parametrize(
    ("name", "ours", "unit"),
    [
        ("BatchSize", "batch_size", None), ("Batch Size", "batch_size", None),
        ("bs", "batch_size", None), ("batch", "batch_size", None),
        ("config.batch_size", "batch_size", None), ("config/batch_size", "batch_size", None),
        ("params_batch_size", "batch_size", None), ("global_batch_size", "batch_size", None),
        ("per_device_train_batch_size", "per_device_batch_size", None),
        ("time_to_train_ms", "time_to_target_seconds", "ms"),
        ("hours to 93 %", "time_to_target_seconds", "hours"),
        ("Epochs to 99 % accuracy", "epochs_to_target", None),
        ("tokens_to_loss_3.0", "tokens_to_target", None), ("num_tokens", "tokens", None),
        ("train/tokens_seen", "tokens", None), ("target_epoch", "epochs_to_target", None),
        ("steps_to_90", "updates_to_target", None),
        ("hours", "train_seconds", "hours"), ("Training Time (min)", "train_seconds", "min"),
        ("time", "train_seconds", None), ("seconds_per_epoch", "epoch_seconds", "seconds"),
        ("img/s", "examples_per_second", None), ("tokens_per_second", "tokens_per_second", None),
        ("epoch", "epochs", None), ("global_step", "updates", None), ("lr", "learning_rate", None),
        ("Peak Memory (MB)", "peak_memory_mib", "mb"), ("num_gpus", "devices", None),
        ("val_acc", "val_accuracy", None), ("State", "state", None),
    ],
)  # fmt: skip
def test_a_name_is_known_with_its_unit(name: str, ours: str, unit: str | None) -> None:
    found = meaning(name)
    assert found is not None
    assert (found.ours, found.unit) == (ours, unit)


@pytest.mark.parametrize("name", ["colour", "eval_batch_size", "num_workers", "loss", "sizes"])
def test_other_names_mean_nothing_of_ours(name: str) -> None:
    assert meaning(name) is None


def test_a_mapped_name_keeps_its_unit() -> None:
    assert meant_as("time_to_target_seconds", "hours").factor == 3600
    assert meant_as("time_to_target_seconds", "time_total_s").factor == 1
    assert meant_as("time_to_target_seconds", "ttt").factor == 1


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"), ("WER", "min"), ("MSE", "min"), ("perplexity", "min"),
        ("error (%)", "min"), ("top1_error", "min"), ("Test F1", "max"), ("top1", "max"),
        ("bleu", "max"), ("value", None), ("colour", None), ("val_loss__MAX", None),
        ("Brier score", "min"), ("negative log-likelihood", "min"), ("log likelihood", "max"),
        ("1 - accuracy", "min"), ("top-1 accuracy", "max"), ("accuracy drop", "min"),
        ("metrics/mAP50-95(B)", "max"), ("val_mIoU", "max"), ("acc1", "max"), ("bits/dim", "min"),
        ("R^2", "max"), ("sMAPE", "min"), ("drop_rate", None), ("generalization_gap", None),
    ],
)  # fmt: skip
def test_the_direction_follows_the_name(name: str, mode: str | None) -> None:
    assert mode_of(name) == mode


def test_the_split_follows_the_name() -> None:
    assert [split_of(n) for n in ("Validation loss", "Test F1", "train_acc", "loss")] == [
        "val", "test", "train", "",
    ]  # fmt: skip
