"""A process for one run of a user's own training function, seen from outside.

Each run has a fresh one: no globals, random state or memory of a run before it. It costs the start
of Python and the function's own imports (about 7 s where it uses torch, under 1 s where it does
not). `own_child` is the other end of the pipe; words are JSON:

    here                                        there
    name, folder, lightning  ------------->     loads the function
                             <-------------     loop: metric, mode, target, budget; or refused
    settings                 ------------->     trains
                             <-------------     report
    true (go on) or false    ------------->     trains, or returns
                             <-------------     returned, or raised
    "where"                  ------------->
                             <-------------     stands: the line that runs
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any, NoReturn

from tune_jobs.errors import LoopFailed, LoopSilent, UserError
from tune_jobs.own_loop import Settings
from tune_jobs.training.process_end import how_it_ended
from tune_jobs.workload_source import WorkloadSource

SECONDS_TO_END = 5.0  # that a function has to return once it is told to
LOOK_SECONDS = 0.5  # between two looks whether the process lives
MOST_PRINTED = 1024 * 1024  # bytes of a run that go to its log; the rest is dropped
LAST_PRINTED = 2000  # bytes that are told of a process that ends without a word
DROPPED = b"\n[what it printed further is dropped]\n"
NO_REPORT = (
    "the function returned without a report; call report(examples_seen=..., val_metric=...) at "
    "least once"
)


@dataclass(frozen=True)
class Room:
    """What the process may use.

    Attributes:
        device: `cpu` or `cuda:0`.
        gpu_share: the part of a GPU's memory that it may allocate through torch.
        log: the file descriptor that its output goes to; None drops it.
    """

    device: str = "cpu"
    threads: int = 1
    memory_limit_mib: float | None = None
    gpu_share: float = 1.0
    log: int | None = None


ONE_THREAD = Room()


class OwnProcess:
    """Begun with the function loaded; `metric`, `mode`, `target` and `budget_examples` as in
    `OwnLoop`. Whatever goes wrong in it has ended it, and all that it began, when it is raised.

    Errors:
        UserError: the function cannot be had.
        LoopFailed: it was ended, or took longer than `seconds`.
    """

    def __init__(
        self, source: WorkloadSource, room: Room = ONE_THREAD, seconds: float | None = None
    ) -> None:
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.seconds = seconds
        ours, theirs = socket.socketpair()
        self.child = subprocess.Popen(
            # Not `-m`: nothing of the child must belong to a module called __main__.
            [sys.executable, "-c", "from tune_jobs.training.own_child import main; main()",
             str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),), env=_environment(room), start_new_session=True,
        )  # fmt: skip
        theirs.close()
        assert self.child.stdout is not None
        self.printed = Printed(self.child.stdout, room.log)
        self.connection = Connection(ours.detach())
        self.device = room.device
        self.tell(
            {
                "name": source.train,
                "folder": source.folder,
                "lightning": source.lightning,
                "memory_limit_mib": room.memory_limit_mib if room.device == "cpu" else None,
            }
        )
        loop = self.hear()["loop"]
        self.metric: str = loop["metric"]
        self.mode: str = loop["mode"]
        self.target: float | None = loop["target"]
        self.budget_examples: int = loop["budget_examples"]

    def tell(self, word: Any) -> None:
        """Send a word; one that does not arrive is noticed when an answer is waited for."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps(word).encode())

    def begin(self, settings: Settings) -> None:
        """Let the function train."""
        folder = str(settings.checkpoint_folder)
        self.tell({**vars(settings), "checkpoint_folder": folder})

    def hear(self) -> dict[str, Any]:
        """The next word: `loop`, `report` or `returned`.

        Errors:
            UserError: the function cannot be had.
            MemoryError: memory did not suffice.
            LoopFailed: it raised, exited, or was ended.
            LoopSilent: the time is over, or whoever waits was interrupted by an alarm.
        """
        try:
            self._wait()
            word: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._died()
        except Exception as error:
            self._silent(str(error))
        except BaseException:
            self.end()
            raise
        if "raised" in word or "refused" in word:
            self.end()
            raise _error(word)
        return word

    def leave(self) -> None:
        """Tell the function to return, give it a few seconds for that, and end the process."""
        try:
            if self.child.poll() is None and not self.connection.closed:
                self.tell(False)
                self.child.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            pass  # it does not hear
        finally:
            self.end()

    def end(self) -> None:
        """Kill the process and all that it began; nothing where that was done."""
        if self.connection.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.connection.close()
        self.printed.join(1.0)

    def _wait(self) -> None:
        """Until there is a word. What the process began may keep the pipe open when it is gone."""
        while not self.connection.poll(LOOK_SECONDS):
            if self.child.poll() is not None and not self.connection.poll():
                raise EOFError
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise TimeIsOver(f"no report within {self.seconds:.0f} s")

    def _died(self) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(LOOK_SECONDS)
        code = self.child.poll()
        self.end()
        how, starved = ("closed its pipe", False) if code is None else how_it_ended(code)
        last = self.printed.last()
        said = f"the function's process {how}"
        told = f"; it printed last: {last.splitlines()[-1]}" if last else ""
        raise MemoryError(said) if starved else LoopFailed(said + told, last)

    def _silent(self, why: str) -> NoReturn:
        """It hangs: where it stands is asked of it, which answers unless it holds Python's lock."""
        self.tell("where")
        stands = {"at": "", "trace": self.printed.last()}
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll(2 * LOOK_SECONDS):
                stands = json.loads(self.connection.recv_bytes()).get("stands") or stands
        self.end()
        raise LoopSilent(f"{why}{stands['at'].replace('(', '(it stood in ')}", stands["trace"])


class TimeIsOver(Exception):
    """The deadline has passed."""


class Printed(threading.Thread):
    """What the process prints: its beginning goes to a log, its end is kept to be told."""

    def __init__(self, pipe: IO[bytes], log: int | None) -> None:
        super().__init__(daemon=True)
        self.pipe, self.log, self.end = pipe, log, b""
        self.start()

    def last(self) -> str:
        return self.end.decode(errors="replace").strip()

    def run(self) -> None:
        left = MOST_PRINTED
        with self.pipe:
            while chunk := os.read(self.pipe.fileno(), 65536):
                self.end = (self.end + chunk)[-LAST_PRINTED:]
                if self.log is not None and left > 0:
                    left -= len(chunk)
                    end = DROPPED if left <= 0 else b""
                    with contextlib.suppress(OSError):  # a pipe that is not read stops the function
                        os.write(self.log, chunk[: left + len(chunk)] + end)


def _environment(room: Room) -> dict[str, str]:
    """Where modules are, and how many threads numeric libraries take."""
    threads = str(room.threads)
    changed = {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    if room.device != "cpu" and room.gpu_share < 1:
        given = os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
        share = f"per_process_memory_fraction:{room.gpu_share:.4f}"
        changed["PYTORCH_CUDA_ALLOC_CONF"] = ",".join(filter(None, (given, share)))
    return {**os.environ, **changed}


def _error(word: dict[str, Any]) -> Exception:
    if "refused" in word:
        return UserError(word["refused"])
    raised = word["raised"]
    if raised["out_of_memory"]:
        return MemoryError(raised["said"])
    return LoopFailed(raised["said"], raised["trace"])
