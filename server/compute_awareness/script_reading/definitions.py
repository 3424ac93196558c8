"""What gives a name to code: functions, classes, and imports of the project's own modules and of libraries."""

from __future__ import annotations

import ast
from typing import Any

from .classes import all_bases
from .loops import Loops
from .reader import Module
from .values import Class, Dict, Lib, Unknown


class Definitions(Loops):
    """Follows `def`, `class` and `import`."""

    def _do_functiondef(self, node: ast.FunctionDef) -> None:
        decorators = tuple(self.evaluate(decorator) for decorator in node.decorator_list)
        made = self.function(node, decorators)
        self.store(node.name, made)
        self.decorated(made, node)

    _do_asyncfunctiondef = _do_functiondef

    def decorated(self, function: Any, node: ast.FunctionDef) -> None:
        raise NotImplementedError

    def _do_classdef(self, node: ast.ClassDef) -> None:
        decorators = [self.evaluate(decorator) for decorator in node.decorator_list]
        bases = [self.evaluate(base) for base in node.bases]
        made = Class(node, self.frame.module, {}, bases)
        names = [d.items.get("decorator") if isinstance(d, Dict) else getattr(d, "path", "") for d in decorators]
        made.dataclass = any(str(name).endswith("dataclass") for name in names) or any(
            (isinstance(base, Lib) and base.last in ("NamedTuple", "BaseModel", "TypedDict", "BaseSettings"))
            or (isinstance(base, Class) and base.dataclass)
            for base in all_bases(made)
        )
        frame = self.frame
        outer, frame.names = frame.names, made.attributes
        closure = frame.closure
        frame.closure = (*closure, outer) if outer is not frame.module.names else closure
        try:
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    decorated = tuple(self.evaluate(decorator) for decorator in statement.decorator_list)
                    frame.names, frame.closure = outer, closure  # methods do not see the class's names
                    function = self.function(statement, decorated, made)
                    frame.names = made.attributes
                    frame.closure = (*closure, outer) if outer is not frame.module.names else closure
                    made.attributes[statement.name] = function
                else:
                    self.execute([statement])
        finally:
            frame.names, frame.closure = outer, closure
        self.store(node.name, made)

    def _do_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname:
                self.store(alias.asname, self._imported(alias.name) or Lib(alias.name))
                continue
            head = alias.name.split(".")[0]
            module = self._imported(alias.name if alias.name == head else head)
            self.store(head, module or Lib(head))

    def _imported(self, name: str, level: int = 0) -> Module | None:
        return self.module_named(name, level)

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        module = self._imported(node.module or "", node.level)
        for alias in node.names:
            if alias.name == "*":
                if module is not None:
                    for name, value in list(module.names.items()):
                        if not name.startswith("_"):
                            self.store(name, value)
                continue
            target = alias.asname or alias.name
            if module is not None:
                value = module.names.get(alias.name)
                if value is None:
                    whole = f"{node.module}.{alias.name}" if node.module else alias.name
                    value = self._imported(whole, node.level)
                self.store(
                    target, value or Unknown(f"{alias.name} is not set in {module.script.path}", line=node.lineno)
                )
            else:
                path = f"{node.module}.{alias.name}" if node.module else alias.name
                inner = self._imported(path, node.level)
                self.store(target, inner or Lib(path))
