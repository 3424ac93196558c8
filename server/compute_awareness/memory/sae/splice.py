"""A forward pass of a HookedTransformer with something run at one hook, whose result takes the hook's place.

Used for an SAE spliced in: SAELens' evaluation and HookedSAETransformer (sae_lens 6.54.12).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ... import hook_names
from ..hooked.run import Pass, Run
from ..hooked.transformer import _block, _embed, _unembed, family, forward
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .inference import Use, attached

# Plays what happens at the hook on the given tape, from the activation that is read and the one that is there; gives
# back what takes the place of the latter.
Replacement = Callable[[Tape, Tensor, Tensor], Tensor]


class _Spliced(Pass):
    """One section in which a hook's function allocates. `reads`: another hook whose activation it was given."""

    def __init__(self, run: Run, name: str, replacement: Replacement, reads: str) -> None:
        super().__init__(run, None)
        self.name, self.replacement, self.reads = name, replacement, reads
        self.captured: Tensor | None = None
        self.late: list[Tensor] = []

    def hook(self, name: str, tensor: Tensor) -> Tensor:
        if name == self.reads:
            self.captured = self.tape.hold(tensor)
        if name == self.name:
            captured, self.captured = self.captured, None
            assert captured is not None
            result = self.replacement(self.tape, captured, tensor)
            self.tape.drop(captured)
            if name == "hook_resid_pre":  # the caller of the block still holds its input
                self.late.append(result)
            else:
                if tensor.refs == 1 and tensor.home is result.home and tensor.bytes == result.bytes:
                    # Equal in all but the address: the section goes on with the new one under the old one's name.
                    tensor.number, result.number = result.number, tensor.number
                self.tape.drop(result)
        return super().hook(name, tensor)


def spliced_forward(run: Run, hook_name: str, replacement: Replacement, reads: str | None = None) -> Tape:
    """The tape of one call, at the moment it returns, with `replacement` played at `hook_name`.

    `reads`: an earlier hook of the same block, whose activation it gets instead of the one at `hook_name`.
    """
    tape = Tape()
    plain = forward(run)
    layer = hook_names.layer_of(hook_name)
    section = _Spliced(run, family(hook_name), replacement, family(reads or hook_name))
    incoming = section.tape.adopt(run.width * section.tokens * run.spec.d_model, "temporaries")
    if layer is not None:
        at = layer + 1
        _block(section, incoming, run.spec.is_local(layer), None)
        section.tape.drop(incoming, *section.late)
    elif hook_name in plain.sections[0][1]:
        at = 0
        _embed(section)
    else:
        at = len(plain.sections) - 1
        _unembed(section, incoming)
    played = 0
    for entry in plain.tape.log:
        if isinstance(entry, tuple):
            alike, times = entry
            before = at - played if played <= at < played + times else times
            tape.append(alike, before)
            if before < times:
                tape.append(section.tape)
                tape.append(alike, times - before - 1)
            played += times
        elif isinstance(entry, Tensor):
            tape.drop(tape.adopt(entry.bytes, entry.component))
        else:
            tape.new(entry)
    return tape


def play_on(tape: Tape, call: Tape) -> None:
    """Plays a call section by section on another tape, in place of one section that has sections of its own: the
    allocator's quick playback knows those only."""
    own: list[Tensor] = []
    for entry in call.log:
        if isinstance(entry, tuple):
            tape.append(*entry)
        elif isinstance(entry, Tensor):
            tape.drop(tape.adopt(entry.bytes, entry.component))
        elif entry >= 0:
            own.append(tape.new(entry))
        else:
            tape.drop(own[~entry])


@dataclass(frozen=True)
class Splice:
    """An SAE in a call of the model. `reads`: see `spliced_forward`. `error_term`: see `inference.attached`."""

    run: Run
    hook_name: str
    use: Use
    reads: str
    keep_features: bool
    error_term: bool

    def at(self, batch_size: int, seq_len: int) -> Splice:
        """The same for another shape."""
        temporal = self.use.temporal
        if temporal is not None:
            temporal = replace(temporal, batch_size=batch_size, seq_len=seq_len)
        run = replace(self.run, batch_size=batch_size, seq_len=seq_len)
        return replace(self, run=run, use=replace(self.use, rows=batch_size * seq_len, temporal=temporal))


def with_sae(splice: Splice) -> Tape:
    """`play_with_sae`, by what was recorded of a call of another shape where that fits."""
    run = splice.run
    return recall(
        ("spliced SAE", splice.at(0, 0)),
        (run.batch_size, run.seq_len),
        lambda b, s: play_with_sae(splice.at(b, s)),
        with_log=True,
    )


def play_with_sae(splice: Splice) -> Tape:
    """`spliced_forward` with the SAE as replacement; its features are kept in a cache or let go."""

    def replacement(section: Tape, source: Tensor, original: Tensor) -> Tensor:
        acts, out = attached(section, splice.use, source, original, splice.run.width, error_term=splice.error_term)
        if splice.keep_features:
            section.book(acts, "activation_cache")
        else:
            section.drop(acts)
        return out

    return spliced_forward(splice.run, splice.hook_name, replacement, splice.reads)
