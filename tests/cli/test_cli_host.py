"""`--host`, `--script` and reports of other machines on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import EXAMPLES, machine

from compute_awareness.hardware.script import BEGIN, END, probe_script

PYTHIA = str(EXAMPLES / "pythia_cache.json")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of ssh, at the head of PATH: runs the script here and keeps its arguments in `asked`."""
    if os.name != "posix":
        pytest.skip("the stand-in is a POSIX script")
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nfor part; do echo "$part"; done > "{tmp_path}/asked"\nexec "{sys.executable}" -\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_host_by_name(cli, ssh):
    seen = cli("detect", "--host", "gpu-box", "--json")
    assert seen.code == 0 and seen.document["seen_from"] == "gpu-box"
    assert "\n--\ngpu-box\n" in (ssh / "asked").read_text()
    shown = cli("detect", "--host", "gpu-box").out
    assert shown.startswith("gpu-box, ") and "seen from" in shown
    checked = cli("preflight", PYTHIA, "--host", "gpu-box", "--gpu", "none")
    assert "gpu-box's CPU (RAM)" in checked.out and checked.code in (0, 1, 3)
    assert cli("recommend", PYTHIA, "--host", "gpu-box", "--json").code == 0
    assert cli("doctor", "--host", "gpu-box", "--json").document["compute"]["seen_from"] == "gpu-box"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("detect", "--host", "-oProxyCommand=x"), "begins with '-'"),
        (("detect", "--host", "a;b"), "characters that no host name has"),
        (("preflight", PYTHIA, "--host", "a", "--compute", "b"), "give one of them"),
        (("recommend", PYTHIA, "--host", "a", "--compute", "b"), "give one of them"),
        (("detect", "--script", "--host", "a"), "only --python goes with it"),
        (("detect", "--script", "--json"), "only --python goes with it"),
    ],
)
def test_what_is_refused(cli, args, words):
    refused = cli(*args)
    assert (refused.code, refused.out) == (2, "") and words in refused.err and refused.err.count("\n") == 1


def test_the_script_is_printed_whole(cli):
    assert cli("detect", "--script").out == probe_script()
    printed = cli("detect", "--script", "--python", "~/venv/bin/python").out
    assert "PROBE_PYTHON = '~/venv/bin/python'\n" in printed


def test_what_it_printed_is_a_report(cli, tmp_path):
    (tmp_path / "probe.py").write_text(probe_script(sys.executable), encoding="ascii")
    command = [sys.executable, str(tmp_path / "probe.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    output = tmp_path / "slurm-17.out"
    output.write_text(f"Job 17 on gpu-a1\n{printed}slurmstepd: done\n", encoding="utf-8")
    result = cli("preflight", PYTHIA, "--compute", str(output), "--json")
    assert result.code in (0, 1, 3) and result.document["compute"]["python"]["path"] == sys.executable


def test_a_verdict_names_the_machine_of_the_report(cli, tmp_path):
    report = machine(22)
    report.host.hostname = "node-17"
    given = f"{BEGIN}{report.model_dump_json()}{END}".encode()
    shown = cli("preflight", PYTHIA, "--compute", "-", stdin=given)
    assert shown.code == 1 and "node-17's Test card has 22.0 GiB" in shown.out
    without = machine(None)
    without.host.hostname = "node-18"
    asked = cli("preflight", PYTHIA, "--compute", "-", "--json", stdin=without.model_dump_json().encode())
    text = asked.document["asking"]["text"]
    assert "I see no GPU that it could use on node-18" in text and "Must it run on node-18" in text


@pytest.mark.parametrize("text", ["", "no GPU", "{}", f"{BEGIN}{{", '{"format": 2}'])
def test_a_file_that_is_no_report(cli, tmp_path, text):
    path = tmp_path / "report.txt"
    path.write_text(text)
    refused = cli("preflight", PYTHIA, "--compute", str(path))
    assert (refused.code, refused.out) == (2, "") and "is not a report of `detect --json`" in refused.err
    assert json.dumps(refused.err)
