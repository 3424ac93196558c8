"""Calls: functions and classes of the text are followed, libraries are looked up, containers have their methods."""

from __future__ import annotations

from typing import Any

from .builtins_read import call_builtin
from .classes import all_bases, bind, class_attribute
from .container_methods import ContainerMethods
from .idioms import own_sae
from .idioms.registry import function_of, method_of
from .operations import text_method
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
    Thing,
    Unknown,
    choose,
    parts,
)

_MOVES = frozenset(
    ("to", "cuda", "cpu", "eval", "train", "half", "float", "bfloat16", "double", "__enter__", "compile")
)


class Calls(ContainerMethods):
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
