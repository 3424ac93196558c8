"""Expressions: what a piece of the text is worth, as far as that can be told."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

from .builtins_read import NAMES
from .idioms.registry import LIBRARY_NAMES
from .operations import LONGEST_TEXT, binary, compare, truthy, unary
from .reader import MOST_DEPTH, MOST_ROUNDS, MOST_STEPS, UNROLL_STEPS, WALKED_A_STEP, Module, OutOfSteps, Reader
from .slices import item_of_items, item_of_text, slice_length
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


class Expressions(Reader):
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
            return bind(found, owner) if any(_is(d, "classmethod") for d in found.decorators) else found
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

    # Containers.
    def _list(self, node: ast.List) -> Any:
        return self._items("list", node.elts)

    def _tuple(self, node: ast.Tuple) -> Any:
        return self._items("tuple", node.elts)

    def _set(self, node: ast.Set) -> Any:
        return self._items("set", node.elts)

    def _items(self, kind: Any, nodes: list[ast.expr]) -> Items:
        made = Items(kind)
        for node in nodes:
            value = self.evaluate(node)
            if isinstance(node, ast.Starred):
                inner = self.items_of(value)
                made.items += inner.items
                made.more |= inner.more
            else:
                made.items.append(value)
        return made

    def _dict(self, node: ast.Dict) -> Any:
        made = Dict()
        for key, value in zip(node.keys, node.values, strict=True):
            held = self.evaluate(value)
            name = self.evaluate(key) if key is not None else None
            if key is None:
                for option in held.options if isinstance(held, Choice) else (held,):
                    made.items |= option.items if isinstance(option, Dict) else {}
                    made.more |= option.more if isinstance(option, Dict) else True
            elif isinstance(name, Known) and isinstance(name.value, str | int | float | None):
                made.items[name.value] = held
            elif (plain := tuple_key(name)) is not None:
                made.items[plain] = held
            else:
                made.more = True
        return made

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self.evaluate(node.value)
        if isinstance(owner, Thing):
            return owner.item(self.index_of(node.slice), self)
        return self.item(owner, node.slice, node.lineno)

    def index_of(self, node: ast.expr) -> Any:
        """An index as a value; slices are `slice` of three values, several together a tuple Items."""
        if isinstance(node, ast.Slice):
            return slice(*(self.evaluate(part) if part else None for part in (node.lower, node.upper, node.step)))
        if isinstance(node, ast.Tuple):
            return Items("tuple", [self.index_of(part) for part in node.elts])
        return self.evaluate(node)

    def item(self, owner: Any, node: ast.expr, line: int) -> Any:
        """`owner[...]`"""
        if isinstance(owner, Choice):
            return choose(self.item(option, node, line) for option in owner.options)
        if isinstance(owner, Thing):
            return owner.item(self.index_of(node), self)
        if isinstance(owner, Lib | Class):  # list[int], Optional[str]
            return owner
        index = self.index_of(node)
        if isinstance(owner, Instance):
            found = self.attribute(owner, "__getitem__", line)
            if isinstance(found, Function) and not isinstance(index, slice):
                return self.call(found, Args((index,)))
            if any(isinstance(base, Lib) and base.last == "NamedTuple" for base in all_bases(owner.of)):
                owner = Items("tuple", list(owner.attributes.values()))
        if isinstance(owner, Dict):
            return self._item_of_dict(owner, index, line)
        if isinstance(owner, Known) and isinstance(owner.value, str):
            return item_of_text(owner, index, line)
        if isinstance(owner, Items):
            return item_of_items(owner, index, line)
        if isinstance(index, Items) and index.items and all(isinstance(one, slice) for one in index.items):
            return self.block_of_unknown(index)
        if isinstance(index, slice):
            most = slice_length(index, None)
            return Items("list", [], True, known(most)) if isinstance(most, Known) else Unknown("a part", line=line)
        return Unknown("a part of what is not known", line=line)

    def block_of_unknown(self, index: Items) -> Any:
        raise NotImplementedError

    def _item_of_dict(self, owner: Dict, index: Any, line: int) -> Any:
        key = index.value if isinstance(index, Known) else tuple_key(index)
        if isinstance(index, Known | Items) and isinstance(key, str | int | float | bool | None | tuple):
            if key in owner.items:
                return owner.items[key]
            if owner.made is not None:
                owner.items[key] = self.call(owner.made, Args())
                return owner.items[key]
            return Unknown(f"no entry {str(key)[:40]!r} in what was read", line=line)
        if isinstance(index, Choice):
            return choose(self._item_of_dict(owner, option, line) for option in index.options)
        if owner.items and not owner.more and len(owner.items) <= 6:
            return choose(owner.items.values())
        return Unknown("an entry that is not known", line=line)

    # Comprehensions.
    def _listcomp(self, node: ast.ListComp) -> Any:
        return self._comprehension(node.generators, node.elt, "list")

    def _generatorexp(self, node: ast.GeneratorExp) -> Any:
        return self._comprehension(node.generators, node.elt, "list")

    def _setcomp(self, node: ast.SetComp) -> Any:
        return self._comprehension(node.generators, node.elt, "set")

    def _dictcomp(self, node: ast.DictComp) -> Any:
        pair = ast.copy_location(ast.Tuple([node.key, node.value], ast.Load()), node)
        made = Dict()
        pairs = self._comprehension(node.generators, pair, "list")
        made.more = pairs.more
        for item in pairs.items:
            key = item.items[0] if isinstance(item, Items) else None
            if isinstance(key, Known):
                made.items[key.value] = item.items[1]
            else:
                made.more = True
        return made

    def _comprehension(self, generators: list[ast.comprehension], element: ast.expr, kind: Any) -> Items:
        targets = [part.id for one in generators for part in ast.walk(one.target) if isinstance(part, ast.Name)]
        names = self.frame.names
        outer = {name: names[name] for name in targets if name in names}
        made = Items(kind)
        try:
            self._generate(generators, element, made)
        finally:  # the variables of a comprehension are its own
            for name in targets:
                names.pop(name, None)
            names.update(outer)
        return made

    def _generate(self, generators: list[ast.comprehension], element: ast.expr, made: Items) -> None:
        if not generators:
            made.items.append(self.evaluate(element))
            return
        first, rest = generators[0], generators[1:]
        items = self.items_of(self.evaluate(first.iter))
        length = items.length()
        followed = not items.more and len(items.items) <= 4 * MOST_ROUNDS and self.steps < UNROLL_STEPS
        chosen = items.items if followed else (items.items[:1] or [Unknown("an element")])
        if not chosen:
            return
        if not followed:
            made.more = True
            made.count = length if not rest and not first.ifs else None
        for item in chosen:
            with self.repeated(1 if followed else length):
                self.assign(first.target, item)
                truths = [truthy(self.evaluate(test)) for test in first.ifs]
                if False in truths and followed:
                    continue
                if None in truths:
                    made.more = True
                self._generate(rest, element, made)

    def assign(self, target: ast.expr, value: Any) -> None:
        raise NotImplementedError


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


def bind(function: Function, owner: Any) -> Function:
    if any(_is(decorator, "staticmethod") for decorator in function.decorators):
        return function
    return Function(
        function.node, function.module, function.closure, function.defaults, owner, function.decorators, function.home
    )


def _is(decorator: Any, name: str) -> bool:
    return isinstance(decorator, Lib) and decorator.last == name


def is_property(decorator: Any) -> bool:
    return _is(decorator, "property") or _is(decorator, "cached_property")


def class_attribute(of: Class | None, name: str, depth: int = 0) -> Any:
    """An attribute of the class or of its bases in the text; None where there is none."""
    if of is None or depth > 12:
        return None
    if name in of.attributes:
        return of.attributes[name]
    for base in of.bases:
        found = class_attribute(base, name, depth + 1) if isinstance(base, Class) else None
        if found is not None:
            return found
    return None


def all_bases(of: Class | None, depth: int = 0) -> list[Any]:
    """The bases, and theirs."""
    if of is None or depth > 12:
        return []
    found: list[Any] = []
    for base in of.bases:
        found += [base, *(all_bases(base, depth + 1) if isinstance(base, Class) else [])]
    return found


def tuple_key(value: Any) -> tuple[Any, ...] | None:
    """A tuple of plain values, as a key; None where it is none."""
    if isinstance(value, Items) and value.kind == "tuple" and all(isinstance(item, Known) for item in value.items):
        plain = tuple(item.value for item in value.items)
        return plain if all(isinstance(one, str | int | float | None) for one in plain) else None
    return None
