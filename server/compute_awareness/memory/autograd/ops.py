"""Operators on symbolic tensors: what each allocates and saves, and what torch 2.13's backward of it allocates.

Sources: tools/autograd/derivatives.yaml and torch/csrc/autograd/FunctionsManual.cpp (what is saved, in which pieces a
gradient is computed), ATen/native/{Linear,LinearAlgebra,SoftMax,LossNLL,Dropout,layer_norm}.cpp. Numbers given in
place of a tensor save nothing.
"""

from __future__ import annotations

from .graph import FLOAT32, HALF, Grads, Node, Var
from .shapes import Shape, broadcast, like_stride
from .views import contiguous, copied, expand, reshape, transpose, unsqueeze, view


def _elementwise(operands: list[Var], width: int, component: str = "temporaries") -> Var:
    """The output of a TensorIterator: dense, in the order of the first operand that has the output's shape."""
    graph = operands[0].graph
    shape = operands[0].shape
    for other in operands[1:]:
        shape = broadcast(shape, other.shape)
    casts = []
    if graph.cpu:  # CUDA casts inside the kernel
        common = max(v.width for v in operands)
        casts = [graph.new(v.shape, common) for v in operands if v.width != common]
    for v in operands:
        if v.shape == shape:
            out = graph.new(shape, width, like_stride(shape, v.stride), component)
            break
    else:
        out = graph.new(shape, width, None, component)
    del casts
    return out


def _pass(node: Node, grads: Grads) -> Grads:
    g = grads[0]
    return [g if needed else None for needed in node.needs]


def _negate_second(node: Node, grads: Grads) -> Grads:
    g = grads[0]
    assert g is not None
    return [g if node.needs[0] else None, _like(g) if node.needs[1] else None]


def _like(x: Var) -> Var:
    return x.graph.new(x.shape, x.width, like_stride(x.shape, x.stride))


def _binary(a: Var, b: Var) -> Var:
    return _elementwise([a, b], max(a.width, b.width))


def add(a: Var, b: Var | float) -> Var:
    """a + b. Saves nothing."""
    if not isinstance(b, Var):
        out = _like(a)
        a.graph.record([a], [out], _pass)
        return out
    out = _binary(a, b)
    a.graph.record([a, b], [out], _pass)
    return out


def sub(a: Var, b: Var) -> Var:
    """a - b. Saves nothing."""
    out = _binary(a, b)
    a.graph.record([a, b], [out], _negate_second)
    return out


def mul(a: Var, b: Var | float) -> Var:
    """a * b. Saves each operand that the other's gradient needs; a number: nothing."""
    if not isinstance(b, Var):
        return neg(a)
    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.before([a, b], saved)
    out = _binary(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        # MulBackward0 of the generated Functions.cpp computes the gradient of `other` before that of `self`
        second = _binary(g, node.saved[-1]) if node.needs[1] else None
        return [_binary(g, node.saved[0]) if node.needs[0] else None, second]

    a.graph.record([a, b], [out], backward, saved)
    return out


def div(a: Var, b: Var | float) -> Var:
    """a / b. A number saves nothing; a tensor b is saved, and a where b needs a gradient."""
    if not isinstance(b, Var):
        return neg(a)
    out = _binary(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g, other = grads[0], node.saved[0]
        assert g is not None
        second = None
        if node.needs[1]:  # -grad * ((self / other) / other), before the gradient of `self`, as DivBackward0 does
            negative = _like(g)
            once = _binary(node.saved[1], other)
            twice = _like(once)
            second = _binary(negative, twice)
            del negative, once, twice
        return [_binary(g, other) if node.needs[0] else None, second]

    a.graph.record([a, b], [out], backward, [b, a] if b.needs_grad else [b])
    return out


def _one_new(node: Node, grads: Grads) -> Grads:
    g = grads[0]
    assert g is not None
    return [_like(g)]


def neg(x: Var) -> Var:
    """-x, x * number, x / number: saves nothing, the gradient is a new tensor."""
    out = _like(x)
    x.graph.record([x], [out], _one_new)
    return out


def saves_input(x: Var) -> Var:
    """One kernel that saves its input: silu, gelu (both kinds), clamp, abs."""
    out = _like(x)
    x.graph.record([x], [out], _one_new, [x])
    return out


def saves_output(x: Var) -> Var:
    """One kernel that saves its result: tanh, sigmoid, relu, exp."""
    out = _like(x)
    x.graph.record([x], [out], _one_new, [out])
    return out


silu = gelu = saves_input
tanh = relu = sigmoid = saves_output


def power(x: Var) -> Var:
    """x.pow(number), number not 1: grad * (number * x.pow(number - 1)), three tensors at once."""
    x = raised(x)
    out = _like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        lower = _like(saved)
        times = _like(lower)
        result = _binary(g, times)
        del lower, times
        return [result]

    x.graph.record([x], [out], backward, [x])
    return out


def rsqrt(x: Var) -> Var:
    """torch.rsqrt: -0.5 * grad * result.pow(3)."""
    x = raised(x)
    out = _like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        half = _like(g)
        cubed = _like(saved)
        result = _like(g)
        del half, cubed
        return [result]

    x.graph.record([x], [out], backward, [out])
    return out


def sqrt(x: Var) -> Var:
    """torch.sqrt: grad / (2 * result)."""
    out = _like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        twice = _like(saved)
        result = _like(g)
        del twice
        return [result]

    x.graph.record([x], [out], backward, [out])
    return out


def mean(x: Var) -> Var:
    """x.mean(-1, keepdim=True): the gradient is expanded without memory, then divided into a new tensor."""
    out = x.graph.new((*x.shape[:-1], 1), x.width)
    shape = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(shape, g.width)]

    x.graph.record([x], [out], backward)
    return out


def total(x: Var) -> Var:
    """x.sum() or a mean over everything, to one number; backward of the sum only expands (no memory)."""
    out = x.graph.new((), x.width)
    shape = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [Var(g.graph, g.storage, shape, (0,) * len(shape), g.width, is_view=True)]

    x.graph.record([x], [out], backward)
    return out


def cast(x: Var, width: int) -> Var:
    """x.to(dtype): x itself where it has it, else a copy; the gradient is cast back."""
    if x.width == width:
        return x
    out = x.graph.new(x.shape, width, like_stride(x.shape, x.stride))
    before = x.width

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [cast(g, before)]

    x.graph.record([x], [out], backward)
    return out


def lowered(x: Var) -> Var:
    """What autocast hands to an operator of its 16-bit list; copies of weights are made once (`Autocast`)."""
    autocast = x.graph.autocast
    if autocast is None or x.width != FLOAT32:
        return x
    if x.node is not None or not x.needs_grad or x.is_view:
        return cast(x, HALF)
    known = autocast.weights.get(id(x))
    if known is None:
        known = autocast.weights[id(x)] = cast(x, HALF).book("weight_copies")
    return known


def all_lowered(*arguments: Var) -> list[Var]:
    """The arguments of an operator, cast from the last to the first, as the compiler evaluates them (`WrapFunction_` of
    autocast_mode.h); backward goes through the casts the other way round."""
    return [lowered(x) for x in reversed(arguments)][::-1]


def raised(x: Var) -> Var:
    """What CUDA's autocast hands to an operator of its float32 list."""
    autocast = x.graph.autocast
    return x if autocast is None or not autocast.cuda or x.width != HALF else cast(x, FLOAT32)


def sum_to(x: Var, shape: Shape) -> Var:
    """at::sum_to: the sum over broadcast dimensions, a new tensor."""
    return x.graph.new(shape, x.width)


def where(mask: Var, x: Var, other: Var | float = 0.0) -> Var:
    """torch.where(mask, x, other), masked_fill(~mask): saves the mask; each gradient is a new tensor."""
    tensors = [mask, x, other] if isinstance(other, Var) else [mask, x]
    graph = x.graph
    shape = x.shape
    for v in tensors:
        shape = broadcast(shape, v.shape)
    ref = next((v for v in tensors[1:] if v.shape == shape), None)
    out = graph.new(shape, x.width, like_stride(shape, ref.stride) if ref is not None else None)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [_like(g) if needed else None for needed in node.needs]

    graph.record(tensors[1:], [out], backward, [mask])
    return out


def softmax(x: Var, width: int | None = None) -> Var:
    """softmax(x, -1, dtype): saves the result. bfloat16 to float32 goes by a copy (float16 on CUDA does not)."""
    if width is None:
        x = raised(x)
    elif width != x.width:
        return softmax(cast(x, width))
    out = _like(x)
    x.graph.record([x], [out], _one_new, [out])
    return out


def layer_norm(x: Var, weight: Var | None, bias: Var | None) -> Var:
    """F.layer_norm: saves the (contiguous) input, and mean and reciprocal deviation of each row.

    Those are float32 on CUDA; on the CPU they have the input's dtype where the weights have it too.
    """
    graph = x.graph
    x = raised(x)
    flat = contiguous(x)
    out = graph.new(x.shape, x.width)
    stats = x.width if graph.cpu else FLOAT32
    mean_, rstd = graph.new((*x.shape[:-1], 1), stats), graph.new((*x.shape[:-1], 1), stats)
    length, cpu = x.shape[-1], graph.cpu

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        g = contiguous(g)
        out: Grads = [g.graph.new(g.shape, g.width) if node.needs[0] else None]
        out += [g.graph.new((length,), g.width) if needed else None for needed in node.needs[1:]]
        if cpu and any(node.needs[1:]):
            g.graph.touch(2 * FLOAT32 * length)
        return out

    graph.record([flat, weight, bias], [out], backward, [flat, mean_, rstd])
    return out


def embedding(indices: Var, weight: Var) -> Var:
    """F.embedding: saves the indices; the gradient is dense, as large as the weight."""
    out = weight.graph.new((*indices.shape, weight.shape[-1]), weight.width)
    shape = weight.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(shape, g.width)]

    weight.graph.record([weight], [out], backward, [indices])
    return out


def _product(a: Var, b: Var) -> Var:
    """mm or bmm without history."""
    return a.graph.new((*a.shape[:-1], b.shape[-1]), a.width)


def _column_major(stride: Shape, shape: Shape) -> bool:
    return stride[-2] == 1 and stride[-1] == shape[-2]


def _gradient_of_mat2(mat1: Var, grad: Var, shape: Shape, transposed: bool) -> Var:
    """mm_mat2_backward: laid out as mat2 is; column major by the transposed view of a product."""
    if not transposed:
        return grad.graph.new(shape, grad.width)
    return transpose(grad.graph.new((shape[1], shape[0]), grad.width), 0, 1)


def mm(a: Var, b: Var, bias: Var | None = None) -> Var:
    """a.mm(b), or addmm with a bias: saves each operand that the other's gradient needs."""
    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.before([a, b, bias], saved)
    out = _product(a, b)
    transposed, shape = _column_major(b.stride, b.shape), b.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        saved = iter(node.saved)
        first = _product(g, transpose(next(saved), 0, 1)) if node.needs[0] else None
        second = _gradient_of_mat2(next(saved), g, shape, transposed) if node.needs[1] else None
        # bias: summed over the rows when the engine fits it to the bias's shape
        return [first, second, g if node.needs[2] else None]

    a.graph.record([a, b, bias], [out], backward, saved)
    return out


def linear(x: Var, weight: Var, bias: Var | None = None) -> Var:
    """F.linear, weight [out, in]. x is flattened to rows, which copies where its layout forbids a view."""
    if bias is not None:
        bias = lowered(bias)
    # What was given stays until the call is over, though autocast's copies are what is multiplied.
    left, right = all_lowered(x, weight)
    rows = reshape(left, -1, x.shape[-1])
    out = mm(rows, transpose(right, 0, 1), bias)
    return view(out, *x.shape[:-1], weight.shape[0])


def conv1d(x: Var, weight: Var, bias: Var) -> Var:
    """transformers' Conv1D (GPT-2): weight [in, out]."""
    bias, rows, weight = all_lowered(bias, view(x, -1, x.shape[-1]), weight)  # the arguments of addmm
    out = mm(rows, weight, bias)
    return view(out, *x.shape[:-1], weight.shape[1])


def bmm(a: Var, b: Var) -> Var:
    """a.bmm(b), [n, i, k] and [n, k, j]: saves each operand that the other's gradient needs."""
    a, b = all_lowered(a, b)
    out = _product(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        saved = iter(node.saved)
        first = _product(g, transpose(next(saved), 1, 2)) if node.needs[0] else None
        second = _product(transpose(next(saved), 1, 2), g) if node.needs[1] else None
        return [first, second]

    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.record([a, b], [out], backward, saved)
    return out


def baddbmm(a: Var, b: Var) -> Var:
    """bias.baddbmm(a, b, alpha=number), bias without gradient: each gradient is a product, then scaled in a new one."""
    a, b = all_lowered(a, b)
    out = _product(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        saved = iter(node.saved)
        first = _like(_product(g, transpose(next(saved), 1, 2))) if node.needs[0] else None
        second = _like(_product(transpose(next(saved), 1, 2), g)) if node.needs[1] else None
        return [first, second]

    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.record([a, b], [out], backward, saved)
    return out


def clamp_(x: Var) -> Var:
    """x.clamp_(min, max): in place, so what backward needs of x is a copy; use the returned tensor from here on."""
    out = x.alias()
    before = _like(x) if x.graph.enabled and x.needs_grad else x

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        masks = [g.graph.new(g.shape, 1), g.graph.new(g.shape, 1)]
        result = _like(g)
        del masks
        return [result]

    x.graph.record([x], [out], backward, [before])
    return out


def matmul(a: Var, b: Var) -> Var:
    """torch.matmul of [..., i, k] and [..., k, j]: batches are merged, which copies operands laid out otherwise.

    The copies, if any, are what is saved.
    """
    a, b = all_lowered(a, b)
    lead = broadcast(a.shape[:-2], b.shape[:-2])
    left = reshape(expand(a, *lead, *a.shape[-2:]), -1, *a.shape[-2:])
    right = reshape(expand(b, *lead, *b.shape[-2:]), -1, *b.shape[-2:])
    return view(bmm(left, right), *lead, a.shape[-2], b.shape[-1])


def dropout(x: Var, p: float) -> Var:
    """F.dropout in train mode. CUDA saves a bool mask; the CPU noise of x's dtype, which it multiplies by."""
    if p == 0.0:
        return x
    graph = x.graph
    if graph.cpu:
        return mul(x, _like(x))
    out = _like(x)
    mask = graph.new(x.shape, 1, like_stride(x.shape, x.stride))
    graph.record([x], [out], _one_new, [mask])
    return out


def cross_entropy(logits: Var, targets: Var) -> Var:
    """F.cross_entropy of [n, classes]: log_softmax and nll_loss, which save the log-probabilities."""
    log_probs = saves_output(logits)
    graph, shape = logits.graph, logits.shape
    loss, weight = graph.new((), logits.width), graph.new((), logits.width)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(shape, g.width)]

    graph.record([log_probs], [loss], backward, [log_probs, targets, weight])
    return loss


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
            out.append(_like(x))
        if not g.graph.cpu:
            g.graph.touch(_flash_backward_scratch(node.saved[0].shape, node.saved[1].shape[1], g.width))
        return [grad if needed else None for grad, needed in zip(out, node.needs, strict=True)]

    graph.record([q, k, v], [out], backward, [q, k, v, out, sums, *([mask] if mask is not None else [])])
    return out


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
