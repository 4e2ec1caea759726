"""A node that a busy machine does not start within Ray's fixed 30 s is started again.

Ray has no switch for those 30 s, so that its message is staged here, not the wait.
"""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest

from tune_jobs.errors import UserError
from tune_jobs.tuning import starting

ROOT = Path(__file__).resolve().parent.parent
TOO_SLOW = "Exception: The current node timed out during startup."
# `await` as local.sh has it. A node is alive and answers once it was launched twice.
AWAIT = """
set -euo pipefail
root={root} state={state}
. "$root/cluster/local/processes.sh"; . "$root/cluster/local/nodes.sh"
fail() {{ echo "error: $1" "$2" >&2; exit 1; }}
launches() {{ cat "$state/launches"; }}
launch() {{ echo $(($(launches) + 1)) >"$state/launches"; }}
end() {{ :; }}
alive() {{ [ "$(launches)" -ge 2 ]; }}
answers() {{ alive "$1"; }}
await worker1
"""


def awaited(folder: Path, log: str) -> subprocess.CompletedProcess[str]:
    (folder / "nodes" / "worker1").mkdir(parents=True)
    (folder / "nodes" / "worker1" / "log").write_text(log)
    (folder / "launches").write_text("1")
    script = AWAIT.format(root=ROOT, state=folder)
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)


def test_a_node_of_the_local_cluster_that_was_too_slow_is_started_again(tmp_path: Path) -> None:
    done = awaited(tmp_path, TOO_SLOW)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "launches").read_text().strip() == "2"
    assert "starting it again" in done.stderr


def test_a_node_that_ended_for_another_reason_is_an_error_with_its_log(tmp_path: Path) -> None:
    done = awaited(tmp_path, "no space left on device")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr


def test_a_sweep_starts_ray_again_and_gives_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[str] = []
    said: list[str] = []

    def init(**options: object) -> None:
        tries.append("init")
        heard = logging.getLogger("ray._private.services").isEnabledFor(logging.ERROR)
        assert not heard, "it tells the end of a log that helps nobody"
        if len(tries) < 3 or options.get("never"):
            raise Exception(TOO_SLOW)

    monkeypatch.setattr(starting.ray, "init", init)
    monkeypatch.setattr(starting.ray, "shutdown", lambda: tries.append("shutdown"))
    starting._init({}, None, said.append)
    (line,) = said
    assert "started again" in line
    assert tries == ["init", "shutdown", "init"]
    tries.clear()
    with pytest.raises(UserError, match="did not start on this machine within 30 s"):
        starting._init({"never": True}, None, said.append)
    assert tries.count("init") == starting.STARTS
