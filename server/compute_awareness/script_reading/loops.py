"""Loops: short ones round by round, others by a first round and one that stands for the rest."""

from __future__ import annotations

import ast
from typing import Any

from .expressions import Expressions
from .operations import truthy
from .reader import MOST_ROUNDS, UNROLL_STEPS
from .values import Dict, Instance, Items, Thing, Unknown, known


class Loops(Expressions):
    """Follows `for` and `while`."""

    def _do_for(self, node: ast.For) -> str | None:
        items = self.items_of(self.evaluate(node.iter))
        self.loops.append((self.frame.module.script.path, node.lineno, node.end_lineno or node.lineno))
        try:
            return self._loop(node, items)
        finally:
            self.loops.pop()

    _do_asyncfor = _do_for

    def _loop(self, node: ast.For | ast.AsyncFor, items: Items) -> str | None:
        length = items.length()
        if not items.more and len(items.items) <= MOST_ROUNDS and self.steps < UNROLL_STEPS:
            for item in items.items:
                self.assign(node.target, item)
                left = self.execute(node.body)
                if left in ("return", "raise"):
                    return left
                if left == "break":
                    return None
            return self.execute(node.orelse)
        if length == 0:
            return self.execute(node.orelse)
        first = items.items[0] if items.items else Unknown("an element", line=node.lineno)
        later = first if isinstance(first, Thing | Items | Dict | Instance) else _any_of(items, node.lineno)
        self.assign(node.target, first)
        left = self._rounds(node.body, length, lambda: self.assign(node.target, later))
        return left if left == "return" and length is not None else None

    def _rounds(self, body: list[ast.stmt], length: int | None, again: Any) -> str | None:
        """The first round, and a second that stands for all others: what a round leaves alive is there in the next."""
        with self.repeated(1):
            left = self.execute(body)
        if left in ("return", "raise", "break") or length == 1:
            return left
        counted = self._counted_in(body)
        for name in counted:
            self.store(name, Unknown("it changes in a loop", form=name))
        again()
        with self.repeated(None if length is None else length - 1):
            self.execute(body)
        for name in counted:
            self.store(name, Unknown("it changes in a loop", form=name))
        return None

    def _counted_in(self, body: list[ast.stmt]) -> list[str]:
        """Found once for each loop: one in a function that is called often would be searched as often."""
        found = self.counted.get(id(body))
        if found is None:
            found = self.counted[id(body)] = _counted(body)
        return found

    def _do_while(self, node: ast.While) -> None:
        if truthy(self.evaluate(node.test)) is False:
            return
        self.loops.append((self.frame.module.script.path, node.lineno, node.end_lineno or node.lineno))
        try:
            self._rounds(node.body, None, lambda: None)
        finally:
            self.loops.pop()


def _any_of(items: Items, line: int) -> Any:
    """An element that stands for those after the first."""
    numbers = [known(item) for item in items.items]
    whole = all(isinstance(n, int) for n in numbers) and len(items.items) > 0 and not items.more
    return Unknown("a loop variable", max(numbers) if whole else None, line)


def _counted(body: list[ast.stmt]) -> list[str]:
    """Names of plain values that the block adds to: `n += 1`, `n = n + 1`."""
    found: list[str] = []
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                found.append(node.target.id)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if isinstance(node.value, ast.BinOp) and any(
                    isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.value)
                ):
                    found.append(name)
    return list(dict.fromkeys(found))
