"""What the folder of a Python environment tells without starting its Python."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_TEXT_CAP = 1 << 16


class Facts(NamedTuple):
    """Of one environment. `has_torch` is None where no folder of packages was found to look in."""

    folder: Path
    kind: str
    version: str | None
    has_torch: bool | None
    torch: str | None


def small_text(path: Path) -> str:
    """The first 64 KiB of an ordinary file; empty where there is none that can be read (a pipe would hang)."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_TEXT_CAP).decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return ""


def entries(folder: Path, most: int = 500) -> list[Path]:
    """What is in `folder`, by name; at most `most` of it, and nothing where it cannot be read."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                found.append(folder / entry.name)
                if len(found) >= most:
                    break
    except (OSError, ValueError):
        pass
    return sorted(found)


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def executable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except (OSError, ValueError):
        return False


def home_of(environ: Mapping[str, str]) -> Path | None:
    """The home folder by the experiment's variables; None without one (nobody's home is guessed)."""
    home = environ.get("HOME") or environ.get("USERPROFILE")
    return Path(home) if home and Path(home).is_absolute() else None


def _real(path: Path) -> Path:
    """Without links; the path itself where it is none that a system could have."""
    try:
        return Path(os.path.realpath(str(path)))
    except (OSError, ValueError):
        return path


def python_in(folder: Path) -> Path | None:
    """The Python of the environment `folder`: of Linux and macOS, of a Windows venv, of conda on Windows."""
    for inside in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
        if executable(folder / inside):
            return folder / inside
    return None


def environment_of(python: Path) -> Path:
    """The folder of the environment that `python` starts, the same for every link to it.

    CPython looks for `pyvenv.cfg` beside the file as it was called and one folder up, and only else follows the
    links of the file itself (Modules/getpath.py of 3.11 to 3.14). conda-meta marks an environment as well.
    """
    for given in (python, _real(python)):
        parent = _real(given.parent)
        folder = parent.parent if parent.name.lower() in ("bin", "scripts") else parent
        if is_folder(folder / "conda-meta") or small_text(folder / "pyvenv.cfg"):
            break
    return folder


def pyvenv_cfg(folder: Path) -> dict[str, str]:
    """The settings of `pyvenv.cfg`, names in lower case; empty where there is none."""
    settings = {}
    for line in small_text(folder / "pyvenv.cfg").splitlines():
        name, sign, value = line.partition("=")
        if sign:
            settings[name.strip().lower()] = value.strip()
    return settings


def describe(python: Path, environ: Mapping[str, str]) -> Facts:
    """What the files say of the environment that `python` starts."""
    folder = environment_of(python)
    settings = pyvenv_cfg(folder)
    kind = _kind(folder, settings)
    version = _version(folder, settings, python)
    sites = list(_sites(folder, settings, version, kind, environ))
    # Folders that a .pth file adds come last on the path, and are looked for only where the others have no torch.
    for site in itertools.chain(sites, itertools.chain.from_iterable(map(_added, sites))):
        torch = torch_version(site)
        if torch is not None:
            return Facts(folder, kind, version, True, torch or None)
    return Facts(folder, kind, version, False if sites else None, None)


def torch_version(site: Path) -> str | None:
    """torch's version in a folder of packages by its own version.py; empty if it says none; None without torch."""
    if not is_folder(site / "torch"):
        return None
    text = small_text(site / "torch" / "version.py")
    if not text:
        # A folder torch without a version.py is something else, or what an uninstall left.
        return None
    said = re.search(r"^__version__[^=\n]*=\s*['\"]([\w.+!-]{1,60})['\"]", text, re.MULTILINE)
    return said[1] if said else ""


def _added(site: Path) -> Iterator[Path]:
    """The folders that the .pth files in `site` put on the path (site.py, addpackage)."""
    for file in [entry for entry in entries(site, 5000) if entry.suffix == ".pth"][:50]:
        for line in small_text(file).splitlines()[:50]:
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                folder = site / line.strip()
                if is_folder(folder):
                    yield folder


def _kind(folder: Path, settings: Mapping[str, str]) -> str:
    parts = folder.parts
    if ".pixi" in parts:
        return "pixi"
    if is_folder(folder / "conda-meta"):
        return "conda"
    if not settings:
        return "system"
    if "uv" in settings:
        return "uv"
    if "pypoetry" in parts:
        return "poetry"
    return "pipenv" if small_text(folder / ".project") else "venv"


def _version(folder: Path, settings: Mapping[str, str], python: Path) -> str | None:
    # venv writes `version`, virtualenv and uv `version_info`, the former with the release level behind.
    said = re.match(r"\d+\.\d+(\.\d+)?", settings.get("version_info") or settings.get("version") or "")
    if said:
        return said[0]
    for entry in entries(folder / "conda-meta", 5000):
        found = re.match(r"python-(\d+\.\d+(?:\.\d+)?)-", entry.name)
        if found:
            return found[1]
    for text in (folder.name, _real(python).name):
        # pyenv names the folder by the release; elsewhere the file has its minor version in its name.
        found = re.match(r"(?:python)?(3\.\d+(?:\.\d+)?)(?:\.exe)?$", text)
        if found:
            return found[1]
    minors = [found[1] for found in (re.match(r"python(3\.\d+)$", e.name) for e in entries(folder / "lib")) if found]
    return minors[0] if len(minors) == 1 else None


def _sites(
    folder: Path, settings: Mapping[str, str], version: str | None, kind: str, environ: Mapping[str, str]
) -> Iterator[Path]:
    """The folders of packages that this Python would import from, as far as files tell."""
    for entry in environ.get("PYTHONPATH", "").split(os.pathsep):
        if entry and Path(entry).is_absolute() and is_folder(Path(entry)):
            yield Path(entry)
    minor = ".".join((version or "").split(".")[:2])
    bases = [folder]
    shared = not settings
    if settings.get("include-system-site-packages", "").lower() == "true" and settings.get("home"):
        shared = True
        bases.append(environment_of(Path(settings["home"]) / "python3"))
    home = home_of(environ)
    user = environ.get("PYTHONUSERBASE") or (str(home / ".local") if home else "")
    if shared and user:
        bases.append(Path(user))
    if kind == "system" and folder.name == "usr":
        bases.append(folder / "local")
    for base in bases:
        for lib in ("lib", "lib64"):
            # By name where the version is known: /usr/lib holds thousands of things.
            inside = [base / lib / f"python{minor}", base / lib / f"python{minor}t", base / lib / "python3"]
            if not minor:
                inside = [entry for entry in entries(base / lib) if re.match(r"python3[\d.]*t?$", entry.name)]
            for name in ("site-packages", "dist-packages"):
                yield from (folder / name for folder in inside if is_folder(folder / name))
        if is_folder(base / "Lib" / "site-packages"):
            yield base / "Lib" / "site-packages"
