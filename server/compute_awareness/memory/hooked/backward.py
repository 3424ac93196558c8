"""HookedTransformer with gradients, section by section: embedding, blocks, unembedding with what comes after it.

Each section is played forward and backward once per kind, however many blocks there are. Between sections go the
residual stream (forward) and its gradient (backward). The forward half of a section and its backward half are tapes
of their own: a tensor that autograd saved is allocated on the one and let go on the other.
"""

from __future__ import annotations

from ..autograd.graph import Autocast, Grads, Graph, Node, Storage, Var
from ..autograd.shapes import Shape
from ..card.staging import Kernels
from ..tape import Tape, Tensor
from .run import Run


class _Current(Tape):
    """The tape that is being written: that of the forward half first, then that of the backward half."""

    def __init__(self) -> None:
        super().__init__()
        self.at = Tape()

    def new(self, nbytes: int, component: str = "temporaries") -> Tensor:
        return self.at.new(nbytes, component)

    def book(self, tensor: Tensor, component: str) -> None:
        self.at.book(tensor, component)

    def drop(self, *tensors: Tensor) -> None:
        self.at.drop(*tensors)

    def touch(self, nbytes: int, component: str = "temporaries") -> None:
        self.at.touch(nbytes, component)


class Section:
    """One section: its graph, its two tapes, what its hooks keep.

    Args:
        selected: the hooks the cache keeps, by their names within the section.
        backward_too: and their gradients.
        accumulated: parameters have gradients already, which this pass adds to.
        cpu: also what only torch's CPU kernels allocate.
        kernels: what CUDA's kernels take beside their results, where that is played as well.
    """

    def __init__(
        self,
        run: Run,
        selected: frozenset[str] = frozenset(),
        *,
        backward_too: bool = False,
        accumulated: bool = False,
        cpu: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        self.run = run
        self.accumulated = accumulated
        self.selected = selected
        self.backward_too = backward_too
        self._tape = _Current()
        self.graph = Graph(self._tape, cpu, kernels=kernels)
        if run.autocast:
            self.graph.autocast = Autocast(cuda=True)
        self.copies = 0
        """Bytes of weights that autocast copied for this section, no node saved, and that go when it ends."""
        self.forward: Tape = self._tape.at
        self.backward: Tape = Tape()
        self.cache: dict[str, Var] = {}
        self.leaves: dict[str, Var] = {}
        self.keep: list[Var] = []
        self.boundary: Grads = []

    repeats = 1
    """Query heads for which the weights of one key head are repeated (ungroup_grouped_query_attention)."""

    # -- what the transcription calls

    def parameter(self, *shape: int, name: str = "") -> Var:
        """A weight; its gradient stays. One that is used more than once has a `name`."""
        key = name or str(len(self.leaves))
        if key not in self.leaves:
            leaf = self.leaves[key] = self.graph.parameter(shape, self.run.width, self.run.trainable)
            if self.accumulated:  # the gradient of an earlier batch is there, counted elsewhere
                leaf.grad = self.constant(*shape)
        return self.leaves[key]

    def constant(self, *shape: int) -> Var:
        """A buffer."""
        return self.graph.parameter(shape, self.run.width, trainable=False)

    def new(self, shape: Shape, width: int, component: str = "temporaries") -> Var:
        return self.graph.new(shape, width, component=component)

    def hook(self, name: str, x: Var) -> Var:
        """A HookPoint. The cache keeps `detach()` of the activation; with a backward hook also of its gradient."""
        if name not in self.selected:
            return x
        self.cache[name] = x.alias().book("activation_cache")
        if not (self.backward_too and x.needs_grad):
            return x
        out, cache = x.alias(), self.cache

        def backward(node: Node, grads: Grads) -> Grads:
            g = grads[0]
            assert g is not None
            cache[name + "_grad"] = g.alias().book("activation_cache")
            return [g]

        self.graph.record([x], [out], backward)
        return out

    # -- what the sections are joined with

    def receive(self, resid: Var) -> list[Var]:
        """The residual stream of the section before, counted there, in a list that its one owner empties."""
        entry = resid.storage.entry
        component = "temporaries" if entry is None else entry.component
        storage = Storage(self._tape, self._tape.at.adopt(resid.elements * resid.width, component, entry))
        x = Var(self.graph, storage, resid.shape, resid.stride, resid.width)
        if resid.storage.vars > 1:  # a cache there holds it, too
            self.keep.append(x.alias())
        if resid.needs_grad:
            boundary = self.boundary

            def backward(node: Node, grads: Grads) -> Grads:
                boundary.append(grads[0])
                return []

            x.node, x.needs_grad = Node(0, backward, [], 1), True
        return [x]

    def turn(self) -> None:
        """The forward half is over; autocast itself lasts until the loss (see `copies`)."""
        if self.graph.autocast is not None:
            self.copies = self.graph.autocast.unsaved
            self.graph.autocast = None
        self._tape.at = self.backward

    def go_back(self, out: Var, gradient: Var | None) -> Var | None:
        """Play the backward half from the section's output and its gradient, which the section after it made.

        Returns the gradient of the section's input; None for the embedding.
        """
        first = None
        if gradient is not None:
            entry = gradient.storage.entry
            assert entry is not None
            adopted = self.backward.adopt(entry.bytes, entry.component, entry)
            first = Var(self.graph, Storage(self._tape, adopted), gradient.shape, gradient.stride, gradient.width)
            if gradient.storage.vars > 1:
                self.keep.append(first.alias())
        holder = [first]
        del first
        self._backward(out, holder)
        return self.boundary[0] if self.boundary else None

    def close(self) -> None:
        """Both halves are as they are to be: what becomes of this section's tensors later on is on neither."""
        self._tape.at = Tape()

    def _backward(self, out: Var, gradient: list[Var | None]) -> None:
        self.graph.backward(out, gradient.pop())
