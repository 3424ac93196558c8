"""Operators over a row or over everything: sums and means, softmax, layer norm, the loss; and the lookup of rows.

Sources: torch 2.13 tools/autograd/derivatives.yaml, torch/csrc/autograd/FunctionsManual.cpp, ATen/native/{SoftMax,
LossNLL,layer_norm}.cpp.
"""

from __future__ import annotations

from .casting import cast, raised
from .elementwise import binary, like, saves_output
from .graph import BOOL, FLOAT32, Grads, Node, Var
from .shapes import Shape, size_of
from .views import contiguous


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
    """x.sum() to one number; backward only expands (no memory)."""
    out = x.graph.new((), x.width)
    shape = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [Var(g.graph, g.storage, shape, (0,) * len(shape), g.width, is_view=True)]

    x.graph.record([x], [out], backward)
    return out


def sum_over(x: Var, dim: int = -1, keepdim: bool = False) -> Var:
    """x.sum(dim): backward expands without memory."""
    dim %= len(x.shape)
    kept = (1,) if keepdim else ()
    out, whole = x.graph.new((*x.shape[:dim], *kept, *x.shape[dim + 1 :]), x.width), x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        stride = (*g.stride[:dim], 0, *g.stride[dim + keepdim :])
        return [Var(g.graph, g.storage, whole, stride, g.width, is_view=True)]

    x.graph.record([x], [out], backward)
    return out


def average(x: Var) -> Var:
    """x.mean(), to one number: the gradient is expanded without memory, then divided into a new tensor."""
    out, shape = x.graph.new((), x.width), x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g.graph.new(shape, g.width)]

    x.graph.record([x], [out], backward)
    return out


def norm(x: Var, p: int = 2) -> Var:
    """x.norm(p, dim=-1): backward makes x / norm (for p = 1 the sign), for p = 2 a mask of norms that are 0."""
    out = x.graph.new(x.shape[:-1], x.width)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        unit = like(saved)
        mask = g.graph.new(saved.shape[:-1], BOOL) if p == 2 else None
        result = like(saved)
        del mask, unit
        return [result]

    x.graph.record([x], [out], backward, [x, out])
    return out


def sum_to(x: Var, shape: Shape) -> Var:
    """at::sum_to: the sum over broadcast dimensions, a new tensor. Over rows, CUDA's kernel takes a buffer."""
    out, dims = x.graph.new(shape, x.width), len(x.shape) - len(shape)
    if dims and x.shape[dims:] == shape:
        x.graph.summed(size_of(x.shape[:dims]), size_of(shape))
    return out


def softmax(x: Var, width: int | None = None) -> Var:
    """softmax(x, -1, dtype): saves the result. bfloat16 to float32 goes by a copy (float16 on CUDA does not)."""
    if width is None:
        x = raised(x)
    elif width != x.width:
        return softmax(cast(x, width))
    out = like(x)

    def backward(node: Node, grads: Grads) -> Grads:
        g, saved = grads[0], node.saved[0]
        assert g is not None
        result = like(g)
        if not g.graph.cpu:  # softmax_backward_cuda_out of SoftMax.cu multiplies first
            product = binary(g, saved)
            del product
        return [result]

    x.graph.record([x], [out], backward, [out])
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
