"""Edits to a script's text, each checked by parsing what it makes, as unified diffs."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from .source import Script


@dataclass(frozen=True)
class Edit:
    """Characters from `start` to `end` of the text become `text`."""

    start: int
    end: int
    text: str


def offset(script: Script, line: int, column: int) -> int:
    """Where a place of the syntax tree is in the text; `column` is in bytes of UTF-8, as `ast` counts."""
    lines = script.text.split("\n")
    before = sum(len(one) + 1 for one in lines[: line - 1])
    return before + len(lines[line - 1].encode()[:column].decode("utf-8", "ignore"))


def span(script: Script, node: ast.expr | ast.stmt) -> tuple[int, int]:
    start = offset(script, node.lineno, node.col_offset)
    return start, offset(script, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)


def applied(script: Script, edits: Iterable[Edit]) -> str | None:
    """The text with the edits; None where it would not be Python any more."""
    text = script.text
    for edit in sorted(edits, key=lambda one: -one.start):
        text = text[: edit.start] + edit.text + text[edit.end :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return text


def diff(script: Script, edits: list[Edit]) -> str:
    """A unified diff; empty where there is no such edit. Of a notebook each hunk counts in its joined cells."""
    text = applied(script, edits)
    if text is None or text == script.text:
        return ""
    path = script.path.replace("\\", "/").lstrip("/")
    lines = difflib.unified_diff(
        script.text.splitlines(keepends=True), text.splitlines(keepends=True), f"a/{path}", f"b/{path}", n=2
    )
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def with_keyword(script: Script, call: ast.Call, keyword: str) -> list[Edit]:
    """`f(a)` -> `f(a, keyword)`."""
    _, end = span(script, call)
    close = end - 1
    if script.text[close : close + 1] != ")":
        return []
    head = script.text[:close].rstrip()
    given = bool(call.args or call.keywords)
    glue = " " if head.endswith(",") else ", " if given else ""
    edit = Edit(len(head), len(head), glue + keyword)
    text = applied(script, [edit])
    # A comment at the end of the last line would swallow it.
    if text is None or keyword.split("=")[0] not in _keywords(text, call):
        return []
    return [edit]


def _keywords(text: str, call: ast.Call) -> list[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and (node.lineno, node.col_offset) == (call.lineno, call.col_offset) and (
            isinstance(node.func, type(call.func))
        ):  # fmt: skip
            names = [keyword.arg for keyword in node.keywords if keyword.arg]
            if len(node.args) == len(call.args) and len(node.keywords) == len(call.keywords) + 1:
                return names
    return []


def literal_at(script: Script, line: int, value: object) -> ast.Constant | None:
    """The one literal of this value on the line; None where there is none or several."""
    found = [
        node for node in ast.walk(script.tree)
        if isinstance(node, ast.Constant) and node.lineno == line and type(node.value) is type(value)
        and node.value == value
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def replaced(script: Script, node: ast.expr | ast.stmt, text: str) -> list[Edit]:
    return [Edit(*span(script, node), text)]


def without_line(script: Script, line: int, word: str) -> list[Edit]:
    """The statement that stands alone on the line is taken out; it must have `word` in it."""
    lines = script.text.split("\n")
    if not 1 <= line <= len(lines) or word not in lines[line - 1]:
        return []
    start = offset(script, line, 0)
    return [Edit(start, start + len(lines[line - 1]) + 1, "")]


def after_imports(script: Script, statement: str) -> list[Edit]:
    """A statement after the last import at the top of the file; empty where there is none."""
    last = 0
    for node in script.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            last = node.end_lineno or node.lineno
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            break
    if not last:
        return []
    at = offset(script, last, 0) + len(script.text.split("\n")[last - 1])
    return [Edit(at, at, f"\n\n{statement}")]


def statement_of(script: Script, line: int, column: int) -> ast.stmt | None:
    """The innermost simple statement that this place is in."""
    best = None
    for node in ast.walk(script.tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            starts = (node.lineno, node.col_offset) <= (line, column)
            if starts and (line, column) <= (node.end_lineno or 0, node.end_col_offset or 0):
                best = node
    return best


def wrapped(script: Script, statement: ast.stmt, header: str) -> list[Edit]:
    """The statement inside `with ...:`; empty where a text over several lines would change."""
    if any(
        isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno
        for node in ast.walk(statement)
    ):
        return []
    lines = script.text.split("\n")
    first, last = statement.lineno, statement.end_lineno or statement.lineno
    indent = lines[first - 1][: len(lines[first - 1]) - len(lines[first - 1].lstrip())]
    if lines[first - 1][: statement.col_offset].strip():
        return []  # after a semicolon
    body = [f"{indent}{header}", *(f"    {line}" if line.strip() else line for line in lines[first - 1 : last])]
    start = offset(script, first, 0)
    return [Edit(start, start + len("\n".join(lines[first - 1 : last])), "\n".join(body))]
