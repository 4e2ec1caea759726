"""Functions run in fresh processes, without paying torch's import each time.

A server process imports what is needed once and then forks: a child starts in milliseconds, with
nothing of its predecessors in memory, and whatever ends it (an exception, the allocator, the
kernel) ends it alone. CUDA is not touched before the fork: each child opens a context of its own.

    with FreshProcesses() as fresh:
        outcome = fresh.call(measure_update, request, timeout_seconds=60)
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

from tune_jobs.errors import LoopFailed, SweepError
from tune_jobs.training.process_end import how_it_ended

_LENGTH = 8


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with a value, or with the reason why not.

    Attributes:
        value: what the function returned; None unless `ended` is `returned`.
        ended: `returned`, `raised`, `killed` (by a signal), or `timed_out`.
        reason: the exception or signal in one line.
        trace: the child's traceback when it raised.
        out_of_memory: the allocator refused, or the kernel killed the process.
        requested_mib: the allocation that was refused, where the error tells.
    """

    value: Any
    ended: str
    reason: str | None = None
    trace: str | None = None
    out_of_memory: bool = False
    requested_mib: float | None = None


class Caller(Protocol):
    """Whatever can run a function in a fresh process: here, or on another node."""

    def call(
        self, function: Callable[[Any], Any], argument: Any, timeout_seconds: float, copies: int = 1
    ) -> list[Outcome]: ...


class FreshProcesses:
    """The parent's end: starts the server, hands it calls one after the other.

    What its children print goes where the parent's errors go, if it `shows`.
    """

    def __init__(self, shows: bool = True) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._server = subprocess.Popen(
            # Not `-m`: what it pickles must not belong to a module called __main__.
            [sys.executable, "-c", "from tune_jobs.measure.fresh import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if shows else subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's to hear
        )

    @property
    def alive(self) -> bool:
        return self._server.poll() is None

    def __enter__(self) -> FreshProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self, function: Callable[[Any], Any], argument: Any, timeout_seconds: float, copies: int = 1
    ) -> list[Outcome]:
        """`function(argument)` in `copies` processes begun together; how each of them ended.

        Errors:
            SweepError: the server itself is gone.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        try:
            _send(self._server.stdin, (function, argument, timeout_seconds, copies))
            outcomes: list[Outcome] = _receive(self._server.stdout)
        except (EOFError, BrokenPipeError) as error:
            status = self._server.wait()
            raise SweepError(f"the process that starts probes ended with {status}") from error
        return outcomes

    def close(self) -> None:
        """End the server; its children end with it, also one in the middle of its call."""
        if self._server.stdin is not None:
            with suppress(BrokenPipeError):
                self._server.stdin.close()
        self._server.wait()


def _send(stream: IO[bytes], value: Any) -> None:
    body = pickle.dumps(value)
    stream.write(len(body).to_bytes(_LENGTH, "big") + body)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH)
    if len(head) < _LENGTH:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(head, "big")))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Fork for every request until the parent closes its end."""
    while True:
        try:
            function, argument, timeout_seconds, copies = _receive(requests)
        except EOFError:
            return
        children = [_fork(function, argument) for _ in range(copies)]
        deadline = time.monotonic() + timeout_seconds
        _send(answers, [_await(child, deadline, requests) for child in children])


@dataclass(frozen=True)
class _Child:
    pid: int
    pipe: int


def _fork(function: Callable[[Any], Any], argument: Any) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(pid, reading)
    with os.fdopen(writing, "wb") as pipe:
        _send(pipe, _outcome_of(function, argument))
    os._exit(0)


def _outcome_of(function: Callable[[Any], Any], argument: Any) -> Outcome:
    from tune_jobs.training.out_of_memory import is_out_of_memory, requested_mib

    try:
        return Outcome(function(argument), "returned")
    except Exception as error:
        trace = traceback.format_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, LoopFailed):  # of another process, whose words they are
            reason, trace = error.said, error.trace
        starved = is_out_of_memory(error)
        return Outcome(None, "raised", reason, trace, starved, requested_mib(error))


def _await(child: _Child, deadline: float, requests: IO[bytes]) -> Outcome:
    """The child's own word, or what its end says. A parent that is gone ends them all."""
    with os.fdopen(child.pipe, "rb") as pipe, selectors.DefaultSelector() as selector:
        for stream in (pipe, requests):
            selector.register(stream, selectors.EVENT_READ)
        ready = [key.fileobj for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
        if requests in ready:  # it asks one thing at a time: this is its end
            os.killpg(0, signal.SIGKILL)
        late = not ready
        if late:
            os.kill(child.pid, signal.SIGKILL)
        try:
            outcome: Outcome | None = _receive(pipe)
        except EOFError:
            outcome = None
    _, status = os.waitpid(child.pid, 0)
    if late:
        return Outcome(None, "timed_out", "took longer than its time limit and was ended")
    return outcome or _outcome_of_status(status)


def _outcome_of_status(status: int) -> Outcome:
    """A child that ended without a word."""
    how, starved = how_it_ended(os.waitstatus_to_exitcode(status))
    return Outcome(None, "killed", how, out_of_memory=starved)


def main() -> None:
    """The server: its pipes moved away from where a child might print."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    import tune_jobs.measure.probe  # noqa: F401  imported once, here, for all children

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; Ctrl-C reaches all
    serve(requests, answers)
