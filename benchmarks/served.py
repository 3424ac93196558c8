"""Servers to be measured, ours and a bare one of the SDK, and a client of few lines that costs them little.

python benchmarks/served.py stdio FILE            # the bare server: one tool that returns the result in FILE
python benchmarks/served.py http FILE PORT WORKERS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mcp.types import CallToolResult

TOOL = "estimate_memory"
_FILE = "BENCHMARK_RESULT_FILE"
_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "0"}}
_STARTS_WITHIN_S = 120


class Pipe:
    """A server on standard input and output, asked one line at a time."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=quiet()
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in: IO[bytes] = self.process.stdin
        self._out: IO[bytes] = self.process.stdout
        self._id = 0
        self.ask("initialize", _HELLO)
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _send(self, message: dict[str, Any]) -> None:
        self._in.write(json.dumps(message).encode() + b"\n")
        self._in.flush()

    def ask(self, method: str, params: Any) -> dict[str, Any]:
        """The answer. Raises RuntimeError where the server is gone or answers with an error."""
        self._id += 1
        self._send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        line = self._out.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the server is gone"}
        if "result" not in answer or answer["id"] != self._id or answer["result"].get("isError"):
            raise RuntimeError(f"{method}: {str(answer)[:500]}")
        return answer["result"]

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The result of a tool."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def close(self) -> int:
        """The exit code after the end of its input."""
        self._in.close()
        code = self.process.wait(60)
        self._out.close()
        return code


def ours() -> list[str]:
    """The command of our server on standard input and output."""
    return [sys.executable, "-m", "compute_awareness"]


def bare(result: Path) -> list[str]:
    """The command of the bare server whose tool returns what is in `result`."""
    return [sys.executable, __file__, "stdio", str(result)]


@contextlib.contextmanager
def over_http(workers: int, result: Path | None = None) -> Iterator[tuple[int, int]]:
    """(port, process id) of our server over HTTP, or with `result` of the bare one, for as long as this lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if result is None:
        command = [*ours(), "serve", "--transport", "http", "--port", str(port), "--workers", str(workers)]
    else:
        command = [sys.executable, __file__, "http", str(result), str(port), str(workers)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said, env=quiet())
        try:
            _until_listening(port, process)
            yield port, process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
        said.seek(0)
        errors = said.read()
    if b"Traceback" in errors:
        raise RuntimeError(errors[-2000:].decode())


def quiet() -> dict[str, str]:
    """The environment without a hub to ask, or a profile of the user's."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "COMPUTE_AWARENESS_PROFILE": ""}


def _until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < ends and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")


class Connection:
    """One client of an HTTP server, whose connection stays open."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self) -> None:
        """Connects; to be called once."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)

    async def call(self, tool: str, arguments: dict[str, Any]) -> bytes:
        """The body of an answer. Raises RuntimeError for another status than 200, or an error of the tool."""
        params = {"name": tool, "arguments": arguments}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answered = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answered.split(b"content-length:")[1].split(b"\r\n")[0])
        got = await self._reader.readexactly(length)
        if b" 200 " not in answered[:20] or b'"isError":true' in got or b'"error":' in got[:80]:
            raise RuntimeError(f"{answered[:40]!r} {got[:500]!r}")
        return got

    async def close(self) -> None:
        """Disconnects."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _bare_server() -> Any:
    from mcp.server import MCPServer

    server: Any = MCPServer("bare", log_level="WARNING")
    result = CallToolResult.model_validate_json(Path(os.environ[_FILE]).read_text(encoding="utf-8"))

    @server.tool(name=TOOL, structured_output=False)
    async def constant(task: str, model: str, seq_len: int, batch_size: int) -> CallToolResult:
        "Return the same result each time."
        return result

    return server


def bare_app() -> Any:
    """The bare server as an application, for uvicorn's workers."""
    return _bare_server().streamable_http_app(stateless_http=True, json_response=True)


def main() -> None:
    """Serves the bare server."""
    how, file, *rest = sys.argv[1:]
    os.environ[_FILE] = file
    if how == "stdio":
        _bare_server().run("stdio")
        return
    import uvicorn

    port, workers = map(int, rest)
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    uvicorn.run("served:bare_app", factory=True, port=port, workers=workers, log_level="warning", server_header=False)


if __name__ == "__main__":
    main()
