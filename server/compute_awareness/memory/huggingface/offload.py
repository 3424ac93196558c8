"""Weights that stay in RAM or on disk and come to the card for their module alone, as accelerate's hooks bring them.

accelerate 1.15 hooks.py: `attach_align_device_hook`, which `cpu_offload` and `dispatch_model` call, hooks every module
that has parameters of its own (each linear layer, norm and embedding, not the block around them). Before the module's
forward its parameters are put on the card, after it they are let go, so at most one module's weights are there.
Buffers stay on the card (`offload_buffers` False). Tied weights are one copy in RAM, and come twice: for the embedding
and for the head. Weights on disk are read to the card in the dtype of the file and converted there (transformers 5.23
integrations/accelerate.py, `accelerate_disk_offload`; accelerate utils/offload.py, `OffloadedWeightsLoader`).
"""

from __future__ import annotations

from ...models.spec import ModelSpec
from .. import weights
from .outputs import layout


def visiting(spec: ModelSpec, width: int, read_width: int = 0) -> dict[str, int]:
    """Bytes of a module's weights by its role (`parts.Pass.visiting`), at `width` bytes per number.

    Args:
        read_width: bytes per number of the file where the weights are read from disk and converted on the card, 0 where
            they are not; both copies are counted all the while, though the first goes before the module runs.
    Raises:
        InputError: the architecture is not covered.
    """
    d, q, kv, m = spec.d_model, spec.q_width, spec.kv_width, spec.d_mlp
    norm = weights.norm_params(spec, d)
    qk_norms = {"head": (spec.d_head, spec.d_head), "full": (q, kv), None: (0, 0)}[spec.qk_norm]

    def linear(inputs: int, outputs: int, bias: bool) -> int:
        return outputs * (inputs + bias)

    numbers = {
        "embed": spec.d_vocab * d,
        "positions": (spec.n_ctx + spec.positions_offset) * d,
        "input": norm if spec.embed_norm else 0,
        "qkv": linear(d, q + 2 * kv, spec.qkv_bias),
        "q": linear(d, q, spec.qkv_bias),
        "k": linear(d, kv, spec.qkv_bias),
        "v": linear(d, kv, spec.qkv_bias),
        "o": linear(q, d, spec.attn_out_bias),
        "gate": linear(d, m, spec.mlp_bias),
        "up": linear(d, m, spec.mlp_bias),
        "gate_up": linear(d, 2 * m, spec.mlp_bias),
        "down": linear(m, d, spec.mlp_bias),
        "q_norm": qk_norms[0],
        "k_norm": qk_norms[1],
        "norm": norm,
        "lm_head": linear(d, spec.d_vocab, spec.lm_head_bias),
    } | dict.fromkeys(("norm1", "norm2", "norm1_after", "norm2_after"), norm)
    known = layout(spec)
    roles = {*known.inside.values(), *known.ends.values()}
    return {role: count * (width + read_width) for role, count in numbers.items() if role in roles}
