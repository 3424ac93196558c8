"""Small HookedTransformers of every kind, for measurements with real memory on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from builders import hooked_transformer

from compute_awareness.models.catalogue import find
from compute_awareness.models.spec import ModelSpec

# Learned positions; parallel blocks; attention only; grouped and gated; soft caps and norms after; norms of q and k;
# ALiBi; relu; norms after only; clamped q, k, v; multi-query; SoLU.
KINDS = (
    "gpt2", "pythia-70m", "attn-only-1l", "llama-3.2-1b", "gemma-2-2b", "qwen3-0.6b", "bloom-1b1", "opt-1.3b",
    "olmo-2-0425-1b", "olmo-7b", "gemma-2b", "solu-10l", "gpt-j-6b",
)  # fmt: skip


@lru_cache
def small(name: str, n_layers: int = 3, d_vocab: int = 300) -> ModelSpec:
    """The catalogue's model `name` at d_model 48 with 4 heads: what it allocates, in small."""
    spec = find(name)
    assert spec is not None
    kv = 4 if spec.n_kv_heads == spec.n_heads else 1 if spec.n_kv_heads == 1 else 2
    shape: dict[str, Any] = {
        "name": f"{spec.name}-small", "n_layers": min(n_layers, spec.n_layers), "d_model": 48, "n_heads": 4,
        "n_kv_heads": kv, "d_head": 12, "d_mlp": 160 if spec.d_mlp else 0, "d_vocab": d_vocab, "n_ctx": 128,
        "n_ctx_tl": 128,
    }  # fmt: skip
    if spec.rotary_dim:
        shape["rotary_dim"] = 12 if spec.rotary_dim == spec.d_head else 4
    if spec.window:
        shape["window"] = 16
    return spec.model_copy(update=shape)


def inline(spec: ModelSpec) -> dict[str, Any]:
    """The model as a workload names it."""
    return spec.model_dump(exclude_defaults=True, exclude={"source"})


def build(spec: ModelSpec, dtype: str, folded: bool, **switches: bool) -> Any:
    """The real model on the CPU, with cfg switches set."""
    model = hooked_transformer(spec, device="cpu", dtype=dtype, folded=folded)
    for switch, on in switches.items():
        if on:
            getattr(model, f"set_{switch}")(True)
    return model
