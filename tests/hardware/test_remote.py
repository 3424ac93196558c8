"""Which hosts are taken, and what ssh is started with; the connections are in test_remote_sshd.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from compute_awareness.errors import InputError
from compute_awareness.hardware import remote
from compute_awareness.hardware.remote import Target, detect_on, parse_host


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("gpu-box", Target("gpu-box", None)),
        (" gpu-box ", Target("gpu-box", None)),
        ("me@gpu-box", Target("me@gpu-box", None)),
        ("me@corp.example@login.cluster.example", Target("me@corp.example@login.cluster.example", None)),
        ("me@10.0.0.1:2222", Target("me@10.0.0.1", 2222)),
        ("box:22", Target("box", 22)),
        ("::1", Target("::1", None)),
        ("me@fe80::1%eth0", Target("me@fe80::1%eth0", None)),
        ("[::1]:2222", Target("::1", 2222)),
        ("me@[2001:db8::5]", Target("me@2001:db8::5", None)),
    ],
)
def test_hosts_that_are_taken(host, target):
    assert parse_host(host) == target


@pytest.mark.parametrize(
    "host",
    [
        "", "  ", "-oProxyCommand=touch x", "-", "me@-box", "-me@box", "a b", "box\n", "box\0", "box\tx", "box;x",
        "$(x)", "`x`", "box'", 'box"', "box|x", "box&", "box>x", "box<x", "box*", "box?", "~box", "box\\x", "a@",
        "@a", "box:0", "box:65536", "box:1234567", "box:", "box:x", ":22", "[::1", "[box]:22", "1:2:3", "::g",
        "ssh://box", "b\u00f6x", "x" * 300, "box\u202e", "!box", "box(1)", "{a,b}", "box#", "me@fe80::1%", "%h",
    ],
)  # fmt: skip
def test_hosts_that_are_refused(host):
    with pytest.raises(InputError) as caught:
        parse_host(host)
    assert str(caught.value).startswith("host") and str(caught.value).isprintable()


def test_ssh_is_started_without_a_shell_and_can_ask_for_nothing(monkeypatch):
    started = []

    def spy(argv, environ, limit_s, **options):
        started.append((argv, environ, options))
        raise OSError(2, "stopped here")

    monkeypatch.setattr(remote, "run_child", spy)
    monkeypatch.setattr(remote.shutil, "which", lambda name, path: f"/bin/{name}")
    environ = {"PATH": "/bin", "DISPLAY": ":0", "SSH_ASKPASS": "/bin/ask", "SSH_AUTH_SOCK": "/agent"}
    with pytest.raises(InputError, match="ssh cannot be started: stopped here"):
        detect_on("me@box:2222", environ=environ)
    ((argv, variables, options),) = started
    assert argv[0] == "/bin/ssh" and argv[-3:-1] == ["--", "me@box"] and argv[argv.index("-p") + 1] == "2222"
    assert {"BatchMode=yes", "ControlMaster=no", "PermitLocalCommand=no"} <= set(argv)
    assert not any("StrictHostKeyChecking" in part for part in argv) and "-F" not in argv
    assert variables == {"PATH": "/bin", "SSH_AUTH_SOCK": "/agent", "SSH_ASKPASS_REQUIRE": "never"}
    assert options["stdin"].isascii() and b"PROBE_PYTHON = None" in options["stdin"]


def test_no_ssh_here(tmp_path):
    with pytest.raises(InputError, match="no `ssh` program on PATH"):
        detect_on("box", environ={"PATH": str(tmp_path)})


@pytest.mark.parametrize("python", ["", " ", "a\nb", "a\0b", "x" * 5000])
def test_a_python_that_is_no_path(python):
    with pytest.raises(InputError, match="path to Python"):
        detect_on("box", python)


def test_the_words_for_the_other_shell_never_hold_what_was_given():
    plain = remote._commands(None)
    assert remote._commands("/opt/my env/bin/python") == remote._commands("x'; touch y; '") == plain
    assert " ~/venv/bin/python; do" in remote._commands("~/venv/bin/python")[0]
    for command in plain:
        assert "\n" not in command and "!" not in command and "\\" not in command


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh", "fish", "tcsh", "ksh"])
def test_the_words_mean_the_same_in_every_shell(shell, tmp_path):
    import subprocess

    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    for command in remote._commands(None)[:2]:
        done = subprocess.run(
            [shell, "-c", command], input="print('from ' + 'the script')", capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, cwd=tmp_path, timeout=60,
        )  # fmt: skip
        assert done.stdout == "from the script\n", done.stderr
    assert list(Path(tmp_path).iterdir()) == []
