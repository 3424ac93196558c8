"""The child process of a trace: its limits, what it may not do, and answers that are none."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from compute_awareness.errors import InputError
from compute_awareness.trace import worker
from compute_awareness.trace.run import run_worker

GOOD = '{"traces": [{"sections": {"forward:after": {"other": 1}}}], "versions": {}, "seen": %s}'
JOB = {"library": "transformers", "task": "inference", "config": {}, "dtype": "float32", "batch_size": 1, "seq_len": 2}


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder that temporary folders are made in; looked at afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def run(tmp_path: Path, script: str, python: str = sys.executable, **limits):
    path = tmp_path / "script.py"
    path.write_text(script)
    return run_worker(JOB, python, script=path, **limits)


def saying(expression: str) -> str:
    """A worker that answers with a Python expression's value under "seen"."""
    return (
        "import json, sys\nprint('noise', file=sys.stderr)\n"
        f"print('<<compute-awareness trace>>' + {GOOD!r} % json.dumps({expression}) + '<<end>>')\n"
    )


def confined(body: str, expression: str) -> str:
    """The same, after `body` in a process that confined itself as the worker does."""
    return Path(worker.__file__).read_text().replace('if __name__ == "__main__":', "if False:") + (
        f"\nfolder = os.path.dirname(os.path.abspath(sys.argv[0]))\nconfine(folder)\n{body}\n" + saying(expression)
    )


def test_the_answer_comes_with_the_python_that_gave_it(tmp_path, temporary):
    answer = run(tmp_path, saying("1"))
    assert answer["seen"] == 1
    assert answer["interpreter"] == sys.executable
    assert list(temporary.iterdir()) == []


def test_the_job_arrives_and_the_environment_is_offline(tmp_path, temporary, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    seen = run(tmp_path, "import os\n" + saying(
        "[json.load(open(sys.argv[1])), os.getcwd(), os.environ.get('HTTPS_PROXY'), os.environ['HF_HUB_OFFLINE']]"
    ))["seen"]  # fmt: skip
    assert seen[0] | {"memory_limit": 0} == JOB | {"memory_limit": 0}
    assert Path(seen[1]).parent.resolve() == temporary.resolve()
    assert seen[2:] == [None, "1"]
    assert list(temporary.iterdir()) == []


def test_a_worker_that_hangs_is_killed_with_its_children(tmp_path, temporary):
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with pytest.raises(InputError, match=r"not done after 3 s"):
        run(tmp_path, script, limit_s=3.0)
    assert time.monotonic() - began < 20
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not _runs(pid):
            break
        time.sleep(0.1)
    assert not _runs(pid)
    assert list(temporary.iterdir()) == []


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.parametrize(
    "script, said",
    [
        ("import os; os.abort()", "exit code -6"),
        ("import sys; sys.exit('no such thing')", "exit code 1: no such thing"),
        ("print('hello')", "something else"),
        ("print('<<compute-awareness trace>>{broken<<end>>')", "something else"),
        ("print('<<compute-awareness trace>>[1, 2]<<end>>')", "something else"),
        ("print('<<compute-awareness trace>>{\"traces\": []}<<end>>')", "something else"),
        ("while True: print('x' * 100000)", "without end"),
    ],
)
def test_what_is_no_answer_is_an_input_error(script, said, tmp_path, temporary):
    with pytest.raises(InputError, match=said):
        run(tmp_path, script, limit_s=20.0)
    assert list(temporary.iterdir()) == []


def test_refusals_of_the_worker_are_one_line(tmp_path, temporary):
    error = '{"error": {"kind": "failed", "message": "RuntimeError:\\\\n shapes"}}'
    with pytest.raises(InputError, match=r"^cannot be traced with these libraries: RuntimeError: shapes$"):
        run(tmp_path, f"print('<<compute-awareness trace>>{error}<<end>>')")


def test_a_python_without_torch_is_refused_with_the_way_to_name_one(tmp_path, temporary):
    bare = tmp_path / "bin" / "python"
    bare.parent.mkdir()
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(InputError, match=r"torch cannot be imported.*name the experiment's Python with --python"):
        run_worker(JOB, str(bare), environ={"PATH": os.defpath})
    assert list(temporary.iterdir()) == []


def test_a_python_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not found"):
        run_worker(JOB, str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/', timeout=1)",
        "import subprocess; subprocess.run([sys.executable, '-c', ''])",
        "os.system('true')",
        "open(TARGET, 'w')",
        "os.mkdir(TARGET)",
        "os.rename(__file__, TARGET)",
        "os.symlink(__file__, TARGET)",
    ],
)
def test_a_confined_worker_reaches_nothing_outside_its_folder(attempt, tmp_path, temporary):
    target = tmp_path / "outside"
    body = (
        f"TARGET = {str(target)!r}\ndenied = ''\n"
        f"try:\n    {attempt}\nexcept OSError as error:\n    denied = str(error) + str(getattr(error, 'reason', ''))\n"
    )
    assert "denied while tracing" in run(tmp_path, confined(body, "denied"))["seen"]
    assert not target.exists()
    assert list(temporary.iterdir()) == []


def test_a_confined_worker_may_read_and_use_its_own_folder(tmp_path, temporary):
    body = "open(os.path.join(folder, 'scratch'), 'w').write('x')\nimport tempfile\nlist(os.listdir(sys.prefix))"
    seen = run(tmp_path, confined(body, "[os.listdir(folder), tempfile.gettempdir() == folder]"))["seen"]
    assert sorted(seen[0]) == ["job.json", "scratch", "worker.py", "worker_tasks.py", "worker_work.py"]
    assert seen[1]
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to RLIMIT_DATA")
def test_memory_is_limited(tmp_path, temporary):
    body = (
        "limit_memory(256 << 20)\nresult = 'took it'\n"
        "try:\n    held = bytearray(1 << 30)\nexcept MemoryError:\n    result = 'refused'\n"
    )
    assert run(tmp_path, confined(body, "result"))["seen"] == "refused"
