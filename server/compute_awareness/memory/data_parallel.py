"""What DistributedDataParallel holds on every card beside the model that it wraps.

Each process has the whole model, its gradients and its optimizer state; besides, the reducer has its buckets. Source:
torch 2.13 nn/parallel/distributed.py and torch/csrc/distributed/c10d/reducer.cpp: `initialize_buckets` makes one flat
tensor per bucket when the model is wrapped, and again when the buckets are rebuilt in the order of the first backward
pass, after the old ones have gone. However they are cut (1 MiB the first, then 25 MiB each), together they are as
large as the gradients, and they stay between steps. Reduction is in place.

When the buckets are rebuilt, the thread that reduced the old ones may not have let go of them yet (seen with gloo): at
the beginning of the second step there can be two sets, with no gradients beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..units import MIB

BROADCAST_BYTES = 250 * MIB
"""DistributedDataParallel.broadcast_bucket_size."""
_IN_FLIGHT = 2


def bucket_bytes(trained: Iterable[tuple[int, int]]) -> int:
    """Bytes of all buckets: each trained tensor once, by its elements and bytes per element."""
    return sum(elements * width for elements, width in trained)


def broadcast_bytes(tensors: Sequence[int], limit: int = BROADCAST_BYTES) -> int:
    """Bytes that wrapping the model takes while the first process' weights are sent to the others.

    `_sync_module_states` sends the weights in flat copies, each closed by the tensor with which it reaches `limit`
    bytes, two of them on the way at once (c10d/comm.cpp, broadcast_coalesced). The buckets do not exist yet.

    Args:
        tensors: bytes of each parameter and buffer in order, all of one dtype.
    """
    chunks, filled = [], 0
    for nbytes in tensors:
        filled += nbytes
        if filled >= limit:
            chunks.append(filled)
            filled = 0
    chunks.append(filled)
    return max(sum(chunks[i : i + _IN_FLIGHT]) for i in range(len(chunks)))
