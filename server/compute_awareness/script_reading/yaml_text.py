"""The YAML that people write settings in: maps and lists by indentation, plain values. Anything else is `UNREAD`.

Anchors, tags, texts over several lines and the like are not read, and never guessed: their value is `UNREAD`.
"""

from __future__ import annotations

import json
import re
from typing import Any

UNREAD: Any = type("Unread", (), {"__repr__": lambda self: "UNREAD"})()
"""A value that this reader does not understand."""
_MOST_LINES = 5000
_DEEPEST = 30
_KEY = re.compile(r"""("[^"]*"|'[^']*'|[\w.\-/ ]+?)\s*:(?:\s+(.*)|)$""")
_NUMBER = re.compile(r"[-+]?(\d[\d_]*|\d*\.\d+([eE][-+]?\d+)?|\d+\.?([eE][-+]?\d+)?)")
_WORDS = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "null": None,
    "~": None,
    "": None,
}
_STRANGE = "&*!|>%@`?"


def parse_yaml(text: str) -> Any:
    """The document as plain Python values; `UNREAD` where it is not of the subset."""
    lines: list[tuple[int, str]] = []
    for raw in text.split("\n")[: _MOST_LINES + 1]:
        line = _without_comment(raw).rstrip()
        if line.strip() in ("", "---", "..."):
            continue
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return UNREAD
        lines.append((len(line) - len(line.lstrip()), line.strip()))
    if len(lines) > _MOST_LINES or not lines:
        return UNREAD
    value, used = _block(lines, 0, lines[0][0], 0)
    return value if used == len(lines) else UNREAD


def _without_comment(line: str) -> str:
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (at == 0 or line[at - 1] in " \t"):
            return line[:at]
    return line


def _block(lines: list[tuple[int, str]], at: int, indent: int, depth: int) -> tuple[Any, int]:
    """The block that begins at a line of this indentation, and the line after it."""
    if depth > _DEEPEST:
        return UNREAD, _after(lines, at, indent)
    if lines[at][1].startswith("- ") or lines[at][1] == "-":
        return _list(lines, at, indent, depth)
    return _map(lines, at, indent, depth)


def _after(lines: list[tuple[int, str]], at: int, indent: int) -> int:
    """The first line that is indented less."""
    while at < len(lines) and lines[at][0] >= indent:
        at += 1
    return at


def _map(lines: list[tuple[int, str]], at: int, indent: int, depth: int) -> tuple[Any, int]:
    found: dict[Any, Any] = {}
    while at < len(lines) and lines[at][0] == indent:
        match = _KEY.fullmatch(lines[at][1])
        if match is None:
            return UNREAD, _after(lines, at, indent)
        key, rest = scalar(match.group(1)), match.group(2) or ""
        if not isinstance(key, str | int | float | bool | None):
            return UNREAD, _after(lines, at, indent)
        at += 1
        deeper = at < len(lines) and (lines[at][0] > indent or (lines[at][0] == indent and lines[at][1][:2] == "- "))
        if rest or not deeper:
            found[key] = scalar(rest) if not (deeper and lines[at][0] > indent) else UNREAD
            if rest and deeper and lines[at][0] > indent:
                at = _after(lines, at, indent + 1)
        else:
            found[key], at = _block(lines, at, lines[at][0], depth + 1)
    return found, at


def _list(lines: list[tuple[int, str]], at: int, indent: int, depth: int) -> tuple[Any, int]:
    found: list[Any] = []
    while at < len(lines) and lines[at][0] == indent and lines[at][1].startswith("-"):
        rest = lines[at][1][1:].lstrip()
        inner = indent + len(lines[at][1]) - len(rest)
        if not rest:
            at += 1
            if at < len(lines) and lines[at][0] > indent:
                value, at = _block(lines, at, lines[at][0], depth + 1)
            else:
                value = None
        elif _KEY.fullmatch(rest) and rest[0] not in "[{":
            lines[at] = (inner, rest)  # the first line of a map that stands beside the dash
            value, at = _block(lines, at, inner, depth + 1)
        else:
            value, at = scalar(rest), at + 1
        found.append(value)
    return found, at


def scalar(text: str) -> Any:
    """A value on one line."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[0] in "[{":
        return _flow(text)
    if text[0] in "\"'":
        whole = len(text) > 1 and text[-1] == text[0] and text[0] not in text[1:-1] and "\\" not in text
        return text[1:-1] if whole else UNREAD
    if text[0] in _STRANGE or ": " in text:
        return UNREAD
    if len(text) < 40 and _NUMBER.fullmatch(text):
        plain = text.replace("_", "")
        return float(plain) if set(plain) & set(".eE") else int(plain)
    return text


def _flow(text: str) -> Any:
    """`[a, b]` and `{a: b}` of plain values."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) < 2 or (text[0], text[-1]) not in (("[", "]"), ("{", "}")) or set(text[1:-1]) & set("[]{}"):
        return UNREAD
    parts = [part for part in re.split(r""",\s*(?=(?:[^"']*["'][^"']*["'])*[^"']*$)""", text[1:-1]) if part.strip()]
    if text[0] == "[":
        return [scalar(part) for part in parts]
    pairs = [part.partition(":") for part in parts]
    return {scalar(key): scalar(value) for key, _, value in pairs} if all(colon for _, colon, _ in pairs) else UNREAD
