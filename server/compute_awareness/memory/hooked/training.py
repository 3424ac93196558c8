"""A training step of a HookedTransformer: forward to the loss, backward, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .. import optimizer
from ..autograd.graph import Var
from ..card.passes import as_requests
from ..card.staging import THREADS, Kernels
from ..recorded.recall import recall
from ..tape import Tape
from .backward import Section
from .backward_model import block, embed, next_token_loss
from .run import Run
from .transformer import END_HOOKS, TOP_HOOKS, block_hook_names, select

End = Callable[[Section, list[Var]], Var]
Sections = list[tuple[Section, Var]]
"""The sections of a pass in order, each with its output."""


@dataclass(frozen=True)
class Step:
    """What a step allocates, and what it trains."""

    tape: Tape
    """From the input tokens on; weights, buffers and optimizer state are not on it."""
    trained: list[tuple[int, int]]
    """Elements and bytes per element of each parameter that gets a gradient."""


def step(run: Run, name: optimizer.Optimizer, batches: int = 1, cpu: bool = False) -> Step:
    """`play_anew`, by what was recorded of a step of another shape where that fits."""
    return recall(
        ("hooked step", replace(run, batch_size=0, seq_len=0), name, min(batches, 2), cpu),
        (run.batch_size, run.seq_len),
        lambda b, s: play_anew(replace(run, batch_size=b, seq_len=s), name, batches, cpu),
    )


def requests(run: Run, name: optimizer.Optimizer, batches: int, capability: str | None) -> Tape:
    """A step as torch's caching allocator gets to see it on CUDA: with the buffers of its kernels, and with the list of
    the optimizer's step parameter by parameter. cuBLAS has its workspaces from the step before.

    Args:
        capability: compute capability of the card; None = a typical one.
    """
    return recall(
        ("hooked step's requests", replace(run, batch_size=0, seq_len=0), name, min(batches, 2), capability),
        (run.batch_size, run.seq_len),
        lambda b, s: as_requests(
            *play_in_order(replace(run, batch_size=b, seq_len=s), name, batches, Kernels(capability, handles=THREADS))
        ),
        with_log=True,
    )


def play_in_order(
    run: Run, name: optimizer.Optimizer, batches: int = 1, kernels: Kernels | None = None, cpu: bool = False
) -> tuple[Tape, set[Tape]]:
    """A step with its optimizer's tensors one by one, and which of the tape's sections go back through a layer.

    Args:
        kernels: what CUDA's kernels take beside their results, where that is played as well.
        cpu: also what only torch's CPU kernels allocate.
    """
    tape, back = Tape(), list[Tape]()
    tape.new(8 * run.batch_size * run.seq_len)
    sections = _play_batches(tape, run, batches, cpu=cpu, kernels=kernels, back=back)
    if name in ("adamw", "adam"):
        roots = Tape()  # `_foreach_sqrt(exp_avg_sqs)`, see `optimizer.step_bytes`
        for section, _ in sections:
            for leaf in section.leaves.values():
                roots.new(leaf.elements * leaf.width)
        tape.append(roots)
    return tape.closed(), set(back)


def play_anew(run: Run, name: optimizer.Optimizer, batches: int = 1, cpu: bool = False) -> Step:
    """Play one step: `model(tokens, return_type="loss").backward()` for each batch, then `optimizer.step()`.

    Gradients of the step before are gone (`zero_grad()`).

    Args:
        batches: batches whose gradients are added up; from the second on all are alike.
        cpu: also what only torch's CPU kernels allocate.
    """
    tape = Tape()
    tape.new(8 * run.batch_size * run.seq_len)
    sections = _play_batches(tape, run, batches, cpu=cpu)
    trained = [(leaf.elements, leaf.width) for section, _ in sections for leaf in section.leaves.values()]
    tape.touch(optimizer.step_bytes(name, trained))
    return Step(tape.closed(), trained)


def _play_batches(
    tape: Tape,
    run: Run,
    batches: int,
    *,
    cpu: bool = False,
    kernels: Kernels | None = None,
    back: list[Tape] | None = None,
) -> Sections:
    """Forward and backward of each batch. Returns the sections of the last; adds to `back` their backward halves."""
    sections: Sections = []
    for batch in range(min(batches, 2)):
        sections = through_the_model(
            run,
            next_token_loss,
            lambda _, first=batch == 0: Section(run, accumulated=not first, cpu=cpu, kernels=kernels),
        )
        copies = []
        for section, _ in sections:
            tape.append(section.forward)
            if run.autocast:
                copies.append(tape.new(section.copies, "weight_copies"))
        tape.drop(*copies)
        halves = back_through_the_model(sections)
        for half in halves:
            tape.append(half)
        if back is not None:
            back += halves
    return sections


def through_the_model(
    run: Run, end: End | None, make: Callable[[frozenset[str]], Section], selects: Callable[[str], bool] | None = None
) -> Sections:
    """Play the forward halves of all sections, blocks up to `run.stop_at_layer`. Blocks of one kind are the same
    section.

    Args:
        end: what comes after the last block; None = nothing.
        make: a section that caches the hooks of these names.
        selects: which hooks the cache keeps, by full name; None = no cache.
    """
    names = block_hook_names(run) if selects is not None else ()

    def chosen(prefix: str, names: tuple[str, ...]) -> frozenset[str]:
        return frozenset() if selects is None else select(selects, prefix, names)

    first = make(chosen("", TOP_HOOKS))
    resid = embed(first)
    first.turn()
    sections = [(first, resid)]
    kinds: dict[tuple[object, ...], tuple[Section, Var]] = {}
    blocks = run.spec.n_layers if run.stop_at_layer is None else run.stop_at_layer
    selected = [chosen(f"blocks.{layer}.", names) for layer in range(blocks)]
    for layer, here in enumerate(selected):
        entry = resid.storage.entry
        after = "hook_resid_pre" in selected[layer + 1] if layer + 1 < len(selected) else None
        key = run.spec.is_local(layer), here, after, entry and entry.component, resid.storage.vars > 1, layer == 0
        if key not in kinds:
            section = make(here)
            out = block(section, section.receive(resid), key[0])
            section.turn()
            kinds[key] = section, out
        sections.append(kinds[key])
        resid = kinds[key][1]
    if end is None:
        return sections
    last = make(chosen("", END_HOOKS))
    out = end(last, last.receive(resid))
    last.turn()
    sections.append((last, out))
    return sections


def back_through_the_model(sections: Sections) -> list[Tape]:
    """Play the backward halves, last section first: their tapes in the order in which they come."""
    gradient: Var | None = None
    gone_back: dict[int, Var | None] = {}
    tapes = []
    for section, out in reversed(sections):
        if id(section) not in gone_back:
            gone_back[id(section)] = section.go_back(out, gradient)
        gradient = gone_back[id(section)]
        tapes.append(section.backward)
    for section, _ in sections:
        section.close()
    return tapes
