"""What `HookedTransformer.generate` of TransformerLens 3.9 asks the caching allocator for, pass by pass.

The prompt's pass is played as it is, of the later ones what is as long as the context, as of transformers
(`huggingface.steps`). With a key/value cache only, and not where position tables grow on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..card.growing import Growing, Later
from ..card.log import CUBLAS_LT, lean, pairs, with_workspaces
from ..card.turning_points import turning_points
from ..recorded.recall import recall
from ..tape import Tape
from ..weights import tl_rotary_table_bytes
from .generate import Generate, Generated, block, normed_inputs, sample, unembed
from .run import Pass, Run


def is_played(run: Generate) -> bool:
    """Whether the order of its allocations is known here."""
    spec = run.spec
    grows = spec.positional == "rotary" and run.last > min(2048, spec.context_tl)
    return run.kv_cache and spec.positional != "alibi" and not grows


@dataclass(frozen=True)
class HookedPasses:
    """What a call asks for, for `card.room` too."""

    run: Generate
    played: Generated

    def growing(self, workspace: int) -> Growing:
        """Its passes; `workspace`: bytes that cuBLAS takes with the first matrix product."""
        run = self.run
        workspaces = [workspace, CUBLAS_LT]  # every projection has a bias
        log = with_workspaces(self.played.tape.log[: self.played.prompt_entries], _before_product(run), workspaces)
        first = Tape.that_was(0, {}, 0, {}, log, 0)
        kv, row = run.width * run.batch_size * run.spec.kv_width, run.width * run.batch_size * run.spec.d_vocab
        later, stands_for = _later(run, kv, row) if run.new_tokens > 1 else ([], 1)
        return Growing(first, later, kv * run.seq_len, row * run.seq_len, workspaces, stands_for)

    def requests(self, standing: Sequence[int] = (), workspace: int = 0) -> list[int]:
        """As `Tape.requests`."""
        return self.growing(workspace).requests(standing)


def _later(run: Generate, kv: int, row: int) -> tuple[list[Later], float]:
    """The passes after the prompt's that are played, and how many each stands for.

    Args:
        kv: bytes of one token's keys.
        row: bytes of one token's logits.
    """
    start = run.seq_len + 1
    kinds = [run.spec.is_local(layer) for layer in range(run.spec.n_layers)]
    played = {total: _pass(run, total) for total in (start, run.last)}
    ends = [each.blocks for each in played.values()] * (2 if len(played) == 1 else 1)
    turns = turning_points([pair for tapes in zip(*ends, strict=True) for pair in pairs(*tapes)], start, run.last)
    later: list[Later] = []
    logits = row * run.seq_len
    for total in [start, *turns.lengths]:
        each = played.get(total) or _pass(run, total)
        blocks = [lean(block, kv * total) for block in each.blocks]
        end = each.end.closed()
        end.drop(end.adopt(logits, "logits"))
        logits = row
        later.append(Later([*(blocks[kind and len(blocks) - 1] for kind in kinds), end]))
    return later, turns.stands_for


@dataclass(frozen=True)
class _Pass:
    """One that reads one token of each sequence."""

    blocks: list[Tape]
    """A block, and where there are both kinds a local one; without their outputs."""
    end: Tape
    """The logits, and what sampling takes; but for the logits of the pass before."""


def _pass(run: Generate, total: int) -> _Pass:
    return recall(
        ("hooked generate, a later pass", replace(run, batch_size=0, seq_len=0, new_tokens=0)),
        (run.batch_size, total),
        lambda b, total: _play_pass(replace(run, batch_size=b), total),
        with_log=True,
    )


def _play_pass(run: Generate, total: int) -> _Pass:
    spec, end = run.spec, Tape()
    call = Run(spec=spec, batch_size=run.batch_size, seq_len=1, width=run.width, folded=run.folded)
    tables = tl_rotary_table_bytes(spec, run.width)
    blocks: list[Tape] = []
    for local in sorted({spec.is_local(layer) for layer in range(spec.n_layers)}):
        tape, out = block(call, local, total, True, tables, None)
        tape.drop(out)
        blocks.append(tape)
    unembed(call, end, end.adopt(0, "temporaries"))
    sample(run, end, total)
    return _Pass(blocks, end)


def _before_product(run: Generate) -> int:
    """How many tensors a block makes before the result of its first matrix product."""
    p = Pass(Run(spec=run.spec, batch_size=1, seq_len=1, width=run.width, folded=run.folded), None)
    normed_inputs(p, p.tape.adopt(0, "temporaries"))
    return p.tape.made + (run.spec.n_heads > 1)  # a copy of the weight
