"""The work of patching experiments with a HookedTransformer (TransformerLens 3.9; EAP-IG as hannamw/EAP-IG has it)."""

from __future__ import annotations

from collections.abc import Container

from ..models.spec import ModelSpec
from . import flops
from .flops import Shape
from .work import NOTHING, Work, product


def activation_patching(spec: ModelSpec, shape: Shape, patches: int, elementwise: Container[str]) -> Work:
    """The clean run and `patches` patched ones."""
    return flops.forward(spec, shape, elementwise=elementwise) * (1 + patches)


def attribution_patching(spec: ModelSpec, shape: Shape, frozen: bool, elementwise: Container[str]) -> Work:
    """The clean run, and the corrupted one forward and backward. `frozen`: parameters want no gradient."""
    twice = flops.forward(spec, shape, elementwise=elementwise) * 2
    return twice + flops.backward(spec, shape, frozen=frozen, elementwise=elementwise)


def edge_attribution(spec: ModelSpec, shape: Shape, steps: int, frozen: bool) -> Work:
    """Two runs for the difference of activations, then `steps` times forward, backward and the scores of the edges.

    Grouped key and value heads are repeated in the weights (ungroup_grouped_query_attention); heads' results are summed
    elementwise (use_attn_result).
    """
    ungrouped = spec.model_copy(update={"n_kv_heads": spec.n_heads})
    once = flops.forward(ungrouped, shape, elementwise=("o",))
    back = flops.backward(ungrouped, shape, frozen=frozen, elementwise=("o",))
    return once * 2 + (once + back + _edge_scores(spec, shape)) * steps


def _edge_scores(spec: ModelSpec, shape: Shape) -> Work:
    """einsum("batch pos forward hidden, batch pos backward hidden -> forward backward") at every node with inputs.

    The nodes before a head are the input and all heads and MLPs of the blocks before; before an MLP, the heads of its
    own block too, unless they run in parallel; before the logits all of them.
    """
    heads, mlp = spec.n_heads, 1 if spec.d_mlp else 0
    inner = shape.tokens * spec.d_model
    work = NOTHING
    for layer in range(spec.n_layers):
        before = 1 + layer * (heads + mlp)
        work += product(before, inner, heads, shape.width, weights=False) * 3
        if mlp:
            work += product(before if spec.parallel_attn_mlp else before + heads, inner, 1, shape.width, weights=False)
    return work + product(1 + spec.n_layers * (heads + mlp), inner, 1, shape.width, weights=False)
