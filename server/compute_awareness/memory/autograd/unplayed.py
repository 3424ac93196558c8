"""Layers that are like their neighbours and are not played one by one: what they leave stands in for them.

What is alive at a given place of a layer is linear in the layer's number, so the first and the last of a run of equal
layers make the peak. What those between leave is there tensor by tensor, in order, as a caching allocator gets to see
it; what they allocate and free again is not, except where backward runs a checkpointed layer again: that is far more
than what such a layer leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from ..tape import Tensor
from .graph import Grads, Graph, Node, Var

_SMALL = 2**20
"""Bytes of the largest tensor that the allocator has among the small ones."""


@dataclass(frozen=True)
class Left:
    """What a layer's forward leaves alive: bytes of each tensor."""

    saved: list[int]
    saved_copies: list[int]
    """Of weights in 16 bit, which nodes saved (autocast)."""
    copies: list[int]
    """Those that no node saved, which go when autocast ends."""


class Watch:
    """The tensors made, and those freed, since it began."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made: list[Tensor] = []
        self._from = len(graph.tape.log)
        graph.watched = self._made

    def left(self) -> Left:
        """What is alive more than before. A tensor in the place of an older one of its size, such as the layer's output
        where its input is let go, is nothing more."""
        autocast = self._graph.autocast
        copies = autocast.weights.values() if autocast is not None else ()
        unsaved = {v.storage.entry.number for v in copies if v.storage.entry is not None and v.storage.vars == 1}
        replaced = self._gone()
        left = Left([], [], [])
        for tensor in reversed(self._made):
            if not tensor.refs:
                continue
            if replaced[tensor.bytes]:
                replaced[tensor.bytes] -= 1
            elif tensor.component != "weight_copies":
                left.saved.append(tensor.bytes)
            else:
                (left.copies if tensor.number in unsaved else left.saved_copies).append(tensor.bytes)
        less = sum(nbytes * count for nbytes, count in replaced.items())
        saved = left.saved[::-1] if not less else [sum(left.saved) - less]
        return Left(saved, left.saved_copies[::-1], left.copies[::-1])

    def _gone(self) -> Counter[int]:
        """How many tensors of each size are gone that were there before."""
        log = self._graph.tape.log
        before = self._made[0].number if self._made else self._graph.tape.made
        gone = [~entry for entry in log[self._from :] if isinstance(entry, int) and -before <= entry < 0]
        sizes = [entry for entry in log if not isinstance(entry, int) or entry >= 0] if gone else []
        return Counter(cast(int, sizes[number]) for number in gone)


def packed(tensors: Sequence[int]) -> list[int]:
    """The tensors, those of at most 512 KiB put together to a MiB or less each: bytes that are not yet known stay."""
    large: list[int] = []
    small: list[int] = []
    for nbytes in tensors:
        if nbytes.__class__ is not int or nbytes > _SMALL // 2:
            large.append(nbytes)
        elif small and small[-1] + nbytes <= _SMALL:
            small[-1] += nbytes
        else:
            small.append(nbytes)
    return large + small


@contextmanager
def watched(graph: Graph) -> Iterator[Watch]:
    """Tensors made in this context are known to what it gives."""
    before = graph.watched
    watch = Watch(graph)
    try:
        yield watch
    finally:
        graph.watched = before


def unplayed(x: Var, layers: Sequence[Left], gradients: Sequence[int]) -> Var:
    """In place of layers: what each of them leaves, from here until backward comes back to it, and from then on its
    gradients, of so many bytes each (none where they exist already). Returns what goes into the next layer."""
    graph = x.graph
    out, tape, kept = x.alias(), graph.tape, graph.kept
    nbytes_of_x, gradients = x.elements * x.width, packed(gradients)
    saved: list[list[Tensor]] = []
    for layer in layers:
        mine = [tape.new(nbytes, "activations") for nbytes in layer.saved]
        mine += [tape.new(nbytes, "weight_copies") for nbytes in layer.saved_copies]
        saved.append(mine)
        if graph.autocast is not None:
            graph.autocast.unplayed += [graph.new((nbytes,), 1, None, "weight_copies") for nbytes in layer.copies]

    def backward(node: Node, grads: Grads) -> Grads:
        again = [tape.request(nbytes) for nbytes in graph.recomputed if nbytes >= nbytes_of_x]
        while saved:
            tape.drop(*saved.pop())
            if graph.reduced:
                if kept:
                    tape.drop(*kept.pop())  # those of an earlier batch, which this one was added to
            elif gradients:
                kept.append([tape.new(nbytes, "gradients") for nbytes in gradients])
        tape.release(*again)
        return [grads[0]]

    graph.record([x], [out], backward)
    return out
