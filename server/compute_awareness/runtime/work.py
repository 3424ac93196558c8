"""How much work there is: floating-point operations, bytes of traffic, kernels that are started."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory.estimate import WorkPart


@dataclass(frozen=True, slots=True)
class Work:
    """What some operators do. Adds up, and is multiplied by how often they run."""

    flops: int = 0
    """Two for each multiply-add of a matrix product, as `torch.utils.flop_counter` counts."""
    moved: int = 0
    """Bytes that matrix products read and write, every operand once. What lies between them (norms, activation
    functions, masks, hooks) is left out, so this is what moves at the least."""
    kernels: int = 0
    """Kernels that are started, roughly: see `flops.KERNELS_PER_BLOCK`."""

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved, self.kernels + other.kernels)

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.moved - other.moved, self.kernels - other.kernels)

    def __mul__(self, times: int) -> Work:
        return Work(self.flops * times, self.moved * times, self.kernels * times)


NOTHING = Work()


def product(rows: int, inner: int, columns: int, width: float, count: int = 1) -> Work:
    """`count` matrix products [rows, inner] @ [inner, columns] of numbers of `width` bytes.

    The gradient of either operand is a product of the same three sizes: as much work again.
    """
    numbers = rows * inner + inner * columns + rows * columns
    return Work(2 * rows * inner * columns * count, int(width * numbers * count))


def part(what: str, work: Work, dtype: str, times: int = 1) -> WorkPart:
    """The work as an answer has it."""
    return WorkPart(what=what, times=times, flops=work.flops, moved_bytes=work.moved, kernels=work.kernels, dtype=dtype)
