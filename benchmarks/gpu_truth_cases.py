"""The workloads that `gpu_truth.py` runs: every task, on models of random weights. Needs no torch."""

from __future__ import annotations

from typing import Any

from accuracy_cases import CASES, TOY_MODEL, Case, narrow


def _passes(library: str) -> list[Case]:
    shapes = [
        ("gpt2", 8, 1024, "float32"), ("gpt2-xl", 2, 1024, "float16"), ("pythia-410m", 8, 512, "bfloat16"),
        ("pythia-2.8b", 1, 1024, "bfloat16"), ("llama-3.2-1b", 4, 1024, "bfloat16"),
        ("gemma-2-2b", 1, 1024, "bfloat16"), ("qwen2.5-0.5b", 4, 1024, "float32"), ("opt-125m", 16, 512, "float16"),
    ]  # fmt: skip
    return [_case("inference", library, *shape) for shape in shapes]


def _case(task: str, library: str, model: str | dict[str, Any], b: int, s: int, dtype: str, **more: Any) -> Case:
    named = model if isinstance(model, str) else model["name"]
    workload = {"task": task, "library": library, "model": model, "batch_size": b, "seq_len": s, "dtype": dtype} | more
    tail = "".join(f" {key}={value}" for key, value in more.items())
    return Case(f"{task} {library} {named} {b}x{s} {dtype}{tail}", workload)


def _caches() -> list[Case]:
    lens = "transformer_lens"
    return [
        _case("activation_cache", lens, "gpt2", 4, 1024, "float32"),
        _case("activation_cache", lens, "gpt2-medium", 4, 512, "bfloat16"),
        _case("activation_cache", lens, "pythia-410m", 2, 1024, "float16"),
        _case("activation_cache", lens, "pythia-1b", 1, 2048, "float32"),
        _case("activation_cache", lens, "pythia-2.8b", 1, 512, "bfloat16"),
        _case("activation_cache", lens, "llama-3.2-1b", 2, 1024, "bfloat16"),
        _case("activation_cache", lens, "gemma-2-2b", 1, 700, "bfloat16"),
        _case("activation_cache", lens, "gpt2", 16, 1024, "float32", names_filter=["*hook_resid_post"]),
        _case("activation_cache", lens, "pythia-2.8b", 2, 1024, "bfloat16", names_filter=["*attn.hook_z"]),
        _case("activation_cache", lens, "qwen2.5-0.5b", 4, 512, "bfloat16", names_filter=["*mlp.hook_post"]),
        _case("activation_cache", lens, "gpt2", 2, 512, "float32", with_gradients=True),
        _case("activation_cache", "transformer_bridge", "gpt2", 4, 512, "float32"),
        _case("activation_cache", "transformer_bridge", "pythia-410m", 2, 512, "bfloat16"),
        _case("inference", "transformer_bridge", "llama-3.2-1b", 2, 512, "bfloat16"),
        _case("inference", "transformer_bridge", "gpt2", 8, 512, "float32", compatibility_mode=True),
    ]


def _generations() -> list[Case]:
    task, hugging = "generation", "transformers"
    return [
        _case(task, hugging, "gpt2", 8, 256, "float32", new_tokens=64),
        _case(task, hugging, "pythia-2.8b", 4, 512, "bfloat16", new_tokens=64),
        _case(task, hugging, "llama-3.2-1b", 8, 1024, "bfloat16", new_tokens=64),
        _case(task, hugging, "gemma-2-2b", 2, 512, "bfloat16", new_tokens=32, attention="eager"),
        _case(task, hugging, "qwen2.5-0.5b", 8, 700, "bfloat16", new_tokens=32, kv_cache=False),
        _case(task, "transformer_lens", "gpt2", 4, 256, "float32", new_tokens=32),
        _case(task, "transformer_lens", "pythia-410m", 4, 512, "bfloat16", new_tokens=32),
    ]


def _trainings() -> list[Case]:
    task, hugging = "training", "transformers"
    return [
        _case(task, hugging, "gpt2", 4, 512, "float32"),
        _case(task, hugging, "gpt2", 8, 512, "float32", attention="eager", optimizer="sgd"),
        _case(task, hugging, "pythia-160m", 8, 512, "float32"),
        _case(task, hugging, "pythia-410m", 2, 1024, "bfloat16"),
        _case(task, hugging, "opt-125m", 8, 512, "float32", gradient_checkpointing=True),
        _case(task, hugging, "qwen2.5-0.5b", 2, 512, "bfloat16", attention="eager"),
        _case(task, hugging, "llama-3.2-1b", 1, 512, "bfloat16", trainable="lora"),
        _case(task, hugging, "llama-3.2-1b", 2, 512, "bfloat16", gradient_checkpointing=True),
        _case(task, "transformer_lens", "gpt2", 2, 512, "float32"),
        _case(task, "transformer_lens", "pythia-160m", 4, 512, "float32"),
        _case(task, "transformer_lens", "pythia-410m", 2, 512, "bfloat16", optimizer="sgd"),
    ]


def _patchings() -> list[Case]:
    task, lens = "patching", "transformer_lens"
    return [
        _case(task, lens, "gpt2", 4, 256, "float32", method="attribution_patching"),
        _case(task, lens, "pythia-410m", 2, 256, "float32", method="attribution_patching", names_filter=["*hook_z"]),
        _case(task, lens, "gpt2", 8, 16, "float32", method="activation_patching"),
        _case(task, lens, "pythia-70m", 8, 16, "float32", method="activation_patching"),
    ]


def _saes() -> list[Case]:
    def sae(architecture: str, d_in: int, d_sae: int, tokens: int) -> Case:
        return Case(
            f"sae_training {architecture} {d_in}->{d_sae} {tokens} tokens",
            {"task": "sae_training", "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "k": 32,
             "train_batch_size_tokens": tokens},
        )  # fmt: skip

    def use(architecture: str, d_sae: int, b: int, **more: Any) -> Case:
        return Case(
            f"sae_inference {architecture} {d_sae} {b}x256{''.join(f' {key}={value}' for key, value in more.items())}",
            {"task": "sae_inference", "architecture": architecture, "model": "gpt2", "d_sae": d_sae, "k": 32,
             "hook_name": "blocks.6.hook_resid_pre", "batch_size": b, "seq_len": 256} | more,
        )  # fmt: skip

    stored = next(case for case in CASES if case.id.startswith("sae standard") and "store=" in case.id)
    return [
        sae("standard", 768, 24576, 4096), sae("topk", 768, 24576, 4096), sae("batchtopk", 768, 12288, 4096),
        sae("jumprelu", 768, 24576, 4096), sae("gated", 1024, 16384, 2048), sae("standard", 2304, 18432, 4096),
        Case("sae_training with model and store", stored.workload),
        use("standard", 24576, 16), use("topk", 24576, 16), use("jumprelu", 24576, 8, splice=True),
    ]  # fmt: skip


# Small enough for a CPU; on a GPU they show what small tensors cost there.
SMALL = (
    _case("activation_cache", "transformer_lens", narrow("gpt2"), 2, 120, "float32"),
    _case("inference", "transformers", narrow("llama-3-8b"), 3, 200, "float32", attention="eager"),
    _case("generation", "transformers", narrow("pythia-160m"), 2, 60, "float32", new_tokens=8),
    _case("training", "transformers", narrow("llama-3-8b", heads=4), 2, 100, "float32", attention="eager"),
    _case("training", "transformer_lens", narrow("gpt2", heads=4), 2, 60, "float32"),
    _case("patching", "transformer_lens", narrow("gpt2"), 2, 60, "float32", method="attribution_patching"),
    _case("inference", "transformer_bridge", narrow("gpt2"), 2, 100, "float32"),
    Case(
        "sae_training topk 256->2048 512 tokens",
        {"task": "sae_training", "architecture": "topk", "d_in": 256, "d_sae": 2048, "k": 32,
         "train_batch_size_tokens": 512},
    ),
    Case(
        "sae_inference standard 2048 2x100",
        {"task": "sae_inference", "architecture": "standard", "model": TOY_MODEL, "d_sae": 2048,
         "hook_name": "blocks.1.hook_resid_pre", "batch_size": 2, "seq_len": 100},
    ),
)  # fmt: skip

LARGE = (
    *_caches(), *_passes("transformer_lens"), *_passes("transformers"), *_generations(), *_trainings(), *_patchings(),
    *_saes(),
)  # fmt: skip

# What grows at the edge of a card, and the field that makes it grow.
EDGES = (
    ("batch_size", _case("activation_cache", "transformer_lens", "gpt2", 1, 1024, "float32")),
    ("batch_size", _case("activation_cache", "transformer_lens", "llama-3.2-1b", 1, 512, "bfloat16")),
    ("batch_size", _case("inference", "transformers", "pythia-1b", 1, 1024, "bfloat16")),
    ("batch_size", _case("training", "transformers", "gpt2", 1, 512, "float32")),
    ("train_batch_size_tokens", Case("sae_training standard 768->24576", _saes()[0].workload)),
)
