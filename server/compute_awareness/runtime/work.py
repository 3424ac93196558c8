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
    activations: int = 0
    """How much of `moved` is not weights: what lies between the products reads and writes these some times more."""
    kernels: int = 0
    """Kernels that are started, roughly: see `flops.KERNELS_PER_BLOCK`."""

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self._all, other._all, strict=True)))

    def __sub__(self, other: Work) -> Work:
        return Work(*(a - b for a, b in zip(self._all, other._all, strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(number * times for number in self._all))

    @property
    def _all(self) -> tuple[int, int, int, int]:
        return self.flops, self.moved, self.activations, self.kernels


NOTHING = Work()


def product(rows: int, inner: int, columns: int, width: int, count: int = 1, *, weights: bool = True) -> Work:
    """`count` matrix products [rows, inner] @ [inner, columns] of numbers of `width` bytes.

    `weights`: the right operand is a weight; else an activation, too.

    The gradient of either operand is a product of the same three sizes: as much work again.
    """
    activations, right = rows * inner + rows * columns, inner * columns
    moved = width * count * (activations + right)
    return Work(2 * rows * inner * columns * count, moved, width * count * activations if weights else moved)


def part(what: str, work: Work, dtype: str, times: int = 1) -> WorkPart:
    """The work as an answer has it."""
    return WorkPart(
        what=what, times=times, flops=work.flops, moved_bytes=work.moved, activation_bytes=work.activations,
        kernels=work.kernels, dtype=dtype,
    )  # fmt: skip
