"""What CUDA's kernels take from the caching allocator beside their results: buffers of sums, cuBLAS workspaces.

Where a sum over many rows leaves few numbers (the gradient of a bias: [rows, columns] to [columns]), torch splits the
rows over thread blocks, which leave their partial sums in global memory. That buffer is larger than the result by
far: 132 MiB for a bias of 24,576 and 4,096 rows on an H100. No CPU kernel and no meta tensor shows it.

Source: include/ATen/native/cuda/Reduce.cuh of the installed torch (2.11 and 2.13 agree; `setReduceConfig`,
`get_output_vec_size`, `global_memory_size`), without its ROCm branches, and compared with what an H100 allocated for
reductions (132, 135, 136 and 147.375 MiB, to the byte).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..recorded.size import applied
from ..tape import Tape
from .device import cublas_workspace

WORKSPACE = "workspace"
"""The component that cuBLAS's workspaces are booked under."""
THREADS = ("main", "backward")
"""Those of a process that have a cuBLAS handle: a backward pass runs in one of its own."""
_MAX_THREADS, _WARP = 512, 32
_MIN_VALUES, _MAX_VALUES = 16, 256
_ACCUMULATOR = 4  # sums of float32 and of half precision are float32


class Processors(NamedTuple):
    """Of a card: its multiprocessors, and the threads that each holds."""

    number: int
    threads: int


# By compute capability, the largest card of it that researchers use: the buffer grows with the card.
_LARGEST = {
    "7.0": Processors(80, 2048), "7.5": Processors(72, 1024), "8.0": Processors(108, 2048),
    "8.6": Processors(84, 1536), "8.9": Processors(142, 1536), "9.0": Processors(132, 2048),
    "10.0": Processors(148, 2048), "12.0": Processors(188, 1536),
}  # fmt: skip


def processors(capability: str | None) -> Processors:
    """Of the largest usual card of a compute capability; an H100's where it is not known."""
    return _LARGEST.get(capability or "", _LARGEST["9.0"])


class Kernels:
    """The kernels of one process on a card: which threads have a cuBLAS handle, and with it a workspace, already.

    Args:
        handles: the threads that have one before.
        buffers: what sums of so many columns take, by columns, others nothing; None = it is worked out for each.
    """

    def __init__(
        self, capability: str | None, buffers: Mapping[int, int] | None = None, handles: Collection[str] = ()
    ) -> None:
        self._processors = processors(capability)
        self._buffers = buffers
        self._workspace = cublas_workspace(capability)
        self._threads = set(handles)

    def product(self, tape: Tape, thread: str) -> None:
        """A matrix product in `thread` ("main", "backward"), its result made: the first one takes a workspace."""
        if thread not in self._threads:
            self._threads.add(thread)
            tape.new(self._workspace, WORKSPACE)

    def sum(self, tape: Tape, rows: int, columns: int) -> None:
        """[rows, columns] is summed over its rows, the result made."""
        if self._buffers is not None:
            tape.touch(self._buffers.get(columns, 0))
        else:  # also where it is none: a recorded tape has it for every shape
            tape.touch(applied(_staging_bytes, rows, columns, *self._processors))  # pyright: ignore[reportArgumentType]


def staging_bytes(rows: int, columns: int, card: Processors) -> int:
    """Bytes of the buffer while [rows, columns] is summed over its rows; 0 where one block sums a column alone."""
    return _staging_bytes(rows, columns, *card)


def _staging_bytes(rows: int, columns: int, number: int, threads: int) -> int:
    vector = 4 if columns % 4 == 0 else 2 if columns % 2 == 0 else 1
    most = _MAX_THREADS // vector
    across, down = _power(columns // vector, most), _power(rows, most)
    width = min(across, _WARP)
    height = min(down, most // width)
    width = min(across, most // height)
    values, outputs = rows, width
    if values < min(height * 16, _MAX_VALUES):
        return 0  # the block's rows are other outputs, none shares a column
    values = -(-values // height)
    grid = -(-(columns // vector) // outputs)
    target = number * (threads // (width * height))
    if values < _MAX_VALUES or grid > target:
        return 0
    blocks = max(min(-(-target // grid), -(-values // _MIN_VALUES)), -(-values // _MAX_VALUES))
    return _ACCUMULATOR * columns * blocks * width * vector if blocks > 1 else 0


def _power(number: int, most: int) -> int:
    """The largest power of two that is at most `number`, and at most `most`."""
    return most if number >= most else 1 << (number.bit_length() - 1)
