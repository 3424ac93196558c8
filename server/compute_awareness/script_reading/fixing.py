"""Findings' edits written into the scripts: all that fit together, shown before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .answer import ScriptReport
from .edits import Edit, applied, diff
from .source import Script


@dataclass(frozen=True)
class Fix:
    """One file with the edits that are to be made in it."""

    path: Path
    text: str
    diff: str
    before: str


def fixes(report: ScriptReport, scripts: dict[str, Script]) -> list[Fix]:
    """The edits of the findings by file; one that overlaps another of a worse finding is left out.

    Notebooks are left out: a person copies the edit into the cell.
    """
    by_file: dict[str, list[Edit]] = {}
    for finding in report.findings:
        if scripts.get(finding.file) is None or scripts[finding.file].notebook or not finding.diff:
            continue
        held = by_file.setdefault(finding.file, [])
        if not any(_overlap(edit, other) for edit in finding.edits() for other in held):
            held += finding.edits()
    found = []
    for file, held in by_file.items():
        text = applied(scripts[file], held)
        if text is not None and (shown := diff(scripts[file], held)):
            found.append(Fix(Path(file), text, shown, scripts[file].text))
    return found


def _overlap(one: Edit, other: Edit) -> bool:
    return (one.start < other.end and other.start < one.end) or one.start == other.start


def write(fix: Fix) -> None:
    """Write a fix.

    Raises:
        InputError: the file is not what was read any more, is no UTF-8 file, or cannot be written.
    """
    try:
        raw = fix.path.read_bytes()
        now = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{fix.path} cannot be read as UTF-8 text; nothing was written") from None
    newline = "\r\n" if "\r\n" in now else "\n"
    if now.replace("\r\n", "\n").replace("\r", "\n") != fix.before:
        raise InputError(f"{fix.path} has changed since it was read, or has lines that are not Python; not written")
    try:
        mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
        fix.path.write_bytes(mark + fix.text.replace("\n", newline).encode("utf-8"))
    except OSError as error:
        raise InputError(f"{fix.path} cannot be written: {error.strerror or error}") from None
