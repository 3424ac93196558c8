"""The rules of thumb that this project set out from, as formulas, so that the true figures can be held against them.

They are what a careful person would put down from memory: parameters times bytes, a cache of the tensors one thinks of
first, one formula for any SAE. Nothing in the package uses them. All results are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

GUIDE_GB = 1024**3
"""What the rules call a GB where they compute one; read so everywhere, which is the reading that flatters them."""


@dataclass(frozen=True)
class RoughModel:
    """One row of the rules' model table, in its own units and precision."""

    label: str
    name: str
    """Its name in the catalogue."""
    params: int
    float32_gb: float
    half_gb: float


_M, _B = 10**6, 10**9
MODEL_TABLE = (
    RoughModel("GPT-2-small", "gpt2", 124 * _M, 0.5, 0.25),
    RoughModel("GPT-2-medium", "gpt2-medium", 355 * _M, 1.4, 0.7),
    RoughModel("GPT-2-large", "gpt2-large", 774 * _M, 3, 1.5),
    RoughModel("GPT-2-xl", "gpt2-xl", 1500 * _M, 6, 3),
    RoughModel("Pythia-70M", "pythia-70m", 70 * _M, 0.3, 0.15),
    RoughModel("Pythia-160M", "pythia-160m", 160 * _M, 0.6, 0.3),
    RoughModel("Pythia-410M", "pythia-410m", 410 * _M, 1.6, 0.8),
    RoughModel("Pythia-1B", "pythia-1b", 1 * _B, 4, 2),
    RoughModel("Pythia-2.8B", "pythia-2.8b", 2800 * _M, 11, 5.5),
    RoughModel("Pythia-6.9B", "pythia-6.9b", 6900 * _M, 28, 14),
    RoughModel("Pythia-12B", "pythia-12b", 12 * _B, 48, 24),
    RoughModel("Llama-2-7B", "llama-2-7b", 7 * _B, 28, 14),
    RoughModel("Llama-2-13B", "llama-2-13b", 13 * _B, 52, 26),
    RoughModel("Mistral-7B", "mistral-7b", 7 * _B, 28, 14),
)


@dataclass(frozen=True)
class GuideRow:
    """One row of the rules' GPU guide. A size given without a card stands for the card it names with it elsewhere."""

    task: str
    minimum: str
    recommended: str
    minimum_card: str | None
    recommended_card: str | None


GPU_GUIDE = (
    GuideRow("GPT-2-small experiments", "8GB (RTX 3070)", "16GB (RTX 4080)", "RTX 3070", "RTX 4080"),
    GuideRow("GPT-2-xl / Pythia-2.8B", "16GB (RTX 4080)", "24GB (RTX 3090/4090)", "RTX 4080", "RTX 3090"),
    GuideRow("Pythia-6.9B / Llama-7B", "24GB (RTX 3090)", "40GB (A100-40GB)", "RTX 3090", "A100-40GB"),
    GuideRow("SAE training (8x on 768)", "16GB", "24GB", "RTX 4080", "RTX 3090"),
    GuideRow("SAE training (32x on 768)", "24GB", "40GB", "RTX 3090", "A100-40GB"),
    GuideRow("SAE training (8x on 4096)", "40GB", "80GB (A100-80GB)", "A100-40GB", "A100-80GB"),
    GuideRow("Full activation caching", "Depends on seq length", "Add 50% to model memory", None, None),
)


def model_bytes(name: str, params: int, width: int) -> int:
    """Weights: parameters times bytes per element, with the rounded count of the model table where it has the model.

    Args:
        name: catalogue name.
        params: the published count, for models the table does not have.
        width: bytes per element.
    """
    rounded = {row.name: row.params for row in MODEL_TABLE}
    return rounded.get(name, params) * width


def cache_terms(
    n_layers: int, d_model: int, n_heads: int, d_head: int, batch_size: int, seq_len: int, width: int
) -> dict[str, int]:
    """A full activation cache, by the eight tensors per layer that the rule counts, in four terms.

    With B sequences of S tokens, per layer: one residual stream B*S*d_model; queries, keys, values and z
    4*B*S*n_heads*d_head; attention pattern B*n_heads*S*S; MLP before and after its activation 2*B*S*4*d_model.
    """
    tokens = batch_size * seq_len
    per_layer = {
        "resid": tokens * d_model,
        "qkvz": 4 * tokens * n_heads * d_head,
        "pattern": tokens * seq_len * n_heads,
        "mlp": 2 * tokens * 4 * d_model,
    }
    return {term: n_layers * count * width for term, count in per_layer.items()}


# Which part of which term a hook is, where the rule counts it at all.
COUNTED_HOOKS: dict[str, tuple[str, int]] = {
    "hook_resid_post": ("resid", 1),
    "attn.hook_q": ("qkvz", 4),
    "attn.hook_k": ("qkvz", 4),
    "attn.hook_v": ("qkvz", 4),
    "attn.hook_z": ("qkvz", 4),
    "attn.hook_pattern": ("pattern", 1),
    "mlp.hook_pre": ("mlp", 2),
    "mlp.hook_post": ("mlp", 2),
}


def sae_counts(d_in: int, d_sae: int, tokens: int) -> tuple[int, int]:
    """(P, A): numbers in the SAE, two matrices and two biases; numbers in input, features and output of one step."""
    return 2 * d_in * d_sae + d_sae + d_in, tokens * (2 * d_in + d_sae)


def sae_bytes(d_in: int, d_sae: int, tokens: int, width: int = 4) -> int:
    """SAE training: parameters P, activations A, gradients of both P + A, Adam's state 2 P.

    One formula for every architecture; no language model and no activation store.
    """
    params, activations = sae_counts(d_in, d_sae, tokens)
    return (4 * params + 2 * activations) * width
