"""`sweep`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json

import pytest
from command_line import process

SAE = ("--task", "sae_training", "--model", "gpt2", "--hook-name", "blocks.8.hook_resid_pre")
OVER = ("--over", "hook_layer=0..11", "--over", "expansion_factor=8,16,32")
RUN = "python train.py --layer {hook_layer} --factor {expansion_factor}"


def test_a_person_reads_the_runs_and_what_they_are_together():
    done = process("sweep", *SAE, *OVER, "--gpu", "2xA100-80GB")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert text.startswith("36 of 36 runs fit A100 SXM4 80GB.")
    for part in ("hook_layer", "expansion_factor", "one after the other", "on 2 cards", "side by side", "USD/h"):
        assert part in text


def test_the_grid_may_stand_in_the_file_and_the_flags_add_to_it(tmp_path):
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({
        "task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre",
        "sweep": {"expansion_factor": [8, 16], "k": "1..2"},
    }))  # fmt: skip
    done = process("sweep", str(file), "--over", "hook_layer=0..2", "--gpu", "T4", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["over"] == {"hook_layer": [0, 1, 2], "expansion_factor": [8, 16], "k": [1, 2]}
    assert answer["count"] == len(answer["points"]) == 12


def test_the_task_file_is_alone_on_standard_output():
    done = process("sweep", *SAE, *OVER, "--gpu", "4xA100-80GB", "--launch", "slurm", "--run", RUN)
    assert done.returncode == 0
    assert done.stdout.startswith(b"#!/bin/bash\n") and b"#SBATCH --array=0-35%4\n" in done.stdout
    assert b"36 of 36 runs fit" in done.stderr and b"Nothing was started: sbatch" in done.stderr


def test_the_task_file_is_written_and_one_that_is_there_is_kept(tmp_path):
    out = tmp_path / "job.yaml"
    arguments = ("sweep", *SAE, *OVER, "--gpu", "L40S", "--launch", "skypilot", "--run", RUN, "--out", str(out))
    assert process(*arguments).returncode == 0
    assert out.read_text(encoding="utf-8").count("\n  one 'python train.py --layer ") == 36
    again = process(*arguments)
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"is there already and is kept" in again.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", *SAE, "--expansion-factor", "8"),
        ("sweep", *SAE, *OVER, "--gpu", "L40S"),
        ("launch-file", *SAE, "--expansion-factor", "8", "--for", "skypilot", "--run", "x"),
    ],
)
def test_without_live_prices_the_dated_ones_stand_and_the_reason_is_said(arguments, tmp_path):
    # gpuhunt is not installed, or looks into a folder without a catalog: never the web.
    done = process(*arguments, "--live-prices", "--json", GPUHUNT_CATALOG_DIR=str(tmp_path))
    answer = json.loads(done.stdout)
    told = [answer["prices"]] if "prices" in answer else answer["notes"]
    assert done.returncode == 0
    assert told[-1].startswith("live prices could not be had (")


def test_where_nothing_fits_the_exit_code_says_so():
    done = process("sweep", "--task", "inference", "--model", "pythia-12b", "--over", "batch_size=1,2", "--gpu", "T4")
    assert done.returncode == 1
    assert done.stdout.startswith(b"0 of 2 runs fit Tesla T4.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (SAE, b"a sweep needs a grid"),
        ((*SAE, "--over", "hook_laye=1"), b"nearest: hook_layer"),
        ((*SAE, "--over", "expansion_factor=8", "--run", "x"), b"launch and run go together"),
        ((*SAE, *OVER, "--out", "x"), b"--out is for the task file"),
        ((*SAE, *OVER, "--gpu", "none"), b"needs the report of the machine"),
        ((*SAE, *OVER, "--gpu", "A 9000"), b"unknown GPU"),
    ],
)
def test_bad_input_is_one_line(arguments, says):
    done = process("sweep", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1 and says in done.stderr
