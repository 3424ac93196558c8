"""Whole numbers that are not known yet: sums of products of symbols such as batch_size and seq_len.

The transcriptions compute with shapes as if they were numbers. Given a `Size` in place of a number they write down
formulas: `4 * b * s * 768`. A comparison whose answer depends on the shape is answered for the shape at hand, and
remembered: what was written down holds for every shape with the same answers (`Recording.guards`).

What a `Size` cannot do raises TypeError, so that no number gets lost on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Literal

from .sums import Key, Monomial, Terms, key, long_division, shared, without

Question = Literal["<", "=="]
_UNKNOWN = -1
"""In front of a product in `Recording.shifted` that may be of either sign."""


@dataclass(frozen=True)
class Quotient:
    """A symbol that stands for a division: its floor, or its ceiling."""

    dividend: Key
    divisor: Key
    ceiling: bool


@dataclass(frozen=True)
class Applied:
    """A symbol that stands for what a function gives for the shape: no formula, from 0 on."""

    function: Callable[..., int]
    arguments: tuple[Key, ...]


class Recording:
    """The symbols of a recording, and the questions that it asked about them.

    Args:
        sizes: the shape at hand, each at least 1; `symbols` are to be used in place of it.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.quotients: list[Quotient | Applied] = []
        """What the symbols after the first `len(sizes)` stand for."""
        self.guards: dict[tuple[Key, Question], bool] = {}
        """Is the sum below zero, is it zero: the answers at hand."""
        self.inputs = len(sizes)
        self._least: list[int | None] = [1] * len(sizes)
        self._known: dict[Quotient | Applied, Size] = {}
        self._expansions: dict[Monomial, list[Monomial]] = {}
        self.symbols = [Size(self, {(number,): 1}, size) for number, size in enumerate(sizes)]

    def quotient(self, dividend: Terms, divisor: Terms, ceiling: bool, value: int) -> Size:
        """The symbol of a division that is no formula."""
        division = Quotient(key(dividend), key(divisor), ceiling)
        known = self._known.get(division)
        if known is None:
            least = None
            if self.bounds(dividend)[0] and self.bounds(divisor)[1]:
                least = 1 if ceiling and self.bounds(dividend)[1] else 0
            known = self._symbol(division, least, value)
        return known

    def applied(self, function: Callable[..., int], arguments: Sequence[Size | int]) -> Size:
        """The symbol of what `function` gives for the arguments."""
        meant = Applied(function, tuple(key(_terms(each)) for each in arguments))
        known = self._known.get(meant)
        return known if known is not None else self._symbol(meant, 0, function(*map(_value, arguments)))

    def _symbol(self, meant: Quotient | Applied, least: int | None, value: int) -> Size:
        self._least.append(least)
        self.quotients.append(meant)
        symbol = self._known[meant] = Size(self, {(self.inputs + len(self.quotients) - 1,): 1}, value)
        return symbol

    def bounds(self, terms: Terms) -> tuple[bool, bool]:
        """Whether it is never below zero, and whether it is always above: told from the least values of the symbols."""
        return never_below(self.shifted(terms), {})

    def shifted(self, terms: Terms) -> Terms:
        """The same sum in what each symbol is above its least value; see `never_below`."""
        shifted: Terms = {}
        for monomial, factor in terms.items():
            for part in self._expanded(monomial):
                shifted[part] = shifted.get(part, 0) + factor
        return shifted

    def _expanded(self, monomial: Monomial) -> list[Monomial]:
        """A product of symbols, where each of them may be as it is or its least value."""
        known = self._expansions.get(monomial)
        if known is None:
            leasts = [self._least[symbol] for symbol in monomial]
            if None in leasts:
                known = [(_UNKNOWN, *monomial)]
            else:
                known = [()]
                for symbol, least in zip(monomial, leasts, strict=True):
                    known = [(*part, symbol) for part in known] + (known if least else [])
            self._expansions[monomial] = known
        return known

    def ask(self, difference: Size | int, question: Question) -> bool:
        """Whether the difference is below zero, or zero."""
        if isinstance(difference, int):
            return difference < 0 if question == "<" else difference == 0
        terms = difference.terms
        not_below, always_above = self.bounds(terms)
        _, always_below = self.bounds({monomial: -factor for monomial, factor in terms.items()})
        if question == "<":
            if not_below or always_below:
                return always_below
        elif always_above or always_below:
            return False
        answer = difference.value < 0 if question == "<" else difference.value == 0
        self.guards[key(self._reduced(terms)), question] = answer
        return answer

    def _reduced(self, terms: Terms) -> Terms:
        """Without common factors that are above zero: the same questions in the same words."""
        divisor = gcd(*terms.values())
        common = reduce(shared, terms)
        common = tuple(symbol for symbol in common if self._least[symbol])
        return {without(monomial, common): factor // divisor for monomial, factor in terms.items()}


class Size:
    """A number of a recording. `value` is what it is for the shape at hand."""

    __slots__ = ("_hash", "recording", "terms", "value")

    def __init__(self, recording: Recording, terms: Terms, value: int) -> None:
        self.recording, self.terms, self.value = recording, terms, value
        self._hash: int | None = None

    def _plus(self, other: Size | int, times: int) -> Size | int:
        terms = self.terms.copy()
        for monomial, factor in _terms(other).items():
            total = terms.get(monomial, 0) + times * factor
            if total:
                terms[monomial] = total
            else:
                terms.pop(monomial, None)
        return _number(self.recording, terms, self.value + times * _value(other))

    def __add__(self, other: Size | int) -> Size | int:
        return self._plus(other, 1) if isinstance(other, _NUMBERS) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Size | int) -> Size | int:
        return self._plus(other, -1) if isinstance(other, _NUMBERS) else NotImplemented

    def __neg__(self) -> Size:
        return Size(self.recording, {monomial: -factor for monomial, factor in self.terms.items()}, -self.value)

    def __rsub__(self, other: int) -> Size | int:
        return -self + other

    def __mul__(self, other: Size | int) -> Size | int:
        if not isinstance(other, _NUMBERS):
            return NotImplemented
        terms: Terms = {}
        for one, factor in self.terms.items():
            for another, times in _terms(other).items():
                product = tuple(sorted(one + another))
                terms[product] = terms.get(product, 0) + factor * times
        terms = {monomial: factor for monomial, factor in terms.items() if factor}
        return _number(self.recording, terms, self.value * _value(other))

    __rmul__ = __mul__

    def __pow__(self, power: int) -> Size | int:
        return reduce(lambda product, _: product * self, range(power), 1)

    def __floordiv__(self, other: Size | int) -> Size | int:
        return _divided(self.recording, self, other) if isinstance(other, _NUMBERS) else NotImplemented

    def __rfloordiv__(self, other: int) -> Size | int:
        return _divided(self.recording, other, self)

    def __mod__(self, other: Size | int) -> Size | int:
        return self - self // other * other

    def __rmod__(self, other: int) -> Size | int:
        return other - other // self * self

    def __lt__(self, other: Size | int) -> bool:
        return self.recording.ask(self - other, "<")

    def __gt__(self, other: Size | int) -> bool:
        return self.recording.ask(other - self, "<")

    def __le__(self, other: Size | int) -> bool:
        return not self > other

    def __ge__(self, other: Size | int) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Size):
            # What is kept between recordings (shapes.py) is of no use to another one.
            return self.recording is other.recording and self.recording.ask(self - other, "==")
        return self.recording.ask(self - other, "==") if isinstance(other, int) else NotImplemented

    def __bool__(self) -> bool:
        return not self.recording.ask(self, "==")

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((id(self.recording), key(self.terms)))
        return self._hash

    def __format__(self, spec: str) -> str:
        raise TypeError("a size is not known yet, so it cannot be written")

    def __repr__(self) -> str:
        return f"Size({self.terms}, {self.value})"


_NUMBERS = (Size, int)


def applied(function: Callable[..., int], *arguments: Size | int) -> Size | int:
    """`function(*arguments)`, whole numbers from 0 on that are no formula of them; they may be not known yet."""
    for each in arguments:
        if isinstance(each, Size):
            return each.recording.applied(function, arguments)
    return function(*arguments)


def is_above_zero(number: Size | int) -> bool:
    """For every shape."""
    return number.recording.bounds(number.terms)[1] if isinstance(number, Size) else number > 0


def never_below(one: Terms, other: Terms) -> tuple[bool, bool]:
    """Of two sums of the same recording, `shifted`: whether the one is never below the other, and always above it."""
    for monomial, factor in one.items():
        difference = factor - other.get(monomial, 0)
        if difference < 0 or (difference and monomial and monomial[0] == _UNKNOWN):
            return False, False
    for monomial, factor in other.items():
        if monomial not in one and (factor > 0 or (factor and monomial and monomial[0] == _UNKNOWN)):
            return False, False
    return True, one.get((), 0) > other.get((), 0)


def _terms(number: Size | int) -> Terms:
    return number.terms if isinstance(number, Size) else {(): number} if number else {}


def _value(number: Size | int) -> int:
    return number.value if isinstance(number, Size) else number


def _number(recording: Recording, terms: Terms, value: int) -> Size | int:
    """A plain number where no symbol is left."""
    return Size(recording, terms, value) if any(terms) else value


def _divided(recording: Recording, dividend: Size | int, divisor: Size | int) -> Size | int:
    """dividend // divisor: a formula where it divides, else what divides and a symbol for the rest."""
    value = _value(dividend) // _value(divisor)
    whole, rest = long_division(_terms(dividend), _terms(divisor))
    if not rest:
        return _number(recording, whole, value)
    if not isinstance(divisor, int):
        whole, rest = {}, _terms(dividend)
    part = _number(recording, whole, 0)
    at_rest = value - sum(factor * _of(recording, monomial) for monomial, factor in whole.items())
    if isinstance(divisor, int) and not any(rest):
        symbol = rest[()] // divisor
    elif all(factor < 0 for factor in rest.values()):  # -(-n // 8), the way to round up, makes the ceiling of n / 8
        upside = {monomial: -factor for monomial, factor in rest.items()}
        symbol = -recording.quotient(upside, _terms(divisor), True, -at_rest)
    else:
        symbol = recording.quotient(rest, _terms(divisor), False, at_rest)
    total = symbol + part
    return Size(recording, total.terms, value) if isinstance(total, Size) else value


def _of(recording: Recording, monomial: Monomial) -> int:
    """What a product is for the shape at hand."""
    known = [*recording.symbols, *recording._known.values()]
    return reduce(lambda product, symbol: product * known[symbol].value, monomial, 1)
