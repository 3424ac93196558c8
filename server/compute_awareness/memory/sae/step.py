"""What every SAELens training step has in common: its shape, its parameters, the ledger, the loss.

Read off sae_lens 6.54.12: `process_sae_in`, `decode` and `training_forward_pass` of saes/sae.py. `sae_architectures`
plays what is particular to each architecture, `sae_autograd` the backward pass.

Symbols: B tokens per step, d d_in, f d_sae.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..card.staging import Kernels
from ..tape import Tape, Tensor
from .autograd import Graph, Var
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
    `autograd.Graph`)."""

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
    """One training step on a tape: the graph, the SAE's parameters, the batch."""

    def __init__(self, tape: Tape, shape: Shape, batch: Tensor) -> None:
        self.tape, self.shape = tape, shape
        self.graph = graph = Graph(tape, cpu_kernels=shape.cpu_kernels, kernels=shape.kernels, autocast=shape.autocast)
        self.rows, self.d_in, self.d_sae, self.width = shape.batch, shape.d_in, shape.d_sae, shape.width
        self.bd, self.bf = shape.batch * shape.d_in, shape.batch * shape.d_sae
        self.batch = Var(batch, self.bd, FLOAT)
        self.W_enc = graph.parameter(shape.d_in * shape.d_sae, shape.width)
        self.W_dec = graph.parameter(shape.d_in * shape.d_sae, shape.width)
        self.b_dec = graph.parameter(shape.d_in, shape.width)
        self.dead_mask: Var | None = None

    def vector(self, width: int | None = None) -> Var:
        """A parameter of d_sae numbers."""
        return self.graph.parameter(self.d_sae, self.width if width is None else width)

    # -- pieces of the forward pass that architectures share

    def centred(self) -> Var:
        """process_sae_in: the batch in the SAE's dtype, minus b_dec."""
        graph = self.graph
        x = graph.cast(self.batch, self.width)
        bias = graph.scale(self.b_dec)
        out = graph.add(x, bias, minus=True)
        graph.drop(x, bias)
        return out

    def encode(self, x: Var, bias: Var) -> Var:
        return self.graph.linear(x, self.W_enc, bias, self.rows, self.d_sae)

    def decode(self, acts: Var) -> Var:
        return self.graph.linear(acts, self.W_dec, self.b_dec, self.rows, self.d_in)

    def decoder_norm(self) -> Var:
        return self.graph.norm(self.W_dec, self.d_sae)

    def over_decoder_norm(self, acts: Var) -> Var:
        """acts * (1 / W_dec.norm(dim=-1))"""
        norm = self.decoder_norm()
        inverse = self.graph.reciprocal(norm)
        self.graph.drop(norm)
        out = self.graph.mul(acts, inverse)
        self.graph.drop(inverse)
        return out

    def loss(self, per_item: Var) -> Var:
        """per_item.sum(dim=-1).mean()"""
        rows = self.graph.sum_rows(per_item, self.rows)
        out = self.graph.mean(rows)
        self.graph.drop(rows)
        return out

    def plus(self, total: Var, *losses: Var) -> Var:
        """The total with more losses added. Takes over all of them."""
        for loss in losses:
            summed = self.graph.add(total, loss)
            self.graph.drop(total, loss)
            total = summed
        return total
