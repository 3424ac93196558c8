"""Meters: how many bytes of tensors are really alive while a function runs.

Two independent ones, so that neither is trusted alone: a dispatch mode that follows every storage an operator
returns (works on the meta device, so for shapes of any size), and the profiler's record of the CPU allocator (sees
scratch inside kernels too, needs real memory).
"""

from __future__ import annotations

import gc
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Measured:
    """What a run held at its worst moment. Unpacks as `(bytes, result)`."""

    bytes: int
    """Peak of live storage bytes above the baseline."""
    result: Any
    peak_op: str = ""
    """The operator whose output made the peak."""
    at_peak: list[tuple[str, tuple[int, ...], str, int]] = field(default_factory=list)
    """(operator, shape, dtype, storage bytes) of everything alive then, largest first, baseline left out."""
    left: int = 0
    """Bytes above the baseline still alive when the function returned (its result among them)."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.bytes, self.result))


def _storage_key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def distinct_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the distinct storages behind `tensors`, each counted whole and once; what is no tensor is ignored."""
    sizes = {_storage_key(t): t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor)}
    return sum(sizes.values())


class _LiveStorages(TorchDispatchMode):
    """Follows every storage that an operator returns until Python and autograd let it go."""

    def __init__(self, baseline: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._alive: dict[int, tuple[int, Any, str, tuple[int, ...], str]] = {}
        self.now = 0
        for tensor in baseline:
            self._see(tensor, "")
        self.base = self.now
        self.peak = self.now
        self.peak_op = ""
        self._snapshot: list[tuple[int, Any, str, tuple[int, ...], str]] = []

    def _see(self, tensor: torch.Tensor, op: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._alive.get(key)
        if known is not None:
            if known[0] != size:  # resized in place
                self.now += size - known[0]
                self._alive[key] = (size, *known[1:])
            return

        def gone(_: Any, key: int = key) -> None:
            self.now -= self._alive.pop(key)[0]

        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        self._alive[key] = (size, weakref.ref(storage, gone), op, shape, dtype)
        self.now += size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                self._see(leaf, str(func).removeprefix("aten."))
        if self.now > self.peak:
            self.peak, self.peak_op = self.now, str(func).removeprefix("aten.")
            self._snapshot = list(self._alive.values())
        return out

    def at_peak(self) -> list[tuple[str, tuple[int, ...], str, int]]:
        rows = [(op, shape, dtype, size) for size, _, op, shape, dtype in self._snapshot if op]
        return sorted(rows, key=lambda row: -row[3])


def measure_peak(fn: Callable[[], Any], baseline_tensors: Iterable[torch.Tensor] = ()) -> Measured:
    """Run `fn` and return its peak of live storage bytes above `baseline_tensors` (parameters, buffers, inputs).

    Sees a tensor from the moment an operator returns it: scratch inside a kernel is not seen (`profiler_peak` does).
    During a backward pass it can be high by one gradient, because the mode's reference stops in-place accumulation.
    """
    gc.collect()
    mode = _LiveStorages(baseline_tensors)
    with mode:
        result = fn()
    return Measured(mode.peak - mode.base, result, mode.peak_op, mode.at_peak(), mode.now - mode.base)


_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})


def allocations(fn: Callable[[], Any]) -> list[int]:
    """Run `fn` and return what the CPU's allocator did in it, in order: bytes allocated, and minus bytes freed."""
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        fn()
    kineto: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def signed(requests: Iterable[int]) -> list[int]:
    """The same of a tape's `requests()`."""
    made: list[int] = []
    done = []
    for request in requests:
        if request >= 0:
            made.append(request)
        done.append(request if request >= 0 else -made[~request])
    return done


# What torch's CPU copies a transposed matrix through, 60 x 60 elements at a time (copy_transpose_valid).
_TRANSPOSING = 60 * 60 * 4


def in_order(done: Iterable[int], least: int) -> list[int]:
    """Of `allocations` or `signed` those of at least so many bytes. What is freed with nothing allocated in between is
    in order of size: to the caching allocator it is all the same."""
    kept: list[int] = []
    freed: list[int] = []
    for nbytes in done:
        if abs(nbytes) < least or abs(nbytes) == _TRANSPOSING:
            continue
        if nbytes < 0:
            freed.append(nbytes)
        else:
            kept += [*sorted(freed), nbytes]
            freed = []
    return kept + sorted(freed)


def profiler_peak(fn: Callable[[], Any], products_scratch: bool = True) -> Measured:
    """Run `fn` and return the highest sum of CPU allocations minus frees that torch's profiler recorded in it.

    Without `products_scratch`, what a matrix product allocates and frees at once is left out: oneDNN packs 16-bit
    operands there, which cuBLAS does not (its workspace stays, and is counted apart).
    """
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        result = fn()
    kineto: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    if not events:
        raise RuntimeError("the profiler recorded no allocation")
    events.sort(key=lambda event: event.start_ns())
    products = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in kineto.events() if e.name() in _PRODUCTS]
    products = [] if products_scratch else sorted(products)
    starts = [start for start, _ in products]

    def in_product(at: int) -> bool:
        i = bisect_right(starts, at) - 1
        return i >= 0 and at <= products[i][1]

    now = peak = 0
    for event, after in zip(events, [*events[1:], None], strict=True):
        now += event.nbytes()
        at_once = after is not None and after.nbytes() == -event.nbytes() and in_product(after.start_ns())
        if not (at_once and in_product(event.start_ns())):
            peak = max(peak, now)
    return Measured(peak, result, left=now)


class OverBudget(torch.OutOfMemoryError):
    """What a `Card` raises."""


class Card(_LiveStorages):
    """A card with `budget` bytes for tensors: an operator that leaves more than that alive raises `OverBudget`.

    `device` is the torch device that stands for it: "cpu", or "meta" where the host is to be told from it; a copy from
    there to the CPU is then memory of the host, of whatever values. `elsewhere` are tensors that are not on the card,
    whatever their device.
    """

    def __init__(
        self, budget: int, baseline: Iterable[torch.Tensor], device: str = "cpu", elsewhere: Iterable[torch.Tensor] = ()
    ) -> None:
        self._device = device
        self._elsewhere = {_storage_key(tensor) for tensor in elsewhere}
        super().__init__(baseline)
        self.budget = budget

    def _see(self, tensor: torch.Tensor, op: str) -> None:
        if tensor.device.type == self._device and _storage_key(tensor) not in self._elsewhere:
            super()._see(tensor, op)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to = (kwargs or {}).get("device")
        if func is torch.ops.aten._to_copy.default and self._device == "meta" and to == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=(kwargs or {}).get("dtype") or args[0].dtype, device="cpu")
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self.now > self.budget:
            raise OverBudget(f"{func}: {self.now:,} bytes of tensors on a card for {self.budget:,}")
        return out
