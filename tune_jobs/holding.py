"""One driver at a time has a sweep's folder: a lock that names it, and that its death sets free.

Who holds it is known by host, process and the process's start; on the same machine the process
table says whether it lives. Elsewhere it counts as gone once its lock is older than `GONE_SECONDS`
by the storage's own clock: a living driver renews it every `BEAT_SECONDS`, and stops when it finds
another's name there. Claims on a disk wait for one another (flock on the folder). Where that is not
to be had, as on an object store, of two claims the later one stands, and each driver looks again
after `SETTLE_SECONDS`: two drivers get in only where one needs longer than that from its look to
its write, and then for one beat at the most.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from tune_jobs.durable import fault_of
from tune_jobs.errors import StoreError, UserError
from tune_jobs.store import SweepStore

BEAT_SECONDS = 10.0
GONE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
SAME_START_SECONDS = 2.0  # psutil derives it from a boot time that is rounded to a second


@dataclass(frozen=True)
class Holder:
    """The driver that a lock names. `machine` is one kernel with its process table."""

    host: str
    machine: str
    pid: int
    started: float
    since: str
    token: str

    @classmethod
    def me(cls) -> Holder:
        pid = os.getpid()
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(
            socket.gethostname(), _machine(), pid, _start_of(pid) or 0.0, since,
            secrets.token_hex(8),
        )  # fmt: skip

    @classmethod
    def read(cls, text: str) -> Holder | None:
        """None where the text is no lock of ours: cut short by a power loss, say."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def lives(self, silent_seconds: float) -> bool:
        """Whether it is at work, given how old its lock is."""
        if self.machine != _machine():
            return silent_seconds < GONE_SECONDS
        start = _start_of(self.pid)
        return start is not None and abs(start - self.started) < SAME_START_SECONDS


def _machine() -> str:
    """Host, boot and process table: what a process's number is unique in."""
    boot = processes = ""
    with suppress(OSError):  # where there is no /proc the host alone tells
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {processes}"


def _start_of(pid: int) -> float | None:
    """When the process was started; None where it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


@contextmanager
def held(store: SweepStore) -> Iterator[None]:
    """The folder, made where there is none, is this driver's; left empty, it is removed again.

    Errors:
        UserError: another driver has it, or it cannot be written.
        StoreError: it was taken or removed meanwhile; the block was interrupted.
    """
    made = [f for f in (store.folder, *store.folder.parents) if not f.exists()]
    store.create()
    me = _claimed(store)
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A job that a script put into the background would not hear that its folder is lost.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    stop, lost = threading.Event(), list[str]()
    beat = threading.Thread(target=_beat, args=(store, me, stop, lost), name="lock", daemon=True)
    beat.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost:
            raise StoreError(lost[0]) from None
        raise
    except UserError:
        raise
    except Exception as error:  # a library's own words for a full disk may be pages long
        fault = fault_of(store.folder)
        raise error if fault is None else StoreError(fault) from None
    finally:
        stop.set()
        beat.join()
        _released(store, me, made)


def _claimed(store: SweepStore) -> Holder:
    with _one_claim_at_a_time(store) as alone:
        _refuse_if_held(store)
        me = Holder.me()
        _write(store, me)
    if not alone:
        time.sleep(SETTLE_SECONDS)
        found = _read(store)
        if found is not None and found.token != me.token:
            raise _in_use(store, found, 0.0)
    return me


@contextmanager
def _one_claim_at_a_time(store: SweepStore) -> Iterator[bool]:
    """Yields whether no other claim can be made meanwhile."""
    if store.remote is not None:
        yield False
        return
    folder = os.open(store.folder, os.O_RDONLY)
    try:
        alone = True
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # a file system without it
            alone = False
        yield alone
    finally:
        os.close(folder)


def _refuse_if_held(store: SweepStore) -> None:
    text = store.read_text(store.lock)
    if text is None:
        return
    holder, silent = Holder.read(text), store.age_seconds(store.lock)
    if holder is None and silent < GONE_SECONDS:
        raise UserError(
            f"{store.lock} is not readable, so who works in {store.address} is not known; it "
            f"counts as left behind after {GONE_SECONDS:.0f} s without a change: try again then"
        )
    if holder is not None and holder.lives(silent):
        raise _in_use(store, holder, silent)


def _in_use(store: SweepStore, holder: Holder, silent_seconds: float) -> UserError:
    if holder.machine == _machine():
        remedy = f"wait for it, end it (kill {holder.pid})"
    else:
        remedy = (
            f"wait for it (it showed itself {silent_seconds:.0f} s ago, and counts as gone after "
            f"{GONE_SECONDS:.0f} s)"
        )
    return UserError(
        f"{store.address} is in use by process {holder.pid} on {holder.host} since {holder.since}; "
        f"{remedy}, or choose another --name"
    )


def _beat(store: SweepStore, me: Holder, stop: threading.Event, lost: list[str]) -> None:
    """Renew the lock until told to stop; interrupt the driver once it is no longer its own."""
    while not stop.wait(BEAT_SECONDS):
        try:
            found = _read(store)
            if found is not None and found.token == me.token:
                _write(store, me)
                continue
        except StoreError:
            continue  # the storage is away: whoever writes a result there will tell
        lost.append(_loss(store, found))
        os.kill(os.getpid(), signal.SIGINT)
        return


def _loss(store: SweepStore, found: Holder | None) -> str:
    if found is None:
        return (
            f"{store.address} was removed, or its {store.lock.name}, while the sweep ran; nothing "
            "more is written there. Restore the folder and take it up with --resume"
        )
    return (
        f"{store.address} was taken over by process {found.pid} on {found.host} since "
        f"{found.since}, as this driver had not shown itself for {GONE_SECONDS:.0f} s; it stops"
    )


def _read(store: SweepStore) -> Holder | None:
    return Holder.read(store.read_text(store.lock) or "")


def _write(store: SweepStore, me: Holder) -> None:
    store.write_text(store.lock, json.dumps(asdict(me), indent=2) + "\n")


def _released(store: SweepStore, me: Holder, made: list[Path]) -> None:
    with suppress(StoreError, OSError):
        found = _read(store)
        if found is not None and found.token == me.token:
            store.delete(store.lock)
        for folder in made if store.remote is None else ():
            folder.rmdir()  # what holds nothing; the first that does ends this
