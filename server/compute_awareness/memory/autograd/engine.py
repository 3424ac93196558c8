"""The way back through a graph: which node is next, where gradients are summed, when they and saved tensors go.

Rules transcribed from torch 2.13: torch/csrc/autograd/engine.cpp (order of nodes, `validate_outputs`, when inputs and
saved tensors go), input_buffer.cpp (sums of gradients, in place where nothing else sees the tensor), functions/
accumulate_grad.h (a first gradient is stolen where its layout is the parameter's, else copied; later ones are added
in place).
"""

from __future__ import annotations

import heapq

from .casting import cast
from .graph import Edge, Grads, Node, Var
from .reductions import sum_to
from .shapes import like_stride, same_layout


def run(root: Var, first: list[Var]) -> None:
    """From `root`, whose gradient is the one element of `first`: it is taken out, so that nobody else holds it."""
    start = root.node
    assert start is not None, "nothing here needs a gradient"
    waiting = _count_edges(start)
    first[0].held += 1
    buffers: dict[int, Grads] = {id(start): [None] * start.outputs}
    buffers[id(start)][root.index] = first.pop()
    ready: list[tuple[int, Node]] = [(-start.seq, start)]  # the youngest first; no two are of equal age
    while ready:
        node = heapq.heappop(ready)[1]
        edges, outputs = _evaluate(node, buffers.pop(id(node)))
        leaves: list[Var] = []
        for i, edge in enumerate(edges):
            if edge is None:
                continue
            target, index, out = edge[0], edge[1], outputs[i]
            outputs[i] = None
            key = id(target)
            slots = buffers.get(key)
            if slots is None:
                slots = buffers[key] = [None] * (target.outputs if isinstance(target, Node) else 1)
            if out is not None:
                if slots[index] is None:
                    slots[index] = out
                else:
                    _add(slots, index, out)
            del out
            waiting[key] -= 1
            if not waiting[key]:
                if isinstance(target, Node):
                    heapq.heappush(ready, (-target.seq, target))  # pyright: ignore[reportArgumentType]
                else:
                    leaves.append(target)
            del slots  # nobody else holds what the leaves take
        for leaf in leaves:
            _accumulate(leaf, buffers.pop(id(leaf)))


def _count_edges(start: Node) -> dict[int, int]:
    """How many gradients each node and each leaf waits for, by id."""
    waiting: dict[int, int] = {}
    stack = [start]
    while stack:
        for edge in stack.pop().edges:
            if edge is None:
                continue
            target = edge[0]
            key = id(target)
            if key in waiting:
                waiting[key] += 1
                continue
            waiting[key] = 1
            if isinstance(target, Node):
                stack.append(target)
    return waiting


def _evaluate(node: Node, grads: Grads) -> tuple[list[Edge | None], Grads]:
    """evaluate_function: run, fit to the inputs' shapes and dtypes; then the gradients go, then what was saved."""
    if node.hook is not None:
        node.hook()
    edges = node.edges
    node.edges = []
    if grads.count(None) == len(grads):
        outputs: Grads = [None] * len(edges)
    else:
        if node.frame is not None and node.waiting:
            node.frame.x.graph.recompute(node.frame)
        outputs = node.apply(node, grads)
        if node.frame is not None:
            node.saved = []  # unpacked, and so gone as soon as apply returns
    for i, edge in enumerate(edges):
        out = outputs[i]
        if edge is None or out is None:
            outputs[i] = None
            continue
        if out.shape != edge[2]:
            out = outputs[i] = sum_to(out, edge[2])
        if out.width != edge[3]:
            out = outputs[i] = cast(out, edge[3])
        out.held += 1
    out = None
    for i, grad in enumerate(grads):
        if grad is not None:
            grad.held -= 1
            grads[i] = None
    grad = None
    while node.saved:  # one by one from the first on, as release_variables() does
        del node.saved[0]
    node.frame = None
    return edges, outputs


def _add(slots: Grads, index: int, new: Var) -> None:
    """InputBuffer::accumulate."""
    old = slots[index]
    if old is None:
        slots[index] = new
        return
    new.held -= 1
    if old.held == 1 and old.storage.vars == 1 and old.is_dense and not old.is_view:
        return  # added in place
    old.held -= 1
    total = new.graph.new(old.shape, max(old.width, new.width), like_stride(old.shape, old.stride))
    total.held = 1
    slots[index] = total


def _accumulate(leaf: Var, slots: Grads) -> None:
    """AccumulateGrad."""
    new = slots[0]
    if new is None:
        return
    new.held -= 1
    if leaf.grad is None:
        if new.held == 0 and same_layout(leaf.shape, new.stride, leaf.stride):
            leaf.grad = new.alias()
        else:
            leaf.grad = leaf.graph.new(leaf.shape, leaf.width, leaf.stride)
        leaf.grad.book("gradients")
    if leaf.graph.reduced:
        leaf.grad = None
