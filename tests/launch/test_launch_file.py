"""Task files: what is in them, what is refused, and what each engine's own parser makes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.advice.gpu_table import all_gpus
from compute_awareness.errors import InputError
from compute_awareness.launch.answers import ENGINES
from compute_awareness.launch.launch_file import launch_file
from compute_awareness.launch.plan import _launchers
from compute_awareness.workload import parse_workload

CHECK = Path(__file__).with_name("engines_check.py")
SAE = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "d_in": 768}
CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}


def workload(**more: object):
    return parse_workload(SAE | {"expansion_factor": 8, "training_tokens": 200_000_000} | more)


def engines_python() -> str:
    """The Python that has skypilot, dstack and modal: named by a variable, or this one."""
    named = os.environ.get("COMPUTE_AWARENESS_ENGINES_PYTHON")
    if named:
        return named
    if all(find_spec(name) for name in ("sky", "dstack", "modal")):
        return sys.executable
    pytest.skip(
        "skypilot, dstack and modal are not installed (pip install '.[engines]' into an environment of its own)"
    )


def understood(engine: str, text: str, tmp_path: Path) -> dict[str, Any]:
    """What the engine's own parser reads in a task file."""
    file = tmp_path / ("task.py" if engine == "modal" else "task.yaml")
    file.write_text(text, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SKYPILOT", "MODAL", "DSTACK"))}
    env |= {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [engines_python(), str(CHECK), engine, str(file)], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


HARD_COMMANDS = [
    "python train.py",
    "python a.py --name 'x y' && echo \"done\"",
    "FOO=1 python a.py \\\n  --b # c",
    "echo é: {x} ${HOME}",
]


@pytest.mark.parametrize("run", HARD_COMMANDS)
def test_skypilot_reads_it(run, tmp_path):
    answer = launch_file(workload(), "skypilot", run, gpu="A100-80GB")
    read = understood("skypilot", answer.text, tmp_path)
    assert read["accelerators"] == ["A100-80GB-SXM:1", "A100-80GB:1"]
    assert read["disk"] == answer.disk_gib
    assert read["memory"] == f"{answer.ram_gib}+"
    # The shell gets back the very command.
    timed = str(read["run"]).split("\n", 1)[1]
    limit = f"timeout --signal=INT --kill-after=120 {answer.limit_seconds} bash -c "
    assert timed.startswith(limit)
    shown = subprocess.run(
        ["bash", "-c", "printf '%s\\n' " + timed.removeprefix(limit)], capture_output=True, text=True, encoding="utf-8"
    )
    assert shown.stdout == run + "\n"


@pytest.mark.parametrize("run", HARD_COMMANDS)
def test_dstack_reads_it(run, tmp_path):
    answer = launch_file(workload(), "dstack", run, gpu="2xH100")
    read = understood("dstack", answer.text, tmp_path)
    assert (read["gpu"], read["count"], read["memory_gb"]) == (["H100"], 2, 80.0)
    assert read["limit_s"] == answer.limit_seconds
    assert read["disk_gb"] == answer.disk_gib
    assert read["commands"][-1] == run


@pytest.mark.parametrize("run", HARD_COMMANDS)
def test_modal_builds_the_app(run, tmp_path):
    answer = launch_file(workload(), "modal", run, gpu="L40S")
    read = understood("modal", answer.text, tmp_path)
    assert read["name"] == "sae-training-gpt2"
    assert (read["gpu"], read["memory"]) == ("L40S", answer.ram_gib * 1024)
    assert "/root/.cache/huggingface" in read["volumes"]
    assert f"timeout={answer.limit_seconds}," in answer.text


@pytest.mark.parametrize("run", HARD_COMMANDS)
def test_the_slurm_script_is_a_shell_script(run, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    answer = launch_file(workload(), "slurm", run, gpu="A100-80GB")
    (tmp_path / "job.sbatch").write_text(answer.text, encoding="utf-8")
    assert subprocess.run([bash, "-n", "job.sbatch"], cwd=tmp_path).returncode == 0
    options = [line.split(maxsplit=1)[1] for line in answer.text.splitlines() if line.startswith("#SBATCH ")]
    assert "--gres=gpu:a100:1" in options
    assert f"--mem={answer.ram_gib}G" in options
    # Every option stands before the first command, or Slurm does not read it.
    first = next(i for i, line in enumerate(answer.text.splitlines()) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in answer.text.splitlines()[first:])


@pytest.mark.parametrize("run", HARD_COMMANDS)
def test_the_colab_cell_looks_at_the_card_first(run, tmp_path):
    answer = launch_file(workload(), "colab", run)
    compile(answer.text, "cell", "exec")
    done = subprocess.run(
        [sys.executable, "-c", answer.text], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "the runtime has: no NVIDIA GPU" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ENGINES)
def test_the_card_is_one_that_holds_it(engine):
    answer = launch_file(parse_workload(CACHE), engine, "python cache.py")
    card = next(gpu for gpu in all_gpus() if gpu.name == answer.gpu)
    assert card.usable_bytes >= 70 * 1024**3
    assert answer.limit_seconds >= 3600
    assert answer.start in answer.summary


def test_the_cheapest_run_is_not_the_cheapest_card():
    answer = launch_file(workload(training_tokens=500_000_000), "modal", "python train.py")
    t4 = launch_file(workload(training_tokens=500_000_000), "modal", "python train.py", gpu="T4")
    assert answer.usd is not None and t4.usd is not None
    assert answer.usd[1] < t4.usd[1]
    assert any("more than Modal allows" in note for note in t4.notes)


@pytest.mark.parametrize(
    ("engine", "run", "gpu", "says"),
    [
        ("skypilt", "x", None, "nearest: skypilot"),
        ("slurm", "  ", None, "run is empty"),
        ("slurm", "a\x00b", None, "control character"),
        ("slurm", "x" * 9000, None, "longer than"),
        ("modal", "x", "RTX 4090", "does not fit|needs about|short"),
        ("modal", "x", "A6000", "not known to offer|short"),
        ("modal", "x", "nonsense 9000", "unknown GPU"),
    ],
)
def test_what_is_refused(engine, run, gpu, says):
    with pytest.raises(InputError, match=says):
        launch_file(parse_workload(CACHE), engine, run, gpu=gpu)


def test_an_engine_that_does_not_name_the_card_says_which_it_names():
    with pytest.raises(InputError, match=r"modal is not known to offer RTX 4090; it names: .*L40S"):
        launch_file(workload(), "modal", "x", gpu="RTX 4090")


def test_the_launchers_table_names_cards_of_the_gpu_table():
    known = {gpu.id for gpu in all_gpus()}
    assert set(_launchers()) <= known
    for names in _launchers().values():
        assert names["skypilot"] and names["slurm"]
        assert names["dstack"].count(":") == 1 and names["dstack"].endswith("GB")


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
def test_any_command_stays_whole_in_yaml(run):
    if not run.strip() or not run.isprintable():
        return
    sky = yaml.safe_load(launch_file(workload(), "skypilot", run, gpu="A100-80GB").text)
    assert run.strip().replace("'", "'\"'\"'") in sky["run"]
    stack = yaml.safe_load(launch_file(workload(), "dstack", run, gpu="A100-80GB").text)
    assert stack["commands"][-1] == run.strip()


DDP = {"task": "training", "model": "gpt2", "batch_size": 2, "seq_len": 128, "n_devices": 4}


@pytest.mark.parametrize("parallel", [None, "ddp", "fsdp"])
@pytest.mark.parametrize("gpu", [None, "H100", "4xH100"])
def test_a_process_on_each_card(parallel: str | None, gpu: str | None) -> None:
    """The file asks for the cards, and the command is left as it is; a note says how it has to start."""
    asked = parse_workload(DDP | {"parallel": parallel})
    file = launch_file(asked, "skypilot", "python train.py --lr 1e-4", gpu, look_here=False)
    assert file.count == 4 and yaml.safe_load(file.text)["resources"]["cpus"] == "32+"
    assert "python train.py --lr 1e-4" in file.text and "torchrun" not in file.text.split("run: |")[1]
    assert any("torchrun --nproc_per_node=4 train.py --lr 1e-4" in note for note in file.notes)
    started = launch_file(asked, "skypilot", "torchrun --nproc_per_node=4 train.py", gpu, look_here=False)
    assert not any("one process" in note for note in started.notes)


def test_cards_that_are_too_few_and_one_process_for_several() -> None:
    with pytest.raises(InputError, match="4 cards"):
        launch_file(parse_workload(DDP), "skypilot", "python train.py", "2xH100", look_here=False)
    with pytest.raises(InputError, match="colab has one card"):
        launch_file(parse_workload(DDP), "colab", "python train.py", look_here=False)
    split = parse_workload(CACHE | {"library": "transformers", "n_devices": 2})
    file = launch_file(split, "slurm", "python cache.py", look_here=False)
    assert file.count == 2 and not any("process" in note for note in file.notes)
    alone = launch_file(parse_workload(DDP | {"n_devices": 1}), "slurm", "python train.py", look_here=False)
    assert alone.count == 1 and "torchrun" not in str(alone.notes)
