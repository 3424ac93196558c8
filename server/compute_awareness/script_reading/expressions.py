"""Expressions: what a piece of the text is worth, as far as that can be told."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

from .builtins_read import NAMES
from .classes import all_bases, bind, class_attribute, has_name, is_property
from .containers import Containers
from .idioms.registry import LIBRARY_NAMES
from .operations import LONGEST_TEXT, binary, compare, truthy, unary
from .reader import MOST_DEPTH, MOST_STEPS, WALKED_A_STEP, Module, OutOfSteps
from .values import (
    Args,
    Bound,
    Choice,
    Class,
    Dict,
    Function,
    Instance,
    Known,
    Lib,
    Source,
    Thing,
    Unknown,
    choose,
    known,
    number,
    weakest,
)

_FORMAT = re.compile(r"[<>^=]?[+\- ]?#?0?\d{0,2}[,_]?(\.\d{1,2})?[bcdeEfFgGnosxX%]?")


_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_MAKES = frozenset((ast.BinOp, ast.Call, ast.Subscript, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.JoinedStr))
"""What may make a large value in one step; the elements of a comprehension are steps of their own."""


def _not_read(_reader: Any, node: ast.expr) -> Unknown:
    return Unknown("not read", line=node.lineno)


class Expressions(Containers):
    """Follows expressions."""

    _followers: ClassVar[dict[type[ast.expr], Any]] = {}
    """What follows a kind of node, filled as kinds are met."""

    def evaluate(self, node: ast.expr | None) -> Any:
        if node is None:
            return Known(None)
        self.steps += 1  # `step` and the two commonest kinds of node are written out: this runs more than all else
        if self.steps > MOST_STEPS:
            raise OutOfSteps
        if isinstance(node, ast.Constant):
            return Known(node.value, Source("literal", node.lineno))
        if isinstance(node, ast.Name):
            return self._name(node)
        kind = type(node)
        if self.depth >= MOST_DEPTH:
            return Unknown("nested too deeply", line=node.lineno)
        method = self._followers.get(kind)
        if method is None:
            method = self._followers[kind] = getattr(type(self), f"_{kind.__name__.lower()}", _not_read)
        self.depth += 1
        try:
            value = method(self, node)
        finally:
            self.depth -= 1
        return self.charge(value) if kind in _MAKES else value

    def _name(self, node: ast.Name) -> Any:
        value = self.look_up(node.id)
        if value is not None:
            return Unknown(value.why, value.at_most, node.lineno, node.id) if isinstance(value, Unknown) else value
        if node.id in NAMES or node.id in LIBRARY_NAMES:
            return Lib(node.id)
        if node.id == "__name__":
            main = len(self.frames) == 1 or self.frame.module is self.frames[0].module
            return Known("__main__" if main else "module", Source("literal", node.lineno))
        if node.id == "__file__":
            return Unknown("the path of the file", line=node.lineno)
        return Unknown(f"{node.id} is not set in what was read", line=node.lineno, form=node.id)

    def _attribute(self, node: ast.Attribute) -> Any:
        owner = self.evaluate(node.value)
        value = self.attribute(owner, node.attr, node.lineno)
        if isinstance(value, Unknown) and not value.form:
            return Unknown(value.why, value.at_most, node.lineno, ast.unparse(node))
        return value

    def attribute(self, owner: Any, name: str, line: int = 0) -> Any:
        match owner:
            case Choice():
                return choose(self.attribute(option, name, line) for option in owner.options)
            case Lib():
                return Lib(f"{owner.path}.{name}")
            case Module():
                return owner.names.get(name, Unknown(f"{name} is not set in {owner.script.path}", line=line))
            case Instance():
                return self._of_instance(owner, name, line)
            case Class():
                return self._of_class(owner, name, line)
            case Thing():
                return owner.attribute(name, self)
            case Unknown():
                return Unknown(owner.why, line=line)
            case Dict() if name in owner.items and name not in ("items", "keys", "values", "get"):
                return owner.items[name]
            case Function() if name in ("__name__", "__qualname__"):
                return Known(getattr(owner.node, "name", "<lambda>"))
        return Bound(owner, name)

    def _of_instance(self, owner: Instance, name: str, line: int) -> Any:
        if name in owner.attributes:
            return owner.attributes[name]
        if name == "__dict__":
            return Dict(owner.attributes, owner.more)
        if name == "__class__" and owner.of:
            return owner.of
        found = class_attribute(owner.of, name)
        if isinstance(found, Function):
            bound_one = bind(found, owner)
            if any(is_property(decorator) for decorator in found.decorators):
                return self.call(bound_one, Args())
            return bound_one
        if found is not None:
            return found
        external = next((base for base in all_bases(owner.of) if not isinstance(base, Class)), None)
        if external is not None:
            return Bound(owner, name)
        return Unknown(f"attribute {name} is not set in what was read", line=line)

    def _of_class(self, owner: Class, name: str, line: int) -> Any:
        found = class_attribute(owner, name)
        if isinstance(found, Function):
            return bind(found, owner) if any(has_name(d, "classmethod") for d in found.decorators) else found
        if found is None:
            return Bound(owner, name)
        if any(isinstance(base, Lib) and base.last.endswith("Enum") for base in all_bases(owner)):
            return Instance(None, {"value": found, "name": Known(name)})
        return found

    def _call(self, node: ast.Call) -> Any:
        positional, keywords, more = [], {}, False
        if isinstance(node.func, ast.Attribute):
            owner: Any = self.evaluate(node.func.value)
            function: Any = None
        else:
            owner, function = None, self.evaluate(node.func)
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                items = self.items_of(self.evaluate(argument.value))
                positional += items.items[:64]
                more |= items.more
            else:
                positional.append(self.evaluate(argument))
        for keyword in node.keywords:
            value = self.evaluate(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
                continue
            for option in value.options if isinstance(value, Choice) else (value,):
                if isinstance(option, Thing):
                    option = option.mapping()
                if isinstance(option, Dict):
                    keywords |= {name: v for name, v in option.items.items() if isinstance(name, str)}
                    more |= option.more
                else:
                    more = True
        args = Args(tuple(positional), keywords, node, more)
        if isinstance(node.func, ast.Attribute):
            return self.call_method(owner, node.func.attr, args)
        return self.call(function, args)

    # Operators.
    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        for side in (left, right):
            if isinstance(side, Thing):
                return side.method("__arithmetic__", Args((left, right), {"op": type(node.op)}), self)
        result = binary(type(node.op), left, right, node.lineno)
        if isinstance(result, Unknown):
            sign = _SIGNS.get(type(node.op))
            one, other = (form_of(left), form_of(right)) if sign else ("", "")
            form = f"({one}{sign}{other})"[:200] if one and other else ""
            return Unknown(result.why, result.at_most, node.lineno, form)
        return result

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        return unary(type(node.op), self.evaluate(node.operand), node.lineno)

    def _boolop(self, node: ast.BoolOp) -> Any:
        wanted = isinstance(node.op, ast.Or)
        kept: list[Any] = []
        for part in node.values:
            value = self.evaluate(part)
            truth = truthy(value)
            if truth is wanted:
                kept.append(value)
                break
            if truth is None or part is node.values[-1]:
                kept.append(value)
        return choose(kept)

    def _compare(self, node: ast.Compare) -> Any:
        left = self.evaluate(node.left)
        result: Any = Known(True)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.charge(self.evaluate(comparator), WALKED_A_STEP)
            result = compare(type(op), left, right, node.lineno)
            if truthy(result) is not True:
                return result
            left = right
        return result

    def _ifexp(self, node: ast.IfExp) -> Any:
        truth = truthy(self.evaluate(node.test))
        if truth is not None:
            return self.evaluate(node.body if truth else node.orelse)
        with self.perhaps():
            return choose((self.evaluate(node.body), self.evaluate(node.orelse)))

    def _namedexpr(self, node: ast.NamedExpr) -> Any:
        value = self.evaluate(node.value)
        self.store(node.target.id, value)
        return value

    def _await(self, node: ast.Await) -> Any:
        return self.evaluate(node.value)

    def _starred(self, node: ast.Starred) -> Any:
        return self.evaluate(node.value)

    def _yield(self, node: ast.Yield) -> Any:
        self.frame.yielded.append(self.evaluate(node.value))
        if self.times[-1] != 1:
            self.frame.yields_more = True
        return Unknown("what is sent to a generator")

    def _yieldfrom(self, node: ast.YieldFrom) -> Any:
        items = self.items_of(self.evaluate(node.value))
        self.frame.yielded += items.items
        self.frame.yields_more |= items.more
        return Unknown("what a generator returns")

    # Text.
    def _joinedstr(self, node: ast.JoinedStr) -> Any:
        texts, values = [], []
        for part in node.values:
            if isinstance(part, ast.Constant):
                texts.append(str(part.value))
                continue
            assert isinstance(part, ast.FormattedValue)
            value = self.evaluate(part.value)
            if isinstance(value, Choice):
                value = Unknown("one of several")
            spec = self.evaluate(part.format_spec) if part.format_spec else Known("")
            plain = known(spec)
            if not isinstance(value, Known) or not isinstance(plain, str) or not _FORMAT.fullmatch(plain):
                values.append(None)
                continue
            try:
                shown = repr(value.value) if part.conversion == ord("r") else value.value
                texts.append(format(shown, plain))
            except (TypeError, ValueError):
                values.append(None)
                continue
            values.append(value)
        whole = "".join(texts)
        if None in values or len(whole) > LONGEST_TEXT:
            return Unknown("a text made of what is not known", line=node.lineno)
        return Known(whole, weakest(*values, line=node.lineno) if values else Source("literal", node.lineno))

    def _lambda(self, node: ast.Lambda) -> Any:
        return self.function(node)

    def function(self, node: Any, decorators: tuple[Any, ...] = (), home: Any = None) -> Function:
        """A function of the text, with the defaults that its arguments have now."""
        frame, spec = self.frame, node.args
        defaults: dict[str, Any] = {}
        plain = [*spec.posonlyargs, *spec.args]
        for argument, default in zip(reversed(plain), reversed(spec.defaults), strict=False):
            defaults[argument.arg] = as_default(self.evaluate(default), argument.arg, node.lineno)
        for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            if default is not None:
                defaults[argument.arg] = as_default(self.evaluate(default), argument.arg, node.lineno)
        closure = (*frame.closure, frame.names) if frame.names is not frame.module.names else frame.closure
        return Function(node, frame.module, closure, defaults, None, decorators, home)


def form_of(value: Any) -> str:
    """How a number is spelled: its digits where it is known."""
    if isinstance(value, Unknown):
        return value.form
    return str(number(value)) if number(value) is not None else ""


def as_default(value: Any, name: str, line: int) -> Any:
    """A default of an argument says that a caller may give another."""
    if isinstance(value, Known) and value.value is not None:
        return Known(value.value, Source("default", value.source.line or line, f"default of {name}"))
    return value
