"""From start to an answered tools/list: this server against a bare SDK server with one tool.

    python benchmarks/startup.py [--rounds 15]

Both are started by the same Python, in turn, and spoken to over stdio with the plain 2025-11-25 handshake.
Both run compiled modules, as an installed package does: the two rounds before the first that counts compile them.
Aim: at most 1.10 times the bare server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from timing import interleave, report

BARE = """
from mcp.server import MCPServer
server = MCPServer("bare", log_level="WARNING")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run()
"""
BASE, OURS = "bare SDK server, one tool", "compute-awareness"
COMMANDS = {BASE: [sys.executable, "-c", BARE], OURS: [sys.executable, "-m", "compute_awareness"]}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "0"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST_TOOLS = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


def compiled() -> dict[str, str]:
    """The environment, in which modules are compiled once and not at every start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def time_to_tools(command: list[str]) -> float:
    """Seconds from starting `command` to its answer to tools/list. Raises RuntimeError where none comes."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=compiled(),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            _send(server.stdin, INITIALIZE)
            _answer(server.stdout, 1)
            _send(server.stdin, INITIALIZED)
            _send(server.stdin, LIST_TOOLS)
            tools = _answer(server.stdout, 2)["result"]["tools"]
            took = time.perf_counter() - begin
        finally:
            server.kill()
    if not tools:
        raise RuntimeError(f"{command[1:3]} lists no tools")
    return took


def _send(stream, message: dict) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _answer(stream, wanted: int) -> dict:
    for line in stream:
        message = json.loads(line)
        if message.get("id") == wanted:
            return message
    raise RuntimeError("a server ended without an answer; start it by hand to see why")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds = interleave({name: lambda c=command: time_to_tools(c) for name, command in COMMANDS.items()}, rounds)
    report("start to answered tools/list", seconds, BASE, {OURS: 1.10})


if __name__ == "__main__":
    main()
