"""Training functions as users write them, good and bad; each has a process of its own in a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tune_jobs.own_loop import OwnLoop, Settings, Told, own_loop

loop: Callable[[Any], OwnLoop] = own_loop(
    metric="loss", mode="min", target=0.3, budget_examples=1000
)
TRIALS_HERE: list[int] = []


@loop
def halving(settings: Settings, report: Told) -> None:
    """Reports every 100 examples; keeps where it stands in its folder."""
    kept = settings.checkpoint_folder / "seen"
    seen = int(kept.read_text()) if kept.exists() else 0
    while seen < settings.budget_examples:
        seen += 100
        kept.write_text(str(seen))
        if not report(examples_seen=seen, val_metric=(1000 - seen) / 1000, updates=seen // 10):
            return


@loop
def forgetful(settings: Settings, report: Told) -> None:
    for seen in range(100, 1001, 100):
        report(examples_seen=seen, val_metric=1.0)


@loop
def tells_its_budget(settings: Settings, report: Told) -> None:
    report(examples_seen=100, val_metric=float(settings.budget_examples))


@loop
def counts_trials(settings: Settings, report: Told) -> None:
    """Its loss is how many trials its process has seen; the first takes 300 MiB as well."""
    TRIALS_HERE.append(1)
    if settings.seed == 0:
        bytearray(300 * 2**20)
    report(examples_seen=1000, val_metric=float(len(TRIALS_HERE)))


@loop
def slow(settings: Settings, report: Told) -> None:
    """Trains for 0.05 s and evaluates for 0.1 s between two reports, and says so."""
    for seen in range(100, 1001, 100):
        time.sleep(0.05)
        began = time.perf_counter()
        time.sleep(0.1)
        report(examples_seen=seen, val_metric=1.0, evaluation_seconds=time.perf_counter() - began)


@loop
def returns_early(settings: Settings, report: Told) -> None:
    report(examples_seen=100, val_metric=0.9)


@loop
def leaves_a_part_out(settings: Settings, report: Told) -> None:
    for seen in (300, 600, 900):
        report(examples_seen=seen, val_metric=0.9)


@loop
def deaf(settings: Settings, report: Told) -> None:
    """Begins a process, tells its number, and goes on whatever it is told."""
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    report(examples_seen=100, val_metric=float(helper.pid))
    time.sleep(600)


@loop
def reports_again(settings: Settings, report: Told) -> None:
    while True:
        report(examples_seen=100, val_metric=1.0)


@loop
def raises(settings: Settings, report: Told) -> None:
    raise ValueError("no such column")


@loop
def exits(settings: Settings, report: Told) -> None:
    sys.exit(4)


@loop
def exits_at_once(settings: Settings, report: Told) -> None:
    print("the licence is missing")
    os._exit(4)


@loop
def crashes(settings: Settings, report: Told) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@loop
def is_killed(settings: Settings, report: Told) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@loop
def wants_too_much(settings: Settings, report: Told) -> None:
    raise MemoryError("Unable to allocate 1 TiB")


@loop
def hangs(settings: Settings, report: Told) -> None:
    time.sleep(600)


@loop
def floods(settings: Settings, report: Told) -> None:
    for _ in range(3000):
        print("x" * 1000)
    print("the last line")
    returns_early(settings, report)
    os._exit(1)


@loop
def silent(settings: Settings, report: Told) -> None:
    return None


@loop
def says_text(settings: Settings, report: Any) -> None:
    report(examples_seen=10, val_metric="good")


@loop
def says_nothing_seen(settings: Settings, report: Any) -> None:
    report(examples_seen=0, val_metric=1.0)


@loop
def says_another_word(settings: Settings, report: Any) -> None:
    report(examples_seen=10, accuracy=1.0)


@loop
def evaluates_longer_than_it_ran(settings: Settings, report: Told) -> None:
    report(examples_seen=10, val_metric=1.0, evaluation_seconds=60.0)


def undecorated(settings: Settings, report: Told) -> None:
    return None
