"""FSDP2 in a training step: `fully_shard` on every block and on the model, one process for each card.

Each card keeps its share of parameters, gradients and optimizer state. Everything else that is on it is played here, at
the place in the step where torch does it: torch 2.13 distributed/fsdp/_fully_shard/_fsdp_state.py, _fsdp_param_group.py
and _fsdp_collectives.py, with fully_shard's defaults (no MixedPrecisionPolicy, no CPU offload).

- A group's parameters are gathered in a flat buffer and copied out of it. In forward the buffer stays until the next
  block's has been filled (`all_gather_state`): two are there for a moment, the last block's through head and loss.
  In backward it goes after the copy, and the next block's is filled at once (`_backward_prefetch`): the last block's
  with the first gradient, before the loss's own backward.
- A block is whole during its forward and its backward. What no block has (embedding, head, last norm) belongs to the
  root, which is whole from the beginning of forward to the end of backward.
- After a block's backward its gradients, whole until then, are copied into the input of the reduce-scatter. That stays
  until the block before has come as far (`reduce_scatter_states`). What is kept of them is one tensor, the share.
- The root's gradients stay whole until all blocks are through, and are reduced last.

Each tensor is split by rows, the last part padded, in all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .autograd.graph import Grads, Graph, Node, Var
from .autograd.shapes import size_of

Shaped = tuple[tuple[int, ...], int]
"""A parameter: its shape, and bytes per element."""


def local_elements(shape: tuple[int, ...], n_devices: int) -> int:
    """Elements of one card's share: so many rows that `n_devices` times as many are enough."""
    return -(-shape[0] // n_devices) * size_of(shape[1:])


@dataclass(frozen=True)
class Group:
    """The parameters that are gathered and reduced together: of a block, or of the root. Bytes, padding included."""

    share: int
    """On one card."""
    whole: int
    padded: int
    """Of `whole`, the tensors whose rows do not divide: torch's CPU kernel pads a copy of each (`_chunk_cat`)."""

    @classmethod
    def of(cls, parameters: Iterable[Shaped], n_devices: int) -> Group:
        share = padded = 0
        for shape, width in parameters:
            local = width * local_elements(shape, n_devices)
            share += local
            padded += local * n_devices if shape[0] % n_devices else 0
        return cls(share, share * n_devices, padded)


class Shards:
    """What FSDP2 puts on a card and takes away, on the tape of a training step."""

    def __init__(self, graph: Graph, root: Group, block: Group) -> None:
        self.graph, self.root, self.block = graph, root, block
        self.shares: list[Var] = []
        """Gradients, a tensor for each group."""
        self._buffer: Var | None = None
        self._prefetched: Var | None = None
        self._whole_root: Var | None = None
        self._whole_block: Var | None = None
        self._reducing: Var | None = None

    def before_root(self) -> None:
        """The model's pre-forward hook."""
        buffer = self._new(self.root.whole)
        self._whole_root = self._new(self.root.whole)
        self._buffer = buffer

    def before_block(self, x: Var, reduce: Callable[[], Iterable[Var]]) -> Var:
        """A block's pre-forward hook; returns its input. `reduce` gives the block's parameters, when its backward is
        through."""
        if not self.graph.recomputing:  # where the block is whole already
            buffer = self._new(self.block.whole)
            self._buffer = None
            self._whole_block = self._new(self.block.whole)
            self._buffer = buffer

        def backward(node: Node, grads: Grads) -> Grads:
            self._whole_block = None
            self._reduce(self.block, reduce())
            return [grads[0]]

        out = x.alias()
        self.graph.record([x], [out], backward)  # RegisterPostBackwardFunction
        return out

    def after_block(self, out: Var, first: bool) -> None:
        """A block's post-forward hook. `first`: no block was before it, so its backward prefetches none."""
        if self.graph.recomputing:
            return
        self._whole_block = None
        if out.node is not None:
            out.node.hook = self._unshard if first else self._before_backward

    def after_root(self, loss: Var) -> None:
        """The model's post-forward hook."""
        self._buffer = None
        if loss.node is not None:
            loss.node.hook = self._prefetch

    def after_backward(self, parameters: Iterable[Var]) -> None:
        """The callback at the end of backward; `parameters` are the root's."""
        self._whole_root = None
        self._reduce(self.root, parameters)
        self._reducing = None

    def _prefetch(self) -> None:
        self._prefetched = self._new(self.block.whole)

    def _before_backward(self) -> None:
        self._unshard()
        self._prefetch()

    def _unshard(self) -> None:
        self._whole_block = self._new(self.block.whole)
        self._prefetched = None

    def _reduce(self, group: Group, parameters: Iterable[Var]) -> None:
        """post_backward: the whole gradients become a share."""
        self._reducing = None
        collected = self._new(group.whole)
        if self.graph.cpu and group.padded:
            self.graph.touch(group.padded)
        for leaf in parameters:
            leaf.grad = None
        self.shares.append(self.graph.new((group.share,), 1, None, "gradients"))
        self._reducing = collected

    def _new(self, nbytes: int) -> Var:
        return self.graph.new((nbytes,), 1)


def loading_bytes(root: Group, block: Group, n_layers: int) -> int:
    """Bytes on a card while the model is sharded: the shares that are there, and one block, or the root, whole."""
    return root.share + n_layers * block.share + max(root.whole, block.whole)


def stranded_bytes(root: Group, block: Group) -> int:
    """What the caching allocator can keep on CUDA for the stream on which buffers are gathered, while one block's is
    there: it holds the root's and a block's, or two blocks', at the beginning of forward."""
    return max(root.whole, block.whole)
