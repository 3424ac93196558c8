"""What is done to the log of a tape before it is played to the caching allocator pass by pass (`growing`)."""

from __future__ import annotations

from collections.abc import Sequence

from ..tape import Tape, Tensor

Log = list[int | Tensor | tuple[Tape, int]]
CUBLAS_LT = 1024 * 1024
"""The workspace of cublasLt, which adds biases to products (seen on an H100; torch's default)."""
_SMALL = 8
"""A tensor of less than one in so many bytes of what grows finds room beside it."""


def lean(tape: Tape, grown: int) -> Tape:
    """Without what comes and goes in the tape and is smaller by far than what grows, of `grown` bytes: it finds room
    anyway."""
    freed = {~entry for entry in tape.log if isinstance(entry, int) and entry < 0}
    log: Log = []
    numbers: list[int] = []
    made = 0
    for entry in tape.log:
        if not isinstance(entry, int):
            log.append(entry)
        elif entry < 0:
            if numbers[~entry] >= 0:
                log.append(~numbers[~entry])
        elif len(numbers) in freed and entry < grown // _SMALL:
            numbers.append(-1)
        else:
            numbers.append(made)
            made += 1
            log.append(entry)
    return Tape.that_was(0, {}, 0, {}, log, made)


def pairs(first: Tape, last: Tape) -> list[tuple[int, int]]:
    """Bytes in both of what the last of two tapes has larger. They make the same tensors, if not in the same order with
    what is let go; those that make others are not compared."""
    sizes = [[entry for entry in tape.log if isinstance(entry, int) and entry >= 0] for tape in (first, last)]
    if len(sizes[0]) != len(sizes[1]):
        return []
    return [(low, high) for low, high in dict.fromkeys(zip(*sizes, strict=True)) if 0 < low < high]


def with_workspaces(log: Sequence[int | Tensor | tuple[Tape, int]], before: int, workspaces: Sequence[int]) -> Log:
    """The log of a pass, in whose first layer the workspaces come after `before` tensors and one more."""
    at = next(at for at, entry in enumerate(log) if isinstance(entry, tuple))
    section, times = log[at]  # pyright: ignore
    shift = len(workspaces)
    inside: Log = []
    made = 0
    for entry in section.log:
        if isinstance(entry, int) and entry < 0:
            entry -= shift * (~entry > before)
        inside.append(entry)
        if isinstance(entry, int) and entry >= 0:
            if made == before:
                inside += workspaces
            made += 1
    changed = Tape.that_was(0, {}, 0, {}, inside, made + shift)
    rest = [(section, times - 1)] if times > 1 else []
    return [*log[:at], (changed, 1), *rest, *log[at + 1 :]]
