"""A recording made ready for other shapes: its formulas, its guards, and the result that they fill in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from functools import partial
from math import prod
from typing import Any

from ..tape import Tape, Tensor
from .rivals import Rival
from .size import Recording, Size
from .sums import Key, Monomial

Log = tuple[list[int], list[tuple[int, int, str]], list[tuple[int, int, int]]]
"""Of each entry the value that is allocated, or what is freed; where tensors from elsewhere are freed, by value and
component; where sections come, by tape and how often."""
Formula = list[tuple[int, int]]
"""The products, by number, that add up to it, each with its factor."""
Fill = Callable[[list[int], list[Tape]], Any]
"""A part of the result, from what the formulas come to and the tapes that are filled in already."""


class Program:
    """What a recorded function returned, for any shape that its guards hold for.

    Args:
        recording: of the function's call.
        result: what it returned: numbers, tapes, tensors, dataclasses, dicts, lists and tuples of them, and what no
            shape has a say in, which is handed out as it is.
        with_log: tapes have their log, too, as the simulation of the allocator asks for it.
    """

    def __init__(self, recording: Recording, result: Any, with_log: bool) -> None:
        self._with_log = with_log
        self._products: dict[Monomial, int] = {(): 0}
        self._steps: list[tuple[int, int]] = []
        """Each product from an earlier one and a symbol."""
        self._formulas: dict[Key, int] = {}
        self._tapes: list[Fill] = []
        self._tape_numbers: dict[int, int] = {}
        """Which of them a tape is, by id."""
        self._quotients = recording.quotients
        self._result = result
        self._fill = self._plan(result)
        self._sums = [self._formula(terms) for terms in self._formulas]
        self._guards = [
            (self._formula(terms), question == "<", answer) for (terms, question), answer in recording.guards.items()
        ]

    def at(self, sizes: Sequence[int]) -> tuple[Any] | None:
        """The result for this shape, as the one member of a tuple; None where a guard does not hold."""
        symbols = list(sizes)
        for each in self._quotients:
            above, below = _sum(each.dividend, symbols), _sum(each.divisor, symbols)
            symbols.append(-(-above // below) if each.ceiling else above // below)
        products = [1]
        for start, symbol in self._steps:
            products.append(products[start] * symbols[symbol])
        for formula, below_zero, answer in self._guards:
            total = sum([factor * products[number] for number, factor in formula])
            if (total < 0 if below_zero else total == 0) is not answer:
                return None
        values = [sum([factor * products[number] for number, factor in formula]) for formula in self._sums]
        tapes: list[Tape] = []
        for fill in self._tapes:
            tapes.append(fill(values, tapes))
        return (self._fill(values, tapes) if self._fill is not None else self._result,)

    # -- formulas

    def _product(self, monomial: Monomial) -> int:
        known = self._products.get(monomial)
        if known is None:
            step = self._product(monomial[:-1]), monomial[-1]
            self._steps.append(step)
            known = self._products[monomial] = len(self._products)
        return known

    def _formula(self, terms: Key) -> Formula:
        return [(self._product(monomial), factor) for monomial, factor in terms]

    def _number(self, number: Size | int) -> int:
        """Which of the values it is."""
        terms = tuple(sorted(number.terms.items())) if isinstance(number, Size) else (((), number),)
        return self._formulas.setdefault(terms, len(self._formulas))

    # -- the result

    def _plan(self, part: Any) -> Fill | None:
        """How a part of the result is filled in; None where it is the same for every shape."""
        if isinstance(part, Size):
            return partial(_value, self._number(part))
        if isinstance(part, Tape):
            return partial(_tape, self._tape(part))
        if isinstance(part, Tensor):
            return partial(_tensor, self._number(part.bytes), part.component)
        if is_dataclass(part) and not isinstance(part, type):
            return self._of_members(_object, part, {field.name: getattr(part, field.name) for field in fields(part)})
        if isinstance(part, dict):
            return self._of_members(_dict, part, part)
        if isinstance(part, list | tuple):
            return self._of_members(_list, part, dict(enumerate(part)))
        return None

    def _of_members(self, fill: Callable[..., Any], part: Any, members: Mapping[Any, Any]) -> Fill | None:
        plans = [(name, self._plan(member)) for name, member in members.items()]
        plans = [(name, plan) for name, plan in plans if plan is not None]
        return partial(fill, part, plans) if plans else None

    def _tape(self, tape: Tape) -> int:
        """Which of the tapes it is."""
        if id(tape) not in self._tape_numbers:
            log = self._log(tape) if self._with_log else ([], [], [])
            moments = [Rival(tape.peak, tape.at_peak, tape.worst_phase)] if tape.rivals is None else tape.rivals.moments
            numbered = [
                (self._number(each.live), self._components(each.components), each.phase, each.yields)
                for each in moments
            ]
            left = self._components(tape.by_component)
            self._tapes.append(partial(_fill_tape, self._number(tape.live), left, numbered, log, tape.made))
            self._tape_numbers[id(tape)] = len(self._tapes) - 1
        return self._tape_numbers[id(tape)]

    def _components(self, sizes: Mapping[str, Size | int]) -> list[tuple[str, int]]:
        return [(name, self._number(size)) for name, size in sizes.items()]

    def _log(self, tape: Tape) -> Log:
        entries: list[int] = []
        adopted: list[tuple[int, int, str]] = []
        sections: list[tuple[int, int, int]] = []
        for at, entry in enumerate(tape.log):
            if isinstance(entry, tuple):
                sections.append((at, self._tape(entry[0]), entry[1]))
                entries.append(-1)
            elif isinstance(entry, Tensor):
                assert entry.home is None and entry.origin is None, "only the size of what is freed is recorded"
                adopted.append((at, self._number(entry.bytes), entry.component))
                entries.append(-1)
            else:
                freed = entry.__class__ is int and entry < 0
                entries.append(entry if freed else self._number(entry))
        return entries, adopted, sections


def _value(number: int, values: list[int], tapes: list[Tape]) -> int:
    return values[number]


def _tape(number: int, values: list[int], tapes: list[Tape]) -> Tape:
    return tapes[number]


def _tensor(number: int, component: str, values: list[int], tapes: list[Tape]) -> Tensor:
    return Tensor(values[number], component)


def _object(part: Any, plans: list[tuple[str, Fill]], values: list[int], tapes: list[Tape]) -> Any:
    filled = copy(part)
    for name, plan in plans:
        object.__setattr__(filled, name, plan(values, tapes))  # also where the dataclass is frozen
    return filled


def _dict(part: Any, plans: list[tuple[Any, Fill]], values: list[int], tapes: list[Tape]) -> Any:
    filled = copy(part)
    for name, plan in plans:
        filled[name] = plan(values, tapes)
    return filled


def _list(part: Any, plans: list[tuple[int, Fill]], values: list[int], tapes: list[Tape]) -> Any:
    filled = list(part)
    for number, plan in plans:
        filled[number] = plan(values, tapes)
    return filled if isinstance(part, list) else tuple(filled)


def _fill_tape(
    live: int,
    left: list[tuple[str, int]],
    moments: list[tuple[int, list[tuple[str, int]], str, bool]],
    log: Log,
    made: int,
    values: list[int],
    tapes: list[Tape],
) -> Tape:
    peak, highest, worst = -1, moments[0][1], ""
    for number, components, phase, yields in moments:
        height = values[number]
        if height > peak or (height == peak and not yields):
            peak, highest, worst = height, components, phase
    entries, adopted, sections = log
    events: list[int | Tensor | tuple[Tape, int]] = [values[entry] if entry >= 0 else entry for entry in entries]
    for at, number, component in adopted:
        events[at] = Tensor(values[number], component)
    for at, number, times in sections:
        events[at] = tapes[number], times
    tape = Tape.that_was(
        values[live], {name: values[n] for name, n in left}, peak, {name: values[n] for name, n in highest}, events,
        made,
    )  # fmt: skip
    tape.worst_phase = worst
    return tape


def _sum(terms: Key, symbols: list[int]) -> int:
    return sum(factor * prod(symbols[symbol] for symbol in monomial) for monomial, factor in terms)
