"""What the operators of an SAE's training step allocate, forward and backward; `sae_architectures` plays them.

Read off sae_lens 6.54.12 (saes/sae.py, saes/topk_sae.py); what torch 2.13's backward of each operator allocates and
lets go of, and when, is what its profiler shows. float32, dense activations, no autocast.

Symbols: B tokens per step, d d_in, f d_sae; w = 4*d*f, bf = 4*B*f, bd = 4*B*d bytes. Left out: vectors of B numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .tape import Tape, Tensor

FLOAT, INDEX = 4, 8
# Vectors of d_sae numbers beside W_enc, W_dec and b_dec: b_enc; b_enc, threshold; b_gate, b_mag, r_mag.
VECTORS = {"standard": 1, "topk": 1, "batchtopk": 1, "jumprelu": 2, "gated": 3}


def sae_params(architecture: str, d_in: int, d_sae: int) -> int:
    """Parameters of an SAELens TrainingSAE: W_enc, W_dec, b_dec and the architecture's vectors of d_sae numbers.

    Source: `initialize_weights` of sae_lens 6.54.12. KeyError for an architecture not in `VECTORS`.
    """
    return 2 * d_in * d_sae + d_in + VECTORS[architecture] * d_sae


class Ledger(Tape):
    """A tape that also remembers each component's largest size and in which phase the peak stood."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: Counter[str] = Counter()
        self.phase = ""
        self.worst_phase = ""

    def new(self, nbytes: int, component: str = "temporaries") -> Tensor:
        before = self.peak
        tensor = super().new(nbytes, component)
        self.largest[component] = max(self.largest[component], self.by_component[component])
        if self.peak > before:
            self.worst_phase = self.phase
        return tensor


@dataclass(frozen=True)
class Shape:
    """What a step is of. `dead`: the top-k family's auxiliary loss runs. `cpu_casts`: torch's CPU kernels, which
    cast the bool of a mixed product to float first; CUDA casts inside the kernel (ATen/TensorIterator.h)."""

    architecture: str
    d_in: int
    d_sae: int
    k: int
    batch: int
    dead: bool = False
    cpu_casts: bool = True


class Operations:
    """What the operators of a step allocate on `tape` and what their backward lets go of."""

    def __init__(self, tape: Ledger, shape: Shape) -> None:
        self.tape, self.shape = tape, shape
        self.w = FLOAT * shape.d_in * shape.d_sae
        self.bf = FLOAT * shape.batch * shape.d_sae
        self.bd = FLOAT * shape.batch * shape.d_in
        self.f = FLOAT * shape.d_sae
        self.mask = shape.batch * shape.d_sae  # bools [B, f]
        self.grads: list[Tensor] = []

    def keep(self, nbytes: int) -> Tensor:
        return self.tape.new(nbytes, "sae_activations")

    def gradient(self, nbytes: int) -> None:
        self.grads.append(self.tape.new(nbytes, "gradients"))

    # -- pieces of the forward pass

    def linear(self, nbytes: int) -> Tensor:
        """x @ W + b: the product is let go once the bias is added."""
        product = self.tape.new(nbytes)
        result = self.keep(nbytes)
        self.tape.drop(product)
        return result

    def reconstruct(self) -> tuple[Tensor, Tensor]:
        """sae_out and the element-wise squared error, which a frame holds until the losses are added up."""
        return self.linear(self.bd), self.tape.new(self.bd)

    def by_decoder_norm(self) -> list[Tensor]:
        """acts * (1 / W_dec.norm()): norm, reciprocal and their product are saved, and so is the scaled result."""
        return [*(self.keep(self.f) for _ in range(3)), self.keep(self.bf)]

    # -- pieces of the backward pass

    def product_backward(self) -> Tensor:
        """Gradient of x in x * v with v [f] broadcast over the batch: v's gradient is whole before it is summed."""
        grad_x, whole = self.tape.new(self.bf), self.tape.new(self.bf)
        self.tape.touch(self.f)
        self.tape.drop(whole)
        return grad_x

    def norm_backward(self, *saved: Tensor, first: bool) -> None:
        """Through W_dec.norm(dim=-1). `first`: nothing has reached W_dec's gradient yet, so this one stays."""
        tape = self.tape
        grad_norm = tape.new(self.f)
        unit = tape.new(self.w)
        if first:
            self.gradient(self.w)
        else:
            tape.touch(self.w + self.shape.d_sae)
        tape.drop(unit, grad_norm, *saved)

    def reciprocal_backward(self, scale: list[Tensor]) -> Tensor:
        """Through 1 / norm; returns the saved norm, which is needed once more."""
        norm, reciprocal, product = scale
        self.tape.drop(product)
        self.tape.touch(3 * self.f)
        self.tape.drop(reciprocal)
        return norm

    def decoder_backward(self, grad_out: Tensor, first: bool) -> Tensor:
        """Through acts @ W_dec: the gradient of acts. Adds to W_dec's gradient unless it is the first."""
        tape = self.tape
        extra = None
        if first:
            self.gradient(self.w)
        else:
            extra = tape.new(self.w)
        grad_acts = tape.new(self.bf)
        tape.drop(grad_out)
        if extra is not None:
            tape.drop(extra)
        return grad_acts

    def encoder_backward(self, grad_pre: Tensor, centred: Tensor, first: bool = True) -> None:
        """Through (x - b_dec) @ W_enc + b: gradients of b and W_enc, and of x, which only b_dec needs."""
        tape = self.tape
        self.gradient(self.f)
        extra = None
        if first:
            self.gradient(self.w)
        else:
            extra = tape.new(self.w)
        grad_in = tape.new(self.bd)
        tape.drop(grad_pre, centred)
        if extra is not None:
            tape.drop(extra)
        tape.touch(self.bd)
        tape.drop(grad_in)

    def square_backward(self, difference: Tensor) -> Tensor:
        """Through (a - b).pow(2): the power, the scaled power and the gradient at once."""
        tape = self.tape
        scratch = [tape.new(self.bd), tape.new(self.bd)]
        grad = tape.new(self.bd)
        tape.drop(*scratch, difference)
        return grad
