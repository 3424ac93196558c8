"""Operators that treat every element alike: arithmetic, activations, masks, dropout.

Sources: torch 2.13 tools/autograd/derivatives.yaml and torch/csrc/autograd/FunctionsManual.cpp (what is saved, in
which pieces a gradient is computed), ATen/native/Dropout.cpp. Numbers given in place of a tensor save nothing.
"""

from __future__ import annotations

from .casting import raised
from .graph import BOOL, Grads, Node, Var
from .shapes import broadcast, like_stride


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
    return [g if node.needs[0] else None, like(g) if node.needs[1] else None]


def like(x: Var) -> Var:
    return x.graph.new(x.shape, x.width, like_stride(x.shape, x.stride))


def compared(x: Var) -> Var:
    """x > y and the like: bools in x's layout, no gradient."""
    return x.graph.new(x.shape, BOOL, like_stride(x.shape, x.stride))


def binary(a: Var, b: Var) -> Var:
    return _elementwise([a, b], max(a.width, b.width))


def add(a: Var, b: Var | float) -> Var:
    """a + b. Saves nothing."""
    if not isinstance(b, Var):
        out = like(a)
        a.graph.record([a], [out], _pass)
        return out
    out = binary(a, b)
    a.graph.record([a, b], [out], _pass)
    return out


def sub(a: Var, b: Var) -> Var:
    """a - b. Saves nothing."""
    out = binary(a, b)
    a.graph.record([a, b], [out], _negate_second)
    return out


def mul(a: Var, b: Var | float) -> Var:
    """a * b. Saves each operand that the other's gradient needs; a number: nothing."""
    if not isinstance(b, Var):
        return neg(a)
    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.before([a, b], saved)
    out = binary(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        # MulBackward0 of the generated Functions.cpp computes the gradient of `other` before that of `self`
        second = binary(g, node.saved[-1]) if node.needs[1] else None
        return [binary(g, node.saved[0]) if node.needs[0] else None, second]

    a.graph.record([a, b], [out], backward, saved)
    return out


def div(a: Var, b: Var | float) -> Var:
    """a / b. A number saves nothing; a tensor b is saved, and a where b needs a gradient."""
    if not isinstance(b, Var):
        return neg(a)
    out = binary(a, b)

    def backward(node: Node, grads: Grads) -> Grads:
        g, other = grads[0], node.saved[0]
        assert g is not None
        second = None
        if node.needs[1]:  # -grad * ((self / other) / other), before the gradient of `self`, as DivBackward0 does
            negative = like(g)
            once = binary(node.saved[1], other)
            twice = like(once)
            second = binary(negative, twice)
            del negative, once, twice
        return [binary(g, other) if node.needs[0] else None, second]

    a.graph.record([a, b], [out], backward, [b, a] if b.needs_grad else [b])
    return out


def one_new(node: Node, grads: Grads) -> Grads:
    g = grads[0]
    assert g is not None
    return [like(g)]


def neg(x: Var) -> Var:
    """-x, x * number, x / number: saves nothing, the gradient is a new tensor."""
    out = like(x)
    x.graph.record([x], [out], one_new)
    return out


def saves_input(x: Var) -> Var:
    """One kernel that saves its input: silu, gelu (both kinds), clamp."""
    out = like(x)
    x.graph.record([x], [out], one_new, [x])
    return out


def saves_output(x: Var) -> Var:
    """One kernel that saves its result: tanh, sigmoid, relu, exp."""
    out = like(x)
    x.graph.record([x], [out], one_new, [out])
    return out


silu = gelu = saves_input
tanh = relu = sigmoid = exp = saves_output


def absolute(x: Var) -> Var:
    """x.abs(): grad * x.sgn()."""
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        sign = like(node.saved[0])
        result = binary(g, sign)
        del sign
        return [result]

    x.graph.record([x], [out], backward, [x])
    return out


def reciprocal(x: Var) -> Var:
    """x.reciprocal(): -grad * (result * result). Of `1 / x` in Python it is the first half, times one the second."""
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        negative, squared = like(g), like(node.saved[0])
        result = binary(negative, squared)
        del negative, squared
        return [result]

    x.graph.record([x], [out], backward, [out])
    return out


def squared_error(prediction: Var, target: Var) -> Var:
    """F.mse_loss(prediction, target, reduction="none"), a target without gradient: saves both."""
    out = binary(prediction, target)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        prediction, target = node.saved
        result = like(prediction)
        width = max(prediction.width, target.width)
        if g.graph.cpu and prediction.width != target.width:
            casts = [g.graph.new(v.shape, width) for v in (prediction, target) if v.width < width]
            if prediction.width < width:  # and the result is computed in the wider dtype first
                casts.append(g.graph.new(prediction.shape, width))
            del casts
        return [result, None]

    prediction.graph.record([prediction, target], [out], backward, [prediction, target])
    return out


def power(x: Var) -> Var:
    """x.pow(number), number not 1: grad * (number * x.pow(number - 1)), three tensors at once."""
    x = raised(x)
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        lower = like(saved)
        times = like(lower)
        result = binary(g, times)
        del lower, times
        return [result]

    x.graph.record([x], [out], backward, [x])
    return out


def rsqrt(x: Var) -> Var:
    """torch.rsqrt: -0.5 * grad * result.pow(3)."""
    x = raised(x)
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        half = like(g)
        cubed = like(saved)
        result = like(g)
        del half, cubed
        return [result]

    x.graph.record([x], [out], backward, [out])
    return out


def sqrt(x: Var) -> Var:
    """torch.sqrt: grad / (2 * result)."""
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        twice = like(saved)
        result = like(g)
        del twice
        return [result]

    x.graph.record([x], [out], backward, [out])
    return out


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
        return [like(g) if needed else None for needed in node.needs]

    graph.record(tensors[1:], [out], backward, [mask])
    return out


def clamp_(x: Var) -> Var:
    """x.clamp_(min, max): in place, so what backward needs of x is a copy; use the returned tensor from here on."""
    out = x.alias()
    before = like(x) if x.graph.enabled and x.needs_grad else x

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        masks = [g.graph.new(g.shape, 1), g.graph.new(g.shape, 1)]
        result = g.graph.new(g.shape, g.width, like_stride(saved.shape, saved.stride))  # laid out as the masks are
        del masks
        return [result]

    x.graph.record([x], [out], backward, [before])
    return out


def dropout(x: Var, p: float) -> Var:
    """F.dropout in train mode. CUDA saves a bool mask; the CPU noise of x's dtype, which it multiplies by."""
    if p == 0.0:
        return x
    graph = x.graph
    if graph.cpu:
        return mul(x, like(x))
    mask = graph.new(x.shape, 1, like_stride(x.shape, x.stride))
    out = like(x)
    graph.record([x], [out], one_new, [mask])
    return out
