"""Functions and classes of the text when they are called: arguments to names, the body followed, objects made."""

from __future__ import annotations

import ast
from typing import Any

from .classes import bind, class_attribute, dataclass_fields
from .idioms import own_sae
from .reader import MOST_CALLS, Frame
from .statements import NO_GRADIENTS, Statements
from .values import Args, Class, Dict, Function, Instance, Items, Known, Lib, Source, Unknown, choose


class Functions(Statements):
    """Follows calls of what the text defines."""

    def _follow(self, function: Function, args: Args) -> Any:
        node = function.node
        line = args.line
        if len(self.calls) >= MOST_CALLS or self.calls.count(id(node)) > 1:
            return Unknown("calls nested too deeply", line=line)
        self.entered.add(id(node))
        if any(isinstance(d, Lib) and d.last == "abstractmethod" for d in function.decorators):
            return Unknown("an abstract method", line=line)
        names = self._arguments(function, args)
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
        for name, default in dataclass_fields(of):
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
