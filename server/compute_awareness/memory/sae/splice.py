"""A forward pass of a HookedTransformer with something run at one hook, whose result takes the hook's place.

Used for an SAE spliced in: SAELens' evaluation and HookedSAETransformer (sae_lens 6.54.12).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ... import hook_names
from ..hooked.run import Pass, Run
from ..hooked.transformer import _block, family, forward
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
            frame = self.new(self.tokens * self.run.spec.d_model * self._outputs() if name == "hook_resid_post" else 0)
            captured, self.captured = self.captured, None
            assert captured is not None
            result = self.replacement(self.tape, captured, tensor)
            self.tape.drop(captured)
            # It takes the place of a tensor as large as itself, but the block's input is still held by the caller.
            if name == "hook_resid_pre":
                self.late.append(result)
            else:
                self.tape.drop(result)
            self.tape.drop(frame)
        return super().hook(name, tensor)

    def _outputs(self) -> int:
        """What the block's frame still holds at hook_resid_post: attn_out, mlp_out, resid_mid and its normed copy."""
        spec = self.run.spec
        if spec.d_mlp == 0:
            return 1
        normed = spec.norm != "none" and spec.norm_placement != "post"
        return (2 if spec.parallel_attn_mlp else 3) + normed


def spliced_forward(run: Run, hook_name: str, replacement: Replacement, reads: str | None = None) -> Tape:
    """The tape of one call, at the moment it returns, with `replacement` played at `hook_name`.

    `reads`: an earlier hook of the same block, whose activation it gets instead of the one at `hook_name`.

    What the replacement leaves behind (features in a cache) is counted from the start of the call, which is too early
    only where the call stands highest before the hook.
    The block with the hook is played by itself beside the whole call: the higher one decides.
    """
    spec = run.spec
    width = run.width * run.batch_size * run.seq_len * spec.d_model
    tape = Tape()
    layer = hook_names.layer_of(hook_name)
    tokens, residual = tape.new(8 * run.batch_size * run.seq_len), tape.new(width)
    section = _Spliced(run, family(hook_name), replacement, family(reads or hook_name))
    incoming = section.tape.adopt(width, "temporaries")
    if layer is None:
        section.name = section.reads = hook_name
        section.hook(hook_name, incoming)
    else:
        out = _block(section, incoming, spec.is_local(layer), None)
        section.tape.drop(out)
    section.tape.drop(*section.late)
    tape.append(section.tape)
    tape.drop(tokens, residual)
    tape.append(forward(run).tape)
    return tape


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
