"""Entry: submit a sweep to a Ray cluster's job server, follow it, and end with its exit status.

What Ray's own `ray job submit` leaves to its user is done here: the token is sent, the upload is
filtered and weighed, the options are checked before anything is sent, variables the job needs go
with it, and the exit status is that of the sweep.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from tune_jobs import environment
from tune_jobs.command_line import parse
from tune_jobs.config import SweepConfig, resolve
from tune_jobs.errors import SweepError, UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

UPLOAD_LIMIT_BYTES = 2_000_000
CONFIG_IN_UPLOAD = "submitted.toml"
# Never uploaded, whatever .gitignore and .rayignore say.
NEVER_UPLOADED = [".git", ".venv", ".data", "runs", "mlruns", "mlartifacts", "mlflow.db*"]
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
RECONNECT_SECONDS = (1, 2, 4, 8, 15)


def options() -> argparse.ArgumentParser:
    """The options of the submission; all others are the sweep's."""
    parser = argparse.ArgumentParser(
        prog="scripts/submit",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Submit a sweep to a Ray cluster and follow it. The exit status is the "
        "sweep's own.\nAll other options are those of scripts/sweep; see scripts/sweep --help.",
        epilog="examples:\n"
        "  scripts/submit --preset quick --name first\n"
        "  scripts/submit --no-wait --name big --preset full\n"
        "  scripts/submit --resume --name first      go on after a stop, or the head's loss",
    )
    parser.add_argument(
        "--address",
        metavar="URL",
        default=os.environ.get("RAY_API_SERVER_ADDRESS"),
        help="job server, such as http://127.0.0.1:8265 (default: RAY_API_SERVER_ADDRESS, else the "
        "cluster of cluster/local.sh)",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="return at once; tells how to follow"
    )
    parser.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="variable for the job, repeatable; never a secret: the dashboard shows it",
    )
    parser.add_argument("--follow", metavar="ID", help="follow a job that was submitted")
    parser.add_argument("--stop", metavar="ID", help="stop a job; the sweep can be resumed")
    return parser


def main() -> int:
    asked, of_sweep = options().parse_known_args()
    try:
        if asked.follow or asked.stop:
            if of_sweep:
                raise UserError(f"{of_sweep[0]}: --follow and --stop take no options of the sweep")
            client = connect(asked.address)
            return follow(client, asked.follow) if asked.follow else stop(client, asked.stop)
        return submit(asked, of_sweep)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def submit(asked: argparse.Namespace, of_sweep: Sequence[str]) -> int:
    """Check, pack, send; then follow the job unless told not to wait."""
    config, resume = checked(of_sweep)
    variables = job_variables(os.environ, asked.env)
    arguments = [*of_sweep, *places(os.environ, of_sweep)]
    client = connect(asked.address)
    refuse_a_second(client, config.name)
    if not resume:
        prepare_data(config, os.environ)
    with tempfile.TemporaryDirectory() as folder:
        package, arguments = pack(Path(folder), arguments)
        job = client.submit_job(
            entrypoint=shlex.join(["python", "tune_jobs/sweep.py", *arguments]),
            submission_id=f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}",
            runtime_env={"working_dir": str(package), "env_vars": variables},
            metadata={"sweep": config.name},
        )
    print(f"submitted {job} to {asked.address}", flush=True)
    if asked.no_wait:
        print(how_to_follow(job))
        return 0
    return follow(client, job)


def checked(of_sweep: Sequence[str]) -> tuple[SweepConfig, bool]:
    """The sweep's options as the job will read them: what is wrong is refused before sending."""
    invocation = parse(of_sweep)
    return resolve(invocation.action.config, invocation.flags), invocation.action.resume


def job_variables(around: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Variables of the job. Of the caller's own only those that carry no secret are taken along."""
    # `ray job stop` sends SIGTERM and kills after 3 s; Tune saves its state on SIGINT.
    variables = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "25"}
    for name in ("RAY_AUTH_MODE", "MLFLOW_TRACKING_URI", "SWEEP_RUNS_DIR", "SWEEP_DATA_DIR"):
        if around.get(name):
            variables[name] = around[name]
    if commit := environment.commit_of(ROOT):
        variables[environment.COMMIT] = commit
    for pair in given:
        name, separator, value = pair.partition("=")
        if not (separator and name.isidentifier()):
            raise UserError(f"--env {pair}: give NAME=VALUE")
        variables[name] = value
    return variables


def places(around: Mapping[str, str], of_sweep: Sequence[str]) -> list[str]:
    """Flags for the cluster's shared storage and data folder, where it has any and none is given.

    A job's own folder is on the head alone and goes with the job.
    """
    flags = {"--runs-dir": "SWEEP_RUNS_DIR", "--data-dir": "SWEEP_DATA_DIR"}
    if has(of_sweep, "--resume"):
        del flags["--data-dir"]
    return [
        part
        for flag, name in flags.items()
        if around.get(name) and not has(of_sweep, flag)
        for part in (flag, around[name])
    ]


def has(arguments: Sequence[str], flag: str) -> bool:
    return any(word == flag or word.startswith(flag + "=") for word in arguments)


def prepare_data(config: SweepConfig, around: Mapping[str, str]) -> None:
    """Fetch the data set here where the cluster's data folder is in sight: nodes may have no way
    out. Elsewhere the job's driver fetches it."""
    folder = Path(around.get("SWEEP_DATA_DIR") or "/nonexistent")
    if folder.is_dir() and os.access(folder, os.W_OK):
        from tune_jobs.data.sources import known, prepare

        if config.data in known():
            prepare(config.data, folder)


def pack(folder: Path, arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The project as one zip, filtered as `ray job submit --working-dir .` would, and weighed.

    The file of `--config` travels in it. Raises UserError over `UPLOAD_LIMIT_BYTES`.
    """
    from ray._private.runtime_env.packaging import create_package

    package = folder / "project.zip"
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    create_package(
        str(ROOT),
        package,
        include_gitignore=True,
        excludes=NEVER_UPLOADED,
        logger=logging.getLogger("ray._private.runtime_env.packaging"),
    )
    rewritten, config = config_moved(arguments)
    if config is not None:
        with zipfile.ZipFile(package, "a") as archive:
            archive.write(config, CONFIG_IN_UPLOAD)
    if (weight := package.stat().st_size) > UPLOAD_LIMIT_BYTES:
        with zipfile.ZipFile(package) as archive:
            files = sorted(archive.infolist(), key=lambda f: -f.compress_size)[:3]
        largest = ", ".join(f"{f.filename} ({f.compress_size / 1e6:.1f} MB)" for f in files)
        raise UserError(
            f"the upload is {weight / 1e6:.1f} MB, over {UPLOAD_LIMIT_BYTES / 1e6:.0f} MB; name in "
            f".rayignore what a job does not need. The largest: {largest}"
        )
    return package, rewritten


def config_moved(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments with `--config` naming the file inside the upload, and the file itself."""
    rewritten, config = list(arguments), None
    for k, word in enumerate(arguments):
        if word == "--config":
            config, rewritten[k + 1] = Path(arguments[k + 1]), CONFIG_IN_UPLOAD
        elif word.startswith("--config="):
            config = Path(word.removeprefix("--config="))
            rewritten[k] = f"--config={CONFIG_IN_UPLOAD}"
    return rewritten, config


def connect(address: str | None) -> JobSubmissionClient:
    """The cluster's job server; raises UserError when there is none or it refuses us."""
    if not address:
        raise UserError(
            "no cluster is known: give --address http://HEAD:8265 (through a tunnel: "
            "http://127.0.0.1:8265), set RAY_API_SERVER_ADDRESS, or start one with "
            "cluster/local.sh up"
        )
    token_by_default(os.environ, Path.home())
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        for name in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        client.list_jobs()  # the first call that wants the token
    except (ConnectionError, OSError) as error:
        raise UserError(
            f"no job server answers at {address}; is the cluster up, and the tunnel to it?"
        ) from error
    except RuntimeError as error:
        raise UserError(f"the job server at {address} refused: {error}") from error
    return client


def token_by_default(around: Any, home: Path) -> None:
    """Ray's client sends a token only where RAY_AUTH_MODE says so, also when it has one."""
    has_token = (
        around.get("RAY_AUTH_TOKEN")
        or around.get("RAY_AUTH_TOKEN_PATH")
        or (home / ".ray" / "auth_token").exists()
    )
    if has_token:
        around.setdefault("RAY_AUTH_MODE", "token")


def refuse_a_second(client: JobSubmissionClient, sweep: str) -> None:
    """Two drivers of one sweep would write the same records."""
    for job in client.list_jobs():
        if (job.metadata or {}).get("sweep") == sweep and str(job.status) not in ENDED:
            raise UserError(
                f"--name {sweep}: job {job.submission_id} runs this sweep already; follow it with "
                f"scripts/submit --follow {job.submission_id}, or choose another name"
            )


def how_to_follow(job: str) -> str:
    return (
        f"follow it:  scripts/submit --follow {job}   (or: ray job logs --follow {job})\n"
        f"stop it:    scripts/submit --stop {job}     (or: ray job stop {job})"
    )


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the job's log as it grows until the job ends. Returns its exit status."""
    shown = Shown()
    try:
        for pause in (*RECONNECT_SECONDS, None):
            try:
                asyncio.run(print_log(client, job, shown))
                return exit_status(client, job)
            except (ConnectionError, OSError, RuntimeError) as error:
                if "does not exist" in str(error):
                    raise UserError(
                        f"job {job} is not known to the cluster; the head may have been restarted: "
                        "take the sweep up with scripts/submit --resume --name NAME"
                    ) from error
                if pause is None:
                    raise SweepError(
                        f"the cluster's head was lost while {job} ran; once it is up again: "
                        "scripts/submit --resume --name NAME"
                    ) from error
                time.sleep(pause)
    except KeyboardInterrupt:
        print(f"\n{job} goes on without this terminal\n{how_to_follow(job)}", file=sys.stderr)
        return 130
    raise AssertionError("not reached")


@dataclass
class Shown:
    """How much of a job's log is printed already; a new connection begins at its start."""

    characters: int = 0


async def print_log(client: JobSubmissionClient, job: str, shown: Shown) -> None:
    """Print the log from where the last connection ended."""
    at = 0
    async for text in client.tail_job_logs(job):
        print(text[max(0, shown.characters - at) :], end="", flush=True)
        at += len(text)
        shown.characters = max(shown.characters, at)


def exit_status(client: JobSubmissionClient, job: str) -> int:
    """The sweep's own exit status; 1 where the job ended without one."""
    info = client.get_job_info(job)
    if str(info.status) not in ENDED:
        raise RuntimeError(f"the log of {job} ended before the job")
    if str(info.status) == "SUCCEEDED":
        return 0
    reason = (info.message or "").split(", last available logs")[0].strip()
    print(f"{job}: {str(info.status).lower()}; {reason}", file=sys.stderr)
    return info.driver_exit_code if (info.driver_exit_code or 0) > 0 else 1


def stop(client: JobSubmissionClient, job: str) -> int:
    """Ask the job to save and end, and wait for it."""
    try:
        client.stop_job(job)
        while str(client.get_job_status(job)) not in ENDED:
            time.sleep(0.5)
    except RuntimeError as error:
        raise UserError(f"--stop {job}: {error}") from error
    print(f"{job}: {str(client.get_job_status(job)).lower()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
