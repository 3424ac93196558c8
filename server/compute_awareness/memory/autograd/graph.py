"""A small symbolic autograd: tensors without contents whose allocations are written on a tape.

A model's forward is transcribed almost word for word with the operators of `ops` and `views`; each allocates its
output on the tape, and records a `Node` with what torch's autograd saves. `Graph.backward` then walks the nodes as
torch's engine does (`engine`). So what is alive when follows from the library's code and from torch's rules, and no
formula is needed.

A storage is let go when the last `Var` on it goes, that is by Python's own reference counts, exactly as in torch:
write `x = f(x)` where the library does, hold a name as long as the library holds it. (An operator never rebinds its
arguments, as `Module.__call__` holds them.) Do not keep a `Var` in a reference cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..card.staging import Kernels
from ..tape import Tape, Tensor
from .shapes import Shape, contiguous_stride, like_stride, same_layout, size_of

Grads = list["Var | None"]
Backward = Callable[["Node", Grads], Grads]
Edge = tuple["Node | Var", int, Shape, int]
"""Where a gradient goes: a node or a leaf, which of its outputs, and the shape and width of that."""
FLOAT32, HALF, BOOL, INT64 = 4, 2, 1, 8
_RNG_STATE = 5056


class Storage:
    """Bytes on the tape, alive as long as a `Var` is on them. `entry` None: counted elsewhere (weights, buffers)."""

    __slots__ = ("entry", "tape", "vars")

    def __init__(self, tape: Tape, entry: Tensor | None) -> None:
        self.tape, self.entry, self.vars = tape, entry, 0


class Var:
    """A tensor without contents: storage, shape, stride, bytes per element, and where it comes from."""

    __slots__ = (
        "grad",
        "graph",
        "held",
        "index",
        "is_view",
        "needs_grad",
        "node",
        "shape",
        "storage",
        "stride",
        "width",
    )

    def __init__(
        self, graph: Graph, storage: Storage, shape: Shape, stride: Shape, width: int, is_view: bool = False
    ) -> None:
        self.graph, self.storage, self.shape, self.stride, self.width = graph, storage, shape, stride, width
        self.node: Node | None = None
        self.index = 0
        self.needs_grad = False
        self.grad: Var | None = None
        self.is_view = is_view  # torch's views keep their base alive, so nothing is added into them in place
        self.held = 0  # slots of the engine that hold it: torch's use_count during backward
        storage.vars += 1

    def __del__(self) -> None:
        storage = self.storage
        storage.vars -= 1
        if storage.vars == 0 and storage.entry is not None:
            storage.tape.drop(storage.entry)

    @property
    def elements(self) -> int:
        return size_of(self.shape)

    @property
    def is_contiguous(self) -> bool:
        return same_layout(self.shape, self.stride, contiguous_stride(self.shape))

    @property
    def is_dense(self) -> bool:
        return same_layout(self.shape, self.stride, like_stride(self.shape, self.stride))

    def alias(self) -> Var:
        """`detach()`: the same storage, no history."""
        return Var(self.graph, self.storage, self.shape, self.stride, self.width)

    def book(self, component: str) -> Var:
        """From now on the storage counts as `component`."""
        if self.storage.entry is not None:
            self.storage.tape.book(self.storage.entry, component)
        return self

    def hand_over(self) -> Tensor:
        """What it is on the tape, for someone who holds that, too, and lets it go there with `drop`."""
        assert self.storage.entry is not None, "counted elsewhere"
        return self.storage.tape.hold(self.storage.entry)


class Node:
    """One operation in the graph: what it saved and how to go back through it.

    `apply(node, grads)` gets the gradients of the outputs and returns those of the inputs (None: not needed);
    `needs[i]` says whether input i needs one, `saved` are the saved tensors. `apply` must not close over a `Var`.
    """

    __slots__ = ("apply", "edges", "frame", "hook", "needs", "outputs", "saved", "seq", "waiting")

    def __init__(self, seq: int, apply: Backward, inputs: Sequence[Var | None], outputs: int) -> None:
        self.seq, self.apply, self.outputs = seq, apply, outputs
        self.edges: list[Edge | None] = []
        self.needs: list[bool] = []
        for v in inputs:
            needed = v is not None and v.needs_grad
            self.needs.append(needed)
            self.edges.append((v.node or v, v.index, v.shape, v.width) if v is not None and needed else None)
        self.saved: list[Var] = []
        self.frame: Frame | None = None
        self.waiting = 0
        self.hook: Callable[[], None] | None = None
        """`Tensor.register_hook` on an output: runs before the node does, and before it is recomputed."""


class Autocast:
    """One `with torch.autocast(...)`: whose list of operators is in force, and the weights cast in it so far.

    Source: torch 2.13 ATen/autocast_mode.h and autocast_mode.cpp. `cuda`: pow, rsqrt, softmax and layer_norm go up to
    float32, which the CPU's list leaves as they are. Both lists lower matrix products and attention, and keep the
    copy of a float32 leaf that needs a gradient until the context ends.
    """

    __slots__ = ("cuda", "unplayed", "weights")

    def __init__(self, cuda: bool) -> None:
        self.cuda = cuda
        self.weights: dict[int, Var] = {}
        self.unplayed: list[Var] = []
        """Copies of the weights of layers that `unplayed` stands for."""

    @property
    def unsaved(self) -> int:
        """Bytes of the copies that no node saved."""
        return sum(v.elements * v.width for v in self.weights.values() if v.storage.vars == 1)


class Frame:
    """A checkpointed call: its function and input, and the nodes whose saved tensors wait to be recomputed."""

    __slots__ = ("autocast", "call", "nodes", "rng", "x")

    def __init__(self, call: Callable[[Var], Var], x: Var) -> None:
        self.call, self.x = call, x
        self.autocast = x.graph.autocast.cuda if x.graph.autocast is not None else None
        # the state of the CPU's generator, in RAM
        self.rng = x.graph.new((_RNG_STATE,), 1) if x.graph.cpu else None
        self.nodes: list[Node] = []


class _Recomputed(Exception):
    """All that was saved is there again: the rest of the forward need not run (early_stop)."""


class Graph:
    """The tape, the grad mode and the engine.

    Args:
        cpu: also play what only torch's CPU kernels allocate (casts of mixed operands, float noise of dropout, scratch
            of some kernels): for comparisons with runs on the CPU. Estimates leave it off.
        saved: component of what is saved for backward.
        copies: component of the copies of weights that autocast keeps.
    """

    def __init__(
        self,
        tape: Tape | None = None,
        cpu: bool = False,
        *,
        saved: str = "activations",
        copies: str = "weight_copies",
    ) -> None:
        self.tape = tape if tape is not None else Tape()
        self.cpu = cpu
        self.saved_as, self.copies_as = saved, copies
        self.flash_only = cpu
        """Attention runs in the flash kernel whatever the dtype, as on the CPU and the meta device. CUDA's flash kernel
        takes 16 bit without a mask, and the memory-efficient one all else."""
        self.enabled = True
        self.kept: list[list[Tensor]] = []
        """Gradients of each layer that `unplayed` stands for."""
        self.watched: list[Tensor] | None = None
        """Tensors made since somebody wanted to know (`unplayed.Watch`)."""
        self.recomputed: list[int] = []
        """Bytes of each tensor that the latest recomputation of a checkpointed call left for backward."""
        self.autocast: Autocast | None = None
        self.kernels: Kernels | None = None
        """What CUDA's kernels take beside their results, where that is played as well."""
        self.goes_back = False
        """Whether the backward pass runs, which on CUDA has a thread of its own."""
        self.reduced = False
        """DistributedDataParallel's `gradient_as_bucket_view`: a leaf's gradient is in its bucket as soon as it is
        whole, and lives on as a view of it (counted elsewhere); what autograd made is let go."""
        self._seq = 0
        self._frame: Frame | None = None
        self._filling: list[Node] | None = None

    # -- tensors

    def new(self, shape: Shape, width: int, stride: Shape | None = None, component: str = "temporaries") -> Var:
        """Allocate a tensor."""
        entry = self.tape.new(size_of(shape) * width, component)
        if self.watched is not None:
            self.watched.append(entry)
        storage = Storage(self.tape, entry)
        return Var(self, storage, shape, stride if stride is not None else contiguous_stride(shape), width)

    def parameter(self, shape: Shape, width: int, trainable: bool = True) -> Var:
        """A weight (or buffer): counted elsewhere, with a gradient in `.grad` after a backward if trainable."""
        leaf = Var(self, Storage(self.tape, None), shape, contiguous_stride(shape), width)
        leaf.needs_grad = trainable
        return leaf

    def on(self, tensor: Tensor, shape: Shape, width: int) -> Var:
        """A tensor that the tape has already; whoever holds it there goes on holding it."""
        return Var(self, Storage(self.tape, self.tape.hold(tensor)), shape, contiguous_stride(shape), width)

    def touch(self, nbytes: int) -> None:
        """Scratch that comes and goes."""
        self.tape.touch(nbytes)

    def multiplied(self) -> None:
        """A matrix product's result is made, and its kernel is about to run."""
        if self.kernels is not None:
            self.kernels.product(self.tape, "backward" if self.goes_back else "main")

    @property
    def recomputing(self) -> bool:
        """Whether a checkpointed call is being run again."""
        return self._filling is not None

    @contextmanager
    def grad_mode(self, enabled: bool) -> Iterator[None]:
        before, self.enabled = self.enabled, enabled
        try:
            yield
        finally:
            self.enabled = before

    @contextmanager
    def autocasting(self, cuda: bool | None) -> Iterator[None]:
        """`with torch.autocast("cuda" or "cpu")` to a dtype of 16 bit; None: no autocast."""
        before, self.autocast = self.autocast, None if cuda is None else Autocast(cuda)
        try:
            yield
        finally:
            self.autocast = before

    # -- forward

    def record(
        self, inputs: Sequence[Var | None], outputs: Sequence[Var], apply: Backward, saved: Sequence[Var] = ()
    ) -> None:
        """An operation from `inputs` to `outputs` with a backward; without grad mode or trainable input: nothing.

        `saved` stay alive until the node's backward has run.
        """
        if not self.enabled:
            return
        for v in inputs:
            if v is not None and v.needs_grad:
                break
        else:
            return
        v = None  # nobody else holds it
        self._seq += 1
        node = Node(self._seq, apply, inputs, len(outputs))
        if self._filling is not None:
            self._refill(saved)
        elif self._frame is not None:
            node.frame = self._frame
            self._frame.nodes.append(node)
            node.waiting = len(saved)
        else:
            for v in saved:
                self.save(node, v)
        for index, out in enumerate(outputs):
            out.node, out.index, out.needs_grad = node, index, True

    def save(self, node: Node, v: Var) -> None:
        """`node` keeps `v` for its backward."""
        entry = v.storage.entry
        if entry is not None and entry.component == "temporaries":
            self.tape.book(entry, self.saved_as)
        node.saved.append(v.alias())

    def checkpoint(self, call: Callable[[Var], Var], x: Var) -> Var:
        """torch.utils.checkpoint (use_reentrant=False): nothing that `call(x)` saves is kept; the first node of it in
        backward runs it again and fills in what all its nodes saved. `x` is held until the last of them is through.

        `call` must not close over a `Var` other than weights and tensors that live throughout anyway.
        """
        if not self.enabled:
            return call(x)
        self._frame = Frame(call, x)
        try:
            return call(x)
        finally:
            self._frame = None

    def before(self, inputs: Sequence[Var | None], saved: Sequence[Var]) -> None:
        """To be called before an operation that saves inputs only allocates its output: autograd saves inputs before
        the kernel runs, so where they are the last that a recomputation waits for, the output is never made."""
        slots = self._filling
        if slots is not None and len(slots) <= len(saved) and any(v is not None and v.needs_grad for v in inputs):
            self._refill(saved)

    def _refill(self, saved: Sequence[Var]) -> None:
        slots = self._filling
        assert slots is not None
        for v in saved:
            node = slots.pop()
            self.save(node, v)
            if not slots:
                raise _Recomputed

    def recompute(self, frame: Frame) -> None:
        """Runs the frame's forward again, up to the last tensor that it saved."""
        self._filling = [node for node in frame.nodes for _ in range(node.waiting)][::-1]
        for node in frame.nodes:
            node.waiting = 0
        frame.nodes = []
        fork = self.new((_RNG_STATE,), 1) if self.cpu else None
        before, self.watched = self.watched, []
        try:
            with self.grad_mode(True), self.autocasting(frame.autocast):
                frame.call(frame.x)
        except _Recomputed:
            pass
        finally:
            self._filling = None
            self.recomputed = [tensor.bytes for tensor in self.watched if tensor.refs]
            self.watched = before
            del fork

    # -- backward

    def backward(self, root: Var, grad: Var | None = None) -> None:
        """`root.backward(grad)`: leaves get `.grad`, saved tensors go. The caller may still hold `root`."""
        from .engine import run  # which needs the operators, and they need this module

        with self.grad_mode(False):
            first = [grad if grad is not None else self.new(root.shape, root.width)]
            del grad
            self.goes_back = True
            run(root, first)
            self.goes_back = False
