"""Values as they can be known without running anything: what a value is, and where that comes from.

A `Known` holds a plain Python value; an `Unknown` says why there is none, and sometimes a bound; a `Choice` is one of a
few values, which one depends on what cannot be known. Containers hold such values. A `Thing` stands for an object of a
library: a model, a tensor, a cache.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .reader import Reader

SourceKind = Literal["literal", "computed", "model", "library_default", "default", "assumed"]
_CERTAINTY: tuple[SourceKind, ...] = ("literal", "computed", "model", "library_default", "default", "assumed")
MOST_OPTIONS = 6


# Source, Known, Unknown and Args are not changed once they are made. `frozen=True` would say so and take three times as
# long to make each of them, and the reader makes little else.
@dataclass(slots=True, unsafe_hash=True)
class Source:
    """Where a value comes from. `default`: of an option or argument that a caller may set otherwise."""

    kind: SourceKind = "literal"
    line: int = 0
    note: str = ""


_LITERAL = Source()


@dataclass(slots=True, unsafe_hash=True)
class Known:
    value: Any
    source: Source = _LITERAL


@dataclass(slots=True, unsafe_hash=True)
class Unknown:
    """No value: `why` in a few words; `at_most` bounds a number where the text does."""

    why: str = ""
    at_most: int | None = None
    line: int = 0
    form: str = ""
    """How the text spells it, so that the length of `x[a : a + n]` is known though `a` is not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these, depending on something unknown. Never nested, at most `MOST_OPTIONS`."""

    options: tuple[Any, ...]


@dataclass(slots=True)
class Items:
    """A list, tuple or set. `more`: it holds others that are not known."""

    kind: Literal["list", "tuple", "set"]
    items: list[Any] = field(default_factory=list)
    more: bool = False
    count: int | None = None
    """How many there are, where that is known though the items are not."""

    def length(self) -> int | None:
        return self.count if self.count is not None else None if self.more else len(self.items)


@dataclass(slots=True)
class Dict:
    items: dict[Any, Any] = field(default_factory=dict)
    more: bool = False
    made: Any = None
    """defaultdict: what makes a missing value."""


@dataclass(frozen=True, slots=True)
class Lib:
    """A name of a library that is not read: `torch.zeros`."""

    path: str

    @property
    def last(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(slots=True)
class Function:
    """A function or lambda of the text. `owner`: the instance or class it is bound to."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    module: Any
    closure: tuple[dict[str, Any], ...]
    defaults: dict[str, Any]
    owner: Any = None
    decorators: tuple[Any, ...] = ()
    home: Any = None
    """The class that it was written in."""


@dataclass(slots=True, eq=False)
class Class:
    """A class of the text."""

    node: ast.ClassDef
    module: Any
    attributes: dict[str, Any]
    bases: list[Any]
    dataclass: bool = False


@dataclass(slots=True, eq=False)
class Instance:
    """An object of a class of the text; of no class: a namespace."""

    of: Class | None
    attributes: dict[str, Any] = field(default_factory=dict)
    more: bool = False
    """It may have attributes that are not known."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A method of something that is no instance of a class of the text."""

    owner: Any
    name: str


@dataclass(frozen=True, slots=True)
class Partial:
    function: Any
    args: Args


class Thing:
    """An object of a library. What it does not know of itself is unknown."""

    label = "object"

    def attribute(self, name: str, reader: Reader) -> Any:
        return Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return Unknown(f"{self.label}.{name}()")

    def call(self, args: Args, reader: Reader) -> Any:
        return Unknown(f"{self.label}()")

    def item(self, index: Any, reader: Reader) -> Any:
        return Unknown(f"{self.label}[...]")

    def iterate(self, reader: Reader) -> Items:
        return Items("list", [], more=True)

    def set_attribute(self, name: str, value: Any, reader: Reader) -> None:
        """Attributes that matter to nobody are forgotten."""

    def escape(self) -> None:
        """It was given to something that is not followed."""

    def mapping(self) -> Dict | None:
        """What `**` makes of it."""
        return None

    def held(self) -> Iterable[Any]:
        """What it keeps alive."""
        return ()


@dataclass(slots=True, unsafe_hash=True)
class Args:
    """The arguments of one call. `more`: some are not known (`*args`, `**kwargs` of unknown content)."""

    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    node: ast.Call | None = None
    more: bool = False

    @property
    def line(self) -> int:
        return self.node.lineno if self.node else 0

    def get(self, place: int | None, *names: str, default: Any = None) -> Any:
        """The argument of that place or name; `default` where it is not given."""
        for name in names:
            if name in self.keywords:
                return self.keywords[name]
        if place is not None and place < len(self.positional):
            return self.positional[place]
        return Unknown("given through ** or *") if self.more else default

    def with_first(self, *first: Any) -> Args:
        return Args((*first, *self.positional), self.keywords, self.node, self.more)


def known(value: Any) -> Any:
    """The plain value of a `Known`; None where it is not one (a known None is None too)."""
    return value.value if isinstance(value, Known) else None


def is_none(value: Any) -> bool:
    """Not given, or None."""
    return value is None or (isinstance(value, Known) and value.value is None)


def number(value: Any) -> int | None:
    """A whole number that is known; True and 2.5 are none."""
    plain = known(value)
    if isinstance(plain, float) and plain.is_integer() and abs(plain) < 1e15:
        return int(plain)
    return plain if isinstance(plain, int) and not isinstance(plain, bool) else None


def bound(value: Any) -> int | None:
    """The largest whole number it can be, where the text says."""
    if isinstance(value, Unknown):
        return value.at_most
    if isinstance(value, Choice):
        each = [bound(option) for option in value.options]
        return None if any(one is None for one in each) else max(one for one in each if one is not None)
    return number(value)


def weakest(*values: Any, line: int = 0) -> Source:
    """The source of what was computed from these."""
    kinds: list[SourceKind] = [value.source.kind for value in values if isinstance(value, Known)]
    worst = max((_CERTAINTY.index(kind) for kind in kinds), default=0)
    if worst <= 1:
        return Source("computed", line) if len(kinds) != 1 else Source(kinds[0], line)
    held = next(v.source for v in values if isinstance(v, Known) and v.source.kind == _CERTAINTY[worst])
    return Source(held.kind, held.line or line, held.note)


def options(value: Any) -> tuple[Any, ...]:
    """What it may be: the options of a choice, or itself."""
    return value.options if isinstance(value, Choice) else (value,)


def choose(values: Iterable[Any], why: str = "depends on what is not known") -> Any:
    """One of these values; one alone is itself, too many are unknown."""
    found: list[Any] = []
    for value in values:
        for option in options(value):
            if not any(same(option, one) for one in found):
                found.append(option)
    if len(found) == 1:
        return found[0]
    if not found:
        return Unknown(why)
    if len(found) > MOST_OPTIONS:
        bounds = [bound(one) for one in found]
        most = None if any(b is None for b in bounds) else max(b for b in bounds if b is not None)
        return Unknown(why, most)
    return Choice(tuple(found))


def same(one: Any, other: Any, depth: int = 0) -> bool:
    """Whether two values are the same as far as can be told; False where that is not known."""
    if one is other:
        return True
    if isinstance(one, Known) and isinstance(other, Known):
        return type(one.value) is type(other.value) and one.value == other.value
    if depth > 6 or type(one) is not type(other):
        return False
    if isinstance(one, Items):
        return (
            one.kind == other.kind and one.more == other.more and one.count == other.count
            and len(one.items) == len(other.items) and len(one.items) <= 200
            and all(same(a, b, depth + 1) for a, b in zip(one.items, other.items, strict=True))
        )  # fmt: skip
    if isinstance(one, Dict):
        return (
            one.more == other.more and one.items.keys() == other.items.keys()
            and all(same(value, other.items[key], depth + 1) for key, value in one.items.items())
        )  # fmt: skip
    if isinstance(one, Unknown):
        return one.at_most == other.at_most and one.form == other.form
    return isinstance(one, Lib) and one == other


def parts(value: Any) -> Iterator[Any]:
    """What a value holds directly."""
    if isinstance(value, Items):
        yield from value.items
    elif isinstance(value, Dict):
        yield from value.items.values()
    elif isinstance(value, Choice):
        yield from value.options
    elif isinstance(value, Instance):
        yield from value.attributes.values()
    elif isinstance(value, Function):
        yield value.owner
        for scope in value.closure[1:]:
            yield from scope.values()
    elif isinstance(value, Bound):
        yield value.owner
    elif isinstance(value, Partial):
        yield from value.args.positional
        yield from value.args.keywords.values()
    elif isinstance(value, Class):
        yield from value.attributes.values()
    elif isinstance(value, Thing):
        yield from value.held()
