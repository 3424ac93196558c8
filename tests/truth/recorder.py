"""The order in which real libraries allocate: every storage as an operator returns it, and as it goes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Writes down every storage an operator returns, and when it goes, as `Tape.requests` does."""

    def __init__(self, standing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.known: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in standing}
        self.requests: list[int] = []
        self.made = 0

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, number = storage._cdata, self.made
        if key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.requests.append(~number)

        self.made += 1
        self.requests.append(storage.nbytes())
        self.known[key] = weakref.ref(storage, gone)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return result


def cpu_requests(run: Callable[[], Any]) -> list[int]:
    """What torch's CPU allocator was asked for in a run, operators' insides too, by the profiler; as `Tape.requests`.
    What the run returns is freed in the end."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiled:
        run()
    requests: list[int] = []
    numbers: dict[int, list[int]] = {}
    made = 0
    assert profiled.profiler is not None
    memory = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        nbytes = event.nbytes()
        if nbytes > 0:
            numbers.setdefault(nbytes, []).append(made)
            requests.append(nbytes)
            made += 1
        elif numbers.get(-nbytes):  # of equal ones it does not matter which
            requests.append(~numbers[-nbytes].pop())
    return requests


def above(requests: Iterable[int], least: int) -> list[int]:
    """Of what `Recorder` or `Tape.requests` wrote down, what is larger than `least` bytes: bytes made, -bytes freed.

    Frees without an allocation in between are sorted: their order means nothing to an allocator.
    """
    sizes: list[int] = []
    found: list[int] = []
    freed: list[int] = []
    for request in requests:
        if request >= 0:
            sizes.append(request)
            if request > least:
                found += [*sorted(freed), request]
                freed = []
        elif sizes[~request] > least:
            freed.append(-sizes[~request])
    return found + sorted(freed)
