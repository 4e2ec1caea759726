"""The process that a run of a user's own training function has for itself, seen from inside.

`own_process` begins it. Nothing here imports torch: a function that uses none begins in under a
second, one that does pays its import.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from tune_jobs.errors import UserError
from tune_jobs.own_loop import Settings
from tune_jobs.training import resident
from tune_jobs.workload_source import place_in, users_loop

CLOCKS_DIFFER = 1e-3  # seconds by which the user's clock may exceed this one


class Over(BaseException):
    """Ends a function that reports again after it was told to return."""


class Parent:
    """The other end of the pipe. When it closes, this process and all that it began end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.words: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.writing = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def tell(self, **said: Any) -> None:
        with self.writing:
            self.connection.send_bytes(json.dumps(said).encode())

    def hear(self) -> Any:
        return self.words.get()

    def _listen(self) -> None:
        try:
            while True:
                word = json.loads(self.connection.recv_bytes())
                if word == "where":
                    self.tell(stands=_where_it_stands())
                else:
                    self.words.put(word)
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)


class Reporter:
    """`report`, as the function is given it. Seconds are this process's, between two reports."""

    def __init__(self, parent: Parent, device: str) -> None:
        self.parent = parent
        self.device = device
        self.over = False
        self.began = time.perf_counter()

    def __call__(
        self,
        *,
        examples_seen: int,
        val_metric: float,
        test_metric: float | None = None,
        train_loss: float | None = None,
        updates: int | None = None,
        evaluation_seconds: float | None = None,
    ) -> bool:
        seconds = time.perf_counter() - self.began
        if self.over:
            raise Over
        self.parent.tell(
            report={
                "examples_seen": _count("examples_seen", examples_seen),
                "val_metric": _number("val_metric", val_metric),
                "test_metric": _if_given(_number, "test_metric", test_metric),
                "train_loss": _if_given(_number, "train_loss", train_loss),
                "updates": _if_given(_count, "updates", updates),
                "evaluation_seconds": _within(evaluation_seconds, seconds),
                "seconds": seconds,
                **_memory(self.device),
            }
        )
        self.over = not self.parent.hear()
        self.began = time.perf_counter()
        return not self.over


def main() -> None:
    """Load the function, say what it says of itself, train with the settings that come."""
    parent = Parent(Connection(int(sys.argv.pop())))
    asked = parent.hear()
    if asked["memory_limit_mib"] is not None:
        resident.limit_data(asked["memory_limit_mib"], resident.resident_mib() or 0.0)
    try:
        loop = users_loop(asked["name"], asked["folder"], asked["lightning"])
    except UserError as error:
        parent.tell(refused=str(error))
        return
    parent.tell(loop={k: v for k, v in vars(loop).items() if k != "function"})
    try:
        settings = parent.hear()
        settings["checkpoint_folder"] = Path(settings["checkpoint_folder"])
        loop(Settings(**settings), Reporter(parent, settings["device"]))
        parent.tell(returned=True)
    except Over:
        parent.tell(returned=True)
    except BaseException as error:  # whatever it is, it is told and ends this process alone
        parent.tell(raised=_of(error))


def _of(error: BaseException) -> dict[str, Any]:
    """What is told of an error: in one line, as a traceback, and whether memory was its cause."""
    frames = traceback.extract_tb(error.__traceback__)
    at = place_in(frames)
    first = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if isinstance(error, SystemExit):
        said = f"the function called sys.exit({error.code!r})"
    elif isinstance(error, UserError):
        said, at = str(error), ""
    return {
        "said": f"{said}{at}",
        "trace": "".join(traceback.format_exception(error)),
        "out_of_memory": _is_out_of_memory(error),
    }


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from tune_jobs.training.out_of_memory import is_out_of_memory

    return is_out_of_memory(error)


def _memory(device: str) -> dict[str, Any]:
    """This process's peak; of a GPU what torch's allocator says, where the function uses torch."""
    if device == "cpu":
        return {"peak_memory_mib": resident.peak_resident_mib()}
    if "torch" not in sys.modules:
        return {"peak_memory_mib": None}
    import torch

    from tune_jobs.training import device as devices

    gpu = torch.device(device)
    return {
        "peak_memory_mib": devices.peak_memory_mib(gpu),
        "reserved_memory_mib": devices.reserved_memory_mib(gpu),
        "allocator_retries": devices.allocator_retries(gpu),
    }


def _where_it_stands() -> dict[str, str]:
    main_thread = threading.main_thread().ident
    frame = sys._current_frames().get(main_thread or 0)
    frames = traceback.extract_stack(frame)
    return {"at": place_in(frames), "trace": "".join(frames.format())}


def _if_given(check: Callable[[str, Any], float], name: str, value: Any) -> float | None:
    return None if value is None else check(name, value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"report({name}={value!r}): must be a whole number, 1 or more")
    return int(value)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"report({name}={value!r}): must be a number; give float(...)")
    return float(value)


def _within(evaluation_seconds: Any, seconds: float) -> float | None:
    if evaluation_seconds is None:
        return None
    given = _number("evaluation_seconds", evaluation_seconds)
    if not 0 <= given <= seconds + CLOCKS_DIFFER or not math.isfinite(given):
        raise UserError(
            f"report(evaluation_seconds={given:g}): {seconds:.3g} s have passed since the last "
            "report; give the seconds of this evaluation alone"
        )
    return min(given, seconds)
