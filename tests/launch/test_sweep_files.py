"""The task files of sweeps: what SkyPilot's own parser reads, and that every run is in them once, as it was written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_launch_file import understood

from compute_awareness.sweep.answers import Sweep
from compute_awareness.sweep.sweep import sweep

SAE = {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "training_tokens": 1_000_000}
GRID = {"hook_layer": [0, 6, 11], "expansion_factor": [8, 16]}
RUN = "python train.py --layer {hook_layer} --factor {expansion_factor}"
HARD = "FOO='x y' python a.py \\\n  --layer {hook_layer} \"é $HOME\" {expansion_factor} && echo done # c"


def swept(engine: str, gpu: str, run: str = RUN) -> Sweep:
    answer = sweep(SAE, GRID, gpu=gpu, launch=engine, run=run)
    assert answer.launch is not None
    return answer


def commands(run: str) -> list[str]:
    return [
        run.replace("{hook_layer}", str(layer)).replace("{expansion_factor}", str(factor))
        for layer in GRID["hook_layer"]
        for factor in GRID["expansion_factor"]
    ]


def bash() -> str:
    found = shutil.which("bash")
    if found is None or sys.platform == "win32":
        pytest.skip("no bash here")
    return found


@pytest.mark.parametrize("run", [RUN, HARD])
def test_skypilot_reads_a_job_group_with_every_run_once(run: str, tmp_path: Path) -> None:
    answer = swept("skypilot", "4xA100-80GB", run)
    assert answer.launch and answer.launch.start == "sky jobs launch sae-training-gpt2-sweep.sky.yaml"
    read = understood("skypilot_group", answer.launch.text, tmp_path)
    assert read["group"] is True and len(read["tasks"]) == 4
    assert all(task["accelerators"] == ["A100-80GB-SXM:1", "A100-80GB:1"] for task in read["tasks"])
    assert ran(read["tasks"], tmp_path) == sorted(commands(run))


def test_one_card_is_one_task_that_needs_no_controller(tmp_path: Path) -> None:
    answer = swept("skypilot", "L40S")
    assert answer.launch and answer.launch.start == "sky launch sae-training-gpt2-sweep.sky.yaml"
    assert "autostop" in answer.launch.text
    read = understood("skypilot_group", answer.launch.text, tmp_path)
    assert read["group"] is False and len(read["tasks"]) == 1
    assert ran(read["tasks"], tmp_path) == sorted(commands(RUN))


def ran(tasks: list[dict[str, str]], tmp_path: Path) -> list[str]:
    """The commands that the tasks' scripts give to a shell, by running them with stand-ins that only tell of it."""
    tool = tmp_path / "bin"
    tool.mkdir()
    (tool / "nvidia-smi").write_text("#!/bin/sh\n")
    # timeout's own options, then bash -c COMMAND
    (tool / "timeout").write_text('#!/bin/sh\nfor last; do :; done\nprintf "%s\\0" "$last" >>"$TOLD"\n')
    for path in tool.iterdir():
        path.chmod(0o755)
    told = tmp_path / "told"
    for task in tasks:
        script = tmp_path / "run.sh"
        script.write_text(task["run"], encoding="utf-8")
        done = subprocess.run(
            [bash(), str(script)], env={"PATH": f"{tool}:/usr/bin:/bin", "TOLD": str(told)}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    return sorted(told.read_text(encoding="utf-8").rstrip("\0").split("\0"))


def test_a_run_that_fails_stops_no_other_and_is_told_of(tmp_path: Path) -> None:
    answer = swept("skypilot", "L40S", "test {hook_layer} != 6 || exit {expansion_factor}")
    assert answer.launch is not None
    script = answer.launch.text.split("run: |\n", 1)[1].replace("nvidia-smi", ": nvidia-smi")
    done = subprocess.run([bash(), "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("failed: test 6 ") == 2 and done.stdout.count("run: test ") == 6


@pytest.mark.parametrize("run", [RUN, HARD])
def test_the_array_has_every_run_in_its_place(run: str, tmp_path: Path) -> None:
    answer = swept("slurm", "2xA100-80GB", run)
    assert answer.launch is not None
    text = answer.launch.text
    script = tmp_path / "job.sbatch"
    script.write_text(text, encoding="utf-8")
    assert subprocess.run([bash(), "-n", str(script)]).returncode == 0
    options = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert "--array=0-5%2" in options and "--gres=gpu:a100:1" in options and "--output=%x-%A_%a.out" in options
    first = next(i for i, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in text.splitlines()[first:])
    # What a task runs, by its own lines.
    listed = text[text.index("runs=(") : text.index("# The tasks start")]
    for at, command in enumerate(commands(run)):
        shown = subprocess.run(
            [bash(), "-c", f'{listed}\nprintf %s "${{runs[{at}]}}"'], capture_output=True, text=True, encoding="utf-8"
        )
        assert shown.stdout == command


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock here")
def test_tasks_side_by_side_make_one_environment(tmp_path: Path) -> None:
    answer = swept("slurm", "6xA100-80GB", "echo {hook_layer} {expansion_factor} >{index}.txt")
    assert answer.launch is not None
    tool = tmp_path / "bin"
    tool.mkdir()
    (tool / "nvidia-smi").write_text("#!/bin/sh\n")
    (tool / "python3").write_text(
        '#!/bin/sh\nsleep 0.3\nmkdir -p .venv/bin\necho "PATH=\\"$PWD/bin:$PATH\\"" >.venv/bin/activate\n'
    )
    (tool / "pip").write_text("#!/bin/sh\necho install >>installs\n")
    for path in tool.iterdir():
        path.chmod(0o755)
    env = {"PATH": f"{tool}:/usr/bin:/bin", "HOME": str(tmp_path)}
    tasks = [
        subprocess.Popen(
            [bash(), "-c", answer.launch.text], env=env | {"SLURM_ARRAY_TASK_ID": str(at)}, cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for at in range(6)
    ]  # fmt: skip
    assert [task.wait(60) for task in tasks] == [0] * 6
    assert (tmp_path / "installs").read_text() == "install\n"
    assert (tmp_path / "5.txt").read_text() == "11 16\n" and (tmp_path / "0.txt").read_text() == "0 8\n"
