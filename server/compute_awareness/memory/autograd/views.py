"""Views of symbolic tensors: no allocation forward, and what torch 2.13's backward of each allocates."""

from __future__ import annotations

from .graph import Grads, Node, Var
from .shapes import Shape, contiguous_stride, like_stride, size_of, view_stride


def _view(x: Var, shape: Shape, stride: Shape) -> Var:
    return Var(x.graph, x.storage, shape, stride, x.width, is_view=True)


def _infer(x: Var, shape: Shape) -> Shape:
    if -1 not in shape:
        assert size_of(shape) == x.elements, (x.shape, shape)
        return shape
    known = -size_of(shape)
    return tuple(x.elements // known if n == -1 else n for n in shape)


def view(x: Var, *shape: int) -> Var:
    """x.view(shape)."""
    new = _infer(x, shape)
    stride = view_stride(x.shape, x.stride, new)
    assert stride is not None, f"view of {x.shape} {x.stride} as {new}"
    out = _view(x, new, stride)
    _record_reshape(x, out)
    return out


def _record_reshape(x: Var, out: Var) -> None:
    before = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [reshape(g, *before)]

    x.graph.record([x], [out], backward)


def reshape(x: Var, *shape: int) -> Var:
    """x.reshape(shape): a view where that is possible, else a contiguous copy."""
    new = _infer(x, shape)
    stride = view_stride(x.shape, x.stride, new)
    if stride is None:
        x = _clone(x, contiguous_stride(x.shape))
        stride = contiguous_stride(new)
    out = _view(x, new, stride)
    _record_reshape(x, out)
    return out


def _clone(x: Var, stride: Shape) -> Var:
    out = x.graph.new(x.shape, x.width, stride)
    x.graph.record([x], [out], lambda node, grads: [grads[0]])
    return out


def clone(x: Var) -> Var:
    """x.clone(): the layout stays."""
    return _clone(x, like_stride(x.shape, x.stride))


def copied(x: Var) -> Var:
    """x.clone(memory_format=torch.contiguous_format)."""
    return _clone(x, contiguous_stride(x.shape))


def contiguous(x: Var) -> Var:
    """x.contiguous(): x itself, or a copy."""
    return x if x.is_contiguous else _clone(x, contiguous_stride(x.shape))


def transpose(x: Var, i: int, j: int) -> Var:
    """x.transpose(i, j)."""
    order = list(range(len(x.shape)))
    order[i], order[j] = order[j], order[i]
    return permute(x, *order)


def permute(x: Var, *order: int) -> Var:
    """x.permute(order)."""
    out = _view(x, tuple(x.shape[i] for i in order), tuple(x.stride[i] for i in order))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [_view(g, tuple(g.shape[i] for i in back), tuple(g.stride[i] for i in back))]

    x.graph.record([x], [out], backward)
    return out


def narrow(x: Var, dim: int, length: int) -> Var:
    """x[..., start:start+length, ...]: backward makes zeros of the whole and copies into them."""
    dim %= len(x.shape)
    if x.shape[dim] == length:
        return x
    out = _view(x, (*x.shape[:dim], length, *x.shape[dim + 1 :]), x.stride)
    whole = x.shape
    x.graph.record([x], [out], lambda node, grads: [_zeros(grads, whole)])
    return out


def _zeros(grads: Grads, whole: Shape) -> Var:
    g = grads[0]
    assert g is not None
    return g.graph.new(whole, g.width)


def select(x: Var, dim: int) -> Var:
    """x[..., i, ...]: backward makes zeros of the whole and copies into them."""
    dim %= len(x.shape)
    out = _view(x, (*x.shape[:dim], *x.shape[dim + 1 :]), (*x.stride[:dim], *x.stride[dim + 1 :]))
    whole = x.shape
    x.graph.record([x], [out], lambda node, grads: [_zeros(grads, whole)])
    return out


def split(x: Var, sizes: tuple[int, ...], dim: int = -1) -> list[Var]:
    """x.split(sizes, dim) or chunk: backward is one torch.cat of all gradients (zeros for those that are missing)."""
    dim %= len(x.shape)
    outs = [_view(x, (*x.shape[:dim], n, *x.shape[dim + 1 :]), x.stride) for n in sizes]
    shapes, whole = [out.shape for out in outs], x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        some = next(g for g in grads if g is not None)
        zeros = [some.graph.new(shape, some.width) for g, shape in zip(grads, shapes, strict=True) if g is None]
        out = some.graph.new(whole, some.width)
        del zeros
        return [out]

    x.graph.record([x], outs, backward)
    return outs


def expand(x: Var, *shape: int) -> Var:
    """x.expand(shape): backward sums over the new places."""
    if shape == x.shape:
        return x
    lead = len(shape) - len(x.shape)
    stride = tuple(
        0 if i < lead or (x.shape[i - lead] == 1 and shape[i] != 1) else x.stride[i - lead] for i in range(len(shape))
    )
    out = _view(x, shape, stride)
    # The engine sums a gradient to the shape of its input, which is the sum that ExpandBackward makes.
    x.graph.record([x], [out], lambda node, grads: [grads[0]])
    return out


def unsqueeze(x: Var, dim: int) -> Var:
    """x.unsqueeze(dim), dim not negative."""
    out = _view(x, (*x.shape[:dim], 1, *x.shape[dim:]), (*x.stride[:dim], 1, *x.stride[dim:]))
    before = x.shape

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [_view(g, before, (*g.stride[:dim], *g.stride[dim + 1 :]))]

    x.graph.record([x], [out], backward)
    return out


def cat(parts: list[Var], dim: int = -1) -> Var:
    """torch.cat: a contiguous copy; backward hands out views of the one gradient."""
    first = parts[0]
    dim %= len(first.shape)
    lengths = [part.shape[dim] for part in parts]
    out = first.graph.new((*first.shape[:dim], sum(lengths), *first.shape[dim + 1 :]), max(p.width for p in parts))

    def backward(node: Node, grads: Grads) -> Grads:
        g = grads[0]
        assert g is not None
        return [
            _view(g, (*g.shape[:dim], n, *g.shape[dim + 1 :]), g.stride) if needed else None
            for n, needed in zip(lengths, node.needs, strict=True)
        ]

    first.graph.record(parts, [out], backward)
    return out
