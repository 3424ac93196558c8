"""`explain-oom`: a log from a file or standard input, with or without the workload."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import EXAMPLES

LOG = EXAMPLES / "oom.txt"
FLAGS = ("--task", "activation_cache", "--model", "pythia-2.8b", "--batch-size", "4", "--seq-len", "1024")


def test_the_tensor_and_the_cure_are_named(cli):
    ran = cli("explain-oom", str(LOG), *FLAGS)
    assert ran.code == 0 and ran.err == ""
    assert "line 14 of cache_pythia.py" in ran.out
    assert "n_heads 32" in ran.out and "as given" in ran.out
    assert "Changes that save memory" in ran.out


def test_file_flags_and_standard_input_say_the_same(cli):
    by_flags = cli("explain-oom", str(LOG), *FLAGS, "--json").document
    by_file = cli("explain-oom", str(LOG), "--workload", str(EXAMPLES / "pythia_cache.json"), "--json").document
    piped = cli("explain-oom", "-", *FLAGS, "--json", stdin=LOG.read_bytes()).document
    assert by_flags == by_file == piped
    assert by_flags["matches"][0]["instead"] == {}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nowhere.txt",), "nowhere.txt: no such file"),
        (("-", "--workload", "-"), "standard input cannot be both"),
        ((str(LOG), "--task", "inferense"), "unknown task 'inferense'"),
    ],
)
def test_bad_input_is_one_line(cli, args, says):
    ran = cli("explain-oom", *args)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err and ran.err.count("\n") == 1


def test_a_log_without_such_an_error(cli, tmp_path: Path):
    log = tmp_path / "log.txt"
    log.write_text("epoch 1: loss 3.2\nKeyboardInterrupt\n", encoding="utf-8")
    ran = cli("explain-oom", str(log))
    assert ran.code == 2 and "no out-of-memory message" in ran.err
