"""Methods of lists and dicts, what iterating over a value gives, and lists that grow in a loop."""

from __future__ import annotations

import ast
from typing import Any

from .classes import all_bases, bind, class_attribute
from .functions import Functions
from .reader import MOST_ROUNDS, WALKED_A_STEP, Grown
from .values import (
    Args,
    Choice,
    Class,
    Dict,
    Function,
    Instance,
    Items,
    Known,
    Lib,
    Source,
    Thing,
    Unknown,
    choose,
    known,
    number,
)


class ContainerMethods(Functions):
    """Follows methods of containers."""

    def _of_list(self, owner: Items, name: str, args: Args) -> Any:
        first = args.get(0)
        match name:
            case "append" | "add":
                if owner.more and len(owner.items) > MOST_ROUNDS * 4:
                    return Known(None)
                owner.items.append(first)
                self._grown(owner)
                if self.loops and isinstance(first, Thing) and args.node is not None:
                    self._collected(first, args.node)
            case "extend" | "update":
                items = self.items_of(first)
                owner.items += items.items[: MOST_ROUNDS * 4]
                owner.more |= items.more
                self._grown(owner)
            case "insert":
                self.charge(owner, WALKED_A_STEP)
                owner.items.insert(number(first) or 0, args.get(1))
                self._grown(owner)
            case "pop" if owner.items and not owner.more:
                at = number(first) if first is not None else -1
                return owner.items.pop(at) if at is not None and -len(owner.items) <= at < len(owner.items) else (
                    Unknown("an element"))  # fmt: skip
            case "clear":
                owner.items, owner.more, owner.count = [], False, None
            case "copy":
                return Items(owner.kind, list(owner.items), owner.more, owner.count)
            case "reverse":
                owner.items.reverse()
            case "union":
                other = self.items_of(first)
                return Items("set", [*owner.items, *other.items], owner.more or other.more)
            case "sort":
                pass
            case "tolist":
                return owner
            case "index":
                self.charge(owner, WALKED_A_STEP)
                found = [i for i, item in enumerate(owner.items) if known(item) == known(first)]
                return Known(found[0]) if found and isinstance(first, Known) else Unknown("index()")
            case _:
                return Unknown(f"{name}() of a list", line=args.line)
        return Known(None)

    def _collected(self, value: Thing, node: ast.Call) -> None:
        """A list in a loop keeps it: the rounds add up."""
        times = self.times[-1]
        script = self.frame.module.script.path
        held = self.grown.get((script, node.lineno, node.col_offset))
        if held is None:
            self.grown[script, node.lineno, node.col_offset] = Grown(script, node, value, times, list(self.loops))
            return
        held.times = None if held.times is None or times is None else held.times + times
        held.value = value

    def _grown(self, owner: Items) -> None:
        if self.times[-1] != 1 or self.conditional:
            owner.more, owner.count = True, None

    def _of_dict(self, owner: Dict, name: str, args: Args) -> Any:
        first = args.get(0)
        key = known(first)
        match name:
            case "get" | "pop" | "setdefault":
                default = args.get(1, "default", default=Known(None))
                if not isinstance(first, Known) or not isinstance(key, str | int | float | bool | None):
                    return Unknown(f"{name}() of a key that is not known", line=args.line)
                if key in owner.items:
                    return owner.items.pop(key) if name == "pop" else owner.items[key]
                if name == "setdefault":
                    owner.items[key] = default
                return choose((default, Unknown("an entry that is not known"))) if owner.more else default
            case "items":
                source = Source("computed", args.line)
                pairs = [Items("tuple", [_key(k, source), v]) for k, v in owner.items.items()]
                return Items("list", pairs, owner.more)
            case "keys" | "__iter__":
                return Items("list", [_key(k, Source("computed", args.line)) for k in owner.items], owner.more)
            case "values":
                return Items("list", list(owner.items.values()), owner.more)
            case "update":
                for option in first.options if isinstance(first, Choice) else (first,):
                    if isinstance(option, Dict):
                        owner.items.update(option.items)
                        owner.more |= option.more
                    elif option is not None:
                        owner.more = True
                owner.items.update(args.keywords)
                return Known(None)
            case "copy":
                return Dict(dict(owner.items), owner.more, owner.made)
            case "to" | "cuda" | "cpu":
                return Dict({k: self.call_method(v, name, args) if isinstance(v, Thing) else v
                             for k, v in owner.items.items()}, owner.more)  # fmt: skip
            case "clear":
                owner.items.clear()
                return Known(None)
        if name in owner.items:
            return self.call(owner.items[name], args)
        return Unknown(f"{name}() of a dict", line=args.line)

    def items_of(self, value: Any) -> Items:
        """What iterating over it gives."""
        match value:
            case Items():
                return self.charge(value, WALKED_A_STEP)
            case Dict():
                return self.charge(Items("list", [_key(key, Source("computed")) for key in value.items], value.more))
            case Thing():
                return value.iterate(self)
            case Choice():
                every = [self.items_of(option) for option in value.options]
                lengths = {items.length() for items in every}
                return Items("list", [], True, lengths.pop() if len(lengths) == 1 else None)
            case Known(value=str()):
                length = len(value.value)
                kept = [Known(character, value.source) for character in value.value[:256]]
                return self.charge(Items("list", kept, length > 256, length))
            case Class() if any(isinstance(b, Lib) and b.last.endswith("Enum") for b in all_bases(value)):
                members = [(name, v) for name, v in value.attributes.items() if not isinstance(v, Function)]
                return Items("list", [Instance(None, {"value": v, "name": Known(name)}) for name, v in members])
            case Instance():
                for name in ("__iter__", "__getitem__"):
                    found = class_attribute(value.of, name)
                    if isinstance(found, Function):
                        result = self.call(bind(found, value), Args(()))
                        if name == "__iter__" and isinstance(result, Items):
                            return result
                        return Items("list", [result] if name == "__getitem__" else [], True)
        return Items("list", [], True)


def _key(key: Any, source: Source) -> Any:
    return Items("tuple", [Known(part, source) for part in key]) if isinstance(key, tuple) else Known(key, source)
