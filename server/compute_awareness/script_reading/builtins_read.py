"""Python's own functions, as far as a reader needs them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .operations import lifted, truthy
from .values import (
    Args,
    Choice,
    Dict,
    Function,
    Instance,
    Items,
    Known,
    Lib,
    Source,
    Thing,
    Unknown,
    bound,
    choose,
    known,
    number,
    options,
    weakest,
)

if TYPE_CHECKING:
    from .reader import Reader

_MATH = {
    "math.ceil": math.ceil, "math.floor": math.floor, "math.sqrt": math.sqrt, "math.log2": math.log2,
    "math.isqrt": math.isqrt, "numpy.sqrt": math.sqrt, "numpy.ceil": math.ceil, "math.log": math.log,
}  # fmt: skip
NAMES = {
    "int", "float", "str", "bool", "len", "range", "list", "tuple", "set", "dict", "min", "max", "sum", "abs", "round",
    "enumerate", "zip", "sorted", "reversed", "type", "getattr", "setattr", "isinstance", "hasattr", "vars", "any",
    "all", "divmod", "pow", "iter", "next", "map", "filter", "frozenset", "print", "super", "repr", "callable", "id",
    "object", "property", "staticmethod", "classmethod", "open", "input", "Exception", "ValueError", "locals",
    "globals",
}  # fmt: skip
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict, "set": set}


def call_builtin(name: str, args: Args, reader: Reader) -> Any:
    """The result of a builtin or of a function of `math`; Unknown where it is none of those read here."""
    first = args.get(0)
    if isinstance(first, Choice) and name in ("int", "float", "str", "bool", "len", "abs", "round", *_MATH):
        rest = args.positional[1:]
        return choose(call_builtin(name, Args((o, *rest), args.keywords, args.node), reader) for o in first.options)
    if name in _MATH and isinstance(known(first), int | float):
        return _computed(lambda: _MATH[name](known(first)), first, line=args.line)
    function = _FUNCTIONS.get(name)
    return function(args, reader) if function else Unknown(f"{name}()", line=args.line)


def _computed(function: Any, *values: Any, line: int = 0) -> Any:
    try:
        return Known(function(), weakest(*values, line=line))
    except (TypeError, ValueError, ArithmeticError):
        return Unknown("cannot be computed", line=line)


def _convert(kind: Any) -> Any:
    def convert(args: Args, _reader: Reader) -> Any:
        value = args.get(0)
        if value is None:
            return Known(kind(), Source("literal", args.line))
        if isinstance(value, Known) and len(args.positional) == 1:
            if kind is int and isinstance(value.value, str) and len(value.value) > 30:
                return Unknown("a long number")
            return _computed(lambda: kind(value.value), value, line=args.line)
        if kind is bool and (truth := truthy(value)) is not None:
            return Known(truth, Source("computed", args.line))
        return Unknown(f"{kind.__name__}() of what is not known", bound(value) if kind is int else None, args.line)

    return convert


def _len(args: Args, reader: Reader) -> Any:
    value = args.get(0)
    if isinstance(value, Items):
        length = value.length()
        if length is not None:
            return Known(length, Source("computed", args.line))
    elif isinstance(value, Dict) and not value.more:
        return Known(len(value.items), Source("computed", args.line))
    elif isinstance(value, Known) and isinstance(value.value, str):
        return Known(len(value.value), weakest(value, line=args.line))
    elif isinstance(value, Thing):
        return value.method("__len__", args, reader)
    return Unknown("its length is not known", line=args.line)


def _range(args: Args, _reader: Reader) -> Any:
    numbers = [number(value) for value in args.positional]
    if any(n is None for n in numbers) or not 1 <= len(numbers) <= 3 or (len(numbers) == 3 and numbers[2] == 0):
        most = bound(args.get(1 if len(args.positional) > 1 else 0))
        return Items("list", [Unknown("a loop variable", most, args.line)], more=True)
    whole = range(*[n for n in numbers if n is not None])
    source = weakest(*args.positional, line=args.line)
    length = max(0, (whole.stop - whole.start + whole.step - (1 if whole.step > 0 else -1)) // whole.step)
    return Items("list", [Known(n, source) for n in whole[:256]], length > 256, length)


def _sequence(kind: Any) -> Any:
    def sequence(args: Args, reader: Reader) -> Any:
        value = args.get(0)
        if value is None:
            return Items(kind)
        items = reader.items_of(value)
        if kind == "set" and not items.more:
            different: dict[Any, Any] = {}
            for item in items.items:
                different.setdefault((item.value,) if isinstance(item, Known) else id(item), item)
            kept = list(different.values())
            return Items(kind, kept, any(not isinstance(item, Known) for item in kept))
        return Items(kind, list(items.items), items.more, items.count)

    return sequence


def _dict(args: Args, reader: Reader) -> Any:
    made = Dict({}, args.more)
    value = args.get(0)
    if isinstance(value, Dict):
        made.items.update(value.items)
        made.more |= value.more
    elif value is not None:
        items = reader.items_of(value)
        made.more |= items.more
        for pair in items.items:
            inner = reader.items_of(pair)
            if len(inner.items) == 2 and isinstance(inner.items[0], Known):
                made.items[inner.items[0].value] = inner.items[1]
            else:
                made.more = True
    made.items.update(args.keywords)
    return made


def _extreme(name: str, function: Any) -> Any:
    def extreme(args: Args, reader: Reader) -> Any:
        values = list(args.positional)
        if len(values) == 1:
            items = reader.items_of(values[0])
            if items.more or not items.items:
                return Unknown(f"{name}() of what is not known", line=args.line)
            values = items.items
        if args.keywords or any(isinstance(value, Choice) for value in values):
            return Unknown(f"{name}()", line=args.line)
        if values and all(isinstance(known(value), int | float) for value in values):
            return _computed(lambda: function(known(value) for value in values), *values, line=args.line)
        bounds = [b for b in map(bound, values) if b is not None]
        forms = [value.form for value in values if isinstance(value, Unknown) and value.form]
        if name == "min":
            return Unknown(
                "min() of what is not known", min(bounds, default=None), args.line, forms[0] if forms else ""
            )
        most = max(bounds) if len(bounds) == len(values) and bounds else None
        return Unknown("max() of what is not known", most, args.line)

    return extreme


def _sum(args: Args, reader: Reader) -> Any:
    items = reader.items_of(args.get(0))
    if items.more or not all(isinstance(known(item), int | float) for item in items.items):
        return Unknown("a sum of what is not known", line=args.line)
    return _computed(lambda: sum(known(item) for item in items.items), *items.items, line=args.line)


def _enumerate(args: Args, reader: Reader) -> Any:
    items = reader.items_of(args.get(0))
    start = number(args.get(1, "start", default=Known(0))) or 0
    source = Source("computed", args.line)
    pairs = [Items("tuple", [Known(at, source), item]) for at, item in enumerate(items.items, start)]
    return Items("list", pairs, items.more, items.count)


def _zip(args: Args, reader: Reader) -> Any:
    all_items = [reader.items_of(value) for value in args.positional]
    if not all_items:
        return Items("list")
    rows = [Items("tuple", list(row)) for row in zip(*(items.items for items in all_items), strict=False)]
    if any(items.more and len(items.items) == len(rows) for items in all_items):
        lengths = [length for items in all_items if (length := items.length()) is not None]
        return Items("list", rows, True, min(lengths) if len(lengths) == len(all_items) else None)
    return Items("list", rows)


def _sorted(args: Args, reader: Reader) -> Any:
    items = reader.items_of(args.get(0))
    ordered = list(items.items)
    if not items.more and "key" not in args.keywords and all(isinstance(item, Known) for item in ordered):
        try:
            ordered.sort(key=lambda item: item.value, reverse=bool(known(args.get(None, "reverse"))))
        except TypeError:
            return Items("list", ordered, items.more, items.count)
    return Items("list", ordered, items.more, items.count)


def _reversed(args: Args, reader: Reader) -> Any:
    items = reader.items_of(args.get(0))
    return Items("list", items.items[::-1], items.more, items.count)


def _type(args: Args, _reader: Reader) -> Any:
    value = args.get(0)
    if isinstance(value, Known):
        return Known(type(value.value), Source("computed", args.line))
    if isinstance(value, Items):
        return Known(_TYPES[value.kind], Source("computed", args.line))
    if isinstance(value, Dict):
        return Known(dict, Source("computed", args.line))
    return value.of if isinstance(value, Instance) and value.of else Unknown("type()")


def _getattr(args: Args, reader: Reader) -> Any:
    name = known(args.get(1))
    owner = args.get(0)
    if not isinstance(name, str):
        return Unknown("getattr() of a name that is not known")
    if isinstance(owner, Instance) and len(args.positional) > 2 and name not in owner.attributes and not owner.more:
        found = reader.attribute(owner, name, args.line)
        return args.positional[2] if isinstance(found, Unknown) else found
    return reader.attribute(owner, name, args.line)


def _setattr(args: Args, reader: Reader) -> Any:
    name = known(args.get(1))
    if isinstance(name, str) and len(args.positional) > 2:
        reader.set_attribute(args.positional[0], name, args.positional[2])
    return Known(None)


def _isinstance(args: Args, _reader: Reader) -> Any:
    value, kind = args.get(0), args.get(1)
    names = [lib.path for one in options(kind) for lib in (one.items if isinstance(one, Items) else [one])
             if isinstance(lib, Lib)]  # fmt: skip
    plain = tuple(_TYPES[name.rpartition(".")[2]] for name in names if name.rpartition(".")[2] in _TYPES)
    held = {"list": [], "tuple": (), "set": set()}
    if isinstance(value, Items) and plain:
        return Known(isinstance(held[value.kind], plain), Source("computed", args.line))
    if isinstance(value, Dict) and plain:
        return Known(dict in plain, Source("computed", args.line))
    if isinstance(value, Known) and names and len(plain) == len(names):
        return Known(isinstance(value.value, plain), Source("computed", args.line))
    return Unknown("isinstance()", line=args.line)


def _hasattr(args: Args, reader: Reader) -> Any:
    owner, name = args.get(0), known(args.get(1))
    if isinstance(owner, Instance) and not owner.more and isinstance(name, str):
        return Known(not isinstance(reader.attribute(owner, name, args.line), Unknown), Source("computed", args.line))
    return Unknown("hasattr()", line=args.line)


def _vars(args: Args, _reader: Reader) -> Any:
    value = args.get(0)
    return Dict(value.attributes, value.more) if isinstance(value, Instance) else Dict({}, more=True)


def _quantified(wanted: bool) -> Any:
    def quantified(args: Args, reader: Reader) -> Any:
        items = reader.items_of(args.get(0))
        truths = [truthy(item) for item in items.items]
        if wanted in truths:
            return Known(wanted, Source("computed", args.line))
        return Unknown("any(), all()") if items.more or None in truths else Known(not wanted)

    return quantified


def _iter(args: Args, _reader: Reader) -> Any:
    return args.get(0) if args.positional else Unknown("iter()")


def _next(args: Args, reader: Reader) -> Any:
    value = args.get(0)
    items = reader.items_of(value)
    return items.items[0] if items.items else Unknown("next()", line=args.line)


def _map(args: Args, reader: Reader) -> Any:
    items = reader.items_of(args.get(1))
    function = args.get(0)
    if len(args.positional) != 2 or len(items.items) > 200:
        return Items("list", [], True, items.count)
    return Items("list", [reader.call(function, Args((item,), {}, args.node)) for item in items.items], items.more,
                 items.count)  # fmt: skip


def _filter(args: Args, reader: Reader) -> Any:
    items, function = reader.items_of(args.get(1)), args.get(0)
    if items.more or len(items.items) > 200 or not isinstance(function, Function):
        return Items("list", [], True)
    truths = [truthy(reader.call(function, Args((item,), {}, args.node))) for item in items.items]
    return Items("list", [i for i, keep in zip(items.items, truths, strict=True) if keep], None in truths)


def _round(args: Args, _reader: Reader) -> Any:
    value = args.get(0)
    if not isinstance(value, Known):
        return Unknown("round()", bound(value), args.line)
    digits = number(args.get(1))
    return _computed(lambda: round(value.value, digits) if digits else round(value.value), value, line=args.line)


def _divmod(args: Args, _reader: Reader) -> Any:
    a, b = number(args.get(0)), number(args.get(1))
    return lifted(divmod(a, b), weakest(*args.positional)) if a is not None and b else Unknown("divmod()")


_FUNCTIONS: dict[str, Any] = {
    "int": _convert(int), "float": _convert(float), "str": _convert(str), "bool": _convert(bool), "len": _len,
    "range": _range, "list": _sequence("list"), "tuple": _sequence("tuple"), "set": _sequence("set"),
    "frozenset": _sequence("set"), "dict": _dict, "min": _extreme("min", min), "max": _extreme("max", max),
    "sum": _sum, "enumerate": _enumerate, "zip": _zip, "sorted": _sorted, "reversed": _reversed, "type": _type,
    "getattr": _getattr, "setattr": _setattr, "isinstance": _isinstance, "hasattr": _hasattr, "vars": _vars,
    "any": _quantified(True), "all": _quantified(False), "iter": _iter, "next": _next, "map": _map,
    "filter": _filter, "round": _round, "divmod": _divmod, "print": lambda _a, _r: Known(None),
    "abs": lambda a, _r: _computed(lambda: abs(known(a.get(0))), a.get(0), line=a.line),
}  # fmt: skip
