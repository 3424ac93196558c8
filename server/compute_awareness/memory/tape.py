"""A ledger of live tensors: what is allocated, what is let go, and how high it stood.

The estimators do not guess a peak with a formula. They write down, in the order of the library's own code, which
tensors it makes and when the last reference to each goes away; the tape adds up. So the peak, what was alive at the
peak, and the bytes that a cache keeps all come from one description, and a storage that two hooks share is counted
once because it is one `Tensor` here too.
"""

from __future__ import annotations

from collections import Counter


class Tensor:
    """One storage on the tape. `bytes` is its size; `refs` how many holders it has."""

    __slots__ = ("bytes", "component", "refs")

    def __init__(self, nbytes: int, component: str) -> None:
        self.bytes = nbytes
        self.component = component
        self.refs = 1


class Tape:
    """Live bytes over time, by component. All figures are bytes."""

    def __init__(self) -> None:
        self.live = 0
        self.by_component: Counter[str] = Counter()
        self.peak = 0
        self.at_peak: Counter[str] = Counter()

    def new(self, nbytes: int, component: str = "temporaries") -> Tensor:
        """Allocate a tensor; the caller holds the one reference to it."""
        tensor = Tensor(nbytes, component)
        self.live += nbytes
        self.by_component[component] += nbytes
        if self.live > self.peak:
            self.peak = self.live
            self.at_peak = self.by_component.copy()
        return tensor

    def adopt(self, nbytes: int, component: str) -> Tensor:
        """Take over a tensor that is already counted elsewhere (before this section): nothing is allocated, but
        letting it go frees its bytes here."""
        return Tensor(nbytes, component)

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
                self.live -= tensor.bytes
                self.by_component[tensor.component] -= tensor.bytes

    def touch(self, nbytes: int, component: str = "temporaries") -> None:
        """Allocate and free at once: scratch that nothing else is allocated beside."""
        self.drop(self.new(nbytes, component))

    def append(self, section: Tape) -> None:
        """Play a section that was recorded on a tape of its own after what is live here."""
        if self.live + section.peak > self.peak:
            self.peak = self.live + section.peak
            self.at_peak = self.by_component.copy()
            self.at_peak.update(section.at_peak)
        self.live += section.live
        self.by_component.update(section.by_component)
