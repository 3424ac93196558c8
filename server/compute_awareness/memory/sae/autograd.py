"""Autograd on the tape, for SAEs: a step is written down forward; its backward pass follows from torch's own rules.

An operator below allocates what torch's does, says what it saves, and how its backward allocates. `Graph.backward`
then does what torch's engine does with that graph: nodes in the reverse of the order they were made in, gradients of
one tensor summed in place where nobody else holds them, saved tensors let go when their node has run.

Source: torch 2.13, torch/csrc/autograd/{engine,input_buffer}.cpp, functions/accumulate_grad.h, FunctionsManual.cpp,
tools/autograd/derivatives.yaml; aten/src/ATen/{autocast_mode,TensorIterator}.cpp.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from ..card.staging import Kernels
from ..tape import Tape, Tensor

INDEX = 8
_LAST = float("inf")


@dataclass(eq=False, slots=True)
class Grad:
    """A gradient on its way: a storage, and how it is seen. `dense` is false for an expanded view; `alone` for the
    gradient of a transposed weight (torch.nn.Linear without bias): another is added to it in a tensor of its own."""

    tensor: Tensor
    elements: int
    width: int
    dense: bool = True
    alone: bool = False


Backward = Callable[[Grad], "list[Grad | None]"]


@dataclass(eq=False, slots=True)
class Node:
    """A step of the backward pass. `inputs`: (node, elements, width) of what it passes gradients on to."""

    order: float
    inputs: list[tuple[Node | None, int, int]]
    saved: list[Tensor]
    apply: Backward
    has_grad: bool = False
    """Of a leaf: whether its gradient is there."""


@dataclass(eq=False, slots=True)
class Var:
    """A tensor of the step: its storage, elements, bytes per element, and the node that made it (None: no gradient)."""

    tensor: Tensor
    elements: int
    width: int
    node: Node | None = None
    leaf: bool = False


class Graph:
    """One step's operators on `tape`; every result is held by the caller, who lets it go with `drop`.

    Args:
        cpu_kernels: also count what only torch's CPU kernels take: operands of a mixed product are first cast to the
            common dtype there (TensorIterator.cpp, `common_device == kCPU`); CUDA casts inside the kernel.
        kernels: also count what only CUDA's take: cuBLAS workspaces, the buffers of sums over rows.
        autocast: matrix products in bfloat16, the copies of weights kept until `leave_autocast`.
        gradients: false under torch.no_grad().
    """

    def __init__(
        self,
        tape: Tape,
        *,
        cpu_kernels: bool = False,
        kernels: Kernels | None = None,
        autocast: bool = False,
        gradients: bool = True,
    ) -> None:
        self.tape, self.cpu_kernels, self.autocast, self.gradients = tape, cpu_kernels, autocast, gradients
        self.kernels = kernels
        self._order = 0
        self._casts: dict[Var, Var] = {}
        self._leaf_grads: list[Tensor] = []

    # -- tensors

    def parameter(self, elements: int, width: int) -> Var:
        """A leaf that stands on the tape already; its gradient is booked under `gradients`."""
        node = Node(_LAST, [], [], lambda grad: []) if self.gradients else None
        return Var(self.tape.adopt(elements * width, "sae_weights"), elements, width, node, leaf=True)

    def new(self, elements: int, width: int) -> Var:
        return Var(self.tape.new(elements * width), elements, width)

    def drop(self, *variables: Var) -> None:
        """The frame lets go of these."""
        self.tape.drop(*(variable.tensor for variable in variables))

    def hold(self, variable: Var) -> Var:
        self.tape.hold(variable.tensor)
        return variable

    def detached(self, variable: Var) -> Var:
        """x.detach(), or x under no_grad: without history. The caller of `variable` holds it."""
        return Var(variable.tensor, variable.elements, variable.width)

    def keep(self, *variables: Var) -> None:
        """Book as activations of the SAE: what the step's output holds."""
        for variable in variables:
            self.tape.book(variable.tensor, "sae_activations")

    # -- the graph

    def record(self, result: Var, inputs: list[Var], saved: list[Var], backward: Backward) -> Var:
        """Gives `result` a node, unless nothing it is made of needs a gradient. `saved` stay until it has run."""
        edges = [(variable.node, variable.elements, variable.width) for variable in inputs]
        for node, _, _ in edges:
            if node is not None:
                break
        else:
            return result
        kept = [variable.tensor for variable in saved]
        for tensor in kept:
            tensor.refs += 1
            if tensor.component not in ("sae_weights", "sae_activations"):
                self.tape.book(tensor, "sae_activations")
        result.node = Node(self._order, edges, kept, backward)
        self._order += 1
        return result

    def grad(self, elements: int, width: int) -> Grad:
        return Grad(self.tape.new(elements * width), elements, width)

    def same(self, grad: Grad, elements: int | None = None) -> Grad:
        """The gradient itself, handed on; with `elements` as an expanded view."""
        self.tape.hold(grad.tensor)
        if elements is None:
            return Grad(grad.tensor, grad.elements, grad.width, grad.dense)
        return Grad(grad.tensor, elements, grad.width, dense=elements == grad.elements and grad.dense)

    def backward(self, root: Var) -> None:
        """Engine::execute from a scalar `root`, which the caller still holds."""
        assert root.node is not None
        waiting: dict[Node, int] = {}
        seen, stack = {root.node}, [root.node]
        while stack:
            for node, _, _ in stack.pop().inputs:
                if node is None:
                    continue
                waiting[node] = waiting.get(node, 0) + 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
        buffers: dict[Node, Grad] = {root.node: self.grad(1, root.width)}
        queue: list[tuple[float, int, Node]] = [(-root.node.order, 0, root.node)]
        pushed = 0
        while queue:
            node = heapq.heappop(queue)[2]
            grad = buffers.pop(node, None)
            if node.order == _LAST:
                if grad is not None:
                    self._accumulate(node, grad)
                continue
            if grad is None:  # no gradient came this far
                outputs: list[Grad | None] = [None] * len(node.inputs)
            else:
                outputs = [self._fit(out, edge) for out, edge in zip(node.apply(grad), node.inputs, strict=True)]
                self.tape.drop(grad.tensor)
            self.tape.drop(*node.saved)
            node.saved = []
            for out, (target, _, _) in zip(outputs, node.inputs, strict=True):
                if target is None:
                    continue
                if out is not None:
                    self._add(buffers, target, out)
                waiting[target] -= 1
                if waiting[target] == 0:
                    pushed += 1
                    heapq.heappush(queue, (-target.order, pushed, target))

    def _fit(self, out: Grad | None, edge: tuple[Node | None, int, int]) -> Grad | None:
        """validate_outputs: summed over what was broadcast, cast to the input's dtype."""
        node, elements, width = edge
        if out is None or node is None:
            if out is not None:
                self.tape.drop(out.tensor)
            return None
        if out.elements != elements:
            summed = self.grad(elements, out.width)
            self.stage(out.elements // elements, elements)
            self.tape.drop(out.tensor)
            out = summed
        return out if out.width == width else self._replace(out, elements, width)

    def stage(self, rows: int, columns: int) -> None:
        """The buffer of CUDA's sum of [rows, columns] over its rows."""
        if self.kernels is not None:
            self.kernels.sum(self.tape, rows, columns)

    def _product(self, thread: str) -> None:
        """The workspace of CUDA's first matrix product."""
        if self.kernels is not None:
            self.kernels.product(self.tape, thread)

    def _replace(self, grad: Grad, elements: int, width: int) -> Grad:
        result = self.grad(elements, width)
        self.tape.drop(grad.tensor)
        return result

    def _add(self, buffers: dict[Node, Grad], target: Node, out: Grad) -> None:
        """InputBuffer::add: in place where the gradient before is held by nobody else."""
        before = buffers.get(target)
        if before is None:
            buffers[target] = out
        elif before.dense and not before.alone and before.tensor.refs == 1:
            self.tape.drop(out.tensor)
        else:
            buffers[target] = self._replace(before, before.elements, before.width)
            self.tape.drop(out.tensor)

    def _accumulate(self, leaf: Node, grad: Grad) -> None:
        """AccumulateGrad: the first gradient is taken over, unless others hold it; later ones add in place."""
        if leaf.has_grad:
            self.tape.drop(grad.tensor)
            return
        if grad.tensor.refs > 1 or not grad.dense:
            grad = self._replace(grad, grad.elements, grad.width)
        leaf.has_grad = True
        self.tape.book(grad.tensor, "gradients")
        self._leaf_grads.append(grad.tensor)

    def zero_grad(self) -> None:
        """zero_grad(set_to_none=True)"""
        self.tape.drop(*self._leaf_grads)
        self._leaf_grads.clear()

    def take_gradients(self) -> list[Tensor]:
        """The parameters' gradients, handed to the caller: a loop that lets go of them later."""
        taken, self._leaf_grads = self._leaf_grads, []
        return taken

    def forget(self, result: Var, source: Var) -> None:
        """`result` of `source` does not lead to the loss: what was saved between them goes with it."""
        nodes = [result.node]
        while nodes:
            node = nodes.pop()
            if node is not None and node is not source.node:
                self.tape.drop(*node.saved)
                node.saved = []
                nodes += [target for target, _, _ in node.inputs]

    # -- operators: dtypes and views

    def cast(self, x: Var, width: int) -> Var:
        """x.to(dtype): x itself where the dtype is the same."""
        if x.width == width:
            return self.hold(x)
        return self.record(self.new(x.elements, width), [x], [], lambda g: [self.grad(g.elements, x.width)])

    def _lower(self, x: Var) -> Var:
        """Autocast's cast of an operand of a matrix product; of a weight it is made once and cached."""
        if not self.autocast or x.width == 2:
            return self.hold(x)
        if x in self._casts:
            return self.hold(self._casts[x])
        out = self.cast(x, 2)
        if x.leaf and x.node is not None:
            self.tape.book(out.tensor, "sae_activations")
            self._casts[x] = self.hold(out)
        return out

    def leave_autocast(self) -> None:
        """The context's end: the cached copies go, unless the graph holds them."""
        self.drop(*self._casts.values())
        self._casts.clear()

    def clone(self, x: Var) -> Var:
        """x.clone(): the gradient is handed on."""
        return self.record(self.new(x.elements, x.width), [x], [], lambda g: [self.same(g)])

    def unplayed(self, x: Var, saved: int) -> Var:
        """x after operations that save `saved` bytes in all, and are not played one by one."""
        bundle = self.new(saved if x.node is not None else 0, 1)
        out = self.detached(self.hold(x))
        self.record(out, [x], [bundle], lambda g: [self.same(g)])
        self.drop(bundle)
        return out

    def view(self, x: Var, elements: int) -> Var:
        """A slice of x. Its gradient is copied into zeros of x's size."""
        self.tape.hold(x.tensor)
        out = Var(x.tensor, elements, x.width)
        return self.record(out, [x], [], lambda g: [self.grad(x.elements, g.width)])

    def _mixed(self, *operands: Var | Grad) -> list[Tensor]:
        """CPU only: operands cast to the widest dtype of all, scratch of the kernel."""
        if not self.cpu_kernels:
            return []
        width = max(x.width for x in operands)
        return [self.tape.new(x.elements * width) for x in operands if x.width != width]

    # -- operators: arithmetic

    def add(self, a: Var, b: Var, *, minus: bool = False) -> Var:
        """a + b or a - b with broadcasting."""
        scratch = self._mixed(a, b)
        out = self.new(max(a.elements, b.elements), max(a.width, b.width))
        self.tape.drop(*scratch)

        def backward(g: Grad) -> list[Grad | None]:
            second = None
            if b.node is not None:
                second = self.grad(g.elements, g.width) if minus else self.same(g)
            return [self.same(g) if a.node is not None else None, second]

        return self.record(out, [a, b], [], backward)

    def mul(self, a: Var, b: Var) -> Var:
        """a * b with broadcasting."""
        scratch = self._mixed(a, b)
        out = self.new(max(a.elements, b.elements), max(a.width, b.width))
        self.tape.drop(*scratch)

        def product(g: Grad, other: Var, wanted: Var) -> Grad | None:
            if wanted.node is None:
                return None
            scratch = self._mixed(g, other)
            result = self.grad(g.elements, max(g.width, other.width))
            self.tape.drop(*scratch)
            return result

        def backward(g: Grad) -> list[Grad | None]:
            second = product(g, a, b)
            return [product(g, b, a), second]

        saved = [x for x, other in ((a, b), (b, a)) if other.node is not None]
        return self.record(out, [a, b], saved, backward)

    def scale(self, x: Var) -> Var:
        """x times a number, or negated."""
        return self.record(self.new(x.elements, x.width), [x], [], lambda g: [self.grad(g.elements, g.width)])

    def matmul(self, x: Var, weight: Var, rows: int, columns: int) -> Var:
        """x [rows, n] @ weight [n, columns]."""
        right = self._lower(weight)  # autocast's arguments are cast last to first, as gcc evaluates them
        left = self._lower(x)
        out = self.new(rows * columns, left.width)
        self._product("main")

        def backward(g: Grad) -> list[Grad | None]:
            of_right = self.grad(right.elements, g.width) if right.node is not None else None
            self._product("backward")
            return [self.grad(left.elements, g.width) if left.node is not None else None, of_right]

        saved = [y for y, other in ((left, right), (right, left)) if other.node is not None]
        self.record(out, [left, right], saved, backward)
        self.drop(left, right)
        return out

    def linear(self, x: Var, weight: Var, bias: Var, rows: int, columns: int) -> Var:
        """x @ weight + bias: the product is let go once the bias is added."""
        product = self.matmul(x, weight, rows, columns)
        out = self.add(product, bias)
        self.drop(product)
        return out

    def relu(self, x: Var) -> Var:
        out = self.new(x.elements, x.width)
        return self.record(out, [x], [out], lambda g: [self.grad(g.elements, g.width)])

    def exp(self, x: Var) -> Var:
        return self.relu(x)  # keeps its result, too

    def absolute(self, x: Var) -> Var:
        out = self.new(x.elements, x.width)

        def backward(g: Grad) -> list[Grad | None]:
            sign = self.tape.new(x.elements * x.width)
            result = self.grad(x.elements, x.width)
            self.tape.drop(sign)
            return [result]

        return self.record(out, [x], [x], backward)

    def norm(self, x: Var, rows: int, *, p: int = 2) -> Var:
        """x.norm(p, dim=-1) of `rows` rows."""
        out = self.new(rows, x.width)

        def backward(g: Grad) -> list[Grad | None]:
            unit = self.tape.new(x.elements * x.width)  # x / norm, or the sign
            mask = self.tape.new(rows if p == 2 else 0)
            result = self.grad(x.elements, x.width)
            self.tape.drop(mask, unit)
            return [result]

        return self.record(out, [x], [x, out], backward)

    def reciprocal(self, x: Var) -> Var:
        """1 / x: the reciprocal, times one."""
        inverse = self.new(x.elements, x.width)

        def backward(g: Grad) -> list[Grad | None]:
            negative, square = (self.tape.new(x.elements * x.width) for _ in range(2))
            result = self.grad(x.elements, x.width)
            self.tape.drop(negative, square)
            return [result]

        self.record(inverse, [x], [inverse], backward)
        out = self.scale(inverse)
        self.drop(inverse)
        return out

    def square(self, x: Var) -> Var:
        """x.pow(2)"""
        out = self.new(x.elements, x.width)

        def backward(g: Grad) -> list[Grad | None]:
            power, scaled = (self.tape.new(x.elements * x.width) for _ in range(2))
            result = self.grad(x.elements, x.width)
            self.tape.drop(power, scaled)
            return [result]

        return self.record(out, [x], [x], backward)

    def squared_error(self, prediction: Var, target: Var) -> Var:
        """mse_loss(prediction, target, reduction="none"); the target needs no gradient."""
        scratch = self._mixed(prediction, target)
        width = max(prediction.width, target.width)
        out = self.new(prediction.elements, width)
        self.tape.drop(*scratch)

        def backward(g: Grad) -> list[Grad | None]:
            result = self.grad(prediction.elements, prediction.width)
            scratch = self._mixed(prediction, target)
            if scratch and prediction.width < width:  # and the result is computed in the wider dtype first
                scratch.append(self.tape.new(prediction.elements * width))
            self.tape.drop(*scratch)
            return [result, None]

        return self.record(out, [prediction, target], [prediction, target], backward)

    # -- operators: reductions and selection

    def sum_rows(self, x: Var, rows: int) -> Var:
        """x.sum(dim=-1): its gradient is an expanded view."""
        return self.record(self.new(rows, x.width), [x], [], lambda g: [self.same(g, x.elements)])

    def mean(self, x: Var) -> Var:
        """x.mean() to a scalar."""
        return self.record(self.new(1, x.width), [x], [], lambda g: [self.grad(x.elements, x.width)])

    def topk(self, x: Var, chosen: int) -> tuple[Var, Var]:
        """Values and indices of `chosen` elements."""
        values, indices = self.new(chosen, x.width), self.new(chosen, INDEX)

        def backward(g: Grad) -> list[Grad | None]:
            result = self.grad(x.elements, g.width)
            self.scatter_scratch(result)
            return [result]

        self.record(values, [x], [indices], backward)
        return values, indices

    def scatter_scratch(self, into: Var | Grad) -> None:
        """CPU only: 16-bit numbers are scattered in a float32 copy (ScatterGatherKernel.cpp)."""
        if self.cpu_kernels and into.width == 2:
            self.tape.touch(4 * into.elements)

    def gather(self, x: Var, indices: Var) -> Var:
        """x.gather(-1, indices)"""
        out = self.new(indices.elements, x.width)
        return self.record(out, [x], [indices], lambda g: [self.grad(x.elements, g.width)])

    def scatter_into(self, zeros: Var, indices: Var, values: Var) -> Var:
        """zeros.scatter_(-1, indices, values): the zeros themselves, now with a gradient."""
        self.scatter_scratch(zeros)
        return self.record(zeros, [values], [indices], lambda g: [self.grad(values.elements, g.width)])

    def scatter_add(self, into: Var, indices: Var, values: Var) -> Var:
        """into.scatter_add_(-1, indices, values)"""

        def backward(g: Grad) -> list[Grad | None]:
            return [self.same(g), self.grad(values.elements, g.width)]

        self.scatter_scratch(into)
        return self.record(into, [into, values], [indices], backward)

    def select_rows(self, weight: Var, indices: Var, elements: int) -> Var:
        """weight[indices] of `elements` numbers: the gradient is as large as the weight."""
        out = self.new(elements, weight.width)
        return self.record(out, [weight], [indices], lambda g: [self.grad(weight.elements, g.width)])

    def scatter_copy(self, zeros: Var, indices: Var, values: Var) -> Var:
        """zeros.scatter(-1, indices, values): a copy."""
        return self.scatter_into(self.new(zeros.elements, zeros.width), indices, values)

    def where(self, mask: Var, x: Var) -> Var:
        """torch.where(mask, x, a number)"""
        out = self.new(x.elements, x.width)
        return self.record(out, [x], [mask], lambda g: [self.grad(x.elements, g.width)])
