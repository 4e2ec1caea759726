"""Entry: sweep the batch size. The command line, nothing else; `one_sweep.py` has the stages.

python tune_jobs/sweep.py [options]          on this machine
ray job submit -- python tune_jobs/sweep.py  on a cluster

What takes long to import is imported where it is needed: `--help` and `--dry-run` do not wait.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from rich.console import Console

from tune_jobs import interrupts, new_workload
from tune_jobs.command_line import Action, Invocation, parse
from tune_jobs.config import SweepConfig, to_be_kept
from tune_jobs.environment import cluster_address
from tune_jobs.errors import Terminated, exit_status
from tune_jobs.planning.allowance import Allowance
from tune_jobs.reporting.table import say, wide_console

if TYPE_CHECKING:
    from tune_jobs.measure.fresh import FreshProcesses
    from tune_jobs.store import SweepStore


def main() -> int:
    invocation = parse()
    try:
        with interrupts.raised():
            status = exit_status(partial(run, invocation))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is done but for Ray's own end
        return status
    except KeyboardInterrupt as stop:
        print("interrupted; take it up again with --resume and the same --name", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130


def run(invocation: Invocation) -> int:
    """Check everything that can be checked, then the stages. Returns the exit status."""
    from tune_jobs import preparing

    action, console = invocation.action, wide_console()
    if action.new_workload is not None:
        say(console, f"written; sweep it as it is: {new_workload.write(action.new_workload)}")
        return 0
    sweeps = []
    for config in preparing.configurations(invocation):
        sweeps.append((config, preparing.folder(config, action)))
        preparing.check_names(config, importing=not action.dry_run)
        if action.dry_run:
            from tune_jobs.reporting.plan import print_plan

            print_plan(config, console)
    if action.dry_run:
        return 0
    for config, store in sweeps:
        if len(sweeps) > 1:
            say(console, f"optimizer {config.optimizer}:")
        begin(config, store, action, console)
    if len(sweeps) > 1 and action.only is None:
        compare(sweeps, console)
    return 0


def begin(config: SweepConfig, store: SweepStore, action: Action, console: Console) -> None:
    """One sweep, while no other driver has its folder."""
    from tune_jobs import preparing
    from tune_jobs.holding import held
    from tune_jobs.reporting.progress import Progress
    from tune_jobs.tracking.of_sweep import reachable_uri

    uri = reachable_uri(config, partial(say, console))
    config = to_be_kept(config)  # from here on `uri` alone holds a password
    with held(store):
        told = Progress(console), Allowance(config.minutes)
        with ahead(store) as fresh:
            data = preparing.data(config)
            from tune_jobs.tuning import joining

            joining.start(config, ROOT, partial(say, console))
            from tune_jobs.one_sweep import Job, sweep  # as Ray's processes import

            sweep(Job(config, store, data, uri, console, action, *told, fresh))


@contextmanager
def ahead(store: SweepStore) -> Iterator[FreshProcesses | None]:
    """What will measure on this machine imports torch meanwhile; None where nothing will."""
    from tune_jobs.measure.fresh import FreshProcesses

    if store.profiles.exists() or cluster_address(os.environ):
        yield None
        return
    fresh = FreshProcesses(shows=False)
    try:
        yield fresh
    finally:
        fresh.close()


def compare(sweeps: Sequence[tuple[SweepConfig, SweepStore]], console: Console) -> None:
    """Several optimizers' sweeps in one answer, kept beside each of their verdicts."""
    from tune_jobs.reporting.answer import answer_of_sweep
    from tune_jobs.reporting.optimizers import as_json, compared, print_comparison

    found = compared(sweeps)
    for _, store in sweeps:
        store.write_text(store.optimizers, as_json(found))
    judged = answer_of_sweep(*sweeps[0]).verdicts[0].quantity
    print_comparison(found, judged, console)


if __name__ == "__main__":
    raise SystemExit(main())
