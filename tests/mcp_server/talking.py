"""A client of a few lines, so that a test can send what the SDK's client would not, and see each answer as it came."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE_ROOT = str(Path(__file__).resolve().parents[2] / "server")
PATIENCE_S = 300.0
"""After which a server that does not answer is ended, so that a test of a hang fails instead of hanging."""
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "0"},
}


class Talk:
    """A server on standard input and output, spoken to line by line."""

    def __init__(self, *command: str, env: Mapping[str, str], **popen: Any) -> None:
        stderr = popen.pop("stderr", subprocess.PIPE)
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "compute_awareness"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=dict(env), **popen,
        )  # fmt: skip
        self.said = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        if self.process.stderr:
            self._listener.start()
        self._next = 0

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as pipe:
            while chunk := os.read(pipe.fileno(), 65536):
                self.said += chunk

    def begin(self) -> None:
        """The handshake of 2025-11-25."""
        self.ask("initialize", INITIALIZE)
        self.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))

    def send(self, line: str) -> None:
        """One line as it is."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode("utf-8") + b"\n")
        self.process.stdin.flush()

    def start(self, method: str, params: Any) -> int:
        """A request whose answer is not waited for; its id."""
        self._next += 1
        self.send(json.dumps({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}))
        return self._next

    def ask(self, method: str, params: Any) -> dict[str, Any]:
        """The answer, strictly as JSON has it."""
        return self.answer(self.start(method, params))

    def answer(self, wanted: int) -> dict[str, Any]:
        """The message with this id. Fails where the server goes or says nothing for `PATIENCE_S`."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                message = json.loads(line, parse_constant=_no_number)
                if message.get("id") == wanted:
                    return message
        finally:
            watchdog.cancel()
        raise AssertionError(f"the server is gone or silent: {bytes(self.said[-2000:])!r}")

    def call(self, tool: Any, arguments: Any) -> dict[str, Any]:
        """The answer to one tool call."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def close(self, within_s: float = 60.0) -> int:
        """The exit code after its input ends; a server that stays is killed, and its code is -9."""
        if self.process.stdin and not self.process.stdin.closed:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            if self.process.stdout:
                self.process.stdout.close()
            if self._listener.ident is not None:
                self._listener.join(10)


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment with nothing of this machine's user in it: an own home, no programs, no hub."""
    bare = {name: os.environ[name] for name in ("SYSTEMROOT", "WINDIR", "PATHEXT") if name in os.environ}
    own = {
        "HOME": str(home), "USERPROFILE": str(home), "PATH": str(home / "bin"), "TMPDIR": str(home / "tmp"),
        "TEMP": str(home / "tmp"), "TMP": str(home / "tmp"), "PYTHONPATH": PACKAGE_ROOT, "HF_HUB_OFFLINE": "1",
        "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", "COMPUTE_AWARENESS_PROFILE": "",
    }  # fmt: skip
    for folder in ("bin", "tmp", "project"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    return bare | own | more


def _no_number(text: str) -> Any:
    raise AssertionError(f"{text} is not JSON")
