"""Ray's start: a cluster is joined, or a Ray of this machine begun.

A Ray of this machine begins a process for each CPU, in which what trials need is imported while the
driver imports the rest; `kept.take_those_begun_ahead` has Ray Tune use them. All processes have the
driver's environment.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._private.utils import get_num_cpus

from tune_jobs.environment import cluster_address
from tune_jobs.errors import UserError
from tune_jobs.private import secure_token
from tune_jobs.tuning.host import check_address, not_joined, object_store, short_folder

STARTS = 5  # of Ray, on a machine that is too busy for its 30 s
START_TIMED_OUT = "timed out during startup"  # of Ray's message, ray/_private/node.py
AHEAD = "RAY_prestart_worker_first_driver"
IMPORTED = "tune_jobs.tuning.imported"
READY = "imported-"  # begins the name of a file that each leaves in the session's folder then
FEW_CPUS = 8  # a process each, of half a gigabyte
READY_SECONDS = 60.0


def await_ahead() -> None:
    """Until the processes that a Ray of this machine began have imported what trials need."""
    until = time.monotonic() + READY_SECONDS
    awaited = ray.cluster_resources()["CPU"] if os.environ.get(AHEAD) == "1" else 0
    while len(begun_ahead()) < awaited and time.monotonic() < until:
        time.sleep(0.1)


def tell_ready() -> None:
    """Said in a process of Ray, once it has imported what trials need."""
    (_session() / f"{READY}{os.getpid()}").touch()


def begun_ahead() -> set[int]:
    """Ids of the processes that said so."""
    return {int(file.name.removeprefix(READY)) for file in _session().glob(f"{READY}*")}


def _session() -> Path:
    return Path(ray._private.worker._global_node.get_session_dir_path())


def start_ray(root: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Join the job's cluster, or start Ray on this machine for its user alone; never twice.

    Errors:
        UserError: no cluster is where RAY_ADDRESS says, or this machine has no place for Ray.
    """
    if ray.is_initialized():
        return
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    options: dict[str, object] = {"logging_level": "warning", "log_to_driver": False}
    address = cluster_address(os.environ)
    if address is not None:
        check_address(address)
    else:
        short_folder(os.environ, say)
        options |= object_store(os.environ)
        # Without it Ray would join, or wait for, the last cluster begun on this machine.
        options |= {"address": "local", "include_dashboard": False}
        told = secure_token(os.environ)
        if told:
            say(told)
        _of_processes(os.environ, root)
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        # What fails is told by the trial's row, or ends the sweep in words of its own.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray puts an abort with a C++ stack in the place of the handler of SIGTERM.
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    with _on_loopback(address is None):
        _init(options, address, say)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _of_processes(environment: MutableMapping[str, str], root: Path) -> None:
    """What the processes of a Ray that is started in this environment are to know."""
    path = [str(root), *filter(None, [environment.get("PYTHONPATH")])]  # the user's own
    environment["PYTHONPATH"] = os.pathsep.join(path)
    environment.setdefault("PL_DISABLE_FORK", "1")  # as Ray Tune has its trials be told
    environment.setdefault("RAY_enable_worker_prestart", "0")  # further ones, which none would use
    environment.setdefault(AHEAD, str(int(get_num_cpus() <= FEW_CPUS)))
    environment.setdefault("RAY_preload_python_modules", IMPORTED)


@contextmanager
def _on_loopback(wanted: bool) -> Iterator[None]:
    """A node that is started meanwhile listens on 127.0.0.1 alone.

    Ray does so by itself on a Mac, and on Linux listens on every interface: this is the switch
    between the two. Given as `_node_ip_address`, 127.0.0.1 is replaced by an outer address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not wanted
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _init(options: dict[str, object], address: str | None, say: Callable[[str], None]) -> None:
    """ray.init, begun again where a busy machine did not start the node within Ray's 30 s: what Ray
    logs of that, with the end of a log of its own, helps nobody."""
    services = logging.getLogger("ray._private.services")
    for attempts_left in reversed(range(STARTS)):
        level = services.level
        try:
            services.setLevel(logging.CRITICAL)
            ray.init(**options)
            return
        except Exception as error:
            if address is not None:
                raise not_joined(address, error) from error
            if START_TIMED_OUT not in str(error):
                raise
            ray.shutdown()
            if attempts_left == 0:
                raise UserError(
                    f"Ray did not start on this machine within 30 s, {STARTS} times over: too much "
                    "runs here beside it; begin again once less does"
                ) from error
            say("Ray did not start within 30 s: this machine is busy; it is started again")
        finally:
            services.setLevel(level)
