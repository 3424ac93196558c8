"""Constant folding: operators, comparisons, methods of strings and numbers, with hard bounds on what is computed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from .values import Choice, Dict, Items, Known, Source, Unknown, bound, choose, known, options, weakest

LONGEST_TEXT = 100_000
MOST_BITS = 256
LONGEST_LIST = 20_000
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_STRING_METHODS = {
    "lower", "upper", "strip", "lstrip", "rstrip", "replace", "split", "rsplit", "startswith", "endswith", "join",
    "format", "title", "capitalize", "removeprefix", "removesuffix", "partition", "rpartition", "count", "find",
    "isdigit", "splitlines", "index", "casefold", "isalpha", "isalnum",
}  # fmt: skip
_PLAIN = (str, int, float, bool, type(None), bytes)


def binary(kind: type[ast.operator], left: Any, right: Any, line: int) -> Any:
    """`left op right`."""
    if isinstance(left, Choice) or isinstance(right, Choice):
        pairs = [(a, b) for a in options(left) for b in options(right)]
        if len(pairs) > 16:
            return Unknown("many combinations", line=line)
        return choose(binary(kind, a, b, line) for a, b in pairs)
    if isinstance(left, Items) and isinstance(right, Items) and kind is ast.Add:
        return Items(left.kind, [*left.items, *right.items][:LONGEST_LIST], left.more or right.more)
    if isinstance(left, Items) and kind is ast.Mult and isinstance(known(right), int):
        return _repeated(left, known(right))
    if isinstance(right, Items) and kind is ast.Mult and isinstance(known(left), int):
        return _repeated(right, known(left))
    if isinstance(left, Dict) and isinstance(right, Dict) and kind is ast.BitOr:
        return Dict(left.items | right.items, left.more or right.more)
    if isinstance(left, Known) and isinstance(right, Known):
        return _folded(kind, left, right, line)
    return Unknown("computed from what is not known", _bounded(kind, left, right), line)


def _bounded(kind: type[ast.operator], left: Any, right: Any) -> int | None:
    """A bound of the result, where both have one and the operator keeps it for whole numbers from 0."""
    most, other = bound(left), bound(right)
    if most is None:
        return None
    if kind in (ast.FloorDiv, ast.Div) and isinstance(known(right), int) and known(right) >= 1:
        return most // known(right) + (kind is ast.Div)
    if kind is ast.Sub and isinstance(known(right), int):
        return most - known(right)
    if other is None or most < 0 or other < 0 or most.bit_length() + other.bit_length() > 62:
        return None
    return {ast.Add: most + other, ast.Mult: most * other}.get(kind)


def _repeated(items: Items, times: int) -> Items:
    length = items.length()
    if times < 0 or len(items.items) * times > LONGEST_LIST:
        count = None if length is None else max(0, length * times)
        return Items(items.kind, items.items[:8], more=True, count=count)
    count = None if items.count is None else items.count * times
    return Items(items.kind, items.items * times, items.more, count)


def _folded(kind: type[ast.operator], left: Known, right: Known, line: int) -> Any:
    a, b = left.value, right.value
    if not isinstance(a, _PLAIN) or not isinstance(b, _PLAIN):
        return Unknown("not a plain value", line=line)
    too_large = Unknown("too large to be computed", line=line)
    if kind is ast.Mod and isinstance(a, str | bytes):
        return Unknown("text made with %", line=line) if not isinstance(a, str) else _percent(a, b, left, right, line)
    if kind is ast.Mult and (isinstance(a, str | bytes) or isinstance(b, str | bytes)):
        text, times = (a, b) if isinstance(a, str | bytes) else (b, a)
        if isinstance(times, int) and isinstance(text, str | bytes) and len(text) * max(times, 0) > LONGEST_TEXT:
            return too_large
    if isinstance(a, int) and isinstance(b, int):
        if kind is ast.Pow and ((b > 0 and a.bit_length() * b > MOST_BITS) or b < -1000):
            return too_large
        if kind is ast.LShift and a.bit_length() + b > MOST_BITS:
            return too_large
        if kind is ast.Mult and a.bit_length() + b.bit_length() > MOST_BITS:
            return too_large
    try:
        result = _ARITHMETIC[kind](a, b)
    except (TypeError, ValueError, ArithmeticError, KeyError):
        return Unknown("cannot be computed", line=line)
    if isinstance(result, complex) or (isinstance(result, str) and len(result) > LONGEST_TEXT):
        return too_large
    return Known(result, weakest(left, right, line=line))


def _percent(a: str, b: Any, left: Known, right: Known, line: int) -> Any:
    if a.count("%") > 20 or any(part[:8].strip("-+ #.0123456789lh")[:1] not in tuple("sdifr%") or
                                any(c.isdigit() for c in part[:1]) for part in a.split("%")[1:] if part):  # fmt: skip
        return Unknown("text made with %", line=line)
    try:
        return Known(a % b, weakest(left, right, line=line))
    except (TypeError, ValueError):
        return Unknown("text made with %", line=line)


def unary(kind: type[ast.unaryop], value: Any, line: int) -> Any:
    """`-x`, `not x`, `~x`."""
    if isinstance(value, Choice):
        return choose(unary(kind, option, line) for option in value.options)
    if kind is ast.Not:
        truth = truthy(value)
        return Unknown("not known", line=line) if truth is None else Known(not truth, weakest(value, line=line))
    if not isinstance(value, Known) or not isinstance(value.value, int | float):
        return Unknown("computed from what is not known", line=line)
    try:
        result = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}[kind](value.value)
    except TypeError:
        return Unknown("cannot be computed", line=line)
    return Known(result, value.source)


def compare(kind: type[ast.cmpop], left: Any, right: Any, line: int) -> Any:
    """`left op right`; `None` where it cannot be told."""
    if isinstance(left, Choice) or isinstance(right, Choice):
        pairs = [(a, b) for a in options(left) for b in options(right)]
        return choose(compare(kind, a, b, line) for a, b in pairs[:16])
    unknown = Unknown("a comparison of what is not known", line=line)
    if kind in (ast.Is, ast.IsNot):
        one, other = _nothing(left), _nothing(right)
        if isinstance(left, Known) and isinstance(right, Known):
            same = left.value is right.value if not (one or other) else one == other
        elif (one or other) and not isinstance(left, Unknown) and not isinstance(right, Unknown):
            same = False
        else:
            return unknown
        return Known(same if kind is ast.Is else not same, weakest(left, right, line=line))
    if kind in (ast.In, ast.NotIn):
        inside = _inside(left, right)
        return unknown if inside is None else Known(inside if kind is ast.In else not inside, weakest(left, right))
    if isinstance(left, Known) and isinstance(right, Known):
        try:
            return Known(bool(_COMPARE[kind](left.value, right.value)), weakest(left, right, line=line))
        except (TypeError, KeyError):
            return unknown
    if kind in (ast.Eq, ast.NotEq) and _differ(left, right):
        return Known(kind is ast.NotEq, Source("computed", line))
    return unknown


def _nothing(value: Any) -> bool:
    return isinstance(value, Known) and value.value is None


def _differ(left: Any, right: Any) -> bool:
    """Something that is there is not None."""
    return (_nothing(left) and not isinstance(right, Unknown)) or (_nothing(right) and not isinstance(left, Unknown))


def _inside(value: Any, container: Any) -> bool | None:
    if isinstance(container, Known) and isinstance(container.value, str):
        return value.value in container.value if isinstance(value, Known) and isinstance(value.value, str) else None
    if isinstance(container, Dict):
        if isinstance(value, Known) and _hashable(value.value) and value.value in container.items:
            return True
        return None if container.more or not isinstance(value, Known) else False
    if isinstance(container, Items) and isinstance(value, Known):
        if any(isinstance(item, Known) and item.value == value.value for item in container.items):
            return True
        all_known = all(isinstance(item, Known) for item in container.items)
        return False if all_known and not container.more else None
    return None


def _hashable(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def truthy(value: Any) -> bool | None:
    """What `bool(value)` is; None where it cannot be told."""
    if isinstance(value, Known):
        return bool(value.value)
    if isinstance(value, Unknown):
        return None
    if isinstance(value, Choice):
        each = {truthy(option) for option in value.options}
        return each.pop() if len(each) == 1 else None
    if isinstance(value, Items):
        length = value.length()
        return True if value.items else None if length is None else length > 0
    if isinstance(value, Dict):
        return True if value.items else None if value.more else False
    return True


def text_method(text: Known, name: str, arguments: list[Any], keywords: dict[str, Any], line: int) -> Any:
    """A method of a str."""
    unknown = Unknown(f"str.{name}() of what is not known", line=line)
    if name not in _STRING_METHODS or len(text.value) > LONGEST_TEXT:
        return unknown
    plain: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Items) and not argument.more and len(argument.items) <= LONGEST_LIST:
            if not all(isinstance(item, Known) for item in argument.items):
                return unknown
            plain.append([item.value for item in argument.items])
            plain[-1] = tuple(plain[-1]) if argument.kind == "tuple" else plain[-1]
        elif isinstance(argument, Known) and isinstance(argument.value, _PLAIN):
            plain.append(argument.value)
        else:
            return unknown
    if any(not isinstance(value, Known) for value in keywords.values()):
        return unknown
    if name == "format" and any(c in text.value for c in ":!.["):
        return unknown  # a width of 10**9 is a string of that length
    if name == "replace" and len(plain) > 1 and isinstance(plain[1], str) and len(plain[1]) * len(text.value) > 10**6:
        return unknown
    if name == "join" and not (len(plain) == 1 and isinstance(plain[0], list | tuple | str)):
        return unknown
    if name == "join" and sum(len(str(p)) + len(text.value) for p in plain[0]) > LONGEST_TEXT:
        return unknown
    try:
        result = getattr(text.value, name)(*plain, **{key: value.value for key, value in keywords.items()})
    except (TypeError, ValueError, LookupError, AttributeError):
        return unknown
    return lifted(result, weakest(text, *arguments, line=line))


def lifted(result: Any, source: Source) -> Any:
    """A plain result of Python as a value."""
    if isinstance(result, list | tuple):
        return Items("list" if isinstance(result, list) else "tuple", [lifted(item, source) for item in result])
    if isinstance(result, str) and len(result) > LONGEST_TEXT:
        return Unknown("too long a text")
    return Known(result, source)
