"""Calls: functions and classes of the text are followed, libraries are looked up, containers have their methods."""

from __future__ import annotations

import ast
from typing import Any

from .builtins_read import call_builtin
from .expressions import all_bases, bind, class_attribute
from .idioms import own_sae
from .idioms.registry import function_of, method_of
from .operations import text_method
from .reader import MOST_CALLS, MOST_ROUNDS, WALKED_A_STEP, Grown
from .statements import NO_GRADIENTS, Statements
from .values import (
    Args,
    Bound,
    Choice,
    Class,
    Dict,
    Function,
    Instance,
    Items,
    Known,
    Lib,
    Partial,
    Source,
    Thing,
    Unknown,
    choose,
    known,
    number,
    parts,
)

_MOVES = frozenset(
    ("to", "cuda", "cpu", "eval", "train", "half", "float", "bfloat16", "double", "__enter__", "compile")
)


class Calls(Statements):
    """Follows calls."""

    def call(self, function: Any, args: Args) -> Any:
        result = self._called(function, args)
        followed = isinstance(function, Function | Class | Choice)
        if (isinstance(result, Unknown) and not followed) or function == Lib("print"):
            escaped(args)
        return result

    def _called(self, function: Any, args: Args) -> Any:
        match function:
            case Choice():
                with self.perhaps():
                    return choose(self.call(option, args) for option in function.options)
            case Function():
                return self._follow(function, args)
            case Class():
                return self._instantiate(function, args)
            case Partial():
                given = function.args
                return self.call(function.function, Args(
                    (*given.positional, *args.positional), given.keywords | args.keywords, args.node,
                    given.more or args.more,
                ))  # fmt: skip
            case Bound():
                return self.call_method(function.owner, function.name, args)
            case Instance():
                own_sae.called(self, function, "forward", args)
                for name in ("__call__", "forward"):
                    if isinstance(found := class_attribute(function.of, name), Function):
                        return self.call(bind(found, function), args)
                return Unknown("a call of an object", line=args.line)
            case Thing():
                return function.call(args, self)
            case Lib():
                return self._library(function.path, args)
        return Unknown("a call of what is not known", line=args.line)

    def _library(self, path: str, args: Args) -> Any:
        handler = function_of(path)
        if handler is not None:
            return handler(self, args, path)
        owner, _, name = path.rpartition(".")
        method = method_of(name)
        if method is not None and owner:
            found = method(self, Unknown(f"{owner} is not read"), args)
            if found is not None:
                return found
        return call_builtin(path, args, self)

    def call_method(self, owner: Any, name: str, args: Args) -> Any:
        result = self._method_called(owner, name, args)
        if isinstance(result, Unknown) and not isinstance(owner, Instance | Choice):
            escaped(args)
        return result

    def _method_called(self, owner: Any, name: str, args: Args) -> Any:
        match owner:
            case Choice():
                results = []
                for option in owner.options:
                    with self.perhaps():
                        results.append(self.call_method(option, name, args))
                return choose(results)
            case Lib():
                return self._library(f"{owner.path}.{name}", args)
            case Thing():
                return owner.method(name, args, self)
            case Items():
                return self._of_list(owner, name, args)
            case Dict():
                return self._of_dict(owner, name, args)
            case Known(value=str()):
                for argument in args.positional:
                    self.charge(argument)
                return text_method(owner, name, list(args.positional), args.keywords, args.line)
            case Unknown() | Bound():
                method = method_of(name)
                found = method(self, owner, args) if method else None
                return Unknown(f"{name}() of what is not known", line=args.line) if found is None else found
            case Instance():
                return self._of_object(owner, name, args)
        found = self.attribute(owner, name, args.line)
        if isinstance(found, Bound):
            return Unknown(f"{name}()", line=args.line)
        return self.call(found, args)

    def _of_object(self, owner: Instance, name: str, args: Args) -> Any:
        found = self.attribute(owner, name, args.line)
        if args.positional and own_sae.is_own_sae(owner):
            own_sae.called(self, owner, name, args)
        if not isinstance(found, Bound | Unknown):
            return self.call(found, args)
        if own_sae.is_own_sae(owner):
            own_sae.cast(self, owner, name, args)
        if name in _MOVES:
            return owner
        module = any(isinstance(base, Lib) and base.last == "Module" for base in all_bases(owner.of))
        if name in ("parameters", "named_parameters") and module:
            return Bound(owner, "parameters")
        method = method_of(name)
        result = method(self, owner, args) if method else None
        return Unknown(f"{name}() is not in what was read", line=args.line) if result is None else result

    def block_of_unknown(self, index: Items) -> Any:
        """`x[:16, :128]` of something that is not known: only a tensor is indexed so."""
        from .idioms.torch_tensors import Tensor

        return Tensor(None).item(index, self)

    # Functions of the text.
    def _follow(self, function: Function, args: Args) -> Any:
        node = function.node
        line = args.line
        if len(self.calls) >= MOST_CALLS or self.calls.count(id(node)) > 1:
            return Unknown("calls nested too deeply", line=line)
        self.entered.add(id(node))
        if any(isinstance(d, Lib) and d.last == "abstractmethod" for d in function.decorators):
            return Unknown("an abstract method", line=line)
        names = self._arguments(function, args)
        from .reader import Frame

        frame = Frame(function.module, names, function.closure, home=function.home, owner=function.owner)
        gradients = self._gradients_of(function)
        depth, self.depth = self.depth, min(self.depth, 30)
        grads = len(self.gradients)
        if gradients is not None:
            self.gradients.append(gradients)
        self.frames.append(frame)
        self.calls.append(id(node))
        try:
            if isinstance(node, ast.Lambda):
                return self.evaluate(node.body)
            left = self.execute(node.body)
        finally:
            self.frames.pop()
            self.calls.pop()
            self.depth = depth
            if gradients is not None:
                del self.gradients[grads:]
        if frame.yielded:
            return Items("list", frame.yielded, frame.yields_more)
        if left not in ("return", "raise") and frame.returned:
            frame.returned.append(Known(None))
        if not frame.returned:
            return Known(None)
        return choose(frame.returned)

    def _gradients_of(self, function: Function) -> bool | None:
        """What a decorator says of gradients."""
        for decorator in function.decorators:
            if isinstance(decorator, Lib) and decorator.path in NO_GRADIENTS:
                return False
            if isinstance(decorator, Dict) and "gradients" in decorator.items:
                return decorator.items["gradients"]
        return None

    def _arguments(self, function: Function, args: Args) -> dict[str, Any]:
        """The names of the arguments with what they hold."""
        spec = function.node.args
        owned = function.owner is not None
        waiting = [function.owner, *args.positional] if owned else list(args.positional)
        plain = [argument.arg for argument in (*spec.posonlyargs, *spec.args)]
        names: dict[str, Any] = {}
        for name in plain:
            if waiting:
                names[name] = waiting.pop(0)
        if spec.vararg:
            names[spec.vararg.arg] = Items("tuple", waiting, args.more)
        rest: dict[str, Any] = {}
        keyword_only = [argument.arg for argument in spec.kwonlyargs]
        for name, value in args.keywords.items():
            if name in plain or name in keyword_only:
                names[name] = value
            else:
                rest[name] = value
        if spec.kwarg:
            names[spec.kwarg.arg] = Dict(rest, args.more)
        for name in (*plain, *keyword_only):
            if name not in names:
                missing = Unknown(f"argument {name} is not given", line=args.line, form=name)
                given = function.defaults.get(name, missing)
                names[name] = given
        return names

    # Classes of the text.
    def _instantiate(self, of: Class, args: Args) -> Any:
        self.made.add(id(of.node))
        made = Instance(of)
        if isinstance(found := class_attribute(of, "__init__"), Function):
            self.call(bind(found, made), args)
            own_sae.made(self, made, args)
            return made
        if of.dataclass:
            self._fill(made, of, args)
            if isinstance(found := class_attribute(of, "__post_init__"), Function):
                self.call(bind(found, made), Args())
            return made
        made.attributes.update(args.keywords)
        return made

    def _fill(self, made: Instance, of: Class, args: Args) -> None:
        """The fields of a dataclass in their order, those of its bases first."""
        waiting = list(args.positional)
        for name, default in _fields(of):
            if name in args.keywords:
                made.attributes[name] = args.keywords[name]
            elif waiting:
                made.attributes[name] = waiting.pop(0)
            elif default is not None:
                if isinstance(default, Dict) and "default_factory" in default.items:
                    default = self.call(default.items["default_factory"], Args())
                if isinstance(default, Known) and default.value is not None:
                    source = Source("default", default.source.line, f"default of {name}")
                    default = Known(default.value, source)
                made.attributes[name] = default
            else:
                made.attributes[name] = Unknown(f"{name} is not given", line=args.line)

    # Containers.
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


def escaped(args: Args) -> None:
    """What is given to a call that is not followed may be read there in any way."""
    waiting: list[Any] = [*args.positional, *args.keywords.values()]
    for _ in range(50):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, Items | Dict):
            waiting += list(parts(value))[:20]
        elif isinstance(value, Thing):
            value.escape()


def _key(key: Any, source: Source) -> Any:
    return Items("tuple", [Known(part, source) for part in key]) if isinstance(key, tuple) else Known(key, source)


def _fields(of: Class, depth: int = 0) -> list[tuple[str, Any]]:
    """Names and defaults of a dataclass's fields; None where there is no default."""
    found: dict[str, Any] = {}
    if depth < 8:
        for base in of.bases:
            if isinstance(base, Class):
                found.update(_fields(base, depth + 1))
    for statement in of.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = of.attributes.get(statement.target.id)
    return list(found.items())
