"""Every command answers, as one JSON document and as text; exit codes follow the verdict."""

from __future__ import annotations

import json
import re
import sys

import pytest
from command_line import EXAMPLES, process

PYTHIA = str(EXAMPLES / "pythia_cache.json")
OOM = str(EXAMPLES / "oom.txt")
COMMANDS = [
    ("detect", "--python", sys.executable),
    ("estimate", PYTHIA),
    ("recommend", PYTHIA, "--gpu", "RTX 4090"),
    ("preflight", PYTHIA, "--gpu", "RTX 4090"),
    ("models",),
    ("models", "GPT2-small"),
    ("gpus",),
    ("gpus", "A100-80GB"),
    ("platforms",),
    ("platforms", "Modal"),
    ("explain-oom", OOM, "--workload", PYTHIA),
    ("explain-oom", OOM),
    ("doctor", "--python", sys.executable, "--model", "gpt2-small"),
]
ANSI = re.compile(r"\x1b\[")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c[:1] + c[2:])[:40])
def test_json_is_one_document_and_nothing_else(cli, command):
    ran = cli(*command, "--json")
    assert isinstance(ran.document, dict)
    assert ran.err == ""
    assert ran.out.endswith("}\n")
    assert ran.code in (0, 1)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c[:1] + c[2:])[:40])
def test_text_is_plain_when_piped(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = cli(*command)
    assert ran.code == cli(*command, "--json").code
    assert ran.err == ""
    assert len(ran.out.splitlines()) >= 3
    assert not ANSI.search(ran.out)
    assert all(line == line.rstrip() for line in ran.out.splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c[:1] + c[2:])[:40])
def test_a_narrow_terminal_is_enough(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert cli(*command).code in (0, 1)


@pytest.mark.parametrize(
    ("free_gib", "code", "statuses"),
    [(200, 0, {"fits"}), (14, 1, {"does_not_fit"}), (4, 1, {"does_not_fit"})],
)
def test_exit_code_is_the_verdict(cli, report, free_gib, code, statuses):
    ran = cli("preflight", PYTHIA, "--compute", report(free_gib), "--json")
    assert ran.document["verdict"]["status"] in statuses
    assert ran.code == code


def test_tight_is_not_a_failure_and_says_so(cli, report):
    needed = cli("estimate", PYTHIA, "--json").document["peak"]["device"]
    free = (needed + 1024**2) / 1024**3
    ran = cli("preflight", PYTHIA, "--compute", report(free), "--json")
    assert ran.document["verdict"]["status"] == "tight"
    assert ran.code == 0
    assert "TIGHT" in cli("preflight", PYTHIA, "--compute", report(free)).out


def test_tight_with_less_free_than_expected_stops_a_script(cli, report):
    needed = cli("estimate", PYTHIA, "--json").document["peak"]["device"]
    ran = cli("preflight", PYTHIA, "--compute", report((needed - 1024**3) / 1024**3), "--json")
    assert ran.document["verdict"]["status"] == "tight"
    assert ran.document["verdict"]["headroom_bytes"] < 0
    assert ran.code == 1


def test_unknown_is_3(cli):
    ran = cli("preflight", PYTHIA, "--gpu", "unknown", "--json")
    assert ran.document["verdict"]["status"] == "unknown"
    assert ran.document["asking"]["decision"] == "ask"
    assert ran.code == 3


def test_text_shows_the_same_figures_as_json(cli, report):
    where = ("--compute", report(14))
    shown, answer = cli("preflight", PYTHIA, *where).out, cli("preflight", PYTHIA, *where, "--json").document
    assert "DOES NOT FIT" in shown
    assert "14.0 GiB free" in shown
    applying = [c for c in answer["advice"]["changes"] if c["applies"]]
    assert applying
    for choice in answer["advice"]["gpus"]:
        assert choice["name"] in shown
    squeezed = "".join(c for c in shown if c.isalnum())
    assert "".join(c for c in answer["asking"]["text"] if c.isalnum()) in squeezed


def test_hook_families_add_up_to_the_cache(cli):
    answer = cli("estimate", PYTHIA, "--json").document
    cache = next(c for c in answer["components"] if c["name"] == "activation_cache")
    assert sum(h["bytes"] for h in answer["hooks"]) == cache["bytes"] > 10**9
    shown = cli("estimate", PYTHIA).out
    assert all(h["hook"] in shown for h in answer["hooks"])


def test_doctor_holds_the_download_against_the_disk(cli):
    answer = cli("doctor", "--model", "gpt2-small", "--python", sys.executable, "--json").document
    assert answer["download_bytes"] is None or answer["download_bytes"] > 10**8
    assert cli("doctor", "--model", "no-such-model-at-all").code == 2


def test_as_a_process():
    """The exit code leaves the process, bytes are ASCII, and colour is only there when it is asked for."""
    ran = process("preflight", PYTHIA, "--gpu", "RTX 3060", "--json")
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert json.loads(ran.stdout.decode("ascii"))["verdict"]["status"] == "does_not_fit"
    small = (EXAMPLES / "gpt2_resid_cache.json").read_bytes()
    ran = process("preflight", "-", "--gpu", "RTX 4090", stdin=small)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"FITS" in ran.stdout
    assert b"\x1b[" not in ran.stdout


def test_colours_are_respected():
    coloured = re.compile(rb"\x1b\[[0-9;]*[349][0-7]")
    assert coloured.search(process("estimate", PYTHIA, FORCE_COLOR="1", TERM="xterm-256color").stdout)
    assert not coloured.search(process("estimate", PYTHIA, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm").stdout)


def test_a_console_of_windows_can_show_it():
    ran = process("preflight", PYTHIA, "--gpu", "RTX 3060", PYTHONUTF8="0", PYTHONIOENCODING="cp1252")
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert "DOES NOT FIT" in ran.stdout.decode("cp1252")
    assert b"?????" not in ran.stdout


def test_version_and_help(cli):
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", cli("--version").out)
    shown = cli("--help")
    assert shown.code == 0
    for command in ("detect", "estimate", "recommend", "preflight", "models", "gpus", "platforms", "doctor", "serve"):
        assert re.search(rf"^  {command} ", shown.out, re.MULTILINE)
