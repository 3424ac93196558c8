"""Shapes and strides: how many elements, which layout, and what fits which. Whole numbers only, no tensors.

Layers of a model, and passes through it, have the same shapes: each function remembers what it was asked.
"""

from __future__ import annotations

from functools import lru_cache

Shape = tuple[int, ...]
_KEPT = 4096


@lru_cache(maxsize=_KEPT)
def size_of(shape: Shape) -> int:
    """Elements of a tensor of `shape`."""
    n = 1
    for length in shape:
        n *= length
    return n


@lru_cache(maxsize=_KEPT)
def contiguous_stride(shape: Shape) -> Shape:
    """The stride of a tensor of `shape` whose elements lie one after the other."""
    stride, n = [], 1
    for length in reversed(shape):
        stride.append(n)
        n *= max(length, 1)
    return tuple(reversed(stride))


@lru_cache(maxsize=_KEPT)
def same_layout(shape: Shape, one: Shape, other: Shape) -> bool:
    """Whether two strides place `shape` alike; dimensions of length 1 have no say."""
    return all(a == b for length, a, b in zip(shape, one, other, strict=True) if length != 1)


@lru_cache(maxsize=_KEPT)
def like_stride(shape: Shape, stride: Shape) -> Shape:
    """The dense stride with the dimensions in the order of `stride`, as TensorIterator and empty_like choose it
    (ATen/ExpandUtils.h, infer_dense_strides): an expanded dimension, of stride 0, stays where it is in the shape."""
    inward = list(range(len(shape)))[::-1]  # from the innermost dimension on
    for i in range(1, len(shape)):
        moved = i
        for at in range(i - 1, -1, -1):
            inner, outer = inward[at], inward[moved]
            if stride[inner] == 0 or stride[outer] == 0:
                continue
            if stride[inner] < stride[outer]:
                break
            if stride[inner] > stride[outer] or shape[inner] > shape[outer]:
                inward[at], inward[moved] = outer, inner
                moved = at
    out, n = [0] * len(shape), 1
    for i in inward:
        out[i] = n
        n *= max(shape[i], 1)
    return tuple(out)


@lru_cache(maxsize=_KEPT)
def view_stride(shape: Shape, stride: Shape, new: Shape) -> Shape | None:
    """The stride of `new` on the same storage, None where a copy is needed (ATen/TensorUtils.cpp, computeStride)."""
    if size_of(shape) == 0:
        return contiguous_stride(new)
    out = [0] * len(new)
    d = len(new) - 1
    base = stride[-1] if stride else 1
    old_numel = new_numel = 1
    for i in range(len(shape) - 1, -1, -1):
        old_numel *= shape[i]
        if i == 0 or (shape[i - 1] != 1 and stride[i - 1] != old_numel * base):
            while d >= 0 and (new_numel < old_numel or new[d] == 1):
                out[d] = new_numel * base
                new_numel *= new[d]
                d -= 1
            if new_numel != old_numel:
                return None
            if i > 0:
                base = stride[i - 1]
                old_numel = new_numel = 1
    return None if d != -1 else tuple(out)


@lru_cache(maxsize=_KEPT)
def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise operation of two tensors."""
    n = max(len(a), len(b))
    a, b = (1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b
    return tuple(max(x, y) if 0 not in (x, y) else 0 for x, y in zip(a, b, strict=True))
