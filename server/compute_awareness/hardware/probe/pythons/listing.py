"""All Pythons at hand, nearest first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..report import WorkspacePython
from .conda import conda_environments, is_base
from .folders import describe, environment_of, executable, is_folder, python_in, small_text
from .kernels import kernels
from .project import project_pythons

MOST_LISTED = 20


class Candidate(NamedTuple):
    """A Python, why it is one, and whether it may be taken without being named."""

    python: Path
    source: str
    choosable: bool = True


def candidates(environ: Mapping[str, str], cwd: Path, root: Path = Path("/")) -> Iterator[Candidate]:
    """Every Python at hand, in the order in which an assistant's `python` would be looked for.

    1. The active environment (VIRTUAL_ENV, CONDA_PREFIX), because `python` in that shell is it. conda's `base` is
       active in every shell of many machines without anybody's choice, so it comes after the project's.
    2. The project's own: what VS Code is told to use, then what the manager shown by its lock file made, then
       environments that lie in the working folder or above it up to the project's root (`project.py`).
    3. PATH.

    Behind them, only to be told: Jupyter's kernels and conda's other environments, which nobody uses unnamed.
    """
    prefixes = []
    for python, source in _choosable(environ, cwd, root):
        prefixes.append(environment_of(python))
        yield Candidate(python, source)
    for kernel in kernels(environ, dict.fromkeys(prefixes), root):
        yield Candidate(kernel.python, f"Jupyter kernel {kernel.name}", False)
    for folder in dict.fromkeys(conda_environments(environ, root)):
        inside = python_in(folder)
        if inside is not None:
            name = "base" if is_base(folder, environ) else folder.name
            yield Candidate(inside, f"conda environment {name}", False)


def offered(
    environ: Mapping[str, str], cwd: Path, root: Path = Path("/"), chosen: Candidate | None = None
) -> list[WorkspacePython]:
    """The Pythons at hand, one entry for each environment, at most 20; all by files, none is started.

    `chosen` is marked; it stands first where it is none of those that are found.
    """
    found: dict[Path, WorkspacePython] = {}
    mine = environment_of(chosen.python) if chosen else None
    for candidate in candidates(environ, cwd, root):
        facts = describe(candidate.python, environ)
        known = found.get(facts.folder)
        if known is not None:
            if not candidate.choosable and candidate.source.startswith("Jupyter") and len(known.also) < 4:
                known.also.append(candidate.source)
            continue
        if len(found) >= MOST_LISTED:
            break
        found[facts.folder] = WorkspacePython(
            path=str(candidate.python),
            kind=facts.kind,
            source=candidate.source,
            version=facts.version,
            has_torch=facts.has_torch,
            torch=facts.torch,
            chosen=facts.folder == mine,
        )
    if chosen is None:
        return list(found.values())
    if mine in found:
        found[mine].path, found[mine].source = str(chosen.python), chosen.source
        return list(found.values())
    facts = describe(chosen.python, environ)
    first = WorkspacePython(
        path=str(chosen.python), kind=facts.kind, source=chosen.source, version=facts.version,
        has_torch=facts.has_torch, torch=facts.torch, chosen=True,
    )  # fmt: skip
    return [first, *found.values()][:MOST_LISTED]


def doubt(listed: list[WorkspacePython], with_torch: bool) -> str | None:
    """Why the chosen Python may not be the one that is meant; `with_torch` is whether torch was found in it."""
    chosen = next((entry for entry in listed if entry.chosen), None)
    if chosen is None or chosen.source == "--python":
        return None
    others = [entry for entry in listed if entry.has_torch and not entry.chosen]
    if others and not with_torch:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        return f"it has no torch, but {_named(others[0])} does{more}"
    if chosen.source in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        for entry in others:
            if (entry.kind == "uv" and "uv.lock" in entry.source) or entry.kind == "pixi":
                # Both start the project's environment, whatever is active (uv warns, pixi says nothing).
                return f"it is active, but `{entry.kind} run` would start {_named(entry)}"
    return None


def _named(entry: WorkspacePython) -> str:
    return f"{entry.path} ({entry.source}{', torch ' + entry.torch if entry.torch else ''})"


def _choosable(environ: Mapping[str, str], cwd: Path, root: Path) -> Iterator[tuple[Path, str]]:
    active, conda = (
        python_in(Path(environ[name])) if environ.get(name) else None for name in ("VIRTUAL_ENV", "CONDA_PREFIX")
    )
    base = conda is not None and is_base(Path(environ["CONDA_PREFIX"]), environ)
    if active is not None:
        yield active, "VIRTUAL_ENV"
    if conda is not None and not base:
        yield conda, "CONDA_PREFIX"
    yield from project_pythons(cwd, environ, root)
    if conda is not None and base:
        yield conda, "CONDA_PREFIX, conda's base"
    yield from _on_path(environ)


def _on_path(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        # Windows puts stand-ins here that open the shop instead of a Python.
        if not os.path.isabs(folder) or "WindowsApps" in folder:
            continue
        for name in ("python3", "python"):
            path = Path(folder) / (name + (".exe" if os.name == "nt" else ""))
            if executable(path):
                yield _behind_shim(path, environ), f"{name} on PATH"


def _behind_shim(path: Path, environ: Mapping[str, str]) -> Path:
    """pyenv's shims are scripts that start another Python: the one it is set to, by variable or for the user."""
    place = path.parent.parent
    if path.parent.name != "shims" or not is_folder(place / "versions"):
        return path
    names = environ.get("PYENV_VERSION", "").split(":")[0] or small_text(place / "version").strip().split("\n")[0]
    named = python_in(place / "versions" / names) if names and "\0" not in names else None
    return named or path
