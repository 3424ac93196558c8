"""Environments as each tool leaves them on disk, with a Python that is never started."""

from __future__ import annotations

import json
from pathlib import Path


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fake_python(path: Path) -> Path:
    """A file that can be executed and would be noticed: it leaves `started` beside itself."""
    put(path, '#!/bin/sh\ntouch "$(dirname "$0")/started"\n').chmod(0o755)
    return path


def add_torch(site: Path, version: str = "2.13.0+cu130") -> None:
    put(site / "torch/__init__.py")
    put(site / "torch/version.py", f"from typing import Optional\n__version__ = '{version}'\ncuda = '13.0'\n")


def venv(folder: Path, version: str = "3.11.7", torch: str | None = None, cfg: str = "") -> Path:
    """A virtual environment; `cfg` holds further lines of its pyvenv.cfg."""
    put(folder / "pyvenv.cfg", f"home = /usr/bin\nversion = {version}\n{cfg}")
    site = folder / f"lib/python{version.rsplit('.', 1)[0]}/site-packages"
    site.mkdir(parents=True)
    if torch:
        add_torch(site, torch)
    return fake_python(folder / "bin/python")


def conda(folder: Path, version: str = "3.12.4", torch: str | None = None) -> Path:
    put(folder / f"conda-meta/python-{version}-h99910c6_0_cpython.json", "{}")
    put(folder / "conda-meta/python-dateutil-2.9.0-py_0.json", "{}")
    site = folder / f"lib/python{version.rsplit('.', 1)[0]}/site-packages"
    site.mkdir(parents=True)
    if torch:
        add_torch(site, torch)
    return fake_python(folder / "bin/python")


def kernel(share: Path, name: str, *argv: str) -> None:
    put(share / f"kernels/{name}/kernel.json", json.dumps({"argv": list(argv), "display_name": name, "language": "x"}))
