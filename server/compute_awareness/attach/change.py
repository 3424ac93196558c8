"""Adds the server to a host's file, or takes it out, and loses nothing that is there."""

from __future__ import annotations

import copy
import datetime
import difflib
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .. import files
from ..errors import InputError
from . import jsonc
from .hosts import NAME, Host, Scope, Surroundings, place_in_settings

_LARGEST = 32 * 1024 * 1024
"""A host that keeps its history in the same file can reach some megabytes."""


@dataclass(frozen=True)
class Change:
    """What would be, or was, done to one file. `before` is None where there is no file; `copy` is where it is kept."""

    host: Host
    path: Path
    before: str | None
    after: str
    copy: Path | None = None

    @property
    def changes(self) -> bool:
        return self.after != (self.before or "")

    def diff(self) -> str:
        """The lines that change, without their neighbours: those may hold the keys of other servers."""
        old, new = ((text or "").splitlines() for text in (self.before, self.after))
        lines = difflib.unified_diff(old, new, str(self.path), str(self.path), lineterm="", n=0)
        return "\n".join(lines)


def planned(host: Host, scope: Scope, entry: Mapping[str, Any] | None, at: Surroundings | None = None) -> Change:
    """What the file would become with that entry, or without ours where `entry` is None.

    What else an entry of ours holds already (`env`, `disabled`) stays.

    Raises:
        InputError: no such scope; the file cannot be read, is not what it should be, or could not be changed without
            touching something else.
    """
    at = at or Surroundings.here()
    place = place_in_settings(host, scope)
    path, section = place.file(at), place.section(at)
    before = _read(path)
    text = before or ""
    try:
        data = _data(host, text)
        old = _held(data, section)
        if entry is None:
            after = text if old is None else _without(host, text, section)
            wanted = _removed(data, section)
        else:
            merged = dict(old or {}) | dict(entry)
            after = text if merged == old else _with(host, text, section, merged)
            wanted = _added(data, section, merged)
        if _pruned(_data(host, after), section) != _pruned(wanted, section):
            raise ValueError("it could not be changed without touching something else")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is left as it is: {error}") from None
    return Change(host, path, before, after)


def apply(change: Change) -> Change:
    """Write it, with a copy of the old file beside it; the change with the copy's path.

    Raises:
        InputError: the file was changed meanwhile or cannot be written; it is as it was then.
    """
    if not change.changes:
        return change
    path, kept = change.path, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.only_writer(path):
            if _read(path) != change.before:
                raise InputError(f"{path} was changed by another program meanwhile and is left as it is; try again")
            if change.before is not None:
                stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
                kept = path.with_name(f"{path.name}.{stamp}.bak")
                shutil.copy2(path, kept)
            files.replace(path, change.after)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    return Change(change.host, path, change.before, change.after, kept)


def _read(path: Path) -> str | None:
    """The file's text with its own ends of line; None where there is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(raw) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST >> 20} MiB, which no settings file is")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is left as it is: it is not UTF-8") from None


def _data(host: Host, text: str) -> dict[str, Any]:
    if host.format == "toml":
        return tomllib.loads(text.replace("\r\n", "\n"))
    data = jsonc.parse(text).data if text.strip("\ufeff \t\r\n") else {}
    if not isinstance(data, dict):
        raise ValueError("it does not hold an object")
    return cast(dict[str, Any], data)


def _held(data: dict[str, Any], section: tuple[str, ...]) -> dict[str, Any] | None:
    """Our entry as it is there; None where there is none."""
    held: Any = data
    for key in (*section, NAME):
        if not isinstance(held, dict):
            raise ValueError(f"{'.'.join(section)} is not an object there")
        if key not in held:
            return None
        held = cast(dict[str, Any], held)[key]
    if not isinstance(held, dict):
        raise ValueError(f"{'.'.join((*section, NAME))} is not an object there")
    return cast(dict[str, Any], held)


def _added(data: dict[str, Any], section: tuple[str, ...], entry: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(data)
    place = data
    for key in section:
        place = place.setdefault(key, {})
    place[NAME] = entry
    return data


def _removed(data: dict[str, Any], section: tuple[str, ...]) -> dict[str, Any]:
    data = copy.deepcopy(data)
    place = data
    for key in section:
        place = place.get(key, {})
    place.pop(NAME, None)
    return data


def _pruned(data: dict[str, Any], section: tuple[str, ...]) -> dict[str, Any]:
    """Without the section where it is empty: TOML has no way to write an empty one that only holds tables."""
    if not section or section[0] not in data:
        return data
    inner = _pruned(data[section[0]], section[1:])
    return {key: value for key, value in data.items() if key != section[0]} | ({section[0]: inner} if inner else {})


def _with(host: Host, text: str, section: tuple[str, ...], entry: dict[str, Any]) -> str:
    if host.format == "json":
        return jsonc.set_member(text, (*section, NAME), entry)
    import tomlkit

    document = tomlkit.parse(text)
    place: Any = document
    for key in section:
        if key not in place:
            place[key] = tomlkit.table(is_super_table=True)
        place = place[key]
    if NAME in place:
        for key, value in entry.items():
            if place[NAME].get(key) != value:
                place[NAME][key] = value
    else:
        place[NAME] = entry
    return tomlkit.dumps(document)


def _without(host: Host, text: str, section: tuple[str, ...]) -> str:
    if host.format == "json":
        return jsonc.remove_member(text, (*section, NAME))
    import tomlkit

    document = tomlkit.parse(text)
    place: Any = document
    for key in section:
        place = place[key]
    del place[NAME]
    return tomlkit.dumps(document)
