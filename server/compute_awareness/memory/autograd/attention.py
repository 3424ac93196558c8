"""scaled_dot_product_attention: the two fused kernels, and the one that computes all scores.

Sources: torch 2.13 ATen/native/transformers/attention.cpp, and tools/autograd/derivatives.yaml; what the memory-
efficient kernel allocates also by the history of an H100's allocator (float32, d_head 64).
"""

from __future__ import annotations

from .casting import all_lowered, cast
from .elementwise import like, neg
from .graph import FLOAT32, Grads, Node, Var
from .products import matmul
from .reductions import softmax
from .shapes import Shape, like_stride
from .views import copied, expand, transpose, unsqueeze, view


def _flash_backward_scratch(q: Shape, kv_heads: int, width: int) -> int:
    """Beside the gradients in 16 bit on CUDA (mha_bwd of flash_api.cpp): those of q summed in float32, the rows' sums,
    and those of k and v for every query head where heads are grouped.
    Written from knowledge of flash-attention 2's allocations; neither run nor compared."""
    if width == FLOAT32:
        return 0
    b, heads, s, d = q
    rows, length = -(-s // 128) * 128, -(-d // 32) * 32
    expanded = 2 * width * b * s * heads * d if heads > kv_heads else 0
    return FLOAT32 * b * heads * rows * (length + 1) + expanded


def flash_attention(q: Var, k: Var, v: Var, mask: Var | None = None) -> Var:
    """scaled_dot_product_attention in a fused kernel: q [b, heads, s, d_head], k and v with as many heads or fewer.

    Saves q, k, v, the output and float32 logarithms of the sums [b, heads, s]; gradients are three new tensors.
    """
    graph = q.graph
    q, k, v = all_lowered(q, k, v)
    b, heads, s, _ = q.shape
    out = graph.new(q.shape, q.width, like_stride(q.shape, q.stride))
    sums = graph.new((b, heads, s), FLOAT32)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        out: Grads = []
        for x in node.saved[:3]:
            out.append(like(x))
        if not g.graph.cpu:
            g.graph.touch(_flash_backward_scratch(node.saved[0].shape, node.saved[1].shape[1], g.width))
        return [grad if needed else None for grad, needed in zip(out, node.needs, strict=True)]

    graph.record([q, k, v], [out], backward, [q, k, v, out, sums, *([mask] if mask is not None else [])])
    return out


def efficient_attention(q: Var, k: Var, v: Var, mask: Var | None = None) -> Var:
    """scaled_dot_product_attention in CUDA's memory-efficient kernel, which runs where flash attention does not: in
    float32, and with a mask. All heads: q [b, heads, s, d_head], k and v alike.

    Its output and its gradients lie in memory as [b, s, heads, d_head], whatever the layout of q. Saves q, k, v, the
    output and float32 logarithms of the sums, their rows in whole 32.
    """
    graph = q.graph
    q, k, v = all_lowered(q, k, v)
    b, heads, s, d = q.shape
    out = _by_position(q, (b, heads, s, v.shape[-1]))
    sums = graph.new((b, heads, -(-s // 32) * 32), FLOAT32)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        q, k, v = node.saved[:3]
        if q.storage is k.storage is v.storage and q.shape == v.shape:
            # One chunk for the three, as they most likely are pieces of one projection.
            chunk = g.graph.new((b, s, 3, heads, d), g.width)
            stride = (s * 3 * heads * d, d, 3 * heads * d, 1)
            out: Grads = [Var(g.graph, chunk.storage, q.shape, stride, g.width, is_view=True) for _ in range(3)]
            del chunk
        else:
            out = [_by_position(x, x.shape) for x in (q, k, v)]
        delta = _output_times_gradient(g)
        scratch = g.graph.new((_efficient_backward_scratch(b, heads, s, d),), 1)
        del delta, scratch
        return [grad if needed else None for grad, needed in zip(out, node.needs, strict=True)]

    graph.record([q, k, v], [out], backward, [q, k, v, out, sums, *([mask] if mask is not None else [])])
    return out


def _by_position(x: Var, shape: Shape) -> Var:
    """A new tensor [b, heads, s, d] that lies in memory as [b, s, heads, d]."""
    _, heads, s, d = shape
    return x.graph.new(shape, x.width, (s * heads * d, d, heads * d, 1))


def _output_times_gradient(g: Var) -> Var:
    """float32 [b, heads, s]: in 16 bit the kernel itself makes the sums, in float32 they are made before."""
    b, heads, s, _ = g.shape
    if g.width != FLOAT32:
        return g.graph.new((b, heads, s), FLOAT32)
    product = like(g)
    sums = g.graph.new((b, s, heads), FLOAT32)
    out = g.graph.new((b, heads, s), FLOAT32)
    del sums, product
    return out


def _efficient_backward_scratch(b: int, heads: int, s: int, d: int) -> int:
    """Gradients of q in float32, in tiles of 64 by 64 with 16 bytes each for locks (kernel_backward.h of the memory-
    efficient attention, GradQTempStorage): what an H100 took for d_head 64."""
    return b * heads * -(-s // 64) * -(-d // 64) * (16 + FLOAT32 * 64 * 64)


def math_attention(q: Var, k: Var, v: Var, causal: bool = True) -> Var:
    """scaled_dot_product_attention in torch's unfused kernel (ATen/native/transformers/attention.cpp, _math).

    All in float32. Grouped heads are repeated; queries and keys are each scaled by the root of the factor; a causal
    mask [s, s] is made, and added in place.
    """
    q, k, v = all_lowered(q, k, v)
    graph, width = q.graph, q.width
    times = q.shape[1] // k.shape[1]
    q, k, v = cast(q, FLOAT32), cast(k, FLOAT32), cast(v, FLOAT32)
    if times > 1:
        k, v = _repeat_interleave(k, times), _repeat_interleave(v, times)
    q = neg(q)
    s = q.shape[-2]
    mask = graph.new((s, s), q.width) if causal and s > 1 else None
    scores = matmul(q, neg(transpose(k, 2, 3)))
    weights = softmax(scores)
    del scores, mask
    return cast(matmul(weights, v), width)


def _repeat_interleave(x: Var, times: int) -> Var:
    """x.repeat_interleave(times, 1): expanded, copied, flattened."""
    b, heads, s, d = x.shape
    wide = expand(unsqueeze(x, 2), b, heads, times, s, d)
    return view(copied(wide), b, heads * times, s, d)
