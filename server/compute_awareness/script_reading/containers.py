"""Lists, tuples, sets and dicts: as they are written down, in parts, and by comprehensions."""

from __future__ import annotations

import ast
from typing import Any

from .classes import all_bases
from .operations import truthy
from .reader import MOST_ROUNDS, UNROLL_STEPS, Reader
from .slices import item_of_items, item_of_text, slice_length
from .values import Args, Choice, Class, Dict, Function, Instance, Items, Known, Lib, Thing, Unknown, choose, known


class Containers(Reader):
    """Follows displays, subscripts and comprehensions."""

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


def tuple_key(value: Any) -> tuple[Any, ...] | None:
    """A tuple of plain values, as a key; None where it is none."""
    if isinstance(value, Items) and value.kind == "tuple" and all(isinstance(item, Known) for item in value.items):
        plain = tuple(item.value for item in value.items)
        return plain if all(isinstance(one, str | int | float | None) for one in plain) else None
    return None
