"""Findings: each names its line, and its edit, once applied, takes what it promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compute_awareness.script_reading.answer import Finding, ScriptReport
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.source import parse_script

TOP = "import torch\nfrom transformer_lens import HookedTransformer\n"
OFF = TOP + "torch.set_grad_enabled(False)\n"
XL = 'model = HookedTransformer.from_pretrained("gpt2-xl", dtype=torch.bfloat16)\n'
TOKENS = "tokens = torch.zeros((8, 512)).long()\n"


def report(code: str, gpu: str = "RTX 4090") -> ScriptReport:
    return check_script(parse_script(code, "script.py"), gpu=gpu)


def only(code: str, identity: str, gpu: str = "RTX 4090") -> Finding:
    found = [one for one in report(code, gpu).findings if one.id == identity]
    assert len(found) == 1, [one.id for one in found]
    return found[0]


def applied(code: str, finding: Finding, folder: Path) -> str:
    """The script after `patch` has applied the finding's diff."""
    path = folder / "script.py"
    path.write_text(code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", APPLY, str(path)], input=finding.diff, text=True, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return path.read_text(encoding="utf-8")


# A unified diff applied strictly: every context line must be where the diff says.
APPLY = r"""
import re, sys
path = sys.argv[1]
old = open(path, encoding="utf-8").read().splitlines(keepends=True)
new, at = [], 0
for line in sys.stdin.read().splitlines(keepends=True):
    if line.startswith(("---", "+++")):
        continue
    if line.startswith("@@"):
        start = int(re.match(r"@@ -(\d+)", line).group(1)) - 1
        new += old[at:start]
        at = start
    elif line[0] in " -":
        assert old[at] == line[1:], (old[at], line)
        new += [line[1:]] if line[0] == " " else []
        at += 1
    elif line[0] == "+":
        new.append(line[1:])
open(path, "w", encoding="utf-8").write("".join(new + old[at:]))
"""


def promised(code: str, identity: str, folder: Path, at: int, gpu: str = "RTX 4090") -> Finding:
    """The finding, after its edit was applied and the moment `at` takes what it said."""
    finding = only(code, identity, gpu)
    assert finding.diff
    after = report(applied(code, finding, folder), gpu)
    assert not [one for one in after.findings if one.id == identity and one.line == finding.line]
    low = after.found[at].low_bytes
    assert low is not None
    assert finding.bytes_after is not None
    assert abs(low - finding.bytes_after) <= 0.01 * low
    return finding


def test_full_cache_where_two_hooks_are_read(tmp_path: Path) -> None:
    code = (
        OFF
        + XL
        + TOKENS
        + """
logits, cache = model.run_with_cache(tokens)
a = cache["resid_post", 5]
b = cache["blocks.7.attn.hook_z"]
"""
    )
    finding = promised(code, "full_cache", tmp_path, 1)
    assert finding.line == 7
    assert '+logits, cache = model.run_with_cache(tokens, names_filter=["blocks.5.hook_resid_post"' in finding.diff
    assert (finding.bytes_now or 0) > 2 * (finding.bytes_after or 0)


@pytest.mark.parametrize("use", ["print(cache)", "f(cache)", "for k in cache: print(k)", "cache.stack_activation('z')",
                                 "cache[name]", "torch.save({'c': cache}, 'x')"])  # fmt: skip
def test_a_cache_that_may_be_read_whole_is_left_alone(use: str) -> None:
    code = OFF + XL + TOKENS + f"_, cache = model.run_with_cache(tokens)\na = cache['resid_post', 5]\n{use}\n"
    assert "full_cache" not in [one.id for one in report(code).findings]


def test_what_is_read_is_in_the_workload() -> None:
    code = (
        OFF + XL + TOKENS + "_, cache = model.run_with_cache(tokens)\na = cache['resid_post', 5]\nb = cache['k', 7]\n"
    )
    workload = report(code).found[1].workload
    assert workload is not None and workload["reads"] == ["blocks.5.hook_resid_post", "blocks.7.attn.hook_k"]
    assert "names_filter" not in workload
    loop = "[(cache['resid_post', i], cache['hook_embed']) for i in range(model.cfg.n_layers)]"
    every = report(OFF + XL + TOKENS + f"_, cache = model.run_with_cache(tokens)\na = {loop}\n").found[1].workload
    assert every is not None and every["reads"] == ["blocks.*.hook_resid_post", "hook_embed"]


@pytest.mark.parametrize(
    ("given", "use", "said"),
    [
        ('names_filter="blocks.4.hook_resid_post"', "cache['resid_post', 5]", "blocks.5.hook_resid_post is read but"),
        ("names_filter=lambda n: n.endswith('hook_z')", "[cache['v', i] for i in range(48)]",
         "blocks.0.attn.hook_v and 47 more are read but not kept (names_filter): a KeyError at run time"),
        ("stop_at_layer=3", "cache['resid_post', 3]", "not kept (stop_at_layer)"),
        ('names_filter="blocks.4.hook_resid_post"', "cache['resid_post', 4]", ""),
        ("stop_at_layer=3", "cache['resid_post', 2]", ""),
        ("names_filter=chosen", "cache['resid_post', 4]", ""),
        ('names_filter="blocks.4.hook_resid_post"', "cache['blocks.4.hook_resid_pots']", ""),
        ('names_filter="blocks.4.hook_resid_post"', "cache.stack_activation('z'), cache['v', 5]", ""),
    ],
)  # fmt: skip
def test_a_filter_that_leaves_out_what_is_read(given: str, use: str, said: str) -> None:
    code = OFF + XL + TOKENS + f"_, cache = model.run_with_cache(tokens, {given})\na = {use}\n"
    checked = report(code)
    found = [one.cause for one in checked.findings if one.id == "not_kept"]
    assert len(found) == bool(said) and all(said in one for one in found)
    assert checked.found[1].low_bytes, "there is a figure all the same"


def test_gradients_of_a_script_that_never_goes_back(tmp_path: Path) -> None:
    code = TOP + XL + TOKENS + "_, c = model.run_with_cache(tokens, names_filter='blocks.3.hook_resid_post')\n"
    finding = promised(code, "gradients_kept", tmp_path, 1)
    assert "+torch.set_grad_enabled(False)" in finding.diff


def test_gradients_of_one_call_beside_training(tmp_path: Path) -> None:
    code = (
        TOP
        + XL
        + TOKENS
        + """
probe = torch.nn.Linear(1600, 2)
_, c = model.run_with_cache(
    tokens, names_filter="blocks.3.hook_resid_post"
)
probe(c["blocks.3.hook_resid_post"]).sum().backward()
"""
    )
    finding = promised(code, "gradients_kept", tmp_path, 1)
    assert "+with torch.no_grad():" in finding.diff
    assert "+    _, c = model.run_with_cache(" in finding.diff


def test_float32_by_default(tmp_path: Path) -> None:
    code = OFF + 'model = HookedTransformer.from_pretrained(\n    "pythia-6.9b",  # a comment\n    device="cuda",\n)\n'
    finding = promised(code, "float32_by_default", tmp_path, 0)
    assert finding.severity == "warning"
    assert "dtype=torch.bfloat16" in finding.diff
    assert finding.effect


def test_float32_that_was_asked_for_is_left_alone() -> None:
    code = OFF + 'model = HookedTransformer.from_pretrained("pythia-6.9b", dtype=torch.float32)\n'
    assert "float32_by_default" not in [one.id for one in report(code).findings]


def test_attn_result_left_on(tmp_path: Path) -> None:
    code = (
        OFF
        + XL
        + TOKENS
        + """
model.set_use_attn_result(True)
_, c = model.run_with_cache(tokens, names_filter="blocks.3.hook_resid_post")
"""
    )
    finding = promised(code, "attn_result", tmp_path, 1)
    assert "-model.set_use_attn_result(True)" in finding.diff


def test_loaded_twice(tmp_path: Path) -> None:
    code = OFF + 'a = HookedTransformer.from_pretrained("gpt2-xl")\nb = HookedTransformer.from_pretrained("gpt2-xl")\n'
    finding = only(code, "loaded_twice")
    assert finding.line == 5
    assert (finding.bytes_now or 0) - (finding.bytes_after or 0) > 6 * 10**9
    assert len(report(applied(code, finding, tmp_path)).found) == 1


def test_batch_that_cannot_fit(tmp_path: Path) -> None:
    code = OFF + XL + "BATCH = 4096\nmodel.run_with_cache(torch.zeros((BATCH, 512)).long())\n"
    finding = promised(code, "batch_too_large", tmp_path, 1)
    assert finding.severity == "error"
    assert "-BATCH = 4096" in finding.diff


def test_activation_store_larger_than_the_card(tmp_path: Path) -> None:
    code = """
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, StandardTrainingSAEConfig
cfg = LanguageModelSAERunnerConfig(
    model_name="gpt2", hook_name="blocks.6.hook_resid_pre", context_size=1024, n_batches_in_buffer=8192,
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=3072),
)
LanguageModelSAETrainingRunner(cfg).run()
"""
    finding = promised(code, "activation_store", tmp_path, 0)
    assert 'act_store_device="cpu"' in finding.diff


def test_list_of_activations_on_the_card(tmp_path: Path) -> None:
    code = (
        OFF
        + XL
        + """
kept = []
for step in range(200):
    _, cache = model.run_with_cache(torch.zeros((8, 512)).long(), names_filter="blocks.3.hook_resid_post")
    kept.append(cache["blocks.3.hook_resid_post"])
"""
    )
    finding = only(code, "grows_in_a_loop")
    assert finding.line == 9
    assert finding.bytes_now == 200 * 8 * 512 * 1600 * 2
    assert '+    kept.append(cache["blocks.3.hook_resid_post"].cpu())' in finding.diff
    assert "grows_in_a_loop" not in [one.id for one in report(applied(code, finding, tmp_path)).findings]


def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    code = OFF + 'model = HookedTransformer.from_pretrained("gpt2", device="cuda")\n'
    finding = only(code, "no_cuda_here", "none")
    assert finding.severity == "error"
    changed = applied(code, finding, tmp_path)
    assert '"cuda" if torch.cuda.is_available() else "cpu"' in changed
    assert "no_cuda_here" not in [one.id for one in report(changed, "none").findings]


def test_evaluation_in_larger_batches() -> None:
    code = """
from sae_lens import *
cfg = LanguageModelSAERunnerConfig(model_name="gpt2", hook_name="blocks.6.hook_resid_pre",
    store_batch_size_prompts=8, training_tokens=100_000_000,
    eval_batch_size_prompts=512,
    sae=StandardTrainingSAEConfig(d_in=768, d_sae=3072))
LanguageModelSAETrainingRunner(cfg).run()
"""
    finding = only(code, "evaluation_batch")
    assert finding.line == 5
    assert "+    eval_batch_size_prompts=8," in finding.diff
    assert (finding.bytes_after or 0) < (finding.bytes_now or 0)


def test_a_tidy_script_has_none() -> None:
    code = (
        OFF
        + """
model = HookedTransformer.from_pretrained("gpt2", dtype=torch.bfloat16, device="cuda")
_, cache = model.run_with_cache(torch.zeros((2, 64)).long(), names_filter="blocks.3.hook_resid_post")
print(cache["blocks.3.hook_resid_post"].mean())
"""
    )
    assert report(code).findings == []
