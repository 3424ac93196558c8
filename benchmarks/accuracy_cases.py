"""The workloads of the accuracy benchmark. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from compute_awareness.memory.huggingface.forward import supports_sdpa
from compute_awareness.models.catalogue import find

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
    "bridge_peak": "forward pass and `run_with_cache`, TransformerBridge: peak of live tensors",
    "generation_peak": "`generate`, transformers and HookedTransformer: peak of live tensors",
    "training_peak": "training step, transformers: peak of live tensors",
    "tl_training_peak": "training step, HookedTransformer: peak of live tensors",
    "patching_peak": "activation and attribution patching: peak of live tensors",
    "sae_peak": "SAELens `SAETrainer.fit()`: peak of live tensors",
    "sae_use_peak": "SAEs in use (`encode`, HookedSAETransformer): peak of live tensors",
}
CATALOGUE = (
    "gpt2", "gpt2-medium", "gpt2-xl", "pythia-70m", "pythia-160m", "pythia-410m", "pythia-1b", "pythia-2.8b",
    "llama-2-7b", "llama-3-8b", "llama-3.2-1b", "mistral-7b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2b", "gemma-2-2b",
    "phi-2", "opt-125m", "olmo-1b", "gpt-j-6b",
)  # fmt: skip
FAMILIES = (
    "gpt2", "pythia-160m", "llama-2-7b", "llama-3-8b", "mistral-7b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2-2b",
    "phi-2", "opt-125m", "bloom-560m", "olmo-1b",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One workload to run; `id` names it in the results."""

    id: str
    workload: dict[str, Any]


@cache
def _narrow(name: str, n_layers: int = 4, heads: int = 8, d_vocab: int = 2003) -> dict[str, Any]:
    spec = find(name)
    if spec is None:
        raise LookupError(f"{name} is not in the catalogue")
    groups = spec.n_heads // spec.n_kv_heads
    shape: dict[str, Any] = {
        "name": f"{name} at d_model {32 * heads}, {n_layers} layers", "n_layers": n_layers, "n_heads": heads,
        "d_head": 32, "d_model": 32 * heads, "n_kv_heads": heads if groups == 1 else 1 if spec.n_kv_heads == 1 else 2,
        "d_mlp": (128 if spec.architecture == "BloomForCausalLM" else 80) * heads, "d_vocab": d_vocab, "n_ctx": 512,
        "n_ctx_tl": 512, "window": 64 if spec.window else None, "hf_id": None,
    }  # fmt: skip
    if spec.rotary_dim:
        shape["rotary_dim"] = 32 * spec.rotary_dim // spec.d_head
    return spec.model_copy(update=shape).model_dump(exclude_defaults=True, exclude={"source", "aliases", "tl_name"})


def narrow(name: str, n_layers: int = 4, heads: int = 8) -> dict[str, Any]:
    """A relative of a catalogue model that a CPU really trains: heads of 32, its ratio of key/value heads."""
    return dict(_narrow(name, n_layers, heads))


def _case(words: str, task: str, model: str | dict[str, Any], batch_size: int, seq_len: int, **more: Any) -> Case:
    named = model if isinstance(model, str) else model["name"]
    shown = more | {"dtype": more.get("dtype", "float32")}
    dtype = shown.pop("dtype")
    tail = "".join(f" {key}={value}" for key, value in shown.items())
    workload = {"task": task, "model": model, "batch_size": batch_size, "seq_len": seq_len, "dtype": dtype}
    return Case(f"{words} {named} {batch_size}x{seq_len} {dtype}{tail}", workload | shown)


def _cache(model: str, batch_size: int, seq_len: int, dtype: str = "float32", **more: Any) -> Case:
    return _case("cache", "activation_cache", model, batch_size, seq_len, dtype=dtype, **more)


def _forward(library: str, model: str, batch_size: int, seq_len: int, dtype: str = "float32", **more: Any) -> Case:
    case = _case(f"forward {library}", "inference", model, batch_size, seq_len, dtype=dtype, **more)
    return Case(case.id, {"task": "inference", "library": library} | case.workload)


def _sae(architecture: str, d_in: int, d_sae: int, tokens: int, **more: Any) -> Case:
    """`more` has the language model and its store, where there is one."""
    workload = {
        "task": "sae_training", "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "k": 32,
        "train_batch_size_tokens": tokens,
    }  # fmt: skip
    if architecture == "matryoshka_batchtopk":
        workload["matryoshka_widths"] = [d_sae // 8, d_sae // 2, d_sae]
    store = f" store={more['n_batches_in_buffer']}x{more['context_size']}" if "context_size" in more else ""
    plain = "".join(f" {key}={more[key]}" for key in ("dtype", "autocast") if key in more)
    return Case(f"sae {architecture} {d_in}->{d_sae} {tokens} tokens{store}{plain}", workload | more)


def _store(context_size: int, n_batches: int, prompts: int) -> dict[str, Any]:
    return {
        "model": TOY_MODEL, "hook_name": "blocks.1.hook_resid_pre", "context_size": context_size,
        "n_batches_in_buffer": n_batches, "store_batch_size_prompts": prompts, "evaluation": False,
    }  # fmt: skip


def _caches() -> list[Case]:
    drawn = [
        _cache(name, 1 + number % 3, (96, 320, 700, 1000)[number % 4], ("float32", "bfloat16", "float16")[number % 3])
        for number, name in enumerate(CATALOGUE)
    ]
    filters = (["*hook_resid_post"], ["*attn.hook_z", "*mlp.hook_post"], ["*attn.hook_pattern"])
    drawn += [
        _cache(name, 4, (128, 512, 900)[number % 3], ("bfloat16", "float32")[number % 2],
               names_filter=filters[number % 3])
        for number, name in enumerate(CATALOGUE[::2])
    ]  # fmt: skip
    return [
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
        *drawn,
    ]


def _forwards() -> list[Case]:
    lens = [
        _forward("transformer_lens", name, 1 + number % 4, (700, 128, 1024)[number % 3],
                 ("bfloat16", "float32")[number % 2])
        for number, name in enumerate(CATALOGUE[::2])
    ]  # fmt: skip
    hugging = []
    for number, name in enumerate(CATALOGUE):
        spec = find(name)
        fused = spec is not None and supports_sdpa(spec.architecture)
        # In float32 the unfused kernel runs on CUDA where heads are grouped, and another on the CPU: 16 bits there.
        dtype = ("float16", "bfloat16", "float32")[number % 3]
        if spec is not None and spec.n_kv_heads < spec.n_heads and dtype == "float32":
            dtype = "bfloat16"
        more = {"attention": "eager"} if not fused or number % 5 == 4 else {}
        hugging.append(_forward("transformers", name, 1 + 3 * (number % 3), (1000, 300)[number % 2], dtype, **more))
        if fused and number % 2:
            hugging.append(_forward("transformers", name, 1, 640, "float16", kv_cache=number % 4 == 1))
    return [
        _forward("transformer_lens", "gpt2", 8, 1024),
        _forward("transformer_lens", "pythia-2.8b", 4, 1024, "bfloat16"),
        _forward("transformer_lens", "llama-2-7b", 1, 2048, "float16"),
        _forward("transformer_lens", "mistral-7b", 4, 512, "bfloat16"),
        _forward("transformer_lens", "gemma-2-2b", 1, 1024, "bfloat16"),
        _forward("transformer_lens", "pythia-70m", 64, 128),
        *lens,
        _forward("transformers", "gpt2", 8, 1024),
        _forward("transformers", "gpt2-xl", 4, 1024, "float16", attention="eager"),
        _forward("transformers", "pythia-2.8b", 4, 1024, "bfloat16"),
        _forward("transformers", "llama-2-7b", 1, 4096, "float16"),
        _forward("transformers", "mistral-7b", 4, 512, "bfloat16"),
        _forward("transformers", "gemma-2-2b", 1, 1024, "bfloat16"),
        _forward("transformers", "qwen2.5-0.5b", 8, 512, "bfloat16", kv_cache=False),
        *hugging,
    ]


def _bridges() -> list[Case]:
    names = ("gpt2", "pythia-160m", "llama-3.2-1b", "mistral-7b", "qwen2.5-0.5b", "phi-2")
    cases = []
    for number, name in enumerate(names):
        shape: dict[str, Any] = {"library": "transformer_bridge", "dtype": ("float32", "bfloat16")[number % 2]}
        if number % 3 == 2:
            shape |= {"compatibility_mode": True, "dtype": "float32"}
        cases.append(_case("bridge cache", "activation_cache", narrow(name), 2, 150, **shape))
        cases.append(_case("bridge forward", "inference", narrow(name), 3, 200, **shape))
    return cases


def _generations() -> list[Case]:
    cases = [
        _case("generate", "generation", "gpt2", 1, 64, library="transformers", new_tokens=16),
        _case("generate", "generation", "pythia-70m", 2, 128, library="transformers", new_tokens=8),
        _case("generate", "generation", "pythia-160m", 1, 100, library="transformers", new_tokens=8),
        _case("generate", "generation", "opt-125m", 1, 80, library="transformers", new_tokens=8),
    ]
    for number, name in enumerate(FAMILIES):
        more = {"attention": "eager"} if number % 3 else {"dtype": "bfloat16"}
        cases.append(
            _case("generate", "generation", narrow(name), 1 + number % 4, 40 + 30 * (number % 3),
                  library="transformers", new_tokens=20, kv_cache=number % 5 != 4, **more)
        )  # fmt: skip
    for number, name in enumerate(("gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "qwen3-0.6b")):
        cases.append(
            _case("generate", "generation", narrow(name), 2, 90, library="transformer_lens", new_tokens=12,
                  dtype=("float32", "bfloat16")[number % 2], kv_cache=number != 2)
        )  # fmt: skip
    return cases


def _trainings() -> list[Case]:
    def step(model: str | dict[str, Any], batch_size: int, seq_len: int, **more: Any) -> Case:
        return _case("train", "training", model, batch_size, seq_len, library="transformers", **more)

    whole = [
        step("pythia-70m", 2, 128),
        step("pythia-70m", 8, 64, optimizer="sgd_momentum", attention="eager"),
        step("opt-125m", 1, 96, optimizer="adamw"),
        step("gpt2", 2, 128, optimizer="adamw", attention="eager"),
        step("gpt2", 1, 200, optimizer="sgd", attention="eager"),
        step("pythia-160m", 1, 128, optimizer="adamw", gradient_checkpointing=True),
    ]
    small = []
    for number, name in enumerate(FAMILIES):
        more: dict[str, Any] = {"attention": "eager"}
        if number % 3 == 1:
            more["gradient_checkpointing"] = True
        if number % 4 == 3:
            more["gradient_accumulation"] = 2
        small.append(step(narrow(name, heads=4), 2 + number % 3, 100, **more))
        if number % 2 == 0:
            small.append(step(narrow(name), 4, 80, attention="eager", optimizer="sgd"))
    lora = [
        step(narrow(name), 4, 100, attention="eager", trainable="lora", lora_rank=8)
        for name in ("gpt2", "llama-3-8b", "qwen2.5-0.5b", "mistral-7b")
    ]
    hooked = [
        _case("train", "training", narrow(name, heads=4), 3, 60 + 20 * (number % 3), library="transformer_lens",
              optimizer=("adamw", "sgd", "adam")[number % 3])
        for number, name in enumerate(("gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "qwen3-0.6b", "bloom-560m",
                                       "opt-125m", "gpt-j-6b", "olmo-1b", "gemma-2b"))
    ]  # fmt: skip
    hooked.append(_case("train", "training", "pythia-70m", 4, 100, library="transformer_lens"))
    return [*whole, *small, *lora, *hooked]


def _patchings() -> list[Case]:
    cases = []
    for number, name in enumerate(("gpt2", "pythia-160m", "llama-3-8b", "gemma-2-2b", "mistral-7b", "qwen3-0.6b")):
        more: dict[str, Any] = {"names_filter": ["*hook_z", "*hook_resid_post"]} if number % 2 else {}
        cases.append(
            _case("patch", "patching", narrow(name), 2, 90 + 10 * number, method="attribution_patching", **more)
        )
    for name in ("gpt2", "pythia-160m", "llama-3-8b"):
        cases.append(_case("patch", "patching", narrow(name, 2), 4, 24, method="activation_patching"))
        cases.append(
            _case("patch", "patching", narrow(name, 1), 4, 12, method="activation_patching", names_filter=["*hook_z"])
        )
    return cases


def _saes() -> list[Case]:
    return [
        *(
            _sae(architecture, *shape)
            for architecture in ("standard", "topk", "batchtopk", "jumprelu", "gated")
            for shape in ((256, 2048, 1024), (768, 6144, 2048))
        ),
        *(
            _sae(architecture, *shape)
            for architecture in ("abstopk", "matryoshka_batchtopk")
            for shape in ((256, 2048, 1024), (512, 4096, 512))
        ),
        *(_sae(name, 384, 3072, 2048, autocast=True) for name in ("standard", "topk", "jumprelu")),
        *(_sae(name, 384, 3072, 1024, dtype="float16") for name in ("standard", "topk")),
        _sae("standard", 1024, 8192, 64),
        _sae("topk", 128, 8192, 4096),
        _sae("standard", 256, 2048, 512, **_store(128, 32, 8)),
        _sae("topk", 256, 1024, 1024, **_store(64, 64, 16)),
        _sae("jumprelu", 256, 4096, 256, **_store(32, 32, 32)),
        _sae("batchtopk", 256, 2048, 512, **_store(64, 32, 16)),
        _sae("gated", 256, 1024, 256, **_store(64, 48, 8)),
    ]


def _saes_in_use() -> list[Case]:
    def use(architecture: str, d_sae: int, batch_size: int, seq_len: int, **more: Any) -> Case:
        tail = "".join(f" {key}={value}" for key, value in more.items())
        return Case(
            f"use sae {architecture} {d_sae} {batch_size}x{seq_len}{tail}",
            {"task": "sae_inference", "architecture": architecture, "model": TOY_MODEL, "d_sae": d_sae, "k": 16,
             "hook_name": "blocks.1.hook_resid_pre", "batch_size": batch_size, "seq_len": seq_len} | more,
        )  # fmt: skip

    cases = [use(name, 4096, 4, 128) for name in ("standard", "topk", "jumprelu", "gated")]
    cases += [use(name, 1024, 2, 200, stop_after_hook=True, n_saes=3) for name in ("topk", "standard")]
    cases += [use(name, 2048, 3, 100, splice=True) for name in ("standard", "jumprelu", "topk", "gated")]
    cases += [use("standard", 4096, 2, 128, splice=True, use_error_term=True, keep_features=False)]
    return cases


CASES = (
    *_caches(), *_forwards(), *_bridges(), *_generations(), *_trainings(), *_patchings(), *_saes(), *_saes_in_use(),
)  # fmt: skip

# On the meta device and quick to build: what a test may run every time.
QUICK = (
    "cache gpt2 1x512 float32",
    "cache llama-3.2-1b 4x1024 bfloat16 names_filter=['*attn.hook_k', '*attn.hook_v']",
    "forward transformer_lens pythia-70m 64x128 float32",
    "forward transformers gpt2 8x1024 float32",
)


def kinds_of(workload: dict[str, Any]) -> list[str]:
    """Which figures of `KINDS` a workload has."""
    if workload.get("library") == "transformer_bridge":
        return ["bridge_peak"]
    match workload["task"]:
        case "activation_cache":
            return ["filtered" if "names_filter" in workload else "cache", "cache_peak"]
        case "inference":
            return ["tl_peak" if workload["library"] == "transformer_lens" else "hf_peak"]
        case "generation":
            return ["generation_peak"]
        case "training":
            return ["tl_training_peak" if workload["library"] == "transformer_lens" else "training_peak"]
        case "patching":
            return ["patching_peak"]
        case "sae_inference":
            return ["sae_use_peak"]
    return ["sae_peak"]
