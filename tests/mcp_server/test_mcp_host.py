"""Looking at another machine by the tools: whose machine an answer is about, and a call that is cancelled."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from compute_awareness.hardware.script import BEGIN, END

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


async def test_a_cancelled_call_ends_its_ssh(server: Any, ssh: Path) -> None:
    written = ssh / "pid"
    async with Client(server) as client, anyio.create_task_group() as group:

        async def call() -> None:
            await client.call_tool("detect_compute", {"host": "hangs"})

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
