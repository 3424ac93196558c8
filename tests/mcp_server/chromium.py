"""A real headless Chromium, driven over the pipe of its DevTools protocol: no driver program, no port, no network.

COMPUTE_AWARENESS_CHROMIUM=1 makes tests fail where there is none; its path does so too, and says which.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

WANTED = "COMPUTE_AWARENESS_CHROMIUM"
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_LIMIT_S = 60.0
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--force-device-scale-factor=1", "--force-color-profile=srgb", "--disable-dev-shm-usage",
    # The page's frame in the process of its host: one session sees both.
    "--disable-site-isolation-trials", "--disable-features=IsolateSandboxedIframes,Translate",
)  # fmt: skip
# Chromium reads commands from its descriptor 3 and writes answers to 4.
_START = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """The path of a Chromium; None = there is none, or not one that this system can start with pipes."""
    if os.name != "posix":
        return None
    named = os.environ.get(WANTED, "")
    found = named if named not in ("", "1") else next(filter(None, map(shutil.which, _NAMES)), None)
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return found or (str(mac) if mac.is_file() else None)


def missing() -> str | None:
    """Why there can be no browser here, in words; None where there can, or where there has to be."""
    if chromium() is not None or os.environ.get(WANTED):
        return None
    return "no Chromium on this machine: apt-get install chromium-headless-shell (or chromium) for these tests"


class Browser:
    """One tab. `on` holds what is called with the parameters of an event, by its name."""

    def __init__(self, folder: Path) -> None:
        path = chromium()
        assert path is not None, f"{WANTED} is set, and there is no Chromium"
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(their_in), str(their_out), path, *_FLAGS,
             f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        self._out = os.fdopen(our_out, "wb", buffering=0)
        self._in = os.fdopen(our_in, "rb")
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._session: str | None = None
        self.on: dict[str, Callable[[dict[str, Any]], None]] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def close(self) -> None:
        """Ends the browser and everything it started."""
        self._session = None
        with contextlib.suppress(AssertionError, OSError):
            self.ask("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the group is its own: it started with the browser
        self._process.wait()
        self._listener.join(timeout=10)  # its end of the pipe closes with the last of the browser's processes
        for file in (self._out, self._in, self._log):
            file.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self.until(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def until(self, done: Callable[[], Any], what: str) -> None:
        """Hears events until `done`. Fails where the browser says nothing for a minute, or goes away."""
        while not done():
            try:
                message = self._heard.get(timeout=_LIMIT_S)
            except queue.Empty:
                raise AssertionError(f"waited in vain: {what}") from None
            assert message is not None, f"the browser went away: {what}"
            if "id" in message:
                self._answers[message["id"]] = message
            elif message["method"] in self.on:
                self.on[message["method"]](message["params"])

    def evaluate(self, code: str, context: int | None = None) -> Any:
        """The value of an expression, a promise's when it is kept; in a frame's `context`, or at the top."""
        where = {} if context is None else {"contextId": context}
        told = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, by its DOM name and its virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            held = {"type": kind, "key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", **held, **(text if kind == "keyDown" else {}))

    def click(self, x: float, y: float) -> None:
        """A click of the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, width: int, height: int) -> list[list[tuple[int, int, int]]]:
        """The pixels of the upper left corner of what is seen: rows of (red, green, blue)."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        return pixels(base64.b64decode(self.ask("Page.captureScreenshot", format="png", clip=clip)["data"]))

    def _listen(self) -> None:
        held = b""
        while chunk := os.read(self._in.fileno(), 65536):
            *whole, held = (held + chunk).split(b"\0")
            for message in whole:
                self._heard.put(json.loads(message))
        self._heard.put(None)


def pixels(png: bytes) -> list[list[tuple[int, int, int]]]:
    """A PNG of 8 bits a channel, with or without transparency and not interlaced, as rows of (red, green, blue)."""
    at, packed, header = 8, b"", b""
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        if kind == b"IHDR":
            header = png[at + 8 : at + 8 + size]
        elif kind == b"IDAT":
            packed += png[at + 8 : at + 8 + size]
        at += 12 + size
    width, depth, colour, interlaced = int.from_bytes(header[:4], "big"), header[8], header[9], header[12]
    assert depth == 8 and colour in (2, 6) and not interlaced
    step = 3 if colour == 2 else 4
    data, stride = zlib.decompress(packed), width * step
    rows, above = [], bytearray(stride)
    for start in range(0, len(data), stride + 1):
        row = bytearray(data[start + 1 : start + 1 + stride])
        _unfilter(data[start], row, above, step)
        rows.append([(row[n], row[n + 1], row[n + 2]) for n in range(0, stride, step)])
        above = row
    return rows


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    for n in range(len(row)):
        left = row[n - step] if n >= step else 0
        up = above[n]
        corner = above[n - step] if n >= step else 0
        if kind == 4:
            guess = left + up - corner
            off = {left: abs(guess - left), up: abs(guess - up), corner: abs(guess - corner)}
            nearest = next(v for v in (left, up, corner) if off[v] == min(off.values()))
        else:
            nearest = (0, left, up, (left + up) // 2)[kind]
        row[n] = (row[n] + nearest) & 0xFF
