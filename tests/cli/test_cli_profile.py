"""`profile`: from nothing kept to a preflight that uses it, and back."""

from __future__ import annotations

import json

import pytest
from command_line import EXAMPLES, process


@pytest.fixture
def cli(tmp_path):
    def run(*args: str):
        return process(*args, COMPUTE_AWARENESS_PROFILE=str(tmp_path / "profile.toml"))

    return run


def test_set_show_use_forget(cli):
    assert b"Nothing is kept" in cli("profile", "show").stdout
    assert cli("profile", "set", "gpu-box", "--gpu", "RTX 4090", "--default").returncode == 0
    assert cli("profile", "budget", "--max-hours", "4").returncode == 0
    kept = json.loads(cli("profile", "show", "--json").stdout)
    assert kept["machines"]["gpu-box"]["gpu"] == "RTX 4090"
    assert kept["budget"]["max_hours"] == 4
    shown = cli("profile", "show").stdout.decode()
    assert "gpu-box (default)" in shown and "4 h" in shown
    answer = json.loads(cli("preflight", str(EXAMPLES / "gpt2_sae.json"), "--gpu", "gpu-box", "--json").stdout)
    assert answer["verdict"]["device"] == "RTX 4090"
    assert answer["known"] == ["gpu-box has RTX 4090: from the profile, said today"]
    assert cli("profile", "forget", "gpu-box").returncode == 0
    assert json.loads(cli("profile", "show", "--json").stdout)["machines"] == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "box", "--gpu", "RTX 9999"), b"unknown GPU"),
        (("set", "box", "--max-hours", "-1"), b"max_hours"),
        (("budget",), b"--max-usd or --max-hours"),
        (("forget", "box"), b"no machine 'box'"),
    ],
)
def test_bad_input_changes_nothing(cli, tmp_path, arguments, says):
    done = cli("profile", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr
    assert not (tmp_path / "profile.toml").exists()
