"""A ledger of live tensors: what is allocated, what is let go, and how high it stood.

The estimators do not guess a peak with a formula. They write down, in the order of the library's own code, which
tensors it makes and when the last reference to each goes away; the tape adds up. So the peak, what was alive at the
peak, and the bytes that a cache keeps all come from one description, and a storage that two hooks share is counted
once because it is one `Tensor` here too.

The tape keeps the order as well: `Tape.requests` plays it back as the requests a caching allocator gets to see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, cast

from .card.section import Outline
from .recorded.rivals import Rivals
from .recorded.size import is_above_zero


class Tensor:
    """One storage on the tape. `bytes` is its size; `refs` how many holders it has."""

    __slots__ = ("bytes", "component", "home", "number", "origin", "refs")

    def __init__(
        self, nbytes: int, component: str, home: Tape | None = None, number: int = -1, origin: Tensor | None = None
    ) -> None:
        self.bytes = nbytes
        self.component = component
        self.refs = 1
        self.home = home
        """The tape that allocated it; None where it was adopted."""
        self.number = number
        """How many tensors its tape had allocated before."""
        self.origin = origin
        """The tensor of another tape that an adopted one stands for, where that is known."""


class Tape:
    """Live bytes over time, by component. All figures are bytes."""

    def __init__(self) -> None:
        self.live = 0
        self.by_component: Counter[str] = Counter()
        self._peak = 0
        self._at_peak: dict[str, int] = {}  # a plain copy, as it is made with every new peak
        self.rivals: Rivals | None = None
        """While a shape is not known yet (`recorded`): the moments that can be the peak, in place of it."""
        self.phase = ""
        """What is going on; whoever wants to know in which phase the peak stood says so."""
        self.worst_phase = ""
        # In order: bytes (allocated), ~number (a tensor of this tape freed), a Tensor (one from elsewhere freed),
        # (section, times). Kept as it comes in; what it means is worked out only where it is asked for.
        self.log: list[int | Tensor | tuple[Tape, int]] = []
        self.outline: tuple[Outline, list[int]] | None = None
        """Of the log as it was recorded, where it has no sections, and the sizes that go with it."""
        self.made = 0
        """How many tensors it has allocated."""

    def new(self, nbytes: int, component: str = "temporaries") -> Tensor:
        """Allocate a tensor; the caller holds the one reference to it."""
        tensor = Tensor(nbytes, component, self, self.made)
        self.made += 1
        self.log.append(nbytes)
        self.live += nbytes
        self.by_component[component] += nbytes
        if self.rivals is not None or self.live.__class__ is not int:
            # Tensors that come one after the other: the last moment is the highest.
            before = self.log[-2] if len(self.log) > 1 else None
            rising = before is not None and not isinstance(before, Tensor | tuple) and before >= 0
            self._rivals().add(self.live, self.by_component, self.phase, rising and is_above_zero(nbytes))
        elif self.live > self._peak:
            self._peak = self.live
            self._at_peak = dict(self.by_component)
            self.worst_phase = self.phase
        return tensor

    @property
    def peak(self) -> int:
        """The most bytes alive at once."""
        assert self.rivals is None, "not known before the shape is"
        return self._peak

    @property
    def at_peak(self) -> Counter[str]:
        """Live bytes of each component at the peak."""
        assert self.rivals is None, "not known before the shape is"
        return Counter(self._at_peak)

    def _rivals(self) -> Rivals:
        """Those of this tape, from now on."""
        if self.rivals is None:
            self.rivals = Rivals()
            self.rivals.add(self._peak, self._at_peak, self.worst_phase)
        return self.rivals

    def book_peak_anew(self) -> None:
        """Where nothing stood higher than what is alive now, the peak is by the components that it is booked under."""
        if self.rivals is not None:
            self.rivals.add_last(self.live, self.by_component, self.phase)
        elif self.live == self._peak:
            self._at_peak = dict(self.by_component)

    def peak_may_be_of(self, other: Tape) -> None:
        """In place of its own peak the tape has that of another one, where that is higher."""
        if self.rivals is not None or other.rivals is not None:
            for live, components in other.moments():
                self._rivals().add(live, components)
        elif other._peak > self._peak:
            self._peak, self._at_peak = other._peak, other._at_peak

    def moments(self) -> list[tuple[int, Mapping[str, int]]]:
        """Live bytes, and each component's, at the peak, or where that is not known yet, at whatever may be it."""
        if self.rivals is None:
            return [(self._peak, self._at_peak)]
        return [cast(Any, (rival.live, rival.components)) for rival in self.rivals.moments]

    def closed(self) -> Tape:
        """The tape as it stands, which what its tensors go through from now on does not reach."""
        other = Tape.that_was(self.live, self.by_component, self._peak, self._at_peak, self.log.copy(), self.made)
        other.worst_phase = self.worst_phase
        other.rivals = self.rivals and self.rivals.copy()
        return other

    @classmethod
    def that_was(
        cls,
        live: int,
        by_component: Mapping[str, int],
        peak: int,
        at_peak: dict[str, int],
        log: list[int | Tensor | tuple[Tape, int]],
        made: int,
    ) -> Tape:
        """A tape of which only the outcome is known. `made`: how many tensors it has allocated."""
        tape = cls()
        tape.made = made
        tape.live, tape._peak, tape._at_peak, tape.log = live, peak, at_peak, log
        tape.by_component.update(by_component)
        return tape

    def adopt(self, nbytes: int, component: str, origin: Tensor | None = None) -> Tensor:
        """Take over a tensor that is already counted elsewhere (before this section): nothing is allocated, but
        letting it go frees its bytes here. `origin` says which one it is; see `requests` where it is not given."""
        return Tensor(nbytes, component, origin=origin)

    def hold(self, tensor: Tensor, component: str | None = None) -> Tensor:
        """One more reference. With `component`, the bytes are booked there from now on (a cache keeps it)."""
        tensor.refs += 1
        if component is not None:
            self.book(tensor, component)
        return tensor

    def book(self, tensor: Tensor, component: str) -> None:
        """From now on the tensor's bytes belong to `component`."""
        self.by_component[tensor.component] -= tensor.bytes
        self.by_component[component] += tensor.bytes
        tensor.component = component

    def drop(self, *tensors: Tensor) -> None:
        """Let go of one reference to each; what has none left is freed."""
        for tensor in tensors:
            tensor.refs -= 1
            if tensor.refs == 0:
                self.log.append(~tensor.number if tensor.home is self else tensor)
                self.live -= tensor.bytes
                self.by_component[tensor.component] -= tensor.bytes

    def touch(self, nbytes: int, component: str = "temporaries") -> None:
        """Allocate and free at once: scratch that nothing else is allocated beside."""
        self.drop(self.new(nbytes, component))

    def request(self, nbytes: int) -> int:
        """A tensor that only an allocator gets to see, as what is alive is counted without it. Returns its number."""
        self.log.append(nbytes)
        self.made += 1
        return self.made - 1

    def release(self, *numbers: int) -> None:
        """Tensors that were requested so go."""
        self.log += [~number for number in numbers]

    def append(self, section: Tape, times: int = 1) -> None:
        """Play a section that was recorded on a tape of its own after what is live here, `times` times over."""
        if times < 1:
            return
        self.log.append((section, times))
        # Each time leaves `section.live` behind, so the first or the last time stands highest.
        before = times - 1 if times > 1 and section.live > 0 else 0
        left = section.by_component
        if self.rivals is not None or section.rivals is not None or self.live.__class__ is not int:
            self._append_rivals(section, before)
        elif self.live + before * section.live + section._peak > self._peak:
            self._peak = self.live + before * section.live + section._peak
            highest = self.by_component.copy()
            _add(highest, section._at_peak)
            if before:
                _add(highest, left, before)
            self._at_peak = highest
            self.worst_phase = self.phase
        self.live += times * section.live
        _add(self.by_component, left, times)

    def _append_rivals(self, section: Tape, before: int) -> None:
        """Every moment of a section that comes after `before` others like it."""
        beneath = self.by_component.copy()
        _add(beneath, section.by_component, before)
        live = self.live + before * section.live
        for height, components in section.moments():
            highest = beneath.copy()
            _add(highest, components)
            self._rivals().add(live + height, highest, self.phase)

    def requests(self, standing: Sequence[int] = (), workspace: int = 0) -> list[int]:
        """What an allocator is asked for, in order: n >= 0 allocates n bytes, ~i frees what the i-th of these made.

        `standing` (bytes of each tensor, such as the weights) come first and stay. `workspace` bytes are taken before
        the first section, or first of all on a tape without sections, and stay: the first matrix product is there.

        A section played again makes its tensors anew, and frees the ones it adopted. Which those are is known where
        `adopt` was given an `origin` that is still alive; else it is the youngest live tensor of the same size that
        the section did not make, as a layer's input is the last thing the layer before it made. What no such tensor
        is found for stays.
        """
        return _Playback(self, standing, workspace).requests


class _Playback:
    """The tape played back section by section; tensors are known by their number among all of them."""

    def __init__(self, tape: Tape, standing: Sequence[int], workspace: int) -> None:
        self.requests: list[int] = list(standing)
        self.made = len(self.requests)
        self.workspace = workspace
        self.foreign_sizes = _foreign_sizes(tape, set())
        self.freed: set[int] = set()
        # Live tensors of the sizes that some section adopts, youngest last; those freed meanwhile are skipped.
        self.youngest: dict[int, list[int]] = {size: [] for size in self.foreign_sizes}
        self.latest: dict[Tape, list[int]] = {}
        for number, nbytes in enumerate(self.requests):
            if nbytes in self.foreign_sizes:
                self.youngest[nbytes].append(number)
        if not any(isinstance(entry, tuple) for entry in tape.log):
            self._take_workspace()
        self._play(tape)

    def _take_workspace(self) -> None:
        if self.workspace:
            self.requests.append(self.workspace)
            self.made += 1
            self.workspace = 0

    def _play(self, tape: Tape) -> None:
        numbers: list[int] = []
        self.latest[tape] = numbers
        out, adopted_sizes = self.requests, self.foreign_sizes
        for entry in tape.log:
            if isinstance(entry, int):
                if entry >= 0:
                    if entry in adopted_sizes:
                        self.youngest[entry].append(self.made)
                    numbers.append(self.made)
                    self.made += 1
                    out.append(entry)
                else:
                    number = numbers[~entry]
                    if number in self.freed:  # taken for another of its size, which is the one that goes now
                        self._free_one(self._youngest_live(self._size_of(number), []))
                    else:
                        self.freed.add(number)
                        out.append(~number)
            elif isinstance(entry, tuple):
                self._take_workspace()
                section, times = entry
                for _ in range(times):
                    self._play(section)
            else:
                self._free(entry, numbers)

    def _free(self, tensor: Tensor, own: list[int]) -> None:
        """A tensor from elsewhere is freed by the section that made the tensors `own`."""
        found = None
        known = tensor if tensor.home is not None else tensor.origin
        if known is not None and known.home in self.latest and known.number < len(self.latest[known.home]):
            found = self.latest[known.home][known.number]
        if found is None or found in self.freed:
            found = self._youngest_live(tensor.bytes, own)
        self._free_one(found)

    def _free_one(self, number: int | None) -> None:
        if number is not None:
            self.freed.add(number)
            self.requests.append(~number)

    def _size_of(self, number: int) -> int:
        """Bytes of a tensor; looked for among all requests, which is rarely needed."""
        return next(islice((request for request in self.requests if request >= 0), number, None))

    def _youngest_live(self, nbytes: int, own: list[int]) -> int | None:
        """The youngest live tensor of `nbytes` that is not one of `own`."""
        candidates = self.youngest[nbytes]
        at = len(candidates) - 1
        while at >= 0:
            number = candidates[at]
            if number in self.freed:
                del candidates[at]
            elif not _holds(own, number):
                del candidates[at]
                return number
            at -= 1
        return None


def _add(sums: Counter[str], more: Mapping[str, int], times: int = 1) -> None:
    for name, nbytes in more.items():
        sums[name] += times * nbytes


def _holds(numbers: list[int], number: int) -> bool:
    at = bisect_left(numbers, number)
    return at < len(numbers) and numbers[at] == number


def _foreign_sizes(tape: Tape, seen: set[Tape]) -> set[int]:
    """Sizes of the tensors that sections free without having made them."""
    seen.add(tape)
    sizes: set[int] = set()
    for entry in tape.log:
        if isinstance(entry, Tensor):
            sizes.add(entry.bytes)
        elif isinstance(entry, tuple) and entry[0] not in seen:
            sizes |= _foreign_sizes(entry[0], seen)
    return sizes
