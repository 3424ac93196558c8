"""Reading a script from beginning to end: its modules, its main part, and the functions that it never calls."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .calls import Calls, escaped
from .idioms import register_for
from .idioms.options import decorated
from .reader import Frame, Module, OutOfSteps
from .source import Script, read_script
from .values import Args, Class, Function, Instance

MOST_MODULES = 40
MOST_IMPORTED = 300_000
"""Characters of imported modules, all together."""
_LIBRARIES = frozenset((
    "torch", "transformers", "transformer_lens", "sae_lens", "nnsight", "dictionary_learning", "peft", "datasets",
    "eap", "circuit_tracer", "sparsify", "numpy", "tqdm", "einops", "jaxtyping", "wandb", "accelerate", "trl",
))  # fmt: skip
"""What the idioms know is not read, even where the script lies in the library's own repository."""
_ROOTS = (".git", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")


class Reading(Calls):
    """One reading of one script."""

    def __init__(self, root: Path | None, folder: Path | None, *, has_gpu: bool = True) -> None:
        super().__init__(root, folder, has_gpu=has_gpu)
        self.faults: list[str] = []
        """Statements that this reader failed on; always empty, but for its own faults."""

    def decorated(self, function: Any, node: ast.FunctionDef) -> None:
        decorated(self, function, node)

    def read(self, script: Script) -> Reading:
        """Follow the script; what it does is in `events` afterwards."""
        register_for(script.text)
        module = Module(script)
        self.modules[Path(script.path)] = module
        self.frames = [Frame(module, module.names)]
        try:
            whole = self._run(script.tree.body)
            self.complete = whole
            self._others(script, module)
        except OutOfSteps:
            self.note(f"{script.path} is too long or too branched to be read to its end; what was found stands")
        return self

    def _run(self, body: list[ast.stmt]) -> bool:
        """Statement by statement: one that cannot be read does not hide the next. Whether all could be."""
        whole = True
        for statement in body:
            try:
                left = self.execute([statement])
            except RecursionError:
                self.note(f"line {statement.lineno}: nested too deeply to be read")
                self._recover()
                whole = False
                continue
            except OutOfSteps:
                raise
            except Exception as error:
                if os.environ.get("COMPUTE_AWARENESS_DEBUG"):
                    raise
                self.faults.append(f"line {statement.lineno}: {type(error).__name__}: {error}")
                self.note(
                    f"line {statement.lineno} could not be read (a fault of compute-awareness, not of the script)"
                )
                self._recover()
                whole = False
                continue
            if left in ("raise", "return"):
                break
        return whole

    def _recover(self) -> None:
        del self.frames[1:], self.gradients[1:], self.autocast[1:], self.times[1:]
        self.calls, self.depth, self.conditional = [], 0, 0
        self.loops.clear()

    def _others(self, script: Script, module: Module) -> None:
        """Functions and methods that the script defines and never calls: read with their defaults."""
        self.called = False
        for statement in script.tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                found = module.names.get(statement.name)
                if isinstance(found, Function) and id(found.node) not in self.entered:
                    self._attempt(found)
            elif isinstance(statement, ast.ClassDef) and isinstance(of := module.names.get(statement.name), Class):
                self._methods(of)
        self.called = True

    def _methods(self, of: Class) -> None:
        waiting = [f for f in of.attributes.values() if isinstance(f, Function) and id(f.node) not in self.entered]
        if not waiting:
            return
        made: Any = Instance(of, {}, more=True)
        if id(of.node) not in self.made:
            made = self._attempt(of) or made
        for function in waiting:
            if id(function.node) not in self.entered and isinstance(made, Instance):
                self._attempt(self.attribute(made, getattr(function.node, "name", ""), 0))

    def _attempt(self, target: Any) -> Any:
        if not isinstance(target, Function | Class):
            return None
        gradients = self.gradients[-1]
        self.gradients[-1] = True
        try:
            result = self.call(target, Args())
            escaped(Args((result,)))
            return result
        except RecursionError:
            self.note("a function is nested too deeply to be read")
            self._recover()
            return None
        except OutOfSteps:
            raise
        except Exception as error:
            if os.environ.get("COMPUTE_AWARENESS_DEBUG"):
                raise
            self.faults.append(f"{type(error).__name__}: {error}")
            self._recover()
            return None
        finally:
            self.gradients[-1] = gradients

    # Modules of the project.
    def module_named(self, name: str, level: int) -> Module | None:
        """The module of the project that an import means; None for a library. Nothing outside the root is read."""
        if self.root is None or self.folder is None or len(self.modules) >= MOST_MODULES:
            return None
        parts = [part for part in name.split(".") if part]
        if not all(part.isidentifier() for part in parts) or (not level and parts and parts[0] in _LIBRARIES):
            return None
        key = (self.frame.module.script.path, name, level)
        if key not in self.imports:
            self.imports[key] = self._found(parts, level)
        return self.imports[key]

    def _found(self, parts: list[str], level: int) -> Module | None:
        for base in self._bases(level):
            for path in (
                base.joinpath(*parts).with_suffix(".py") if parts else None,
                base.joinpath(*parts, "__init__.py"),
            ):
                if path is not None and (module := self._load(path)) is not None:
                    return module
        return None

    def _bases(self, level: int) -> list[Path]:
        here = Path(self.frame.module.script.path).parent
        if level:
            for _ in range(level - 1):
                here = here.parent
            return [here]
        assert self.folder is not None and self.root is not None
        found = [self.folder, here]
        for parent in self.folder.parents:
            if not parent.is_relative_to(self.root):
                break
            found.append(parent)
        found += [self.root / "src"]
        return list(dict.fromkeys(found))

    def _load(self, path: Path) -> Module | None:
        try:
            real = path.resolve()
            if not real.is_file() or self.root is None or not real.is_relative_to(self.root):
                return None
        except (OSError, ValueError, RuntimeError):
            return None
        if real in self.modules:
            return self.modules[real]  # one that is still being read, too: an import in a circle
        if self.imported > MOST_IMPORTED:
            self.note(f"{MOST_IMPORTED} characters of imported modules were read; {path.name} and others are not")
            return None
        try:
            script = read_script(real)
        except InputError as error:
            self.note(str(error))
            return None
        register_for(script.text)
        module = Module(script)
        self.modules[real] = module
        self.imported += len(script.text)
        frame = Frame(module, module.names)
        self.frames.append(frame)
        depth, self.depth = self.depth, 0
        try:
            if len(self.frames) < 12:
                self.execute(script.tree.body)
        finally:
            self.frames.pop()
            self.depth = depth
        return module


def project_root(path: Path) -> Path:
    """The folder that the script's imports may be read from: the nearest with a sign of a project, else its own."""
    folder = path.resolve().parent
    for candidate in (folder, *list(folder.parents)[:6]):
        if candidate in (Path.home(), Path(candidate.anchor)):
            break
        if any((candidate / sign).exists() for sign in _ROOTS):
            return candidate
    return folder


def read_file(path: Path, *, root: Path | None = None, has_gpu: bool = True, arguments: Sequence[str] = ()) -> Reading:
    """Read a script or notebook and the modules of its project that it imports.

    Args:
        path: the file.
        root: nothing outside this folder is read; None = the project that the file lies in.
        has_gpu: whether `torch.cuda.is_available()` is taken to be true.
        arguments: what the script is started with: `--model_path gpt2`.
    Raises:
        InputError: the file itself cannot be read.
    """
    script = read_script(path)
    real = path.resolve()
    script.path = str(path)
    inside = project_root(path) if root is None else root.resolve()
    reading = Reading(inside, real.parent, has_gpu=has_gpu)
    reading.arguments = list(arguments)
    return reading.read(script)


def read_text(script: Script, *, has_gpu: bool = True) -> Reading:
    """Read a script that is no file: no other module is looked for."""
    return Reading(None, None, has_gpu=has_gpu).read(script)
