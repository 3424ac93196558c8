"""Looking at another machine by the tools: whose machine an answer is about, and a call that is cancelled."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from compute_awareness.hardware import detect as detect_module
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe.child import ended_by
from compute_awareness.hardware.script import BEGIN, END
from compute_awareness.mcp_server import looking

pytestmark = pytest.mark.anyio

# In place of ssh: keeps what it was asked, then does as the host's name says.
SSH = """#!{python}
import os, subprocess, sys, time
sys.path[:] = [p for p in sys.path if p]
host = sys.argv[-2]
if host == "hangs":
    open({pid!r}, "w").write(str(os.getpid()))
    sys.stdin.read()
    time.sleep(600)
if host == "closed":
    print("ssh: connect to host closed port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
sys.exit(subprocess.run([sys.executable, "-"], stdin=sys.stdin).returncode)
"""


# In place of the experiment's Python: never answers.
HANGING_PYTHON = """#!{python}
import os, time
open({pid!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of PATH whose `ssh` runs the script here; `pid` is written there by one that hangs."""
    if os.name != "posix":
        pytest.skip("the stand-in is a POSIX script")
    program = tmp_path / "ssh"
    program.write_text(SSH.format(python=sys.executable, pid=str(tmp_path / "pid")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


async def test_the_servers_own_machine_is_named(server: Any, mode: str) -> None:
    here = f"this machine ({platform.node()}), where the server runs"
    async with Client(server, mode=mode) as client:
        seen = await client.call_tool("detect_compute", {})
        assert seen.structured_content["seen_from"] == here
        checked = await client.call_tool("preflight_experiment", {"task": "inference", "model": "gpt2"})
        assert checked.structured_content["compute"]["seen_from"] == here


async def test_a_host_is_looked_at_and_named_in_the_verdict(server: Any, ssh: Path) -> None:
    async with Client(server) as client:
        seen = await client.call_tool("detect_compute", {"host": "gpu-box", "detail": "full"})
        report = seen.structured_content
        assert report["seen_from"] == "gpu-box" and report["summary"].startswith("gpu-box, ")
        workload = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024, "gpu": "none"}
        by_host = await client.call_tool("preflight_experiment", {**workload, "host": "gpu-box"})
        assert by_host.structured_content["verdict"]["device"] == "gpu-box's CPU (RAM)"
        assert "gpu-box's" in by_host.structured_content["summary"]
        by_report = await client.call_tool("preflight_experiment", {**workload, "compute": report})
        assert by_report.structured_content["verdict"]["device"] == "gpu-box's CPU (RAM)"
        advised = await client.call_tool("recommend_compute", {**workload, "host": "gpu-box"})
        assert not advised.is_error


async def test_what_the_script_printed_is_a_report(server: Any) -> None:
    import json

    from compute_awareness.hardware.detect import detect

    report = detect(with_python=False)
    report.host.hostname = "colab-7"
    pasted = f"Requirement satisfied\n{BEGIN}{json.dumps(report.model_dump(mode='json'))}{END}\n"
    arguments = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "gpu": "none", "compute": pasted}
    async with Client(server) as client:
        result = await client.call_tool("preflight_experiment", arguments)
        assert result.structured_content["verdict"]["device"] == "colab-7's CPU (RAM)"
        refused = await client.call_tool("preflight_experiment", {**arguments, "compute": "no GPU here"})
        assert refused.is_error and "not a detect_compute report" in refused.content[0].text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"host": "-oProxyCommand=x"}, "begins with '-'"),
        ({"host": "a b"}, "characters that no host name has"),
        ({"host": "closed"}, "closed takes no ssh connection"),
    ],
)
async def test_a_host_that_cannot_be_looked_at_is_one_line(
    server: Any, ssh: Path, arguments: dict[str, Any], words: str
) -> None:
    async with Client(server) as client:
        refused = await client.call_tool("detect_compute", arguments)
        assert refused.is_error and words in refused.content[0].text and "\n" not in refused.content[0].text
        both = {**arguments, "task": "inference", "model": "gpt2", "compute": {}}
        refused = await client.call_tool("preflight_experiment", both)
        assert refused.is_error


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for yet no longer runs.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def ends_with_its_call(server: Any, mode: str, written: Path, tool: str, arguments: dict[str, Any]) -> None:
    """Calls, waits until the program that the call starts has written its pid, cancels; the program must end."""
    async with Client(server, mode=mode) as client, anyio.create_task_group() as group:

        async def call() -> None:
            await client.call_tool(tool, arguments)

        group.start_soon(call)
        with anyio.fail_after(60):
            while not written.exists() or not written.read_text():
                await anyio.sleep(0.05)
        pid = int(written.read_text())
        assert running(pid)
        group.cancel_scope.cancel()
    end = time.monotonic() + 30
    while running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    ended = not running(pid)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


@pytest.mark.parametrize("tool", ["detect_compute", "preflight_experiment", "recommend_compute"])
async def test_a_cancelled_call_ends_its_ssh(server: Any, mode: str, tool: str, ssh: Path) -> None:
    workload = {} if tool == "detect_compute" else {"task": "inference", "model": "gpt2"}
    await ends_with_its_call(server, mode, ssh / "pid", tool, {"host": "hangs", **workload})


async def test_a_cancelled_call_ends_its_trace(server: Any, mode: str, ssh: Path) -> None:
    """The experiment's Python is a program that never answers: without the cancel it would have two minutes."""
    python = ssh / "python3"
    python.write_text(HANGING_PYTHON.format(python=sys.executable, pid=str(ssh / "traced")))
    python.chmod(0o755)
    arguments = {"task": "inference", "model": "gpt2", "library": "transformers", "method": "trace",
                 "python": str(python)}  # fmt: skip
    await ends_with_its_call(server, mode, ssh / "traced", "estimate_memory", arguments)


def test_what_a_look_starts_is_ended_with_it() -> None:
    """The probes run in threads of their own, and know there who may end them."""
    stop = threading.Event()
    stop.set()
    with ended_by(stop):
        ended = detect(sys.executable).python
    seen = detect(sys.executable).python
    assert seen is not None and seen.version == platform.python_version()
    assert ended is not None and ended.version is None


async def test_progress_is_told_while_it_takes(server: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ends when progress was told three times, so that nothing here depends on the clock."""
    told: list[tuple[float, float | None, str | None]] = []
    enough = threading.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        if len(told) == 3:
            enough.set()

    def look(host: str | None, python: str | None = None) -> Any:
        assert enough.wait(60)
        return detect(with_python=False)

    monkeypatch.setattr(detect_module, "detect_at", look)
    monkeypatch.setattr(looking, "TELL_EVERY_S", 0.01)
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("detect_compute", {"host": "gpu-box"}, progress_callback=on_progress)
    assert not result.is_error
    assert all(message and message.startswith("looking at gpu-box by ssh: ") for _, _, message in told)
    assert [value for value, _, _ in told] == sorted({value for value, _, _ in told})
