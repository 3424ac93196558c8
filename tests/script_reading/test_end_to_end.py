"""Small scripts of the real libraries, run under a memory meter: the worst moment that was read is the one measured.

Weights are random and everything runs on the CPU. `torch.cuda.is_available()` is read as true and is false when it
runs: what the reader counts on the card is then what the meter sees.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from builders import quiet
from meters import measure_peak

from compute_awareness.advice.place import UNKNOWN
from compute_awareness.script_reading import findings
from compute_awareness.script_reading.check import check_script
from compute_awareness.script_reading.edits import applied
from compute_awareness.script_reading.moments import Estimates
from compute_awareness.script_reading.reading import read_text
from compute_awareness.script_reading.source import parse_script

DEVICE = 'import torch\ndevice = "cuda" if torch.cuda.is_available() else "cpu"\n'
TL = (
    DEVICE
    + """
from transformer_lens import HookedTransformer, HookedTransformerConfig
def build(layers=3, **more):
    cfg = HookedTransformerConfig(n_layers=layers, d_model=64, n_ctx=256, d_head=16, n_heads=4, d_mlp=256, d_vocab=500,
                                  act_fn="gelu", normalization_type="LNPre", seed=0, **more)
    return HookedTransformer(cfg)
"""
)
HF = (
    DEVICE
    + """
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
def gpt2():
    cfg = GPT2Config(n_layer=3, n_embd=64, n_head=4, vocab_size=500, n_positions=256)
    return GPT2LMHeadModel(cfg).to(device).eval()
def llama():
    return LlamaForCausalLM(LlamaConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, vocab_size=500,
        num_key_value_heads=4, intermediate_size=160, max_position_embeddings=256)).to(device).eval()
"""
)
TOKENS = "tokens = torch.zeros((4, 200), dtype=torch.long)\n"
NO_GRAD = "torch.set_grad_enabled(False)\n"

SCRIPTS = {
    "tl_full_cache": TL + NO_GRAD + TOKENS + "model = build()\nlogits, cache = model.run_with_cache(tokens)\n",
    "tl_filtered": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
_, cache = model.run_with_cache(tokens, names_filter=lambda n: n.endswith("resid_post"))
""",
    "tl_with_graph": TL + TOKENS + "model = build()\nlogits, cache = model.run_with_cache(tokens)\n",
    "tl_stop_early": TL
    + NO_GRAD
    + TOKENS
    + """
model = build(layers=5)
_, cache = model.run_with_cache(tokens, stop_at_layer=2, names_filter="blocks.1.hook_resid_post")
""",
    "tl_forward": TL + NO_GRAD + TOKENS + "model = build()\nlogits = model(tokens)\n",
    "tl_two_caches": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
clean_logits, clean = model.run_with_cache(tokens)
corrupted_logits, corrupted = model.run_with_cache(tokens)
""",
    "tl_two_models": TL
    + NO_GRAD
    + TOKENS
    + """
a = build()
b = build(layers=6)
_, first = a.run_with_cache(tokens, names_filter="blocks.1.hook_resid_pre")
_, second = b.run_with_cache(tokens, names_filter="blocks.1.hook_resid_pre")
""",
    "tl_model_deleted": TL
    + NO_GRAD
    + TOKENS
    + """
import gc
a = build(layers=6)
first = a(tokens)
del a
gc.collect()
b = build()
_, second = b.run_with_cache(tokens)
""",
    "tl_loop_keeps_the_last": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
for step in range(5):
    _, cache = model.run_with_cache(tokens)
""",
    "tl_function_drops_all": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
def run(batch):
    _, cache = model.run_with_cache(batch)
    return float(cache["resid_post", 1].mean())
values = [run(tokens[i : i + 2]) for i in range(0, 4, 2)]
""",
    "tl_list_of_caches": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
kept = []
for i in range(4):
    _, cache = model.run_with_cache(tokens)
    kept.append(cache)
""",
    "tl_split_qkv": TL
    + NO_GRAD
    + TOKENS
    + """
model = build()
model.set_use_split_qkv_input(True)
_, cache = model.run_with_cache(tokens)
""",
    "tl_training": TL
    + TOKENS
    + """
model = build()
optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
for _ in range(3):
    loss = model(tokens, return_type="loss")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "tl_class": TL
    + """
class Experiment:
    def __init__(self, batch):
        self.model = build()
        self.batch = batch
    @torch.no_grad()
    def run(self):
        self.logits, self.cache = self.model.run_with_cache(torch.ones((self.batch, 160), dtype=torch.long))
Experiment(batch=6).run()
""",
    "hf_forward": HF + TOKENS + "model = gpt2()\nwith torch.no_grad():\n    out = model(tokens)\n",
    "hf_hidden_states": HF
    + TOKENS
    + """
model = llama()
with torch.no_grad():
    out = model(tokens, output_hidden_states=True, use_cache=False)
""",
    "hf_twice": HF
    + TOKENS
    + """
model = llama()
with torch.no_grad():
    first = model(tokens, use_cache=False).logits
    second = model(tokens, use_cache=False).logits
""",
    "hf_generate": HF
    + """
model = gpt2()
out = model.generate(torch.ones((4, 100), dtype=torch.long), max_new_tokens=20, do_sample=False, pad_token_id=0,
                     min_new_tokens=20)
""",
    "hf_training": HF
    + TOKENS
    + """
model = llama()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
for _ in range(3):
    loss = model(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "hf_two_models": HF
    + TOKENS
    + """
a, b = gpt2(), llama()
with torch.no_grad():
    x = a(tokens, use_cache=False).logits
    y = b(tokens, use_cache=False).logits
""",
}


def predicted(code: str) -> int:
    """Tensor bytes of the worst moment, as the reader sees it."""
    reading = read_text(parse_script(code, "script.py"))
    estimates = Estimates(UNKNOWN)
    moments = [estimates.moment(event) for event in reading.events]
    for moment in moments:
        assert not moment.problem, moment.problem
        assert moment.event.kind == "load" or moment.workload is not None, moment.event.fields
    runs = [moment for moment in moments if moment.event.kind != "load"]
    return max(moment.least.peak.tensors + moment.beside for moment in runs if moment.least is not None)


def measured(code: str) -> int:
    """Peak of live tensor bytes while the script runs, its models included."""
    gc.collect()
    compiled = compile(code, "script.py", "exec")
    names: dict[str, Any] = {"__name__": "__main__"}
    grad = torch.is_grad_enabled()
    try:
        with quiet():
            return measure_peak(lambda: exec(compiled, names), []).bytes
    finally:
        torch.set_grad_enabled(grad)
        names.clear()
        gc.collect()


@pytest.mark.parametrize("name", SCRIPTS)
def test_worst_moment_within_two_percent(name: str) -> None:
    ours, theirs = predicted(SCRIPTS[name]), measured(SCRIPTS[name])
    assert abs(ours - theirs) <= 0.02 * theirs, (ours, theirs, ours / theirs)


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        ("gradients_kept", SCRIPTS["tl_with_graph"]),
        ("full_cache", SCRIPTS["tl_full_cache"] + 'x = cache["resid_post", 1].mean()\ndel logits\n'),
        ("attn_result", SCRIPTS["tl_filtered"].replace("_, cache", "model.set_use_attn_result(True)\n_, cache")),
    ],
)
def test_the_edit_of_a_finding_lowers_the_measured_peak(
    identity: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings.Findings, "WORTH", 1)  # these models are small
    script = parse_script(code, "script.py")
    found = [one for one in check_script(script, gpu="RTX 4090").findings if one.id == identity]
    assert found
    changed = applied(script, found[0].edits())
    assert changed is not None
    before, after = measured(code), measured(changed)
    assert after < before
    assert abs(predicted(changed) - after) <= 0.02 * after
    assert abs((predicted(code) - predicted(changed)) - (before - after)) <= 0.02 * before


def test_there_are_twenty() -> None:
    assert len(SCRIPTS) >= 20
    for code in SCRIPTS.values():
        assert check_script(parse_script(code, "script.py"), gpu="RTX 4090").status == "fits"
