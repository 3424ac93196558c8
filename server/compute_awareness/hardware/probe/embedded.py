"""Files that the probe needs beside its code: tables of facts, and programs given to another Python as text."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

EMBEDDED: dict[str, str] = {}
"""Texts by file name, where the probe runs as one script and has no files (`hardware/script.py` fills it)."""


@lru_cache(maxsize=None)
def table(name: str) -> dict[str, Any]:
    """The decoded `facts/NAME`, e.g. `gpus.json`."""
    if name in EMBEDDED:
        return json.loads(EMBEDDED[name])
    return json.loads((Path(__file__).parents[2] / "facts" / name).read_text(encoding="utf-8"))


def program(name: str) -> str:
    """The text of a module of this folder that is run by another Python, e.g. `nvml_reader.py`."""
    if name in EMBEDDED:
        return EMBEDDED[name]
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
