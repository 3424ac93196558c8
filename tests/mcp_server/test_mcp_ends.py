"""What ends badly: a client or a server that is killed, a full disk, a home that cannot be written, a closed pipe.

Each case waits for the process to end or to answer; a server that hangs is killed and fails the test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from talking import INITIALIZE, PATIENCE_S, Talk, environment

posix = pytest.mark.skipif(os.name != "posix", reason="signals and resource limits are POSIX's")
SMALL = {"task": "inference", "model": "gpt2", "seq_len": 128}
SLOW = Path(__file__).with_name("slow_python.py")
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
CLIENT = """
import json, subprocess, sys, time
server = subprocess.Popen([sys.executable, "-m", "compute_awareness"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def send(message):
    server.stdin.write(json.dumps(message).encode() + b"\\n"); server.stdin.flush()
send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
      "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}})
server.stdout.readline()
send({"jsonrpc": "2.0", "method": "notifications/initialized"})
send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "preflight_experiment", "arguments":
      {"task": "inference", "model": "gpt2", "python": sys.argv[1]}}})
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def slow_python(tmp_path: Path) -> Iterator[Path]:
    """A "Python" that writes its process id into `started` beside it and then says nothing for ten minutes."""
    program = tmp_path / "slow" / "python"
    program.parent.mkdir()
    started = program.with_name("started")
    program.write_text(f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}; exec sleep 600\n", "utf-8")
    program.chmod(0o755)
    (program.parent / "project").mkdir()
    yield program
    if started.exists():
        end_left_behind(int(started.read_text()))


def end_left_behind(pid: int) -> None:
    """Ends what a failed test left behind."""
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(true: Any, what: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, f"never: {what}"
        time.sleep(0.05)


def started_child(program: Path) -> int:
    """The process id of the slow program, once it runs."""
    started = program.with_name("started")
    wait_until(started.exists, "the slow Python was started")
    return int(started.read_text())


@posix
def test_a_client_that_is_killed_in_a_call_takes_the_server_and_its_children_along(
    tmp_path: Path, slow_python: Path
) -> None:
    env = environment(tmp_path, PATH=os.environ["PATH"])
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(slow_python)], env=env, cwd=tmp_path, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        server = int(client.stdout.readline())
        child = started_child(slow_python)
        assert is_running(server) and is_running(child)
        client.kill()
    wait_until(lambda: not is_running(server), "the server ends with its client")
    wait_until(lambda: not is_running(child), "the child ends with the server")
    left = [path for path in (tmp_path / "tmp").iterdir() if path.is_dir()]
    assert not left, "folders of a call were left behind"


@posix
@pytest.mark.anyio
async def test_a_server_that_is_killed_in_a_call_is_an_error_of_that_call(
    tmp_path: Path, slow_python: Path, mode: str
) -> None:
    env = environment(tmp_path, PATH=os.environ["PATH"], PID_FILE=str(tmp_path / "pid"))
    code = (
        "import os, pathlib; pathlib.Path(os.environ['PID_FILE']).write_text(str(os.getpid()))\n"
        "from compute_awareness.__main__ import main; main()"
    )
    parameters = StdioServerParameters(command=sys.executable, args=["-c", code], env=env, cwd=tmp_path)
    outcome: list[str] = []
    with anyio.fail_after(PATIENCE_S):
        try:
            async with Client(parameters, mode=mode) as client, anyio.create_task_group() as group:

                async def call() -> None:
                    try:
                        await client.call_tool("preflight_experiment", SMALL | {"python": str(slow_python)})
                    except Exception as error:
                        outcome.append(type(error).__name__)

                group.start_soon(call)
                await anyio.to_thread.run_sync(started_child, slow_python)
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        except* Exception as errors:
            outcome.append(type(errors.exceptions[0]).__name__)
    assert outcome, "the call must not look answered"
    async with Client(parameters, mode=mode) as again:  # nothing that it left behind is in a new one's way
        result = await again.call_tool("estimate_memory", SMALL)
    assert not result.is_error


@posix
@pytest.mark.parametrize("how", ["between calls", "in a call", "before the handshake"])
def test_a_closed_stdout_ends_the_server(tmp_path: Path, how: str, slow_python: Path) -> None:
    """Its input stays open: a host that only stopped reading. What can no longer be said is no reason to stay."""
    talk = Talk(env=environment(tmp_path, PATH=os.environ["PATH"]), cwd=tmp_path)
    try:
        assert talk.process.stdout is not None
        if how != "before the handshake":
            talk.begin()
        if how == "in a call":
            talk.start(
                "tools/call", {"name": "preflight_experiment", "arguments": SMALL | {"python": str(slow_python)}}
            )
            started_child(slow_python)
        talk.process.stdout.close()
        if how == "before the handshake":
            talk.start("initialize", INITIALIZE)
        talk.start("tools/call", {"name": "estimate_memory", "arguments": SMALL})
        code = talk.process.wait(60)
    finally:
        talk.process.kill()
        talk.process.wait()
        talk.close(0)
    assert code != 0
    assert b"Traceback" not in talk.said, bytes(talk.said).decode()[-2000:]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a call"])
def test_an_output_that_takes_nothing_ends_the_server(tmp_path: Path, busy: bool, slow_python: Path) -> None:
    """Its input stays open, and no answer can be said: /dev/full refuses each write as a full disk does."""
    env = environment(tmp_path, PATH=os.environ["PATH"])
    with open("/dev/full", "wb") as full, subprocess.Popen(
        [sys.executable, "-m", "compute_awareness"], stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE,
        env=env, cwd=tmp_path,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stderr is not None

        def send(message: dict[str, Any]) -> None:
            assert server.stdin is not None
            server.stdin.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
            server.stdin.flush()

        try:
            if busy:  # in the modern era no handshake is needed, so nothing has to be written before the call runs
                meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                        "io.modelcontextprotocol/clientCapabilities": {},
                        "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "0"}}  # fmt: skip
                arguments = SMALL | {"python": str(slow_python)}
                call = {"name": "preflight_experiment", "arguments": arguments, "_meta": meta}
                send({"id": 1, "method": "tools/call", "params": call})
                child = started_child(slow_python)
                send({"id": 2, "method": "server/discover", "params": {"_meta": meta}})
            else:
                send({"id": 1, "method": "initialize", "params": INITIALIZE})
            assert server.wait(PATIENCE_S) == 1
        finally:
            server.kill()
    if busy:
        wait_until(lambda: not is_running(child), "the child ends with the server")


@posix
@pytest.mark.parametrize("closed", [0, 1])
def test_a_server_without_standard_streams_says_so(tmp_path: Path, closed: int) -> None:
    code = f"import os; os.close({closed}); os.execv({sys.executable!r}, ['python', '-m', 'compute_awareness'])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, env=environment(tmp_path),
        cwd=tmp_path, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"standard input and output" in done.stderr


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a call"])
def test_a_signal_ends_the_server_and_its_children(
    tmp_path: Path, number: signal.Signals, busy: bool, slow_python: Path
) -> None:
    """Though its input stays open."""
    talk = Talk(env=environment(tmp_path, PATH=os.environ["PATH"]), cwd=tmp_path)
    try:
        talk.begin()
        if busy:
            arguments = SMALL | {"python": str(slow_python)}
            talk.start("tools/call", {"name": "preflight_experiment", "arguments": arguments})
            child = started_child(slow_python)
        talk.process.send_signal(number)
        assert talk.process.wait(PATIENCE_S) == 128 + number
        if busy:
            wait_until(lambda: not is_running(child), "the child ends with the server")
    finally:
        talk.process.kill()
        talk.close(0)
    assert b"Traceback" not in talk.said
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.is_dir()], "folders of a call were left behind"


@posix
def test_a_full_disk_costs_no_answer(tmp_path: Path) -> None:
    """No file can grow beyond nothing (RLIMIT_FSIZE), which a write learns as it learns of a full disk."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "from compute_awareness.__main__ import main; main()"
    )
    talk = Talk("-c", code, env=environment(tmp_path), cwd=tmp_path / "project")
    check_all_tools_answer(talk)


@posix
def test_a_home_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    """Nor a temporary folder. Root may write anywhere, so the folders are gone instead where we are root."""
    home = tmp_path / "home"
    env = environment(home)
    is_root = os.geteuid() == 0
    if is_root:
        env |= dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), "/proc/nowhere")
    project = home / "project"
    project.chmod(0o555)
    home.chmod(0o555)
    (home / "tmp").chmod(0o555)
    try:
        check_all_tools_answer(Talk(env=env, cwd=project))
        assert not [path for path in home.rglob("*") if path.is_file()]
    finally:
        for folder in (home, project, home / "tmp"):
            folder.chmod(0o755)


def check_all_tools_answer(talk: Talk) -> None:
    """Every tool answers, and the server ends with its input."""
    try:
        talk.begin()
        for tool, arguments in (
            ("estimate_memory", SMALL),
            ("detect_compute", {}),
            ("preflight_experiment", SMALL),
            ("recommend_compute", SMALL | {"sweep": {"batch_size": [1, 2]}}),
            ("explain_oom", {"message": "CUDA out of memory. Tried to allocate 2.25 GiB"}),
        ):
            result = talk.call(tool, arguments)["result"]
            assert not result.get("isError"), (tool, result)
            assert result["structuredContent"]["summary"], tool
        unknown = talk.call("estimate_memory", SMALL | {"model": "nobody/nothing"})["result"]
        assert unknown["isError"] and "\n" not in unknown["content"][0]["text"]
        assert talk.close() == 0
    finally:
        talk.close(0)
    assert b"Traceback" not in talk.said, bytes(talk.said).decode()[-3000:]


def test_input_that_ends_within_a_line(tmp_path: Path) -> None:
    talk = Talk(env=environment(tmp_path), cwd=tmp_path)
    talk.begin()
    assert talk.process.stdin is not None
    talk.process.stdin.write(b'{"jsonrpc": "2.0", "id": 9, "method": "pi')
    assert talk.close() == 0
    assert b"Traceback" not in talk.said


def piped(lines: list[dict[str, Any]], home: Path) -> list[dict[str, Any]]:
    """What the server writes to a client that sends these lines at once and closes the pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "compute_awareness"], input="".join(json.dumps(line) + "\n" for line in lines),
        env=environment(home), cwd=home, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def call_of(at: int, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": at, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
def test_input_that_ends_while_calls_run(tmp_path: Path, era: str) -> None:
    """Each call is answered nevertheless, whether it is arithmetic or has to look at the machine."""
    calls = [call_of(at, "estimate_memory", **SMALL, batch_size=at) for at in range(10, 40)]
    calls += [call_of(40, "preflight_experiment", **SMALL), call_of(41, "estimate_memory", **SMALL, layers="x")]
    if era == "2025-11-25":
        lines = [HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"}, *calls]
    else:
        meta = {
            "io.modelcontextprotocol/protocolVersion": era,
            "io.modelcontextprotocol/clientInfo": HELLO["params"]["clientInfo"],
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        lines = [{**call, "params": {**call["params"], "_meta": meta}} for call in calls]
    said = piped(lines, tmp_path)
    errors = {one["id"]: one["result"].get("isError", False) for one in said if one["id"] != 1}
    assert errors == {at: at == 41 for at in range(10, 42)}


def test_a_question_to_a_client_whose_input_has_ended_is_asked_in_words(tmp_path: Path) -> None:
    hello = {**HELLO, "params": {**HELLO["params"], "capabilities": {"elicitation": {}}}}
    ask = call_of(2, "preflight_experiment", task="training", model="llama-2-70b", gpu="unknown")
    said = piped([hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, ask], tmp_path)
    assert [one.get("method") for one in said] == [None, "elicitation/create", None]
    assert said[-1]["id"] == 2 and said[-1]["result"]["structuredContent"]["asking"]["decision"] == "ask"


@posix
def test_a_call_that_takes_too_long_is_not_waited_for_when_the_input_ends(tmp_path: Path, slow_python: Path) -> None:
    code = (
        "from compute_awareness.mcp_server import draining; draining.LONGEST_S = 0.5\n"
        "from compute_awareness.__main__ import main; raise SystemExit(main())"
    )
    talk = Talk("-c", code, env=environment(tmp_path, PATH=os.environ["PATH"]), cwd=tmp_path)
    talk.begin()
    talk.start("tools/call", call_of(0, "preflight_experiment", **SMALL, python=str(slow_python))["params"])
    child = started_child(slow_python)
    assert talk.close() == 0
    assert not is_running(child)


@posix
@pytest.mark.parametrize("input_ends", [False, True])
def test_a_host_that_ends_the_server_by_signal_ends_what_a_call_started(
    tmp_path: Path, slow_python: Path, input_ends: bool
) -> None:
    """As hosts do that close the input and see it still run two seconds later."""
    talk = Talk(env=environment(tmp_path, PATH=os.environ["PATH"]), cwd=tmp_path)
    talk.begin()
    talk.start("tools/call", call_of(0, "preflight_experiment", **SMALL, python=str(slow_python))["params"])
    child = started_child(slow_python)
    if input_ends:
        assert talk.process.stdin is not None
        talk.process.stdin.close()
    talk.process.terminate()
    assert talk.close() == 128 + signal.SIGTERM
    wait_until(lambda: not is_running(child), "the child ends with the server")
