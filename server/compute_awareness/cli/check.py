"""`check FILE...`: each script is read and held against the device; the worst of them decides the exit code."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from ..script_reading.check import check_script

if TYPE_CHECKING:
    from ..hardware.compute import Compute
    from ..script_reading.answer import ScriptReport

_EXIT = {"fits": 0, "tight": 0, "unknown": 3, "does_not_fit": 1}
_WORST = (0, 3, 1)
"""Exit codes, the worst last."""


def check(
    files: tuple[str, ...],
    gpu: str | None,
    compute: Compute | None,
    python: str | None,
    how: str,
    *,
    ask: bool = True,
    arguments: str = "",
    quick: bool = False,
) -> int:
    """Check the files, answer, return the exit code. Raises InputError.

    Args:
        how: text, json, sarif or fix.
        ask: with fix, whether to ask before anything is written.
        arguments: what the scripts are started with, as a shell has it.
        quick: nothing is traced, and the experiment's Python is not looked at.
    """
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise InputError(f"--args: {error}") from None
    reports = [
        check_script(Path(name), gpu=gpu, compute=compute, python=python, arguments=words, quick=quick)
        for name in files
    ]
    if how == "json":
        documents = [report.model_dump(mode="json") for report in reports]
        _print(documents[0] if len(documents) == 1 else documents)
    elif how == "sarif":
        from ..script_reading.sarif import sarif

        _print(sarif(reports))
    else:
        from .show_script import show_script

        for report in reports:
            show_script(report)
            if how == "fix":
                _fix(report, ask)
    return max((exit_code(report) for report in reports), key=_WORST.index)


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _fix(report: ScriptReport, ask: bool) -> None:
    """Show the edits as one diff a file; write them where the person says so."""
    from ..script_reading.fixing import fixes, write

    found = fixes(report, report.scripts())
    if not found:
        shown = any(one.diff for one in report.findings)
        click.echo(
            "Nothing is written: a notebook's edits are copied into their cells by hand."
            if shown
            else "Nothing to fix: no finding has an edit that can be written here."
        )
        return
    for fix in found:
        click.echo(fix.diff, nl=False)
    if ask and not click.confirm(f"Write {len(found)} file{'s' * (len(found) > 1)}?", default=False):
        click.echo("Nothing was written.")
        return
    for fix in found:
        write(fix)
        click.echo(f"{fix.path} was written.")


def exit_code(report: ScriptReport) -> int:
    """0 it fits or only just, 1 it does not or probably not, 3 cannot say."""
    worst = report.found[report.worst] if report.worst is not None else None
    if worst is not None and report.status == "tight" and report.free_bytes is not None:
        return 1 if (worst.low_bytes or 0) > report.free_bytes else 0
    return _EXIT[report.status]
