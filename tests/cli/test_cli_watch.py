"""`detect --watch`: on a terminal and in a pipe, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "compute_awareness", "detect", "--watch", "-n", "0.1", "--python", sys.executable]
ENVIRON = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "LINES", "COLUMNS")} | {
    "TERM": "xterm"
}
LONG = 120  # seconds; far more than any of this takes


@pytest.mark.parametrize("as_json", [False, True])
def test_in_a_pipe_plain_blocks_until_the_reader_goes(as_json):
    command = [*COMMAND, *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON) as process:
        assert process.stdout is not None and process.stderr is not None
        if as_json:
            looks = [json.loads(process.stdout.readline()) for _ in range(3)]
            assert all(look["python"] == looks[0]["python"] and look["summary"] for look in looks)
        else:
            blocks = 0
            while blocks < 3:
                line = process.stdout.readline()
                assert line and "\x1b" not in line
                blocks += line.startswith("--- 20")
        process.stdout.close()
        assert process.wait(LONG) == 141
        assert process.stderr.read() == ""


def test_bad_input_is_told_as_ever(cli):
    assert cli("detect", "--watch", "--python", "/nowhere/python").code == 2
    refused = cli("detect", "-n", "3")
    assert (refused.code, refused.out) == (2, "") and "--watch" in refused.err
    for value in ("0", "-1", "nan", "1e9", "x"):
        assert cli("detect", "--watch", "-n", value).code == 2


if sys.platform != "win32":
    import pty
    import select
    import termios

    def on_a_terminal(end: bytes | signal.Signals, looks: int) -> tuple[int, str]:
        """Exit code and all that the terminal was sent, ended by a key or a signal after some looks."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (12, 70))
        before = termios.tcgetattr(slave)
        process = subprocess.Popen(
            COMMAND, stdin=slave, stdout=slave, stderr=slave, env=ENVIRON, start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )  # fmt: skip
        seen = b""
        sent = False
        deadline = time.monotonic() + LONG
        while process.poll() is None:
            assert time.monotonic() < deadline, seen
            if select.select([master], [], [], 0.05)[0]:
                seen += os.read(master, 65536)
            if not sent and seen.count(b"\x1b[J") > looks:
                sent = True
                if isinstance(end, bytes):
                    os.write(master, end)
                else:
                    process.send_signal(end)
        while select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 65536)
        after = termios.tcgetattr(slave)
        os.close(slave)
        os.close(master)
        # The kernel's bookkeeping of what was typed ahead is no setting.
        after[3] &= ~termios.PENDIN
        before[3] &= ~termios.PENDIN
        assert after == before
        return process.returncode, seen.decode()

    @pytest.mark.parametrize(
        ("end", "code", "looks"), [(b"q", 0, 3), (b"\x03", 0, 2), (signal.SIGTERM, 143, 2), (b"q", 0, 0)]
    )
    def test_on_a_terminal_it_has_a_screen_of_its_own_and_gives_it_back(end, code, looks):
        returned, seen = on_a_terminal(end, looks)
        assert returned == code
        assert seen.startswith("\x1b[?1049h\x1b[?25l") and seen.endswith("\x1b[?25h\x1b[?1049l")
        assert "Traceback" not in seen
        screens = seen.split("\x1b[H")[1:]
        assert "q to quit" in screens[0]
        assert all(screen.count("\n") <= 12 for screen in screens)
        if looks:
            assert "RAM free" in screens[1]
