"""A whole sweep whose output is a terminal."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.test_sweep import QUICKLY, command, surroundings

PURPOSES = {  # of trials; which of them are drawn is a matter of moments
    "where the valley lies", "where the model sees its best", "may win", "least known", "TPE's own",
}  # fmt: skip


def on_a_terminal(line: list[str], folder: Path, wide: int = 150) -> tuple[int, str]:
    """Run a command whose output is a terminal; its status and everything it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, wide, 0, 0))
    around = surroundings(folder) | {"TERM": "xterm-256color"}
    driver = subprocess.Popen(line, cwd=folder, env=around, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wrote = b""
    while True:
        try:
            wrote += os.read(ours, 65_536)
        except OSError:  # so Linux tells that the other side is closed
            break
    os.close(ours)
    return driver.wait(), wrote.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_on_a_terminal_shows_how_each_batch_size_stands(
    tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "small.toml").write_text(QUICKLY + "validation_examples = 300\n")
    status, wrote = on_a_terminal(
        command(
            tmp_path, data_dir, "--config", "small.toml", "--model", "mlp", "--data", "digits",
            "--batch-sizes", "16,64", "--trials", "8", "--budget-examples", "8192",
            "--target", "0.85", "--seeds", "2",
        ),
        tmp_path,
    )  # fmt: skip
    assert status == 0, wrote[-3000:]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", wrote)
    assert "\x1b[1A" in wrote  # drawn over itself
    panels = re.findall(r"(?:search|confirm): .*? of \d+.*?now: [^\r\n]*", text, re.DOTALL)
    assert {panel.split(":")[0] for panel in panels} == {"search", "confirm"}
    for panel in panels:
        assert re.search(r"^ *16  \w+", panel, re.M) and re.search(r"^ *64  \w+", panel, re.M)
    states = set(re.findall(r"^ *(?:16|64)  (\w+)", "\n".join(panels), re.M))
    assert "leading" in states and states <= {
        "waiting", "racing", "leading", "dropped", "confirming", "open", "tied",
    }  # fmt: skip
    searching = "\n".join(p for p in panels if p[0] == "s")  # a line ends at the terminal's edge
    told = re.findall(r"b\d+-lr\S+ \((\w[^)\r\n]*)\)", searching)
    assert told and set(told) <= PURPOSES
    assert re.search(r"now: b\d+-lr\S+ \(seed [12]", text)
    assert re.search(r"about \d+ s to the next look", text)
    assert "Use batch size" in text.split("now:")[-1]
