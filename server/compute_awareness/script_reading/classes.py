"""Classes of the text: attributes through their bases, methods bound to an object, fields of dataclasses."""

from __future__ import annotations

import ast
from typing import Any

from .values import Class, Function, Lib


def bind(function: Function, owner: Any) -> Function:
    if any(has_name(decorator, "staticmethod") for decorator in function.decorators):
        return function
    return Function(
        function.node, function.module, function.closure, function.defaults, owner, function.decorators, function.home
    )


def has_name(decorator: Any, name: str) -> bool:
    """Whether a decorator is the library's of that name: `classmethod`."""
    return isinstance(decorator, Lib) and decorator.last == name


def is_property(decorator: Any) -> bool:
    return has_name(decorator, "property") or has_name(decorator, "cached_property")


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


def dataclass_fields(of: Class, depth: int = 0) -> list[tuple[str, Any]]:
    """Names and defaults of a dataclass's fields; None where there is no default."""
    found: dict[str, Any] = {}
    if depth < 8:
        for base in of.bases:
            if isinstance(base, Class):
                found.update(dataclass_fields(base, depth + 1))
    for statement in of.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = of.attributes.get(statement.target.id)
    return list(found.items())
