"""TransformerBridge: generation, training and patching traced without weights, against the real bridge on the CPU.

Runs with TransformerLens 3.8 and later and with 4.x: whichever the environment has.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
import transformers
from builders import quiet
from flop_meter import counted
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak
from traces import operations, ours, run_jobs

from compute_awareness.trace.worker import everything_in, small_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")

VERSION = version("transformer-lens")
HEADS = {"num_attention_heads": 4, "hidden_size": 64, "vocab_size": 900, "num_hidden_layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 1000},
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 128, **HEADS},
    "neox": {"model_type": "gpt_neox", "intermediate_size": 160, **HEADS},
}  # fmt: skip
ATTRIBUTION = {
    "library": "transformer_bridge", "task": "patching", "method": "attribution_patching", "dtype": "float32",
    "batch_size": 2, "seq_len": 24, "patches": 72,
}  # fmt: skip
ACTIVATION = {**ATTRIBUTION, "method": "activation_patching", "seq_len": 6, "patches": 18}
TRAINING = {**ATTRIBUTION, "task": "training", "optimizer": "adamw"}
GENERATION = {**ATTRIBUTION, "task": "generation", "new_tokens": 4}
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unprocessed": {"compatibility_mode": True, "no_processing": True},
    "processed": {"compatibility_mode": True},
}

JOBS: dict[str, dict[str, Any]] = {
    **{
        f"{task['task']} {name} {mode}": {**task, **MODES[mode], "config": MODELS[name]}
        for task in (GENERATION, TRAINING, ATTRIBUTION)
        for name, mode in (("gpt2", "plain"), ("gpt2", "processed"), ("llama", "plain"), ("neox", "unprocessed"))
    },
    "generation llama processed": {**GENERATION, **MODES["processed"], "config": MODELS["llama"]},
    "generation gpt2 long": {**GENERATION, "config": MODELS["gpt2"], "new_tokens": 30},
    "generation llama uncached": {**GENERATION, "config": MODELS["llama"], "kv_cache": False, "new_tokens": 12},
    "activation gpt2": {**ACTIVATION, "config": MODELS["gpt2"]},
    "activation llama": {**ACTIVATION, "config": MODELS["llama"], "names_filter": ["*hook_resid_pre"], "patches": 12},
    "attribution filtered": {**ATTRIBUTION, "config": MODELS["neox"], "names_filter": ["*hook_resid_pre", "*hook_z"]},
    "attribution frozen": {**ATTRIBUTION, "config": MODELS["gpt2"], "parameter_gradients": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, Any]:
    return run_jobs(JOBS, tmp_path_factory.mktemp("jobs"))


def boot(job: dict[str, Any]) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    given = dict(job["config"])
    config = transformers.CONFIG_MAPPING[given.pop("model_type")](**given)
    with quiet():
        kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
        model = kind._from_config(config, dtype=torch.float32, attn_implementation="eager")
        model.config.architectures, model.config.output_attentions = [kind.__name__], True
        bridge = TransformerBridge.boot_transformers(
            "small", hf_model=model, device="cpu", dtype=torch.float32, tokenizer=small_tokenizer()
        )
        if job.get("compatibility_mode"):
            bridge.enable_compatibility_mode(no_processing=job.get("no_processing", False))
    bridge.requires_grad_(job.get("parameter_gradients", True))
    bridge.train(job["task"] == "training")
    return bridge


def generate(bridge: Any, ids: torch.Tensor, job: dict[str, Any]) -> Any:
    real = type(bridge).generate
    more = {"max_new_tokens": job["new_tokens"], "use_past_kv_cache": job.get("kv_cache", True)}
    with torch.no_grad():
        return getattr(real, "__wrapped__", real)(bridge, ids, verbose=False, eos_token_id=10**6, **more)


def train(bridge: Any, ids: torch.Tensor, job: dict[str, Any]) -> None:
    optimizer = torch.optim.AdamW([p for p in bridge.parameters() if p.requires_grad], lr=1e-4, foreach=True)
    for _ in range(2):
        loss = bridge(ids, return_type="loss")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def filtered(job: dict[str, Any]) -> Any:
    patterns = job.get("names_filter")
    return None if patterns is None else lambda name: name.endswith(tuple(p.lstrip("*") for p in patterns))


def activate(bridge: Any, clean: torch.Tensor, job: dict[str, Any]) -> Any:
    """transformer_lens.patching itself, over layers and positions of the residual stream."""
    from transformer_lens import patching as library

    with torch.no_grad():
        corrupted = clean.clone()
        clean_logits, cache = bridge.run_with_cache(clean, names_filter=filtered(job))
        swept = library.get_act_patch_resid_pre(bridge, corrupted, cache, lambda logits: logits[0, -1, 0])
    return swept, clean_logits


def attribute(bridge: Any, clean: torch.Tensor, job: dict[str, Any]) -> Any:
    """Activations and gradients of the corrupted run by hooks on what the clean cache has."""
    corrupted, answers = clean.clone(), torch.zeros(len(clean), 1, dtype=torch.long)
    with torch.no_grad():
        clean_logits, cache = bridge.run_with_cache(clean, names_filter=filtered(job))
    activations: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def keep(into: dict[str, torch.Tensor], name: str) -> Any:
        return lambda tensor, hook: into.__setitem__(name, tensor.detach())

    forwards: list[Any] = [(name, keep(activations, name)) for name in cache.keys()]  # noqa: SIM118 (no dict)
    if not next(iter(bridge.parameters())).requires_grad:
        forwards.insert(0, ("hook_embed", lambda embed, hook: embed.requires_grad_()))
    backwards = [(name, keep(gradients, name)) for name in cache.keys()]  # noqa: SIM118
    with bridge.hooks(fwd_hooks=forwards, bwd_hooks=backwards):
        bridge(corrupted)[:, -1, :].gather(-1, answers).mean().backward()
    scores = {n: ((cache[n] - activations[n]) * gradients[n]).sum() for n in gradients if n in activations}
    assert scores
    return scores, clean_logits


def bridge_run(job: dict[str, Any]) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """(the run, the tensors that are there before it)"""
    bridge = boot(job)
    ids = torch.ones(job["batch_size"], job["seq_len"], dtype=torch.long)
    parameters, buffers = everything_in(bridge)
    kinds = {"generation": generate, "training": train, "activation_patching": activate}
    run = kinds.get(job["task"], kinds.get(job["method"], attribute))
    return lambda: run(bridge, ids, job), [*parameters, *buffers, ids]


@pytest.mark.parametrize("name", JOBS)
def test_the_trace_is_what_a_real_run_allocates(name: str, answers: dict[str, Any]) -> None:
    job, answer = JOBS[name], answers[name]
    assert "error" not in answer, answer
    architecture = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "gpt_neox": "GPTNeoXForCausalLM"}
    run, held = bridge_run(job)
    measure = profiler_peak if job["task"] != "generation" else lambda run: measure_peak(run, held)
    with quiet():
        truth = distinct_bytes(held) + measure(run).bytes
    judge(
        "transformer_bridge", VERSION, job["task"], architecture[job["config"]["model_type"]],
        f"trace {name} float32", ours(answer), truth, 0.005, job,
    )  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_operations_are_those_of_a_real_run(name: str, answers: dict[str, Any]) -> None:
    job = JOBS[name]
    run, _ = bridge_run(job)
    steps = 2 if job["task"] == "training" else 1
    assert steps * operations(job, answers[name]) == counted(run)
