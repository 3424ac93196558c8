"""The names of a Python function or loop, and the tensors they hold until they are assigned again."""

from __future__ import annotations

from ..tape import Tape, Tensor


class Frame:
    """Local variables on a tape: what a name held goes when it is assigned again, or when the function returns."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._held: dict[str, tuple[Tensor, ...]] = {}

    def assign(self, name: str, *tensors: Tensor) -> None:
        """`name = ...`: the new tensors, which the caller made or holds for it, take the place of the old ones."""
        before, self._held[name] = self._held.get(name, ()), tensors
        self.tape.drop(*before)

    def leave(self) -> None:
        """The function returns."""
        for name in self._held:
            self.assign(name)
