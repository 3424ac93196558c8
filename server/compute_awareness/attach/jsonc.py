"""Changes one member of a JSON file and leaves every other byte, comments and trailing commas among them.

Settings files of editors are JSON with comments. Reading one with `json` and writing it back would lose them, so
the text is read with the place of every value, and only the span in question is written anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_DEEPEST = 100
_BLANK = re.compile(r"(?:[ \t\r\n]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"[-+.\w]+")


@dataclass
class Value:
    """A value, and where in the text it stands. `members` holds an object's keys with their places."""

    start: int
    end: int
    data: Any
    members: list[Member] = field(default_factory=list)

    def member(self, key: str) -> Member | None:
        """The member of that name; the last one where it is written twice, which is the one that counts."""
        return next((member for member in reversed(self.members) if member.key == key), None)


@dataclass
class Member:
    """A key of an object and its value. `start` is where the key begins; `comma` where its comma is, if any."""

    key: str
    start: int
    value: Value
    comma: int | None = None


def parse(text: str) -> Value:
    """Read JSON with comments and trailing commas.

    Raises:
        ValueError: it is not that; with the line.
    """
    start = _blank(text, 1 if text.startswith("\ufeff") else 0)
    value = _value(text, start, 0)
    rest = _blank(text, value.end)
    if rest != len(text):
        raise _wrong(text, rest, "nothing more")
    return value


def set_member(text: str, path: tuple[str, ...], value: Any) -> str:
    """The text with `value` at `path`, with the objects on the way to it where they are missing.

    Raises:
        ValueError: the text is not JSON, or what is on the way is no object.
    """
    if not text.strip("\ufeff \t\r\n"):
        text += "{}\n"
    place = parse(text)
    for depth, key in enumerate(path):
        if not isinstance(place.data, dict):
            raise ValueError(f"{'.'.join(path[:depth]) or 'the whole'} is not an object there")
        member = place.member(key)
        if member is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _insert(text, place, key, value)
        place = member.value
    old = place
    return text[: old.start] + _written(text, value, _indent_at(text, old.start)) + text[old.end :]


def remove_member(text: str, path: tuple[str, ...]) -> str:
    """The text without the member at `path`; the same text where it is not there.

    Raises:
        ValueError: the text is not JSON.
    """
    parent = parse(text)
    for key in path[:-1]:
        member = parent.member(key) if isinstance(parent.data, dict) else None
        if member is None:
            return text
        parent = member.value
    gone = parent.member(path[-1]) if isinstance(parent.data, dict) else None
    if gone is None:
        return text
    start, end = gone.start, gone.value.end
    if gone.comma is not None:
        end = gone.comma + 1
    elif len(parent.members) > 1:
        before = parent.members[-2].comma
        assert before is not None  # the parser lets no second member begin without one
        text, start, end = text[:before] + text[before + 1 :], start - 1, end - 1
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    if line_end >= 0 and not (text[line_start:start] + text[end:line_end]).strip():
        return text[:line_start] + text[line_end + 1 :]
    blanks = len(text[end:]) - len(text[end:].lstrip(" \t"))
    return text[:start] + text[end + blanks :] if gone.comma is not None else text[:start].rstrip(" \t") + text[end:]


def _insert(text: str, parent: Value, key: str, value: Any) -> str:
    """The text with a new last member of `parent`."""
    newline = "\r\n" if "\r\n" in text else "\n"
    brace = parent.end - 1
    if parent.members:
        last = parent.members[-1]
        indent = _indent_at(text, last.start)
        if "\n" not in text[parent.start : last.start]:  # the members do not begin lines of their own
            indent = _indent_at(text, parent.start) + _unit(text)
        if last.comma is None:
            text, brace = text[: last.value.end] + "," + text[last.value.end :], brace + 1
        trailing = "," if last.comma is not None else ""
    else:
        indent, trailing = _indent_at(text, parent.start) + _unit(text), ""
    # After what stands before the brace, a comment for instance.
    at = len(text[:brace].rstrip(" \t\r\n"))
    closing = text[at:brace] if "\n" in text[at:brace] else newline + _indent_at(text, parent.start)
    member = f"{json.dumps(key, ensure_ascii=False)}: {_written(text, value, indent)}"
    return text[:at] + newline + indent + member + trailing + closing + text[brace:]


def _written(text: str, value: Any, indent: str) -> str:
    """`value` as JSON over several lines, in the file's own indentation and ends of line."""
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return (("\r\n" if "\r\n" in text else "\n") + indent).join(lines)


def _unit(text: str) -> str:
    """One step of indentation: that of the first line that is indented."""
    found = re.search(r"^([ \t]+)(?=[\"\]}/])", text, re.MULTILINE)
    if found is None:
        return "  "
    return "\t" if found.group(1).startswith("\t") else found.group(1)


def _indent_at(text: str, place: int) -> str:
    """The blanks with which the line of `place` begins."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _value(text: str, start: int, depth: int) -> Value:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    first = text[start : start + 1]
    if first == "{":
        return _object(text, start, depth)
    if first == "[":
        return _array(text, start, depth)
    match = (_STRING if first == '"' else _WORD).match(text, start)
    if match is None:
        raise _wrong(text, start, "a value")
    try:
        return Value(start, match.end(), json.loads(match.group()))
    except ValueError:
        raise _wrong(text, start, "a value") from None


def _object(text: str, start: int, depth: int) -> Value:
    found = Value(start, start, {})
    at = _blank(text, start + 1)
    while not text.startswith("}", at):
        if found.members and found.members[-1].comma is None:
            raise _wrong(text, at, "',' or '}'")
        match = _STRING.match(text, at)
        if match is None:
            raise _wrong(text, at, "a key in double quotes")
        try:
            key: str = json.loads(match.group())
        except ValueError:
            raise _wrong(text, at, "a key") from None
        colon = _blank(text, match.end())
        if not text.startswith(":", colon):
            raise _wrong(text, colon, "':'")
        value = _value(text, _blank(text, colon + 1), depth + 1)
        member = Member(key, at, value)
        found.members.append(member)
        found.data[key] = value.data
        at = _blank(text, value.end)
        if text.startswith(",", at):
            member.comma = at
            at = _blank(text, at + 1)
    found.end = at + 1
    return found


def _array(text: str, start: int, depth: int) -> Value:
    found = Value(start, start, [])
    at, comma = _blank(text, start + 1), True
    while not text.startswith("]", at):
        if not comma:
            raise _wrong(text, at, "',' or ']'")
        value = _value(text, at, depth + 1)
        found.data.append(value.data)
        at = _blank(text, value.end)
        comma = text.startswith(",", at)
        if comma:
            at = _blank(text, at + 1)
    found.end = at + 1
    return found


def _blank(text: str, start: int) -> int:
    """The end of the white space and comments that begin at `start`."""
    match = _BLANK.match(text, start)
    assert match is not None  # it matches nothing, too
    return match.end()


def _wrong(text: str, place: int, expected: str) -> ValueError:
    line = text.count("\n", 0, place) + 1
    found = repr(text[place : place + 12]) if place < len(text) else "the end"
    return ValueError(f"line {line}: expected {expected}, found {found}")
