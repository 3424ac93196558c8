"""A tape taken apart for the simulation of the allocator: what has no sections is split by pool as a whole, what has is
grouped into what is played together."""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

from ..tape import Tape, Tensor
from .section import Entry, Outline, Section

Log = list[int | Tensor | tuple[Tape, int]]


class Run(NamedTuple):
    """Entries of a log of one kind, one after the other: two of the lists are empty."""

    own: list[int]
    """Bytes of what is allocated, ~number of what is freed of that."""
    foreign: list[int]
    """Bytes of what is freed that the tape did not make."""
    row: list[tuple[Tape, int]]
    """Sections, and how often each comes."""


class Frame(NamedTuple):
    """A tape that is played run by run."""

    runs: list[Run]
    sizes: list[int]
    """Bytes of each tensor that it makes."""
    freed: list[int]
    """Numbers of those that it frees."""


class Parts(NamedTuple):
    """A tape, its sections, and theirs."""

    sections: dict[Tape, tuple[Section, Section]]
    """What those that have none are asking the large pool for, and the small one."""
    frames: dict[Tape, Frame]
    """The others."""


def take_apart(tape: Tape, parts: Parts, outermost: bool = True) -> bool:
    """Adds the tape and its sections to the parts. False where they free tensors from elsewhere that are not known by
    their size. Of the outermost tape what is only freed in the end is left out."""
    section = as_section(tape)
    if section is not None:
        parts.sections[tape] = section
        return True
    frame = _frame(_until_last_request(tape.log) if outermost else tape.log)
    if frame is None:
        return False
    parts.frames[tape] = frame
    sections = {section for run in frame.runs for section, _ in run.row}
    return all(
        section in parts.sections or section in parts.frames or take_apart(section, parts, outermost=False)
        for section in sections
    )


def as_section(tape: Tape) -> tuple[Section, Section] | None:
    """What a tape without sections asks the large pool for, and the small one; None for any other, or where it frees
    tensors that are known otherwise than by their size."""
    outline, values = tape.outline or (None, [])
    if outline is None or outline.n_entries != len(tape.log):  # it went on since it was recorded
        outline, values = _outline(tape)
    return None if outline is None else outline.split(values)


def _outline(tape: Tape) -> tuple[Outline | None, list[int]]:
    """The outline of a tape, and its sizes; none where it has sections, or frees tensors that are known otherwise."""
    numbers: dict[int, int] = {}
    entries: list[Entry] = []
    for entry in tape.log:
        if isinstance(entry, int):
            entries.append(numbers.setdefault(entry, len(numbers)) if entry >= 0 else entry)
        elif isinstance(entry, tuple) or _is_known(entry):
            return None, []
        else:
            entries.append((numbers.setdefault(entry.bytes, len(numbers)),))
    return Outline(entries), list(numbers)


def _until_last_request(log: Log) -> Log:
    end = len(log)
    while end and (isinstance(last := log[end - 1], Tensor) or (isinstance(last, int) and last <= 0)):
        end -= 1
    return log[:end]


def _frame(log: Log) -> Frame | None:
    """None where it frees tensors that are known otherwise than by their size."""
    frame = Frame([], [], [])
    for kind, group in groupby(log, type):
        entries: list[Any] = list(group)
        if kind is tuple:
            frame.runs.append(Run([], [], entries))
        elif kind is Tensor:
            if any(map(_is_known, entries)):
                return None
            frame.runs.append(Run([], [tensor.bytes for tensor in entries], []))
        else:
            frame.runs.append(Run(entries, [], []))
            frame.sizes.extend([entry for entry in entries if entry >= 0])
            frame.freed.extend([~entry for entry in entries if entry < 0])
    return frame


def _is_known(tensor: Tensor) -> bool:
    return tensor.home is not None or tensor.origin is not None
