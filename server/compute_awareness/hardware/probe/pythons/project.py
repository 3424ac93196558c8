"""The environments that belong to the project in the working folder, whichever tool made them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .conda import named_environment
from .folders import entries, executable, home_of, is_folder, python_in, pyvenv_cfg, small_text

_DEEPEST = 12
_PROJECT_FILES = ("pyproject.toml", "uv.lock", "poetry.lock", "pixi.toml", "pixi.lock", "Pipfile", "pdm.lock")


class Belongs(NamedTuple):
    """A Python of the project and what shows that it is the project's."""

    python: Path
    source: str


def project_folders(cwd: Path, environ: Mapping[str, str]) -> list[Path]:
    """The working folder and its parents up to the project's root, nearest first.

    The root is the first folder with `.git`; without one, the last folder on the way up with a project file. The
    home folder and what is above it belong to no project, unless one works in them.
    """
    home = home_of(environ)
    found: list[Path] = []
    root = 1
    for folder in [cwd, *cwd.parents][:_DEEPEST]:
        if found and (folder == home or folder == folder.parent):
            break
        found.append(folder)
        if _exists(folder / ".git"):
            return found
        if any(_exists(folder / name) for name in _PROJECT_FILES):
            root = len(found)
    return found[:root]


def project_pythons(cwd: Path, environ: Mapping[str, str], root: Path) -> Iterator[Belongs]:
    """The project's Pythons in the order in which its own tools would take them, nearest folder first.

    In each folder: what VS Code is told to use, then what the manager shown by its lock file made, then `.venv`,
    `venv` and any other environment that lies there, then the conda environment that an environment.yml names.
    """
    folders = project_folders(cwd, environ)
    for folder in folders:
        where = "the working folder" if folder == cwd else str(folder)
        told = vscode_python(small_text(folder / ".vscode" / "settings.json"), folder, environ)
        if told is not None:
            yield Belongs(told, f"python.defaultInterpreterPath in .vscode of {where}")
        for environment, why in _managed(folder, environ, root):
            python = python_in(environment)
            if python is not None:
                yield Belongs(python, f"{why} of {where}")
        inside = [entry for entry in entries(folder) if pyvenv_cfg(entry)]
        for environment in [folder / ".venv", folder / "venv", *inside]:
            python = python_in(environment)
            if python is not None:
                yield Belongs(python, f"{environment.name} in {where}")
        for environment, why in _conda_file(folder, environ, root):
            python = python_in(environment)
            if python is not None:
                yield Belongs(python, f"{why} of {where}")
    for folder in folders:
        yield from _pyenv(folder, environ)


def vscode_python(text: str, folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The Python that a `.vscode/settings.json` names, if it is there. The file may have comments."""
    bare = re.sub(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', lambda hit: hit[1] or "", text, flags=re.DOTALL)
    said = re.search(r'"python\.(?:defaultInterpreterPath|pythonPath)"\s*:\s*("(?:[^"\\\n]|\\.)*")', bare)
    try:
        value = json.loads(said[1]) if said else ""
    except ValueError:
        return None
    home = home_of(environ)
    value = re.sub(r"\$\{workspaceFolder(?::[^}]*)?\}", lambda _: str(folder), value)
    value = re.sub(r"\$\{env:(\w+)\}", lambda hit: environ.get(hit[1], ""), value)
    if home is not None:
        value = re.sub(r"^~(?=[/\\])|\$\{userHome\}", lambda _: str(home), value)
    # A bare command is what any shell finds, and no choice.
    if not value or "\0" in value or not re.search(r"[/\\]", value):
        return None
    path = folder / value
    if is_folder(path):
        return python_in(path)
    return path if executable(path) else None


def _managed(folder: Path, environ: Mapping[str, str], root: Path) -> Iterator[tuple[Path, str]]:
    if _exists(folder / "pixi.lock") or _exists(folder / "pixi.toml") or is_folder(folder / ".pixi" / "envs"):
        environments = folder / ".pixi" / "envs"
        for name in [environ.get("PIXI_ENVIRONMENT_NAME") or "default", *(e.name for e in entries(environments, 20))]:
            yield environments / name, f"pixi environment {name}"
    if _exists(folder / "uv.lock"):
        # Relative to the folder of the lock file, which is the workspace's root.
        yield folder / (environ.get("UV_PROJECT_ENVIRONMENT") or ".venv"), "uv environment (uv.lock)"
    if _exists(folder / "poetry.lock") or _exists(folder / "pyproject.toml"):
        # An environment in the project goes before one in the cache (virtualenvs.in-project is null by default).
        if _exists(folder / "poetry.lock"):
            yield folder / ".venv", "poetry environment"
        for environment in _poetry_cache(folder, environ):
            yield environment, "poetry environment"
    if _exists(folder / "Pipfile"):
        yield folder / ".venv", "pipenv environment"
        for environment in _pipenv(folder, environ):
            yield environment, "pipenv environment"
    pdm = small_text(folder / ".pdm-python").strip()
    if pdm and "\n" not in pdm and "\0" not in pdm:
        yield Path(pdm).parent.parent, "PDM environment (.pdm-python)"


def _conda_file(folder: Path, environ: Mapping[str, str], root: Path) -> Iterator[tuple[Path, str]]:
    """The environment whose name stands in an environment.yml, where conda has it."""
    for name in ("environment.yml", "environment.yaml"):
        said = re.search(r"^name:\s*[\"']?([\w.-]+)[\"']?\s*(?:#.*)?$", small_text(folder / name), re.MULTILINE)
        environment = named_environment(said[1], environ, root) if said else None
        if said and environment is not None:
            yield environment, f"conda environment {said[1]} ({name})"


def _poetry_cache(folder: Path, environ: Mapping[str, str]) -> list[Path]:
    """poetry's environments of `folder`: NAME-HASH-pyX.Y, newest Python first; the hash is of the path alone.

    poetry 2 (utils/env/env_manager.py, generate_env_name): the first 8 characters of the URL-safe base64 of the
    SHA-256 of the folder's real path.
    """
    path = os.path.normcase(os.path.realpath(str(folder)))
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.encode("utf-8", "replace")).digest()).decode()[:8]
    home = home_of(environ)
    caches = []
    if environ.get("POETRY_VIRTUALENVS_PATH"):
        caches.append(Path(environ["POETRY_VIRTUALENVS_PATH"]))
    if environ.get("POETRY_CACHE_DIR"):
        caches.append(Path(environ["POETRY_CACHE_DIR"]) / "virtualenvs")
    if environ.get("LOCALAPPDATA"):
        caches.append(Path(environ["LOCALAPPDATA"]) / "pypoetry" / "Cache" / "virtualenvs")
    if environ.get("XDG_CACHE_HOME"):
        caches.append(Path(environ["XDG_CACHE_HOME"]) / "pypoetry" / "virtualenvs")
    if home is not None:
        caches += [home / ".cache/pypoetry/virtualenvs", home / "Library/Caches/pypoetry/virtualenvs"]
    found = []
    for cache in caches:
        for entry in entries(cache):
            made = re.search(rf"-{re.escape(digest)}-py(\d+)\.(\d+)$", entry.name)
            if made:
                found.append((int(made[1]), int(made[2]), entry))
    return [entry for *_, entry in sorted(found, key=lambda item: item[:2], reverse=True)]


def _pipenv(folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """pipenv's environments of `folder`: it writes the project's path into `.project` of the environment."""
    home = home_of(environ)
    places = [Path(environ["WORKON_HOME"])] if environ.get("WORKON_HOME") else []
    if home is not None:
        places += [Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "virtualenvs", home / ".virtualenvs"]
    mine = os.path.realpath(str(folder))
    for place in places:
        for entry in entries(place, 200):
            project = small_text(entry / ".project").strip()
            if project and "\0" not in project and os.path.realpath(project) == mine:
                yield entry


def _pyenv(folder: Path, environ: Mapping[str, str]) -> Iterator[Belongs]:
    """The release or environment that `.python-version` names, where pyenv has it (`3.11` means its newest 3.11)."""
    home = home_of(environ)
    place = environ.get("PYENV_ROOT") or (str(home / ".pyenv") if home else "")
    names = small_text(folder / ".python-version").split()
    if not place or not names or not re.match(r"[\w.+-]+$", names[0]):
        return
    versions = Path(place) / "versions"
    releases = [entry for entry in entries(versions) if re.match(rf"{re.escape(names[0])}(\.\d+)*$", entry.name)]
    releases.sort(key=lambda entry: [int(part) for part in re.findall(r"\d+", entry.name)], reverse=True)
    for environment in releases:
        python = python_in(environment)
        if python is not None:
            yield Belongs(python, f"pyenv's {environment.name} (.python-version)")
            return


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
