"""Changes of width: casts that a model's code asks for, and those that autocast adds.

Source: torch 2.13 ATen/autocast_mode.{h,cpp}.
"""

from __future__ import annotations

from .graph import FLOAT32, HALF, Grads, Node, Var
from .shapes import like_stride


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
        known = autocast.weights[id(x)] = cast(x, HALF).book(x.graph.copies_as)
    return known


def all_lowered(*arguments: Var) -> list[Var]:
    """The arguments of an operator, cast from the last to the first, as the compiler evaluates them (`WrapFunction_` of
    autocast_mode.h); backward goes through the casts the other way round."""
    return [lowered(x) for x in reversed(arguments)][::-1]


def raised(x: Var) -> Var:
    """What CUDA's autocast hands to an operator of its float32 list."""
    autocast = x.graph.autocast
    return x if autocast is None or not autocast.cuda or x.width != HALF else cast(x, FLOAT32)
