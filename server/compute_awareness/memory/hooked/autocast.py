"""A call of HookedTransformer under torch.autocast without gradients, as SAELens' activation store makes it.

The transcription is that of training (`backward_model`), by CUDA's list of operators, with autograd off. Autocast keeps
its 16-bit copies of weights here, too: it asks whether a weight is a leaf that requires a gradient, not whether
gradients are being recorded (torch 2.13, ATen/autocast_mode.cpp `cached_cast`), and HookedTransformer's do.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..autograd.graph import Var
from ..tape import Tape
from .backward import Section
from .backward_model import unembed
from .run import Run
from .training import through_the_model


@dataclass(frozen=True)
class AutocastCall:
    """One `with torch.autocast(...): run_with_cache(...)`. Bytes, weights and buffers not among them."""

    peak: int
    """Above weights and buffers, from the tokens (int64) on."""
    retained: int
    """What the cache holds, which stays when autocast's copies of weights are gone."""


class _NoGrad(Section):
    """A section under torch.no_grad()."""

    def __init__(self, run: Run, selected: frozenset[str], cpu: bool) -> None:
        super().__init__(run, selected, cpu=cpu)
        self.graph.enabled = False


def call_under_autocast(run: Run, cpu: bool = False) -> AutocastCall:
    """Play `run`, a call in float32 whose `selects` says what is cached, under autocast to 16 bit.

    Args:
        cpu: also what only torch's CPU kernels allocate.
    """

    def logits(section: Section, owned: list[Var]) -> Var:
        result, residual = unembed(section, owned)
        del residual
        return result

    sections = through_the_model(
        run, logits if run.stop_at_layer is None else None, lambda names: _NoGrad(run, names, cpu), run.selects
    )
    tape = Tape()
    tape.new(8 * run.batch_size * run.seq_len)
    for section, _ in sections:
        tape.append(section.forward)
        tape.new(section.copies, "weight_copies")  # until autocast ends
    return AutocastCall(tape.peak, tape.by_component["activation_cache"])
