"""What a user's own code prints, where it is called before a sweep starts: its first lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

MOST = 20
LEFT_OUT = "... further lines are left out\n"


class FirstLines:
    """A stream that passes on so many lines, and tells that it left out the rest."""

    def __init__(self, stream: TextIO, most: int) -> None:
        self.stream = stream
        self.left = most

    def write(self, text: str) -> int:
        lines = text.splitlines(keepends=True)
        for line in lines[: max(0, self.left + 1)]:
            if self.left > 0:
                self.stream.write(line)
            elif self.left == 0 and line.strip():
                self.stream.write(LEFT_OUT)
                self.left = -1
            self.left -= self.left > 0 and line.endswith(("\n", "\r"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def few_lines(most: int = MOST) -> Iterator[None]:
    """Output and errors that are written meanwhile are cut after so many lines each."""
    out: Any = FirstLines(sys.stdout, most)
    errors: Any = FirstLines(sys.stderr, most)
    with redirect_stdout(out), redirect_stderr(errors):
        yield
