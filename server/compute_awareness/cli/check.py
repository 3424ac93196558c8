"""`check FILE...`: each script is read and held against the device; the worst of them decides the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..script_reading.check import check_script

if TYPE_CHECKING:
    from ..hardware.compute import Compute
    from ..script_reading.answer import ScriptReport

_EXIT = {"fits": 0, "tight": 0, "unknown": 3, "does_not_fit": 1}
_WORST = (0, 3, 1)
"""Exit codes, the worst last."""


def check(files: tuple[str, ...], gpu: str | None, compute: Compute | None, python: str | None, as_json: bool) -> int:
    """Check the files, print what was found, return the exit code. Raises InputError."""
    reports = [check_script(Path(name), gpu=gpu, compute=compute, python=python) for name in files]
    if as_json:
        documents = [report.model_dump(mode="json") for report in reports]
        sys.stdout.write(
            json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, allow_nan=False) + "\n"
        )
    else:
        from .show_script import show_script

        for report in reports:
            show_script(report)
    return max((exit_code(report) for report in reports), key=_WORST.index)


def exit_code(report: ScriptReport) -> int:
    """0 it fits or only just, 1 it does not or probably not, 3 cannot say."""
    worst = report.found[report.worst] if report.worst is not None else None
    if worst is not None and report.status == "tight" and report.free_bytes is not None:
        return 1 if (worst.low_bytes or 0) > report.free_bytes else 0
    return _EXIT[report.status]
