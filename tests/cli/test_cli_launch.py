"""`launch-file`: what it prints, what it writes, what it keeps."""

from __future__ import annotations

import json

from command_line import process

SAE = (
    "--task", "sae_training", "--model", "gpt2", "--hook-name", "blocks.8.hook_resid_pre", "--expansion-factor", "8",
    "--training-tokens", "1000000",
)  # fmt: skip


def test_the_file_is_on_standard_output_and_what_to_do_on_the_other():
    done = process("launch-file", *SAE, "--for", "slurm", "--run", "python train.py", "--gpu", "A100-80GB")
    assert done.returncode == 0
    assert done.stdout.startswith(b"#!/bin/bash\n")
    assert done.stdout.endswith(b"python train.py\n")
    assert b"Nothing was started: sbatch sae-training-gpt2.sbatch" in done.stderr


def test_one_json_document():
    done = process("launch-file", *SAE, "--for", "modal", "--run", "python train.py", "--json")
    answer = json.loads(done.stdout)
    assert answer["engine"] == "modal"
    assert answer["file_name"] == "sae_training_gpt2_modal.py"
    assert answer["usd"][0] <= answer["usd"][1]


def test_a_file_that_is_there_is_kept(tmp_path):
    out = tmp_path / "job.sbatch"
    arguments = ("launch-file", *SAE, "--for", "slurm", "--run", "python train.py", "--out", str(out))
    assert process(*arguments).returncode == 0
    out.write_text("mine", encoding="utf-8")
    again = process(*arguments)
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"is there already and is kept" in again.stderr
    assert out.read_text(encoding="utf-8") == "mine"


def test_bad_input_is_one_line():
    done = process("launch-file", *SAE, "--for", "modal", "--run", "x", "--gpu", "RTX 4090")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"modal is not known to offer RTX 4090" in done.stderr
