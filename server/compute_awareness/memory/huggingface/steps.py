"""What `model.generate` of transformers 5.23 asks the caching allocator for, pass by pass.

`generate` plays what can be the peak. What is reserved depends on the order of all passes: with a cache, on how the
longer keys and values find room among what the prompt's pass left free; without one, on each pass being longer than
the one before. Not all of them are played, see `card.growing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..card.growing import Growing, Later, every_other
from ..card.log import CUBLAS_LT, lean, pairs, with_workspaces
from ..card.turning_points import turning_points
from ..recorded.recall import recall
from ..tape import Tape, Tensor
from .decode import growing_part
from .embedding import slides
from .generate import Generate, Generated, for_layer, kept, play_anew, step
from .parts import FLOAT32, Pass, norm


@dataclass(frozen=True)
class Passes:
    """What a call asks for, for `card.room` too."""

    run: Generate
    played: Generated

    def growing(self, workspace: int) -> Growing:
        """Its passes; `workspace`: bytes that cuBLAS takes with the first matrix product."""
        spec = self.run.spec
        workspaces = [workspace] + [CUBLAS_LT] * (spec.qkv_bias or spec.mlp_bias)
        if self.run.kv_cache:
            return cached(self.run, self.played, workspaces)
        return uncached(self.run, workspaces)

    def requests(self, standing: Sequence[int] = (), workspace: int = 0) -> list[int]:
        """As `Tape.requests`."""
        return self.growing(workspace).requests(standing)


def cached(run: Generate, played: Generated, workspaces: Sequence[int]) -> Growing:
    """A call with a key/value cache.

    Args:
        played: what `generate` says of the run.
        workspaces: bytes that the first matrix product takes, and that stay.
    """
    log = with_workspaces(played.tape.log[: played.prompt_entries], products_before(run), workspaces)
    first = Tape.that_was(0, {}, 0, {}, log, 0)
    b, s, spec = run.batch_size, run.seq_len, run.spec
    kv, result = run.width * b * spec.kv_width, FLOAT32 * b * spec.d_vocab
    later, stands_for = _later(run, kv) if run.new_tokens > 1 else ([], 1)
    return Growing(first, later, kv * s, result, workspaces, stands_for)


def _later(run: Generate, kv: int) -> tuple[list[Later], float]:
    """The passes after the prompt's that are played, and how many each stands for; `kv`: bytes of one token's keys."""
    spec, start = run.spec, run.seq_len + 1
    windows = [slides(spec, layer) for layer in range(spec.n_layers)]

    def parts_of(total: int, lengths: list[int]) -> dict[tuple[bool, int], Tape]:
        p = step(run, Tape(), 1, total)
        kinds = dict.fromkeys(zip(windows, lengths, strict=True))
        return {(window, length): growing_part(for_layer(p, window), kv * length, window) for window, length in kinds}

    lengths, end = [run.seq_len] * spec.n_layers, _end(run)
    ends = [parts_of(total, lengths).values() for total in (start, run.steps)]
    sizes = [pair for tapes in zip(*ends, strict=True) for pair in pairs(*tapes)]
    turns = turning_points(sizes, start, run.steps)
    later: list[Later] = []
    for total in [start, *turns.lengths]:
        parts = {kind: lean(part, kv * total) for kind, part in parts_of(total, lengths).items()}
        later.append(Later([*(parts[kind] for kind in zip(windows, lengths, strict=True)), end]))
        lengths = [kept(spec, layer, total) for layer in range(spec.n_layers)]
    return later, turns.stands_for


def _end(run: Generate) -> Tape:
    """The logits of the newest tokens, and their copy in float32, before which the one of the pass before goes."""
    tape, b, spec = Tape(), run.batch_size, run.spec
    logits = tape.new(run.width * b * spec.d_vocab)
    for _ in range(3 * spec.logit_softcap):
        capped = tape.new(logits.bytes)
        tape.drop(logits)
        logits = capped
    tape.new(FLOAT32 * b * spec.d_vocab)
    tape.drop(logits, tape.adopt(FLOAT32 * b * spec.d_vocab, "logits"))
    return tape


def uncached(run: Generate, workspaces: Sequence[int]) -> Growing:
    """A call without a cache: one pass after the other, each over all tokens so far."""
    start = min(max(run.seq_len, 2), run.steps)  # a pass over one token makes less than any other
    ends = [_whole(run, total) for total in (start, run.steps)]
    sections = [[tape, *(entry[0] for entry in tape.log if isinstance(entry, tuple))] for tape in ends]
    sizes = {pair for tapes in zip(*map(dict.fromkeys, sections), strict=False) for pair in pairs(*tapes)}
    turns = turning_points(sizes, start, run.steps)
    totals = [*dict.fromkeys((run.seq_len, start)), *turns.lengths]
    fewer = None
    if turns.stands_for > 1:
        fewer = Growing(_one_after_the_other(run, every_other(totals), workspaces), [], 0, 0, workspaces)
    return Growing(_one_after_the_other(run, totals, workspaces), [], 0, 0, workspaces, turns.stands_for, fewer)


def _one_after_the_other(run: Generate, totals: Sequence[int], workspaces: Sequence[int]) -> Tape:
    """Passes over so many tokens each."""
    log: list[int | Tensor | tuple[Tape, int]] = []
    made, left = 0, list[int]()
    for total in totals:
        entries = _whole(run, total).log
        if not log:
            entries = with_workspaces(entries, products_before(run), workspaces)
        before, alive = made, set[int]()
        for entry in entries:
            if isinstance(entry, int) and entry < 0:
                entry -= before
                alive.remove(~entry)
            elif isinstance(entry, int):
                alive.add(made)
                made += 1
            log.append(entry)
        log += [~tensor for tensor in left]  # the ids and the scores of the pass before
        left = sorted(alive)
    return Tape.that_was(0, {}, 0, {}, log, made)


def _whole(run: Generate, total: int) -> Tape:
    """One pass over `total` tokens."""
    return recall(
        ("transformers generate, a whole pass", replace(run, batch_size=0, seq_len=0, new_tokens=1)),
        (run.batch_size, total),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s, new_tokens=1)).tape,
        with_log=True,
    )


def products_before(run: Generate) -> int:
    """How many tensors a layer makes before the result of its first matrix product."""
    if run.spec.norm_placement == "post":
        return 0
    p = Pass(run.spec, 1, 1, run.width, run.attention, run.kv_cache)
    norm(p, p.X, 1)
    return p.tape.made
