"""Detection of this machine, as the report that the rest of the program reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .compute import Compute
from .probe.examine import examine


def detect(
    python: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    root: Path = Path("/"),
    with_python: bool = True,
) -> Compute:
    """What compute there is on this machine, memory in bytes. Arguments and errors as in `probe.examine.examine`."""
    return Compute(**examine(python, environ, cwd, root, with_python))
