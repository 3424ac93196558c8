"""The table of shapes of the accuracy benchmark, with our figure and the rough one for each. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import rough

from compute_awareness.estimator import estimate
from compute_awareness.memory.weights import hf_params
from compute_awareness.models.resolve import resolve
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import DTYPE_BYTES, ActivationCache, Inference, SaeTraining, parse_workload

# A small language model of GPT-2's kind, which SAELens can really run in seconds on a CPU.
TOY_MODEL = {
    "name": "gpt2-shaped, 3 layers, d_model 256", "n_layers": 3, "d_model": 256, "n_heads": 4, "d_vocab": 1000,
    "n_ctx": 256, "positional": "learned", "architecture": "GPT2LMHeadModel",
}  # fmt: skip

KINDS = {
    "cache": "full cache: bytes the returned cache keeps",
    "filtered": "filtered cache: bytes the returned cache keeps",
    "cache_peak": "`run_with_cache`: peak of live tensors",
    "tl_peak": "forward pass, HookedTransformer: peak of live tensors",
    "hf_peak": "forward pass, transformers: peak of live tensors",
    "sae_peak": "SAELens `SAETrainer.fit()`: peak of live tensors",
}


@dataclass(frozen=True)
class Case:
    """One workload to run; `id` names it in the results."""

    id: str
    workload: dict[str, Any]


def _cache(model: str, batch_size: int, seq_len: int, dtype: str = "float32", **more: Any) -> Case:
    tail = "".join(f" {key}={value}" for key, value in more.items())
    return Case(
        f"cache {model} {batch_size}x{seq_len} {dtype}{tail}",
        {"task": "activation_cache", "model": model, "batch_size": batch_size, "seq_len": seq_len, "dtype": dtype}
        | more,
    )


def _forward(library: str, model: str, batch_size: int, seq_len: int, dtype: str = "float32", **more: Any) -> Case:
    tail = "".join(f" {key}={value}" for key, value in more.items())
    return Case(
        f"forward {library} {model} {batch_size}x{seq_len} {dtype}{tail}",
        {"task": "inference", "library": library, "model": model, "batch_size": batch_size, "seq_len": seq_len,
         "dtype": dtype} | more,
    )  # fmt: skip


def _sae(architecture: str, d_in: int, d_sae: int, tokens: int, **more: Any) -> Case:
    """`more` has the language model and its store, where there is one."""
    workload = {
        "task": "sae_training", "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "k": 32,
        "train_batch_size_tokens": tokens,
    }  # fmt: skip
    store = f" store={more['n_batches_in_buffer']}x{more['context_size']}" if more else ""
    return Case(f"sae {architecture} {d_in}->{d_sae} {tokens} tokens{store}", workload | more)


def _store(context_size: int, n_batches: int, prompts: int) -> dict[str, Any]:
    return {
        "model": TOY_MODEL, "hook_name": "blocks.1.hook_resid_pre", "context_size": context_size,
        "n_batches_in_buffer": n_batches, "store_batch_size_prompts": prompts,
    }  # fmt: skip


CASES = (
    _cache("gpt2", 1, 512),
    _cache("gpt2", 8, 1024),
    _cache("gpt2", 32, 128, "bfloat16"),
    _cache("gpt2-medium", 4, 512),
    _cache("gpt2-large", 1, 1024),
    _cache("gpt2-xl", 1, 1024, "float16"),
    _cache("gpt2-xl", 2, 256),
    _cache("pythia-70m", 1, 128),
    _cache("pythia-70m", 16, 2048, "bfloat16"),
    _cache("pythia-160m", 4, 512),
    _cache("pythia-410m", 2, 1024, "bfloat16"),
    _cache("pythia-1b", 1, 2048),
    _cache("pythia-2.8b", 4, 1024),
    _cache("pythia-2.8b", 1, 256, "float16"),
    _cache("llama-2-7b", 1, 1024, "float16"),
    _cache("llama-2-7b", 1, 4096, "bfloat16"),
    _cache("mistral-7b", 1, 1024, "bfloat16"),
    _cache("mistral-7b", 2, 256),
    _cache("llama-3.2-1b", 3, 500, "bfloat16"),
    _cache("gemma-2-2b", 1, 1024, "bfloat16"),
    _cache("qwen2.5-0.5b", 4, 512),
    _cache("gpt2", 8, 1024, names_filter=["*hook_resid_post"]),
    _cache("gpt2", 4, 512, names_filter=["*attn.hook_pattern"]),
    _cache("gpt2-xl", 1, 1024, names_filter=["*attn.hook_z"]),
    _cache("pythia-2.8b", 4, 1024, names_filter=["*hook_resid_post"]),
    _cache("pythia-410m", 2, 512, "float16", names_filter=["*mlp.hook_post"], layers=[5, 6, 7]),
    _cache("pythia-1b", 4, 1024, names_filter=["*attn.hook_q", "*attn.hook_k"]),
    _cache("llama-2-7b", 2, 1024, "bfloat16", names_filter=["*mlp.hook_post"]),
    _cache("llama-3.2-1b", 4, 1024, "bfloat16", names_filter=["*attn.hook_k", "*attn.hook_v"]),
    _cache("gemma-2-2b", 2, 512, "bfloat16", names_filter=["*mlp.hook_pre", "*hook_resid_post"]),
    _cache("mistral-7b", 1, 2048, "bfloat16", names_filter=["*attn.hook_z", "*hook_resid_post"]),
    _cache("qwen2.5-0.5b", 8, 256, names_filter=["*mlp.hook_post"], layers=[0, 23]),
    _forward("transformer_lens", "gpt2", 8, 1024),
    _forward("transformer_lens", "pythia-2.8b", 4, 1024, "bfloat16"),
    _forward("transformer_lens", "llama-2-7b", 1, 2048, "float16"),
    _forward("transformer_lens", "mistral-7b", 4, 512, "bfloat16"),
    _forward("transformer_lens", "gemma-2-2b", 1, 1024, "bfloat16"),
    _forward("transformer_lens", "pythia-70m", 64, 128),
    _forward("transformers", "gpt2", 8, 1024),
    _forward("transformers", "gpt2-xl", 4, 1024, "float16", attention="eager"),
    _forward("transformers", "pythia-2.8b", 4, 1024, "bfloat16"),
    _forward("transformers", "llama-2-7b", 1, 4096, "float16"),
    _forward("transformers", "mistral-7b", 4, 512, "bfloat16"),
    _forward("transformers", "gemma-2-2b", 1, 1024, "bfloat16"),
    _forward("transformers", "qwen2.5-0.5b", 8, 512, "bfloat16", kv_cache=False),
    *(
        _sae(architecture, *shape)
        for architecture in ("standard", "topk", "batchtopk", "jumprelu", "gated")
        for shape in ((256, 2048, 1024), (768, 6144, 2048))
    ),
    _sae("standard", 256, 2048, 512, **_store(128, 32, 8)),
    _sae("topk", 256, 1024, 1024, **_store(64, 64, 16)),
    _sae("jumprelu", 256, 4096, 256, **_store(32, 32, 32)),
)

# On the meta device and quick to build: what a test may run every time.
QUICK = (
    "cache gpt2 1x512 float32",
    "cache llama-3.2-1b 4x1024 bfloat16 names_filter=['*attn.hook_k', '*attn.hook_v']",
    "forward transformer_lens pythia-70m 64x128 float32",
    "forward transformers gpt2 8x1024 float32",
)


def kinds_of(workload: dict[str, Any]) -> list[str]:
    """Which figures of `KINDS` a workload has."""
    match workload["task"]:
        case "activation_cache":
            return ["filtered" if "names_filter" in workload else "cache", "cache_peak"]
        case "inference":
            return ["tl_peak" if workload["library"] == "transformer_lens" else "hf_peak"]
    return ["sae_peak"]


def our_figures(workload: dict[str, Any]) -> dict[str, int]:
    """Bytes by kind, through the package's public functions."""
    result = estimate(parse_workload(workload))
    cached = sum(c.bytes for c in result.components if c.name == "activation_cache" and c.where == "device")
    return {kind: cached if kind in ("cache", "filtered") else result.peak.tensors for kind in kinds_of(workload)}


def rough_figures(workload: dict[str, Any]) -> dict[str, int]:
    """Bytes by kind, by the rules of thumb.

    The rules know no filters: for a filtered cache the parts of their formula that the filter keeps are taken. The
    peak of `run_with_cache` is weights and cache, that of a forward pass the weights.
    """
    parsed = parse_workload(workload)
    if isinstance(parsed, SaeTraining):
        d_in, d_sae = workload["d_in"], workload["d_sae"]
        total = rough.sae_bytes(d_in, d_sae, parsed.train_batch_size_tokens)
        if parsed.model is not None:
            total += hf_params(resolve(parsed.model)) * DTYPE_BYTES[parsed.model_dtype]
        return {"sae_peak": total}
    spec = resolve(parsed.model)
    weights = rough.model_bytes(spec.name, hf_params(spec), DTYPE_BYTES[parsed.dtype])
    if isinstance(parsed, Inference):
        return dict.fromkeys(kinds_of(workload), weights)
    cached = _rough_cache(spec, parsed)
    return {kind: cached + (weights if kind == "cache_peak" else 0) for kind in kinds_of(workload)}


def _rough_cache(spec: ModelSpec, workload: ActivationCache) -> int:
    terms = rough.cache_terms(
        spec.n_layers, spec.d_model, spec.n_heads, spec.d_head, workload.batch_size, workload.seq_len,
        DTYPE_BYTES[workload.dtype],
    )  # fmt: skip
    if workload.names_filter is None:
        return sum(terms.values())
    kept = [
        terms[term] // parts
        for hook, (term, parts) in rough.COUNTED_HOOKS.items()
        if any(fnmatch(f"blocks.0.{hook}", pattern) for pattern in workload.names_filter)
    ]
    if not kept:
        raise ValueError(f"the rough formula counts nothing that {workload.names_filter} keeps")
    layers = spec.n_layers if workload.layers is None else len(workload.layers)
    return sum(kept) * layers // spec.n_layers
