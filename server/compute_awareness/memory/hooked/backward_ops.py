"""Operators that HookedTransformer uses beyond those of `autograd.ops`, with what torch 2.13's backward of each makes.

Sources: tools/autograd/derivatives.yaml, torch/csrc/autograd/FunctionsManual.cpp and functions/tensor.cpp (CopySlices);
compared with the profiler's events of real backward passes.
"""

from __future__ import annotations

from ..autograd.graph import BOOL, FLOAT32, INT64, Grads, Node, Var
from ..autograd.ops import add, mul, neg
from ..autograd.shapes import like_stride
from ..autograd.views import cat, clone, expand, narrow, unsqueeze, view


def copy(x: Var) -> Var:
    """A contiguous copy: `clone()` of an expanded tensor."""
    out = x.graph.new(x.shape, x.width)
    x.graph.record([x], [out], lambda node, grads: [grads[0]])
    return out


def repeat_interleave(x: Var, repeats: int, dim: int = 2) -> Var:
    """torch.repeat_interleave(x, repeats, dim): a copy of each entry along `dim` for every repeat."""
    before, heads, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1 :]
    repeated = copy(expand(unsqueeze(x, dim + 1), *before, heads, repeats, *after))
    return view(repeated, *before, heads * repeats, *after)


def clamp(x: Var) -> Var:
    """x.clamp(min, max): backward compares with both bounds first, and its result is laid out as they are."""
    out = x.graph.new(x.shape, x.width, like_stride(x.shape, x.stride))

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        bounds = [g.graph.new(saved.shape, BOOL) for _ in range(2)]
        result = g.graph.new(g.shape, g.width, like_stride(saved.shape, saved.stride))
        del bounds
        return [result]

    x.graph.record([x], [out], backward, [x])
    return out


def _assign_half(base: Var, source: Var) -> Var:
    """base[..., part] = source: CopySlices, whose backward copies the gradient of the base and that of the part."""
    part = source.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        result = g.graph.new(g.shape, g.width)
        piece = g.graph.new(part, g.width)
        zeros = g.graph.new(part, g.width)
        del zeros
        return [result, piece]

    out = base.alias()
    base.graph.record([base, source], [out], backward)
    return out


def rotary(x: Var, rotary_dim: int, table: Var) -> Var:
    """AbstractAttention.apply_rotary of [b, s, heads, d_head]. `table`: the sines or cosines, no gradient."""
    d_head = x.shape[-1]
    x_rot = narrow(x, -1, rotary_dim) if rotary_dim < d_head else same(x)
    x_pass = _rest(x, d_head - rotary_dim)
    flip = clone(x_rot)
    half = rotary_dim // 2
    negative = neg(narrow(x_rot, -1, half))
    flip = _assign_half(flip, negative)
    del negative
    flip = _assign_half(flip, narrow(x_rot, -1, half))
    rotated = add(mul(x_rot, table), mul(flip, table))
    return cat([rotated, x_pass], -1)


def same(x: Var) -> Var:
    """x[..., :whole], x itself: an alias."""
    out = x.alias()
    x.graph.record([x], [out], lambda node, grads: [grads[0]])
    return out


def _rest(x: Var, length: int) -> Var:
    """x[..., start:], also where nothing is left: its backward makes zeros of the whole all the same."""
    out = Var(x.graph, x.storage, (*x.shape[:-1], length), x.stride, x.width)
    whole = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(whole, g.width)]

    x.graph.record([x], [out], backward)
    return out


def gather_next(log_probs: Var) -> Var:
    """log_probs.gather(-1, tokens[..., None]): one number per token, the gradient is zeros of the whole."""
    out = log_probs.graph.new((*log_probs.shape[:-1], 1), log_probs.width)
    whole = log_probs.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        zeros = g.graph.new(whole, g.width)
        if g.graph.cpu and g.width < FLOAT32:  # scatter_add_ of 16-bit numbers sums in float32 there
            g.graph.touch(FLOAT32 * zeros.elements)
        return [zeros]

    log_probs.graph.record([log_probs], [out], backward)
    return out


def last_position(x: Var) -> Var:
    """x[:, -1, :] of [b, s, n]: a view, the gradient is zeros of the whole."""
    whole = x.shape
    out = Var(x.graph, x.storage, (whole[0], whole[2]), (x.stride[0], x.stride[2]), x.width)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(whole, g.width)]

    x.graph.record([x], [out], backward)
    return out


def causal_mask(x: Var, local: bool) -> Var:
    """_make_causal_mask for scores [b, heads, s, s]: bools [1, 1, s, s]."""
    graph, s = x.graph, x.shape[-1]
    positions = [graph.new((s,), INT64) for _ in range(2)]
    mask = graph.new((1, 1, s, s), BOOL)
    if local:
        inside = graph.new((1, 1, s, s), BOOL)
        both = graph.new((1, 1, s, s), BOOL)
        mask = both
        del inside, both
    del positions
    return mask
