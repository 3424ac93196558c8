"""Sums of products of symbols: each product with its factor."""

from __future__ import annotations

Monomial = tuple[int, ...]
"""Symbols by number, rising; one that is squared is there twice. () is 1."""
Terms = dict[Monomial, int]
Key = tuple[tuple[Monomial, int], ...]


def key(terms: Terms) -> Key:
    """The same for the same sum."""
    return tuple(sorted(terms.items()))


def shared(one: Monomial, other: Monomial) -> Monomial:
    """The symbols that both products have."""
    left, both = list(other), []
    for symbol in one:
        if symbol in left:
            left.remove(symbol)
            both.append(symbol)
    return tuple(both)


def without(monomial: Monomial, factor: Monomial) -> Monomial:
    """A product divided by one that is part of it."""
    left = list(monomial)
    for symbol in factor:
        left.remove(symbol)
    return tuple(left)


def long_division(dividend: Terms, divisor: Terms) -> tuple[Terms, Terms]:
    """Quotient and rest, term by term from the highest on; what does not divide stays in the rest."""
    leading = max(divisor, key=_degree)
    left, quotient, rest = dict(dividend), {}, {}
    while left:
        monomial = max(left, key=_degree)
        factor = left[monomial]
        if factor % divisor[leading] or len(shared(leading, monomial)) < len(leading):
            rest[monomial] = left.pop(monomial)
            continue
        step, times = without(monomial, leading), factor // divisor[leading]
        quotient[step] = quotient.get(step, 0) + times
        for other, each in divisor.items():
            product = tuple(sorted(step + other))
            total = left.get(product, 0) - times * each
            if total:
                left[product] = total
            else:
                left.pop(product, None)
    return {monomial: factor for monomial, factor in quotient.items() if factor}, rest


def _degree(monomial: Monomial) -> tuple[int, Monomial]:
    return len(monomial), monomial
