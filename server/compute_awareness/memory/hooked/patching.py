"""Activation patching and attribution patching with a HookedTransformer."""

from __future__ import annotations

from dataclasses import replace

from ..card.passes import as_requests
from ..card.staging import Kernels
from ..recorded.recall import recall
from ..tape import Tape
from .backward import Section
from .backward_model import logit_of_answer
from .run import Run
from .training import back_through_the_model, through_the_model
from .transformer import Forward, forward


def _clean_run(tape: Tape, run: Run) -> Forward:
    """`clean_logits, clean_cache = model.run_with_cache(clean_tokens)` without gradients, both token tensors there."""
    tape.new(8 * run.batch_size * run.seq_len)
    clean = forward(replace(run, gradients=False))
    tape.append(clean.tape)
    return clean


def activation_patching(run: Run, results: int) -> tuple[Tape, Forward]:
    """`play_activation_patching`, by what was recorded of another shape where that fits."""
    return recall(
        ("activation patching", replace(run, batch_size=0, seq_len=0), min(results, 2)),
        (run.batch_size, run.seq_len, results),
        lambda b, s, results: play_activation_patching(replace(run, batch_size=b, seq_len=s), results),
    )


def play_activation_patching(run: Run, results: int) -> tuple[Tape, Forward]:
    """transformer_lens 3.9.0, patching.generic_activation_patch, under torch.no_grad().

    `run` has the clean cache's selection; `results` is the number of patches. Without gradients the patch is written
    into the running activation itself, and the logits of the patch before are held until the next are there.
    """
    tape = Tape()
    clean = _clean_run(tape, run)
    tape.new(4 * results)
    patched = forward(replace(run, selects=None, gradients=False))
    tokens = 8 * run.batch_size * run.seq_len
    for _ in range(1 if results == 1 else 2):
        tape.drop(tape.adopt(tokens, "temporaries"))  # each forward counts its tokens anew
        tape.append(patched.tape)
    return tape, clean


def attribution_requests(run: Run, capability: str | None) -> Tape:
    """`attribution_patching` as torch's caching allocator gets to see it on CUDA: with the buffers of its kernels, and
    with cuBLAS's workspace for the backward pass where its first product comes.

    Args:
        capability: compute capability of the card; None = a typical one.
    """

    def play(b: int, s: int) -> Tape:
        kernels = Kernels(capability, handles=("main",))
        tape, _, back = attribution_in_order(replace(run, batch_size=b, seq_len=s), kernels)
        return as_requests(tape, back)

    kind = "attribution patching's requests", replace(run, batch_size=0, seq_len=0), capability
    return recall(kind, (run.batch_size, run.seq_len), play, with_log=True)


def attribution_patching(run: Run, cpu: bool = False) -> tuple[Tape, Forward]:
    """`play_attribution_patching`, by what was recorded of another shape where that fits."""
    return recall(
        ("attribution patching", replace(run, batch_size=0, seq_len=0), cpu),
        (run.batch_size, run.seq_len),
        lambda b, s: play_attribution_patching(replace(run, batch_size=b, seq_len=s), cpu),
    )


def play_attribution_patching(run: Run, cpu: bool = False) -> tuple[Tape, Forward]:
    """The clean cache without gradients, then the corrupted run with activations and gradients cached, then
    (clean - corrupted) * gradient hook by hook.

    The idiom of TransformerLens' attribution patching demo: hooks forward and backward that keep `detach()`, then
    `metric(model(tokens)).backward()`.
    """
    return attribution_in_order(run, cpu=cpu)[:2]


def attribution_in_order(
    run: Run, kernels: Kernels | None = None, cpu: bool = False
) -> tuple[Tape, Forward, set[Tape]]:
    """The same, and which of the tape's sections go back through a layer.

    Args:
        kernels: what CUDA's kernels take beside their results, where that is played as well.
        cpu: also what only torch's CPU kernels allocate.
    """
    tape = Tape()
    clean = _clean_run(tape, run)
    graded = replace(run, gradients=True)
    sections = through_the_model(
        graded,
        logit_of_answer,
        lambda selected: Section(graded, selected, backward_too=True, cpu=cpu, kernels=kernels),
        run.selects,
    )
    for section, _ in sections:
        tape.append(section.forward)
    back = back_through_the_model(sections)
    for half in back:
        tape.append(half)
    largest = max((v.elements * v.width for section, _ in sections for v in section.cache.values()), default=0)
    difference = tape.new(largest)
    tape.touch(largest)
    tape.drop(difference)
    return tape.closed(), clean, set(back)
