"""Statements: assignments, branches, `with`, what leaves a block."""

from __future__ import annotations

import ast
from typing import Any

from .definitions import Definitions
from .operations import binary, truthy
from .reader import MOST_DEPTH, MOST_ROUNDS, NAMES_A_STEP
from .values import Args, Choice, Class, Dict, Instance, Items, Known, Lib, Thing, Unknown, choose, known, options, same

_LEAVES = ("return", "break", "continue", "raise")
NO_GRADIENTS = ("torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad", "no_grad", "inference_mode")


class Statements(Definitions):
    """Follows statements. `execute` answers how the block was left: None at its end."""

    def execute(self, body: list[ast.stmt]) -> str | None:
        for statement in body:
            self.step()
            if self.depth >= MOST_DEPTH:
                self.note("some of it is nested too deeply to be read")
                return None
            self.depth += 1
            try:
                method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
                left = method(statement) if method else None
            finally:
                self.depth -= 1
            if left in _LEAVES:
                return left
        return None

    def _do_expr(self, node: ast.Expr) -> None:
        self.evaluate(node.value)

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.evaluate(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value))

    def _do_augassign(self, node: ast.AugAssign) -> None:
        before = self.evaluate(_load(node.target))
        added = self.evaluate(node.value)
        if isinstance(before, Items) and before.kind == "list" and isinstance(node.op, ast.Add):
            items = self.items_of(added)
            before.items += items.items[:MOST_ROUNDS]
            before.more |= items.more or self.times[-1] != 1
            return
        if isinstance(before, Thing):
            return
        result = binary(type(node.op), before, added, node.lineno)
        self.assign(node.target, result)

    def assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name():
                self.store(target.id, value)
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value)
            case ast.Starred():
                self.assign(target.value, value)
            case ast.Attribute():
                self.set_attribute(self.evaluate(target.value), target.attr, value)
            case ast.Subscript():
                self._set_item(self.evaluate(target.value), target, value)

    def _unpack(self, targets: list[ast.expr], value: Any) -> None:
        if isinstance(value, Choice):
            value = next((o for o in value.options if isinstance(o, Items)), value)
        starred = next((i for i, t in enumerate(targets) if isinstance(t, ast.Starred)), None)
        if isinstance(value, Known | Unknown):
            for target in targets:
                self.assign(target, Unknown("a part of what is not known", line=target.lineno))
            return
        items = self.items_of(value)
        found = list(items.items)
        if starred is not None:
            after = len(targets) - starred - 1
            middle = found[starred : len(found) - after]
            rest = found[len(found) - after :] if after else []
            found = [*found[:starred], Items("list", middle, items.more), *rest]
        for at, target in enumerate(targets):
            self.assign(target, found[at] if at < len(found) else Unknown("a part of what is not known"))

    def _set_item(self, owner: Any, target: ast.Subscript, value: Any) -> None:
        for one in options(owner):
            if isinstance(one, Dict):
                index = self.index_of(target.slice)
                key = known(index) if isinstance(index, Known) else None
                if isinstance(index, Known) and isinstance(key, str | int | float | bool | None):
                    one.items[key] = value
                else:
                    one.more = True
                    if isinstance(value, Thing):
                        one.items[f"<{target.lineno}>"] = value
            elif isinstance(one, Items) and one.kind == "list":
                at = known(self.evaluate(target.slice)) if not isinstance(target.slice, ast.Slice) else None
                if isinstance(at, int) and -len(one.items) <= at < len(one.items):
                    one.items[at] = value

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        for one in options(owner):
            if isinstance(one, Instance | Class):
                one.attributes[name] = value
            elif isinstance(one, Thing):
                one.set_attribute(name, value, self)

    def _do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Name):
                    frame = self.frame
                    (frame.module.names if one.id in frame.global_names else frame.names).pop(one.id, None)
                elif isinstance(one, ast.Attribute) and isinstance(owner := self.evaluate(one.value), Instance):
                    owner.attributes.pop(one.attr, None)
                elif isinstance(one, ast.Subscript) and isinstance(owner := self.evaluate(one.value), Dict):
                    owner.items.pop(known(self.evaluate(one.slice)), None)

    def _do_return(self, node: ast.Return) -> str:
        self.frame.returned.append(self.evaluate(node.value))
        return "return"

    def _do_raise(self, node: ast.Raise) -> str:
        return "raise"

    def _do_break(self, node: ast.Break) -> str:
        return "break"

    def _do_continue(self, node: ast.Continue) -> str:
        return "continue"

    def _do_global(self, node: ast.Global) -> None:
        self.frame.global_names.update(node.names)

    def _do_assert(self, node: ast.Assert) -> None:
        self.evaluate(node.test)

    # Branches.
    def _do_if(self, node: ast.If) -> str | None:
        truth = truthy(self.evaluate(node.test))
        if truth is not None:
            return self.execute(node.body if truth else node.orelse)
        return self.either([node.body, node.orelse])

    def either(self, bodies: list[list[ast.stmt]]) -> str | None:
        """One of these blocks runs, which one is not known: the names hold one of what they hold after each."""
        names = self.frame.names
        self.step(len(names) // NAMES_A_STEP)
        before = dict(names)
        ends: list[dict[str, Any]] = []
        ways: list[str | None] = []
        for body in bodies:
            names.clear()
            names.update(before)
            with self.perhaps():
                left = self.execute(body)
            ways.append(left)
            if left is None:
                ends.append(dict(names))
        names.clear()
        names.update(ends[0] if ends else before)
        for other in ends[1:]:
            for name, value in other.items():
                if name not in names:
                    names[name] = value
                elif not (names[name] is value or same(names[name], value)):
                    names[name] = choose((names[name], value))
        if ends or not ways:
            return None
        return ways[0] if len(set(ways)) == 1 else "return" if "return" in ways else ways[0]

    def _do_match(self, node: ast.Match) -> str | None:
        subject = self.evaluate(node.subject)
        for case in node.cases:
            fits = self._matches(case.pattern, subject)
            if fits is None or case.guard is not None:
                return self.either([case.body for case in node.cases])
            if fits:
                return self.execute(case.body)
        return None

    def _matches(self, pattern: ast.pattern, subject: Any) -> bool | None:
        match pattern:
            case ast.MatchAs(pattern=None):
                if pattern.name:
                    self.store(pattern.name, subject)
                return True
            case ast.MatchValue():
                value = self.evaluate(pattern.value)
                if isinstance(value, Known) and isinstance(subject, Known):
                    return value.value == subject.value
            case ast.MatchOr():
                each = [self._matches(one, subject) for one in pattern.patterns]
                return True if True in each else None if None in each else False
        return None

    def _do_try(self, node: ast.Try) -> str | None:
        if node.handlers:
            self.step(len(self.frame.names) // NAMES_A_STEP)
            names = dict(self.frame.names)
            left = self.execute(node.body)
            if left is None:
                left = self.execute(node.orelse)
            after = dict(self.frame.names)
            for handler in node.handlers:
                self.frame.names.clear()
                self.frame.names.update(names)
                if handler.name:
                    self.store(handler.name, Unknown("an exception"))
                with self.perhaps():
                    how = self.execute(handler.body)
                if how is None:
                    for name, value in self.frame.names.items():
                        held = after.get(name)
                        after[name] = value if held is None or left not in (None, "return") else choose((held, value))
                    left = None
            self.frame.names.clear()
            self.frame.names.update(after)
        else:
            left = self.execute(node.body)
        return self.execute(node.finalbody) or left

    _do_trystar = _do_try

    # Contexts.
    def _do_with(self, node: ast.With) -> str | None:
        depth, autocast = len(self.gradients), len(self.autocast)
        entered: list[Any] = []
        for item in node.items:
            value = self.evaluate(item.context_expr)
            got = self.enter(value)
            entered.append(value)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, got)
        try:
            return self.execute(node.body)
        finally:
            for value in reversed(entered):
                if isinstance(value, Thing):
                    value.method("__exit__", Args(), self)
            del self.gradients[depth:], self.autocast[autocast:]

    _do_asyncwith = _do_with

    def enter(self, value: Any) -> Any:
        """`with value as ...`: modes are switched on; what is bound."""
        if isinstance(value, Dict) and "gradients" in value.items:
            self.gradients.append(value.items["gradients"])
        elif isinstance(value, Dict) and "autocast" in value.items:
            self.autocast.append(value.items["autocast"])
        elif isinstance(value, Lib) and value.path in NO_GRADIENTS:  # `with torch.no_grad:` is a mistake of theirs
            pass
        elif isinstance(value, Thing):
            return value.method("__enter__", Args(), self)
        elif isinstance(value, Instance):
            return self.call_method(value, "__enter__", Args())
        return value


def _load(target: ast.Name | ast.Attribute | ast.Subscript) -> ast.expr:
    """The target of `+=` as an expression."""
    if isinstance(target, ast.Name):
        return ast.copy_location(ast.Name(target.id, ast.Load()), target)
    return target
