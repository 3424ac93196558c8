"""Generation and patching: traces without weights against real runs of transformers and HookedTransformer on the CPU.

The models of the generation jobs are those that no closed form covers: ALiBi (MPT, Falcon-RW, BLOOM as a
HookedTransformer), mixtures of experts; and GPT-2, Llama and Gemma 2, whose closed forms are compared elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from builders import quiet
from flop_meter import counted
from judge import judge
from meters import distinct_bytes, measure_peak, profiler_peak
from traces import operations, ours, run_jobs

pytestmark = pytest.mark.filterwarnings("ignore")

HEADS = {"num_attention_heads": 4, "hidden_size": 64, "vocab_size": 900}
GROUPED = {**HEADS, "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 128}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 1000},
    "llama": {"model_type": "llama", **GROUPED},
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "sliding_window": 24, **GROUPED},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, **GROUPED},
    "mpt": {"model_type": "mpt", "d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 900, "max_seq_len": 256},
    "falcon-rw": {
        "model_type": "falcon", "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True,
        "num_hidden_layers": 2, **HEADS,
    },
    "falcon": {"model_type": "falcon", "num_hidden_layers": 2, **HEADS},
    "bloom": {"model_type": "bloom", "n_layer": 2, "n_head": 4, "hidden_size": 64, "vocab_size": 900},
}  # fmt: skip
LENS = {
    "n_layers": 2, "d_model": 48, "n_heads": 4, "d_head": 12, "d_mlp": 160, "d_vocab": 700, "n_ctx": 128,
    "act_fn": "gelu", "normalization_type": "LNPre",
}  # fmt: skip
ALIBI = {**LENS, "positional_embedding_type": "alibi", "post_embedding_ln": True, "default_prepend_bos": False}
HF = {"library": "transformers", "task": "generation", "dtype": "float32", "batch_size": 2, "seq_len": 20}
TL = {**HF, "library": "transformer_lens", "config": LENS}
PATCH = {**TL, "task": "patching", "seq_len": 40, "method": "attribution_patching", "patches": 80}
SWEEP = {**PATCH, "method": "activation_patching", "seq_len": 8, "patches": 16}

JOBS: dict[str, dict[str, Any]] = {
    **{name: {**HF, "config": config, "new_tokens": 3} for name, config in MODELS.items()},
    **{
        f"{name} long": {**HF, "config": MODELS[name], "new_tokens": 40}
        for name in ("gemma2", "mpt", "falcon-rw")
    },
    "mpt short prompt": {**HF, "config": MODELS["mpt"], "new_tokens": 60, "seq_len": 3, "batch_size": 3},
    "falcon-rw uncached": {**HF, "config": MODELS["falcon-rw"], "new_tokens": 6, "kv_cache": False},
    "mpt uncached": {**HF, "config": MODELS["mpt"], "new_tokens": 20, "kv_cache": False},
    "gpt2 eager": {**HF, "config": MODELS["gpt2"], "new_tokens": 12, "attention": "eager"},
    "falcon-rw bfloat16": {**HF, "config": MODELS["falcon-rw"], "new_tokens": 12, "dtype": "bfloat16"},
    "lens": {**TL, "new_tokens": 12},
    "lens bloom": {**TL, "config": ALIBI, "new_tokens": 12},
    "lens uncached": {**TL, "new_tokens": 12, "kv_cache": False},
    "lens bloom short": {**TL, "config": ALIBI, "new_tokens": 4},
    "attribution": PATCH,
    "attribution frozen": {**PATCH, "parameter_gradients": False},
    "attribution filtered": {**PATCH, "names_filter": ["*hook_z", "*hook_mlp_out"]},
    "attribution per head": {**PATCH, "use_attn_result": True, "names_filter": ["*hook_result"]},
    "activation": SWEEP,
    "activation filtered": {**SWEEP, "names_filter": ["*resid_pre"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, Any]:
    return run_jobs(JOBS, tmp_path_factory.mktemp("jobs"))


def transformers_run(job: dict[str, Any], **how: Any) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """(the call of generate, the tensors that are there before it)"""
    given = dict(job["config"])
    config = transformers.CONFIG_MAPPING[given.pop("model_type")](**given)
    with quiet():
        kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
        asked = {"attn_implementation": job["attention"]} if job.get("attention") else {}
        model = kind._from_config(config, dtype=getattr(torch, job["dtype"]), **asked, **how).eval()
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id, settings.bos_token_id = config.vocab_size, None, None
    ids = torch.ones(job["batch_size"], job["seq_len"], dtype=torch.long)
    new, caching = job["new_tokens"], job.get("kv_cache", True)
    held = [*model.parameters(), *model.buffers(), ids]

    def run() -> Any:
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=new, do_sample=False, use_cache=caching)
        assert out.shape == (job["batch_size"], job["seq_len"] + new)
        return out

    return run, held


def lens(job: dict[str, Any]) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with quiet():
        model = HookedTransformer(HookedTransformerConfig(**job["config"], device="cpu"))
    model.set_use_attn_result(bool(job.get("use_attn_result")))
    model.requires_grad_(job.get("parameter_gradients", True))
    return model.eval()


def hooked_run(job: dict[str, Any]) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """(the call of generate or the patching, the tensors that are there before it)"""
    model = lens(job)
    ids = torch.ones(job["batch_size"], job["seq_len"], dtype=torch.long)
    held = [*model.parameters(), *model.buffers(), ids]
    if job["task"] == "generation":
        model.tokenizer = SimpleNamespace(padding_side="right", pad_token_id=0, bos_token_id=0, eos_token_id=10**6)
        generate = type(model).generate.__wrapped__  # the dispatch mode does not see into inference_mode
        more = {"max_new_tokens": job["new_tokens"], "use_past_kv_cache": job.get("kv_cache", True)}

        def run() -> Any:
            with torch.no_grad():
                return generate(model, ids, verbose=False, **more)

        return run, held
    keeps = kept_names(job)
    patched = activation_patching if job["method"] == "activation_patching" else attribution_patching
    return lambda: patched(model, keeps, ids, job), held


def kept_names(job: dict[str, Any]) -> Any:
    endings = tuple(pattern.lstrip("*") for pattern in job.get("names_filter") or [""])
    switched = ("hook_result", "_input", "hook_mlp_in", "hook_attn_in")
    off = () if job.get("use_attn_result") else switched
    return lambda name: name.endswith(endings) and not name.endswith(off)


def activation_patching(model: Any, keeps: Any, clean: torch.Tensor, job: dict[str, Any]) -> Any:
    """transformer_lens.patching itself, all of the sweep."""
    from transformer_lens import patching as library

    with torch.no_grad():
        corrupted = clean.clone()
        clean_logits, clean_cache = model.run_with_cache(clean, names_filter=keeps)
        swept = library.get_act_patch_resid_pre(model, corrupted, clean_cache, lambda logits: logits[0, -1, 0])
    return swept, clean_logits


def attribution_patching(model: Any, keeps: Any, clean: torch.Tensor, job: dict[str, Any]) -> Any:
    """TransformerLens' attribution patching demo: caches by hooks over a filter, then scores hook by hook."""
    corrupted, answers = clean.clone(), torch.zeros(len(clean), 1, dtype=torch.long)
    with torch.no_grad():
        clean_logits, clean_cache = model.run_with_cache(clean, names_filter=keeps)
    cached: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def keep(into: dict[str, torch.Tensor]) -> Any:
        def hooked(tensor: torch.Tensor, hook: Any) -> None:
            into[hook.name] = tensor.detach()

        return hooked

    if not next(model.parameters()).requires_grad:
        model.add_hook("hook_embed", lambda embed, hook: embed.requires_grad_(), "fwd")
    model.add_hook(keeps, keep(cached), "fwd")
    model.add_hook(keeps, keep(gradients), "bwd")
    model(corrupted)[:, -1, :].gather(-1, answers).mean().backward()
    model.reset_hooks()
    return {n: ((clean_cache[n] - cached[n]) * gradients[n]).sum() for n in gradients}, clean_logits


@pytest.mark.parametrize("name", JOBS)
def test_the_trace_is_what_a_real_run_allocates(name: str, answers: dict[str, Any]) -> None:
    job, answer = JOBS[name], answers[name]
    assert "error" not in answer, answer
    run, held = transformers_run(job) if job["library"] == "transformers" else hooked_run(job)
    measure = profiler_peak if job["task"] == "patching" else lambda run: measure_peak(run, held)
    with quiet():
        truth = distinct_bytes(held) + measure(run).bytes
    distribution = job["library"].replace("_", "-")
    judge(
        job["library"], answer["versions"][distribution], job["task"], answer["traces"][0]["class"],
        f"trace {name} {job['dtype']}", ours(answer), truth, 0.002, job,
    )  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_operations_are_those_of_a_real_run(name: str, answers: dict[str, Any]) -> None:
    """To the last one, of all new tokens and of the whole sweep, though few of them are traced."""
    job = JOBS[name]
    how = {"experts_implementation": "eager"} if "expert" in str(job["config"]) else {}
    run, _ = transformers_run(job, **how) if job["library"] == "transformers" else hooked_run(job)
    assert operations(job, answers[name]) == counted(run)


def test_a_filter_that_keeps_nothing_is_refused(tmp_path: Any) -> None:
    refused = run_jobs({"nothing": {**PATCH, "names_filter": ["*no_such_hook"]}}, tmp_path)["nothing"]["error"]
    assert refused["kind"] == "bad_job"
    assert "names_filter" in refused["message"]


def test_the_key_value_cache_is_named(answers: dict[str, Any]) -> None:
    """Of 59 tokens after 40 new ones: the last new one is never read."""
    sections = answers["mpt long"]["traces"][0]["sections"]
    assert sections["last:after"]["kv_cache"] == 2 * 2 * 2 * 59 * 64 * 4
