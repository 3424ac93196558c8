"""The tool that reads a script and says what it will take, line by line."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mcp.types import CallToolResult
from pydantic import WithJsonSchema

from ...errors import InputError
from ..answers import answer, concise_script
from ..arguments import ComputeReport, Detail, Gpu, as_compute_report
from ..hosting import gpu_of_call, hosting
from ..looking import in_thread
from ..outlines import ScriptOutline

if TYPE_CHECKING:
    from ...script_reading.source import Script

ROOTS = "COMPUTE_AWARENESS_ROOTS"
"""Folders beside the working directory that scripts may be read from, separated as PATH is."""
_FOLDER = "the folder that the server was started in"

ScriptPath = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "description": f".py or .ipynb inside {_FOLDER}, e.g. train_sae.py"}),
]
Text = Annotated[
    str | None, WithJsonSchema({"type": "string", "description": "Or its text, e.g. of a file not yet written"})
]


async def preflight_script(
    path: ScriptPath = None,
    text: Text = None,
    gpu: Gpu = None,
    compute: ComputeReport = None,
    detail: Detail = "concise",
) -> Annotated[CallToolResult, ScriptOutline]:
    """Read a script or notebook before it is run, without running it: its models, caches and trainings, what each line
    takes, whether it fits, edits as diffs. For a run that is not written yet use preflight_experiment."""
    from ...script_reading.check import check_script

    script, root = _script(path, text)
    seen = as_compute_report(compute)
    check = partial(
        check_script,
        script,
        gpu=gpu_of_call(gpu, seen is not None),
        compute=seen,
        root=root,
        may_trace=hosting() is None,
    )
    report = await in_thread(check, "reading")
    return answer(report if detail == "full" else concise_script(report), detail)


def _script(path: str | None, text: str | None) -> tuple[Path | Script, Path | None]:
    """The file, which must lie inside an allowed folder, or the text. Raises InputError."""
    from ...script_reading.reading import project_root
    from ...script_reading.source import parse_script

    if (path is None) == (text is None):
        raise InputError("give path or text, one of them")
    if text is not None:
        return parse_script(text, "script.py", notebook=text.lstrip().startswith("{")), None
    assert path is not None
    if hosting() is not None:
        raise InputError("path: this server is shared and reads no files; pass the script's text")
    try:
        real = Path(path).expanduser().resolve()
        home = Path.home().resolve()
    except (OSError, RuntimeError, ValueError):
        raise InputError(f"path: {path[:80]!r} is no path") from None
    folders = [Path.cwd(), *(Path(one) for one in os.environ.get(ROOTS, "").split(os.pathsep) if one)]
    for folder in folders:
        allowed = folder.resolve()
        # A host that starts servers in / or in the home folder has not chosen a project.
        if allowed in (Path(allowed.anchor), home) or not real.is_relative_to(allowed):
            continue
        project = project_root(real)
        return real, project if project.is_relative_to(allowed) else allowed
    raise InputError(f"path: {path[:200]!r} is not inside {_FOLDER} or {ROOTS}; pass its text instead")
