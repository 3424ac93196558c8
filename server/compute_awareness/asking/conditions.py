"""Conditions of the trigger table: what they may say, and whether they hold."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, nearest
from .facts import FACTS

_LIMITS: dict[str, Callable[[float, float], bool]] = {
    "_at_least": operator.ge,
    "_at_most": operator.le,
    "_above": operator.gt,
    "_below": operator.lt,
}
_NOT = "_not"


@dataclass(frozen=True)
class Clause:
    """One line of a condition: `key` as it is written, the fact it asks for, and what it is held against."""

    key: str
    fact: str
    value: Any

    def holds(self, facts: Mapping[str, Any]) -> bool:
        known = facts[self.fact]
        if known is None:
            return False
        suffix = self.key[len(self.fact) :]
        if suffix in _LIMITS:
            return _LIMITS[suffix](known, self.value)
        found = known in self.value if isinstance(self.value, tuple) else known == self.value
        return not found if suffix == _NOT else found


@dataclass(frozen=True)
class Condition:
    """Any of the alternatives, each of which needs all of its clauses. One without clauses always holds."""

    alternatives: tuple[tuple[Clause, ...], ...]

    def holds(self, facts: Mapping[str, Any]) -> bool:
        return any(all(clause.holds(facts) for clause in clauses) for clauses in self.alternatives)

    @property
    def limits(self) -> dict[str, Any]:
        """What it holds the facts against, by key as it is written; the first alternative that has it."""
        found: dict[str, Any] = {}
        for clause in (clause for clauses in self.alternatives for clause in clauses):
            found.setdefault(clause.key, clause.value)
        return found


ALWAYS = Condition(((),))


def parse_condition(raw: Any, flags: Iterable[str] = ()) -> Condition:
    """A condition from its TOML form. `flags`: names that are flags beside the facts (the named conditions).

    Raises:
        InputError: not a condition, an unknown fact (with the nearest), a comparison or value it does not take.
    """
    rows = raw if isinstance(raw, list) else [raw]
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        raise InputError("a condition is a table of facts, e.g. { hours_above = 2 }, or a list of such tables")
    known = frozenset(flags)
    return Condition(tuple(tuple(_clause(key, value, known) for key, value in row.items()) for row in rows))


def _clause(key: str, value: Any, flags: frozenset[str]) -> Clause:
    name, suffix = _split(key, flags)
    if name in flags or FACTS[name].kind == "flag":
        if suffix or not isinstance(value, bool):
            raise InputError(f"{key!r}: {name!r} is a flag: give {name} = true or false")
        return Clause(key, name, value)
    if FACTS[name].kind == "number":
        if suffix not in _LIMITS:
            wanted = ", ".join(name + limit for limit in _LIMITS)
            raise InputError(f"{key!r}: {name!r} is a number: give one of {wanted}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{key!r}: a number, not {value!r}")
        return Clause(key, name, value)
    if suffix not in ("", _NOT):
        raise InputError(f"{key!r}: {name!r} is a choice: give {name} or {name}{_NOT}")
    values = tuple(value) if isinstance(value, list) else (value,)
    for one in values:
        if one not in FACTS[name].choices:
            close = nearest(str(one), FACTS[name].choices, 1)
            hint = f"nearest: {close[0]}; " if close else ""
            raise InputError(f"{key!r}: unknown {name} {one!r}; {hint}one of: {', '.join(FACTS[name].choices)}")
    return Clause(key, name, values)


def _split(key: str, flags: frozenset[str]) -> tuple[str, str]:
    """The fact that a key asks for, and the comparison behind it. Raises InputError for one that is not known."""
    names = flags | FACTS.keys()
    if key in names:
        return key, ""
    for suffix in (*_LIMITS, _NOT):
        if key.endswith(suffix) and key.removesuffix(suffix) in names:
            return key.removesuffix(suffix), suffix
    bare = next((key.removesuffix(suffix) for suffix in (*_LIMITS, _NOT) if key.endswith(suffix)), key)
    close = nearest(bare, names, 1)
    hint = f"nearest: {close[0]}" if close else f"known: {', '.join(sorted(names))}"
    raise InputError(f"unknown fact {bare!r}; {hint}")
