"""What goes in: files, standard input and flags mean the same; bad input is one line and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import EXAMPLES

from compute_awareness.cli import given
from compute_awareness.workload import TASKS, field_names

PYTHIA = EXAMPLES / "pythia_cache.json"


def test_file_stdin_and_flags_mean_the_same(cli):
    text = PYTHIA.read_bytes()
    flags = [part for name, value in json.loads(text).items() for part in (f"--{name.replace('_', '-')}", str(value))]
    by_file = cli("estimate", str(PYTHIA), "--json")
    by_flags = cli("estimate", *flags, "--json")
    assert by_file.code == by_flags.code == 0
    assert by_file.document == by_flags.document
    assert cli("estimate", "-", "--json", stdin=text).document == by_file.document
    assert cli("estimate", "-", "--json", stdin=b"\xef\xbb\xbf" + text).document == by_file.document


def test_list_flags_repeat_and_switches_switch(cli):
    answer = cli(
        "estimate", "--task", "activation_cache", "--model", "gpt2-small", "--names-filter", "*hook_resid_pre",
        "--names-filter", "*hook_resid_post", "--layers", "3", "--layers", "-1", "--use-attn-result", "--json",
    ).document  # fmt: skip
    assert answer["workload"]["names_filter"] == ["*hook_resid_pre", "*hook_resid_post"]
    assert answer["workload"]["layers"] == [3, -1]
    assert answer["workload"]["use_attn_result"] is True
    assert sum(h["count"] for h in answer["hooks"]) == 4


def test_a_flag_adds_to_the_file_but_never_contradicts_it(cli):
    added = cli("estimate", str(PYTHIA), "--layers", "3", "--batch-size", "4", "--json")
    assert added.code == 0
    assert added.document["workload"]["layers"] == [3]
    refused = cli("estimate", str(PYTHIA), "--batch-size", "8", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "--batch-size 8 contradicts" in refused.err
    assert "which has 4" in refused.err


def test_every_field_of_every_task_has_a_flag(cli):
    shown = cli("preflight", "--help").out
    for name in field_names():
        assert f"--{name.replace('_', '-')}" in shown
    fields = {name for kind in TASKS.values() for name in kind.model_fields}
    assert {p.name for p in given._workload_params()} == fields | {"source"}


def test_an_inline_model_on_the_command_line(cli):
    spec = cli("models", "gpt2-small", "--json").document
    for name in ("parameters", "source"):
        spec.pop(name)
    spec["name"] = "my-model"
    answer = cli("estimate", "--task", "inference", "--model", json.dumps(spec), "--json")
    assert answer.code == 0, answer.err
    named = cli("estimate", "--task", "inference", "--model", "gpt2-small", "--json")
    assert answer.document["peak"] == named.document["peak"]


SMALL = {"task": "activation_cache", "model": "gpt2-small"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b'{"task": "inference",', "line 1 column"),
        (b"[1, 2]", "JSON object"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"task": ' + b"9" * 5000 + b"}", "too many digits"),
        (b" " * (given.LARGEST_INPUT + 1), "larger than"),
        ({"model": "gpt2-small"}, "'task' is missing"),
        (SMALL | {"task": "activation_cach"}, "nearest: activation_cache"),
        (SMALL | {"task": "trainin"}, "nearest: training"),
        (SMALL | {"model": "pythia-2.9b"}, "pythia-2.8b"),
        (SMALL | {"batchsize": 4}, "nearest: batch_size"),
        (SMALL | {"batch_size": 0}, "batch_size"),
        (SMALL | {"batch_size": -3}, "batch_size"),
        (SMALL | {"batch_size": 10**12}, "batch_size"),
        (SMALL | {"seq_len": "many"}, "seq_len"),
        (SMALL | {"dtype": "int7"}, "float32, bfloat16, float16"),
        (SMALL | {"names_filter": ["*hook_resid_poost"]}, "hook_resid_post"),
        (SMALL | {"layers": [99]}, "99"),
        (SMALL | {"library": "nnsigt"}, "nearest: nnsight"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_workloads_are_one_line(cli, text, said):
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    for command in ("estimate", "preflight"):
        where = ("--gpu", "RTX 4090") if command == "preflight" else ()
        ran = cli(command, "-", *where, "--json", stdin=data)
        _one_line(ran)
        assert said in ran.err


def _one_line(ran) -> None:
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err


def test_bad_arguments_are_one_line(cli, tmp_path: Path, report):
    not_a_model = tmp_path / "config.json"
    not_a_model.write_text('{"hello": "world"}', encoding="utf-8")
    not_a_report = tmp_path / "report.json"
    not_a_report.write_text('{"host": 3}', encoding="utf-8")
    not_python = tmp_path / "python"
    not_python.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    here = str(PYTHIA)
    for args, said in [
        (("estimate",), "no workload"),
        (("estimate", str(tmp_path / "none.json")), "no such file"),
        (("estimate", str(tmp_path)), "is a directory"),
        (("estimate", "a\0b"), "cannot be read"),
        (("estimate", "--task", "inference", "--model", str(not_a_model)), "not a model config"),
        (("estimate", "--task", "inference", "--model", "{broken"), "not valid JSON"),
        (("estimate", here, here), "unexpected extra argument"),
        (("estimate", "--nonsense"), "--nonsense"),
        (("frobnicate",), "frobnicate"),
        (("preflight", here, "--gpu", "RTX 9999"), "RTX 9999"),
        (("preflight", here, "--compute", str(not_a_report)), "detect --json"),
        (("preflight", here, "--compute", str(tmp_path / "none.json")), "no such file"),
        (("preflight", here, "--compute", report(24), "--python", sys.executable), "one of them"),
        (("preflight", "-", "--compute", "-"), "standard input"),
        (("preflight", here, "--python", str(not_python)), "python"),
        (("detect", "--python", str(tmp_path / "nothing-here")), "nothing-here"),
        (("models", "pythia-2.9b"), "pythia-2.8b"),
        (("gpus", "RTX 9999"), "RTX 9999"),
        (("platforms", "mdal"), "nearest: modal"),
        (("serve", "--transport", "pigeon"), "pigeon"),
    ]:
        ran = cli(*args)
        _one_line(ran)
        assert said in ran.err, (args, ran.err)
