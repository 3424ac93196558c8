"""What every SAELens training step has in common: its shape, its parameters, the ledger, the loss.

Read off sae_lens 6.54.12: `process_sae_in`, `decode` and `training_forward_pass` of saes/sae.py. `architectures` plays
what is particular to each architecture; the backward pass follows from `memory.autograd`, and so does what is let go
when: names are held as long as SAELens holds them.

Symbols: B tokens per step, d d_in, f d_sae.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..autograd import ops
from ..autograd.graph import Graph, Var
from ..card.staging import Kernels
from ..tape import Tape, Tensor
from .matching_pursuit import Pursuit

FLOAT, INDEX = 4, 8
# Vectors of d_sae numbers beside W_enc, W_dec and b_dec: b_enc; b_enc, threshold; b_gate, b_mag, r_mag.
VECTORS = {
    "standard": 1, "topk": 1, "abstopk": 1, "batchtopk": 1, "matryoshka_batchtopk": 1, "jumprelu": 2, "gated": 3,
    "matching_pursuit": 0,
}  # fmt: skip


def sae_params(architecture: str, d_in: int, d_sae: int) -> int:
    """Parameters of an SAELens TrainingSAE: W_enc, W_dec, b_dec and the architecture's vectors of d_sae numbers.

    Source: `initialize_weights` of sae_lens 6.54.12. KeyError for an architecture not in `VECTORS`.
    """
    matrices = 1 if architecture == "matching_pursuit" else 2  # tied: W_enc is a view of W_dec
    return matrices * d_in * d_sae + d_in + VECTORS[architecture] * d_sae


def sae_bytes(architecture: str, d_in: int, d_sae: int, width: int) -> int:
    """Bytes of those parameters at `width` bytes each; JumpReLU's threshold is float32 whatever the SAE's dtype."""
    extra = (FLOAT - width) * d_sae if architecture == "jumprelu" else 0
    return width * sae_params(architecture, d_in, d_sae) + extra


class Ledger(Tape):
    """A tape that also remembers each component's largest size."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: Counter[str] = Counter()

    def new(self, nbytes: int, component: str = "temporaries") -> Tensor:
        tensor = super().new(nbytes, component)
        if self.by_component[component] > self.largest[component]:
            self.largest[component] = self.by_component[component]
        return tensor

    def book(self, tensor: Tensor, component: str) -> None:
        super().book(tensor, component)
        if self.by_component[component] > self.largest[component]:
            self.largest[component] = self.by_component[component]

    def append(self, section: Tape, times: int = 1) -> None:
        for name, size in section.at_peak.items():
            self.largest[name] = max(self.largest[name], self.by_component[name] + size)
        super().append(section, times)


@dataclass(frozen=True)
class Shape:
    """What a step is of. `width`: bytes per number of the SAE. `dead`: the top-k family's auxiliary loss runs.
    `pursuit`: of matching_pursuit. `logs`: every tenth step or so writes to wandb, which only matching_pursuit adds
    tensors for. `cpu_kernels` and `kernels`: count what only torch's CPU kernels, or only CUDA's take (see
    `Graph`)."""

    architecture: str
    d_in: int
    d_sae: int
    k: int
    batch: int
    width: int = FLOAT
    autocast: bool = False
    matryoshka_widths: tuple[int, ...] = ()
    pursuit: Pursuit | None = None
    logs: bool = False
    dead: bool = False
    cpu_kernels: bool = False
    kernels: Kernels | None = None

    @property
    def logged_bytes(self) -> int:
        """Of output.metrics after a step that logs: residual_norm, whose history keeps sae_in - sae_out."""
        return FLOAT * self.batch * (self.d_in + 1) if self.logs and self.pursuit is not None else 0

    @property
    def param_bytes(self) -> int:
        return sae_bytes(self.architecture, self.d_in, self.d_sae, self.width)

    @property
    def tensors(self) -> list[int]:
        """Bytes of each parameter; they add up to `param_bytes`."""
        matrix = self.d_in * self.d_sae * self.width
        matrices = [matrix] * (1 if self.architecture == "matching_pursuit" else 2)
        vectors = [self.d_sae * self.width] * VECTORS[self.architecture]
        if self.architecture == "jumprelu":
            vectors[-1] = self.d_sae * FLOAT
        return [*matrices, self.d_in * self.width, *vectors]


class Step:
    """One training step on a tape: the graph, the SAE's parameters, the batch.

    `linear`: encoder and decoder are torch.nn.Linear, whose weights are [out, in]; else it multiplies by matrices.
    """

    def __init__(self, tape: Tape, shape: Shape, batch: Tensor, *, linear: bool = False) -> None:
        self.tape, self.shape = tape, shape
        self.graph = Graph(
            tape, shape.cpu_kernels, kernels=shape.kernels, saved="sae_activations", copies="sae_activations"
        )
        self.rows, self.d_in, self.d_sae, self.width = shape.batch, shape.d_in, shape.d_sae, shape.width
        self.bd, self.bf = shape.batch * shape.d_in, shape.batch * shape.d_sae
        self.batch = self.graph.on(batch, (self.rows, self.d_in), FLOAT)
        self.parameters: list[Var] = []
        into, out_of = (self.d_in, self.d_sae), (self.d_sae, self.d_in)
        self.W_enc = self._parameter(*(out_of if linear else into))
        self.W_dec = self._parameter(*(into if linear else out_of))
        self.b_dec = self._parameter(self.d_in)
        self.dead_mask: Var | None = None

    def _parameter(self, *shape: int, width: int | None = None) -> Var:
        leaf = self.graph.parameter(shape, self.width if width is None else width)
        self.parameters.append(leaf)
        return leaf

    def vector(self, width: int | None = None) -> Var:
        """A parameter of d_sae numbers."""
        return self._parameter(self.d_sae, width=width)

    def take_gradients(self) -> list[Tensor]:
        """The parameters' gradients, handed to the caller: a loop that lets go of them later."""
        taken = [leaf.grad.hand_over() for leaf in self.parameters if leaf.grad is not None]
        self.zero_grad()
        return taken

    def zero_grad(self) -> None:
        """zero_grad(set_to_none=True)"""
        for leaf in self.parameters:
            leaf.grad = None

    # -- tensors of the step

    def features(self) -> Var:
        """[batch, d_sae] in the SAE's dtype, e.g. zeros."""
        return self.graph.new((self.rows, self.d_sae), self.width)

    # -- pieces of the forward pass that architectures share

    def centred(self) -> Var:
        """process_sae_in: the batch in the SAE's dtype, minus b_dec."""
        return ops.sub(ops.cast(self.batch, self.width), ops.neg(self.b_dec))

    def encode(self, x: Var, bias: Var) -> Var:
        return ops.add(ops.matmul(x, self.W_enc), bias)

    def decode(self, acts: Var) -> Var:
        return ops.add(ops.matmul(acts, self.W_dec), self.b_dec)

    def decoder_norm(self) -> Var:
        return ops.norm(self.W_dec)

    def over_decoder_norm(self, acts: Var) -> Var:
        """acts * (1 / W_dec.norm(dim=-1))"""
        norm = self.decoder_norm()
        inverse = ops.neg(ops.reciprocal(norm))
        del norm
        return ops.mul(acts, inverse)

    def loss(self, per_item: Var) -> Var:
        """per_item.sum(dim=-1).mean()"""
        return ops.average(ops.sum_over(per_item))

    def total(self, losses: list[Var]) -> Var:
        """Their sum; the list is empty afterwards."""
        total = losses.pop(0)
        while losses:
            total = ops.add(total, losses.pop(0))
        return total
