"""The environments that conda, mamba and micromamba know."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .folders import entries, home_of, is_folder, small_text

_USUAL = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", ".conda", ".local/share/mamba")
_MOST = 100


def conda_environments(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    """Folders of environments, those that conda itself lists first; a folder may come twice.

    `~/.conda/environments.txt` is conda's own list of every environment made (conda/core/envs_manager.py). The
    folders `envs` of an installation are looked into as well, because mamba and a copied home do not keep the list.
    """
    home = home_of(environ)
    if home is not None:
        yield from listed_environments(home / ".conda" / "environments.txt")
    for folder in _installations(environ, root):
        if is_folder(folder / "conda-meta"):
            yield folder
        yield from _inside(folder / "envs")
    for name in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
        for entry in environ.get(name, "").split(os.pathsep):
            if entry:
                yield from _inside(Path(entry))


def listed_environments(file: Path) -> list[Path]:
    """The absolute paths in an `environments.txt`, one a line."""
    lines = (line.strip() for line in small_text(file).splitlines())
    return [Path(line) for line in lines if line and "\0" not in line and Path(line).is_absolute()][:_MOST]


def is_base(folder: Path, environ: Mapping[str, str]) -> bool:
    """Whether this is the environment that every shell of the installation starts in, and so says little."""
    if environ.get("CONDA_PREFIX") == str(folder) and environ.get("CONDA_DEFAULT_ENV"):
        return environ["CONDA_DEFAULT_ENV"] == "base"
    return is_folder(folder / "condabin")


def named_environment(name: str, environ: Mapping[str, str], root: Path) -> Path | None:
    """The folder of the environment that `conda activate NAME` means."""
    for folder in conda_environments(environ, root):
        if folder.name == name and folder.parent.name == "envs" and is_folder(folder):
            return folder
    return None


def _installations(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    program = environ.get("CONDA_EXE")
    if program:
        # BASE/bin/conda, on Windows BASE\Scripts\conda.exe.
        yield Path(program).parent.parent
    for name in ("MAMBA_ROOT_PREFIX", "CONDA_PREFIX_1", "CONDA_PREFIX"):
        if environ.get(name):
            folder = Path(environ[name])
            yield folder.parent.parent if folder.parent.name == "envs" else folder
    homes = [home_of(environ)]
    homes += [Path(environ[name]) for name in ("LOCALAPPDATA", "PROGRAMDATA") if environ.get(name)]
    for home in homes:
        if home is not None:
            yield from (home / name for name in _USUAL)
    yield from (root / name for name in ("opt/conda", "opt/miniconda3", "opt/anaconda3", "opt/miniforge3"))


def _inside(folder: Path) -> Iterator[Path]:
    for entry in entries(folder, _MOST):
        if is_folder(entry / "conda-meta"):
            yield entry
