"""The hook before a run: it speaks where compute matters, once, and is silent about everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "plugin"
HOOK = PLUGIN / "scripts" / "before_run.py"

LOAD_7B = 'from transformers import AutoModel\nm = AutoModel.from_pretrained("meta-llama/Llama-2-7b-hf")\n'
LOAD_SMALL = 'from transformer_lens import HookedTransformer\nm = HookedTransformer.from_pretrained("gpt2")\n'
CACHE = LOAD_SMALL + "logits, cache = m.run_with_cache(m.to_tokens('x'))\n"
FILTERED = LOAD_SMALL + "_, cache = m.run_with_cache(m.to_tokens('x'), names_filter=lambda n: n.endswith('pre'))\n"
TRAIN = "from sae_lens import LanguageModelSAERunnerConfig\ncfg = LanguageModelSAERunnerConfig(model_name='gpt2')\n"


def ask_hook(event: Any, tmp_path: Path, *, seconds: float = 0) -> dict[str, Any] | None:
    """What the hook answers, run as the host runs it; None where it is silent.

    Args:
        seconds: how long it may wait for the reader; 0 = it answers by its patterns alone.
    """
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    profile = tmp_path / "profile.toml"
    profile.write_text('default = "box"\n[machines.box]\ngpu = "RTX 4090"\nsaved = 2026-01-01\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HOOK)],
        input=raw,
        capture_output=True,
        timeout=60,
        check=False,
        env={
            "TMPDIR": str(tmp_path),
            "TEMP": str(tmp_path),
            "PATH": "",
            "COMPUTE_AWARENESS_HOOK_SECONDS": str(seconds),
            "COMPUTE_AWARENESS_PROFILE": str(profile),
        },
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    if not done.stdout:
        return None
    answer = json.loads(done.stdout)["hookSpecificOutput"]
    assert answer.pop("hookEventName") == "PreToolUse"
    assert answer.get("permissionDecision") in (None, "ask")
    return answer


def bash(command: str, cwd: Path, **more: Any) -> dict[str, Any]:
    return {"tool_name": "Bash", "tool_input": {"command": command}, "cwd": str(cwd), **more}


def write(code: str, name: str = "run.py") -> dict[str, Any]:
    return {"tool_name": "Write", "tool_input": {"file_path": f"/nowhere/{name}", "content": code}}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (LOAD_7B, "loads meta-llama/Llama-2-7b-hf (7 billion parameters: 13 GiB in bfloat16, 26 GiB in float32)"),
        (LOAD_SMALL.replace("gpt2", "gpt-j-6B"), "loads gpt-j-6B (6 billion parameters"),
        (LOAD_SMALL.replace("gpt2", "EleutherAI/gpt-neox"), "20 billion parameters"),
        (LOAD_7B.replace("Llama-2-7b-hf", "Llama-3.1-70B-Instruct"), "70 billion parameters"),
        (LOAD_7B.replace("meta-llama/Llama-2-7b-hf", "google/gemma-2-2b"), None),
        (CACHE, "calls run_with_cache without names_filter, which keeps every activation"),
        (FILTERED, None),
        (TRAIN, "trains an SAE"),
        (LOAD_SMALL, None),
        ('name = "Llama-2-7b"\nprint(name)\n', None),
        ("import numpy as np\n", None),
        ('# from transformers import x: "meta-llama/Llama-2-7b-hf"\n', None),
        (LOAD_7B.replace("meta-llama/Llama-2-7b-hf", "runs/ab7b3c"), None),
    ],
)
def test_what_is_worth_a_word(code: str, said: str | None, tmp_path: Path) -> None:
    answer = ask_hook(write(code), tmp_path)
    if said is None:
        assert answer is None
    else:
        assert answer is not None
        assert said in answer["additionalContext"] and "preflight_experiment" in answer["additionalContext"]


@pytest.mark.parametrize(
    "command",
    [
        "python run.py",
        "cd x; python3.12 -u ./run.py --steps 3",
        "CUDA_VISIBLE_DEVICES=0 torchrun --nproc 2 run.py",
        "uv run run.py",
        "srun --gres=gpu:1 python run.py | tee log",
    ],
)
def test_a_large_run_that_nobody_checked_is_asked_about(command: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(LOAD_7B)
    answer = ask_hook(bash(command, tmp_path), tmp_path)
    assert answer is not None and answer["permissionDecision"] == "ask"
    assert "run.py loads meta-llama/Llama-2-7b-hf" in answer["permissionDecisionReason"]


@pytest.mark.parametrize(
    "command", ["cat run.py", "git add run.py", "ruff check run.py", "python other.py", "ls", "", "python 'broken"]
)
def test_commands_that_run_nothing_are_let_through(command: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(LOAD_7B)
    assert ask_hook(bash(command, tmp_path), tmp_path) is None


def test_code_in_the_command_itself(tmp_path: Path) -> None:
    one = "python -c \"from transformers import AutoModel; AutoModel.from_pretrained('mistralai/Mistral-7B-v0.1')\""
    here = "python - <<'EOF'\n" + LOAD_7B + "EOF\n"
    for command in (one, here):
        answer = ask_hook(bash(command, tmp_path), tmp_path)
        assert answer is not None and answer["permissionDecision"] == "ask", command


def test_the_model_may_be_named_by_a_flag(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("from transformers import AutoModel\nm = AutoModel.from_pretrained(args.model)\n")
    answer = ask_hook(bash("python run.py --model=Qwen/Qwen2.5-14B", tmp_path), tmp_path)
    assert answer is not None and "14 billion" in answer["permissionDecisionReason"]


def test_notebooks(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": ["# x"]}, {"cell_type": "code", "source": CACHE.splitlines(True)}]
    answer = ask_hook(write(json.dumps({"cells": cells}), "n.ipynb"), tmp_path)
    assert answer is not None and "n.ipynb calls run_with_cache" in answer["additionalContext"]


def test_an_edit_is_read_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "run.py"
    file.write_text(LOAD_SMALL)
    given = {"file_path": str(file), "old_string": "x", "new_string": "_, cache = m.run_with_cache(tokens)"}
    answer = ask_hook({"tool_name": "Edit", "tool_input": given}, tmp_path)
    assert answer is not None and "keeps every activation" in answer["additionalContext"]


def test_the_same_is_said_once_in_a_session(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(LOAD_7B)
    event = bash("python run.py", tmp_path, session_id="s1")
    assert ask_hook(event, tmp_path) is not None
    assert ask_hook(event, tmp_path) is None
    assert ask_hook({**event, "session_id": "s2"}, tmp_path) is not None


def test_a_session_that_checked_the_model_hears_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(LOAD_7B)
    transcript = tmp_path / "t.jsonl"
    call = {
        "type": "tool_use",
        "name": "mcp__compute-awareness__preflight_experiment",
        "input": {"workload": {"model": "llama-2-7b-hf"}},
    }
    event = bash("python run.py", tmp_path, transcript_path=str(transcript))
    transcript.write_text(json.dumps({"message": {"content": [call]}}))
    assert ask_hook(event, tmp_path) is None
    transcript.write_text(transcript.read_text().replace("llama-2-7b-hf", "gpt2"))
    answer = ask_hook(event, tmp_path)
    assert answer is not None and answer["permissionDecisionReason"].endswith("with the tool preflight_script.")
    script = {"name": "mcp__compute-awareness__preflight_script", "input": {"path": "run.py"}}
    transcript.write_text(json.dumps({"message": {"content": [call | script]}}))
    assert ask_hook(event, tmp_path) is None


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"not json",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"tool_name": "Bash", "tool_input": "x"},
        {"tool_name": "Bash", "tool_input": {"command": ["python"]}},
        {"tool_name": "Write", "tool_input": {"file_path": "a.py", "content": 7}},
        {"tool_name": "Bash", "tool_input": {"command": "python \x00.py"}, "cwd": 3},
        {"tool_name": "Bash", "tool_input": {"command": "python /dev/zero.py /dev/stdin"}},
    ],
)
def test_nothing_breaks_it(event: Any, tmp_path: Path) -> None:
    assert ask_hook(event, tmp_path) is None


def test_hostile_code_does_not_hold_it_up(tmp_path: Path) -> None:
    """As many openings as a file can have: patterns that search again from each of them would take minutes."""
    for part in ("m.run_with_cache((", ".run_with_cache(" + "(" * 400, "from_pretrained('", "model = 'a"):
        assert ask_hook(write(LOAD_SMALL + part * (500_000 // len(part))), tmp_path) is None


# What is about to run is read by the reader. `srun` runs it elsewhere, on the card that the profile names.
FULL = """\
import argparse
import torch
from transformer_lens import HookedTransformer
torch.set_grad_enabled(False)
parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=4)
args = parser.parse_args()
model = HookedTransformer.from_pretrained("pythia-2.8b")
tokens = torch.zeros((args.batch, 1024)).long()
logits, cache = model.run_with_cache(tokens)
print(cache["blocks.3.hook_resid_post"].norm())
"""
WAIT = 300.0


def test_the_file_is_read_and_its_worst_line_named(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(FULL)
    answer = ask_hook(bash("srun python run.py 2>&1 | tee log", tmp_path), tmp_path, seconds=WAIT)
    assert answer is not None and answer["permissionDecision"] == "ask"
    reason = answer["permissionDecisionReason"]
    assert "Does not fit RTX 4090" in reason and "line 10: HookedTransformer.run_with_cache of pythia-2.8b" in reason
    assert (
        "only blocks.3.hook_resid_post is read (70.0 GiB, 14.7 GiB with the edit)" in reason
        and "preflight_script" in reason
    )
    assert ask_hook(write(FULL), tmp_path, seconds=WAIT) is not None  # nothing is there yet to be read


def test_the_arguments_of_the_command_are_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(FULL.replace("(tokens)", "(tokens, names_filter=['blocks.3.hook_resid_post'])"))
    assert ask_hook(bash("srun python run.py --batch 2 > log", tmp_path), tmp_path, seconds=WAIT) is None
    answer = ask_hook(bash("srun python run.py --batch 200 > log", tmp_path), tmp_path, seconds=WAIT)
    assert answer is not None and "batch_size 200" in answer["permissionDecisionReason"]


def test_a_large_model_that_fits_is_no_reason_to_ask(tmp_path: Path) -> None:
    code = LOAD_7B.replace("model", "m").replace('hf")', 'hf", torch_dtype="bfloat16")')
    (tmp_path / "run.py").write_text(code)
    event = bash("srun python run.py", tmp_path, session_id="s1")
    assert ask_hook(event, tmp_path) is not None
    assert ask_hook({**event, "session_id": "s2"}, tmp_path, seconds=WAIT) is None


def test_waste_in_what_fits_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(FULL.replace("pythia-2.8b", "gpt2"))
    answer = ask_hook(bash("srun python run.py", tmp_path), tmp_path, seconds=WAIT)
    assert answer is not None and "permissionDecision" not in answer
    assert "Fits RTX 4090" in answer["additionalContext"] and "Line 10: every hook" in answer["additionalContext"]


def test_a_small_model_that_does_not_fit_is_found_too(tmp_path: Path) -> None:
    """No pattern sees it: the batch is what is too large."""
    code = FULL.replace("pythia-2.8b", "gpt2").replace("default=4", "default=2000").replace("run_with_cache", "forward")
    (tmp_path / "run.py").write_text(code.replace("logits, cache", "cache"))
    assert ask_hook(bash("srun python run.py", tmp_path), tmp_path) is None
    answer = ask_hook(bash("srun python run.py", tmp_path), tmp_path, seconds=WAIT)
    assert answer is not None and "a batch of 2000 cannot fit RTX 4090" in answer["permissionDecisionReason"]


def test_what_is_not_known_is_the_question(tmp_path: Path) -> None:
    code = FULL.replace("pythia-2.8b", "gpt2").replace("(args.batch, 1024)", "(int(open('n').read()), 1024)")
    (tmp_path / "run.py").write_text(code)
    answer = ask_hook(bash("srun python run.py", tmp_path), tmp_path, seconds=WAIT)
    assert answer is not None and "permissionDecision" not in answer
    assert "how large does batch_size get?" in answer["additionalContext"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    event = bash("srun python run.py", tmp_path, session_id="s1")
    (tmp_path / "run.py").write_text(FULL.replace("(tokens)", "(tokens, names_filter=['blocks.3.hook_resid_post'])"))
    assert ask_hook(event, tmp_path, seconds=WAIT) is None
    (tmp_path / "run.py").write_text(FULL)
    assert ask_hook(event, tmp_path, seconds=WAIT) is not None
    assert ask_hook(event, tmp_path, seconds=WAIT) is None


def test_a_reader_that_is_too_slow_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(LOAD_7B)
    answer = ask_hook(bash("python run.py", tmp_path), tmp_path, seconds=0.001)
    assert answer is not None and "Nobody has checked" in answer["permissionDecisionReason"]


def test_nothing_of_the_project_is_imported_in_the_readers_place(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(FULL)
    for name in ("compute_awareness", "json", "click"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
    assert ask_hook(bash("srun python run.py", tmp_path), tmp_path, seconds=WAIT) is not None
    assert not (tmp_path / "ran").exists()


def test_versions_agree() -> None:
    plugin = json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())
    manifest = json.loads((PLUGIN.parent / "manifest.json").read_text())
    assert plugin["version"] == manifest["version"]


def test_the_hook_that_is_named_is_there() -> None:
    hooks = json.loads((PLUGIN / "hooks" / "hooks.json").read_text())["hooks"]["PreToolUse"]
    [named] = hooks[0]["hooks"]
    path = named["args"][0].replace("${CLAUDE_PLUGIN_ROOT}", str(PLUGIN))
    assert Path(path) == HOOK and HOOK.is_file()
