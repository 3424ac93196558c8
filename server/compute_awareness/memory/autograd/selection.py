"""Operators that choose among a tensor's elements, or put chosen ones in their places: topk, gather, scatter.

Sources: torch 2.13 tools/autograd/derivatives.yaml (what is saved, what a gradient is made of),
ATen/native/cpu/ScatterGatherKernel.cpp.
"""

from __future__ import annotations

from .elementwise import like
from .graph import FLOAT32, HALF, INT64, Grads, Node, Var


def _scatter_scratch(into: Var) -> None:
    """CPU only: 16-bit numbers are scattered in a float32 copy."""
    if into.graph.cpu and into.width == HALF:
        into.graph.touch(FLOAT32 * into.elements)


def topk(x: Var, k: int) -> tuple[Var, Var]:
    """x.topk(k, dim=-1): values and their indices, which are saved; the gradient is zeros of the whole, scattered."""
    graph, whole = x.graph, x.shape
    values, indices = graph.new((*whole[:-1], k), x.width), graph.new((*whole[:-1], k), INT64)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        result = g.graph.new(whole, g.width)
        _scatter_scratch(result)
        return [result]

    graph.record([x], [values], backward, [indices])
    return values, indices


def gather(x: Var, indices: Var) -> Var:
    """x.gather(-1, indices): saves the indices; the gradient is zeros of the whole, to which it is added."""
    out, whole = x.graph.new(indices.shape, x.width), x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        result = g.graph.new(whole, g.width)
        _scatter_scratch(result)
        return [result]

    x.graph.record([x], [out], backward, [indices])
    return out


def scatter_(into: Var, indices: Var, values: Var) -> Var:
    """into.scatter_(-1, indices, values), into without a gradient; use the returned tensor from here on."""
    return _scattered(into, indices, values)


def scatter_add_(into: Var, indices: Var, values: Var) -> Var:
    """into.scatter_add_(-1, indices, values); use the returned tensor from here on."""
    return _scattered(into, indices, values)


def scatter(into: Var, indices: Var, values: Var) -> Var:
    """into.scatter(-1, indices, values), a copy; into without a gradient."""
    return _scattered(like(into), indices, values)


def _scattered(into: Var, indices: Var, values: Var) -> Var:
    """Saves the indices; that of the values is gathered from the gradient, which is that of `into`, too."""
    out, shape = into.alias(), values.shape
    _scatter_scratch(into)

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [g if node.needs[0] else None, g.graph.new(shape, g.width) if node.needs[1] else None]

    into.graph.record([into, values], [out], backward, [indices])
    return out
