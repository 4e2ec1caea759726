"""A headless Chromium driven through the DevTools protocol: for checks that look at a page.

Needs `chromium` (Debian: `apt-get install chromium`) or `CHROMIUM=/path/to/it`, and aiohttp, which
Ray's dashboard brings. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The browser's path: CHROMIUM, or the first of the usual names; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. Every call waits for its answer."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last_id = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one protocol method; raises RuntimeError with the browser's message."""
        self._last_id += 1
        await self._socket.send_json({"id": self._last_id, "method": method, "params": parameters})
        while True:
            answer = json.loads(await self._socket.receive_str())
            if answer.get("id") == self._last_id:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def wait_for(self, script: str, seconds: float = 60) -> None:
        """Until the expression is true; raises TimeoutError with what the page shows."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await self.evaluate(f"Boolean({script})"):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"never true: {script}\n{(await self.text())[:2000]}")
            await asyncio.sleep(0.2)

    async def text(self) -> str:
        return str(await self.evaluate("document.body ? document.body.innerText : ''"))

    async def click(self, script: str) -> None:
        """Press the mouse on the middle of the element that the expression gives."""
        await self.evaluate(f"({script}).scrollIntoView({{block: 'center'}})")
        box = await self.evaluate(f"({script}).getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at
            )

    async def screenshot(self, clip: dict[str, float] | None = None) -> bytes:
        """A PNG of the window, or of `clip` (x, y, width, height in CSS pixels)."""
        parameters: dict[str, Any] = {"format": "png"}
        if clip is not None:
            parameters["clip"] = clip | {"scale": 1}
        answer = await self.call("Page.captureScreenshot", **parameters)
        return base64.b64decode(answer["data"])


def the_chromium() -> str:
    """Where it is; raises RuntimeError where it is not, before what takes long is begun."""
    if (found := find_chromium()) is None:
        raise RuntimeError("no Chromium was found; install chromium, or set CHROMIUM=/path/to/it")
    return found


@asynccontextmanager
async def open_page(width: int = 1400, height: int = 900) -> AsyncIterator[Page]:
    """A fresh browser with one tab; its processes and its profile are gone afterwards."""
    chromium = the_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
                f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with _attached(Path(profile), process) as page:
                yield page
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@asynccontextmanager
async def _attached(profile: Path, process: subprocess.Popen[bytes]) -> AsyncIterator[Page]:
    port = await _port(profile / "DevToolsActivePort", process)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            tabs = await answer.json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            yield Page(socket)


async def _port(written: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the browser chose, which it writes into its profile."""
    for _ in range(300):
        if written.exists() and (lines := written.read_text().split()):
            return int(lines[0])
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended with status {process.returncode} at its start")
        await asyncio.sleep(0.1)
    raise TimeoutError("the browser opened no DevTools port within 30 s")
