"""The moments of a recorded tape that can be its peak: which of them is, depends on the shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .size import Size, never_below
from .sums import Terms


@dataclass(frozen=True)
class Rival:
    """One moment: live bytes, and each component's."""

    live: Size | int
    components: Mapping[str, Size | int]
    phase: str = ""
    """What was going on."""
    yields: bool = True
    """Of equals the earliest is the peak; false: this one is, in place of any that is as high."""
    shifted: Terms = field(init=False)

    def __post_init__(self) -> None:
        live = self.live
        shifted = live.recording.shifted(live.terms) if isinstance(live, Size) else {(): live}
        object.__setattr__(self, "shifted", shifted)


class Rivals:
    """The moments in order, without those that another one is never below."""

    def __init__(self) -> None:
        self._moments = [Rival(0, {})]
        self._latest: tuple[Size | int, Mapping[str, Size | int], str] | None = None

    @property
    def moments(self) -> list[Rival]:
        self._settle()
        return self._moments

    def copy(self) -> Rivals:
        other = Rivals()
        other._moments = self.moments.copy()
        return other

    def add(
        self, live: Size | int, components: Mapping[str, Size | int], phase: str = "", rising: bool = False
    ) -> None:
        """A moment. `rising`: it is higher than the one before, in any case."""
        if not rising:
            self._settle()
        self._latest = live, dict(components), phase

    def add_last(self, live: Size | int, components: Mapping[str, Size | int], phase: str) -> None:
        """The moment at hand; it is the peak also where an earlier one is as high."""
        self.moments.append(Rival(live, dict(components), phase, yields=False))

    def _settle(self) -> None:
        """What was added last is held against the others."""
        if self._latest is None:
            return
        new = Rival(*self._latest)
        self._latest = None
        kept: list[Rival] = []
        for rival in self._moments:
            if never_below(rival.shifted, new.shifted)[0]:
                return
            if not never_below(new.shifted, rival.shifted)[1]:
                kept.append(rival)
        self._moments = [*kept, new]
