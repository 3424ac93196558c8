"""Matrix products, and the layers that are one.

Sources: torch 2.13 tools/autograd/derivatives.yaml and torch/csrc/autograd/FunctionsManual.cpp (what is saved, which
layout a gradient has), ATen/native/{Linear,LinearAlgebra}.cpp.
"""

from __future__ import annotations

from .casting import all_lowered, lowered
from .elementwise import like
from .graph import Grads, Node, Var
from .shapes import Shape, broadcast
from .views import expand, reshape, transpose, view


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
    """a.mm(b), or addmm with a bias: saves each operand that the other's gradient needs.

    MmBackward0 of the generated Functions.cpp computes the gradient of the second operand first, AddmmBackward0 that of
    the first.
    """
    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.before([a, b, bias], saved)
    out = _product(a, b)
    transposed, shape, biased = _column_major(b.stride, b.shape), b.shape, bias is not None

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        early = _gradient_of_mat2(node.saved[-1], g, shape, transposed) if node.needs[1] and not biased else None
        first = _product(g, transpose(node.saved[0], 0, 1)) if node.needs[0] else None
        second = _gradient_of_mat2(node.saved[-1], g, shape, transposed) if node.needs[1] and biased else early
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
        second = _product(transpose(node.saved[-1], 1, 2), g) if node.needs[1] else None  # that of mat2 is the first
        return [_product(g, transpose(node.saved[0], 1, 2)) if node.needs[0] else None, second]

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
        first = like(_product(g, transpose(next(saved), 1, 2))) if node.needs[0] else None
        second = like(_product(transpose(next(saved), 1, 2), g)) if node.needs[1] else None
        return [first, second]

    saved = [v for v, other in ((b, a), (a, b)) if other.needs_grad]
    a.graph.record([a, b], [out], backward, saved)
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
