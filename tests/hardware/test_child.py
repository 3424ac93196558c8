"""Children: what they can read, and that nothing goes on once they are not wanted."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from compute_awareness.hardware.probe import child
from compute_awareness.hardware.probe.child import run_child

ECHO = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1])"
LONG = 60.0


def python(code: str, **options):
    return run_child([sys.executable, "-c", code], dict(os.environ), LONG, **options)


def test_standard_input_is_given_whole_while_it_answers():
    data = bytes(range(65, 91)) * 20_000
    assert python(ECHO, stdin=data).out == data[::-1].decode()
    assert python(ECHO).out == ""


def test_a_child_that_does_not_read_is_no_fault():
    done = python("print('no')", stdin=b"x" * 1_000_000)
    assert (done.out.strip(), done.code, done.timed_out) == ("no", 0, False)


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(600)", "import os, time; os.close(1); os.close(2); time.sleep(600)"]
)
def test_it_is_ended_once_it_is_not_wanted(code):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begin = time.monotonic()
    assert python(code, stop=stop).code is None
    assert time.monotonic() - begin < LONG / 2


def test_it_is_ended_by_an_interrupt(monkeypatch):
    started = []
    popen = child.subprocess.Popen

    def spy(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(child.subprocess, "Popen", spy)
    monkeypatch.setattr(child, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        python("import time; time.sleep(600)")
    assert started[0].poll() is not None
