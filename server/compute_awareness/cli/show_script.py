"""A checked script for a person."""

from __future__ import annotations

import os

from ..script_reading.answer import Found, ScriptReport
from ..units import duration, gib
from .show import bullets, code, heading, say, screen, table, text
from .show_preflight import STATUS


def show_script(report: ScriptReport) -> None:
    to = screen()
    word, style = STATUS[report.status]
    if report.found:
        to.print(text(word, style).append(text(f"  {report.summary}")), soft_wrap=not to.is_terminal)
    else:
        say(to, report.summary, "bold")
        bullets(to, report.notes)
        return
    heading(to, "What is in it")
    table(to, ("where", "what", "fits"), [_row(one, report) for one in report.found])
    if report.findings:
        heading(to, "Findings")
        for finding in report.findings:
            now = f" ({gib(finding.bytes_now)} now" if finding.bytes_now is not None else ""
            after = (
                f", {gib(finding.bytes_after)} after)"
                if now and finding.bytes_after is not None
                else ")"
                if now
                else ""
            )
            say(to, f"{finding.file}, {finding.place}: {finding.cause}{now}{after}", "bold")
            if finding.effect:
                say(to, f"  {finding.effect}")
            if finding.diff:
                code(to, finding.diff)
    if report.questions:
        heading(to, "To ask")
        bullets(to, report.questions)
    extra = [f"Downloads: about {gib(report.download_bytes)}."] if report.download_bytes else []
    if report.hours is not None:
        low, high = (duration(3600 * hours) for hours in report.hours)
        extra.append(f"Time of the calls whose number is known: {low} to {high}.")
    if extra or report.notes:
        heading(to, "Notes")
        bullets(to, [*extra, *report.notes])


def _beside(path: str, script: str) -> str:
    """The path from the script's folder on."""
    try:
        return os.path.relpath(path, os.path.dirname(script) or ".")
    except ValueError:  # another drive
        return path


def _row(one: Found, report: ScriptReport) -> tuple[object, ...]:
    where = one.place if one.file == report.files[0] else f"{_beside(one.file, report.files[0])} {one.place}"
    fits = {"fits": "yes", "tight": "tight", "does_not_fit": "NO", "unknown": "?", None: ""}[one.status]
    marks = [mark for mark, on in (("never called", not one.called), ("perhaps", one.conditional)) if on]
    if one.others:
        marks.append(f"{one.others} more with other values, none larger")
    return where, one.words + (f" [{', '.join(marks)}]" if marks else ""), fits
