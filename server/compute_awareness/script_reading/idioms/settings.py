"""Settings files of the project that a script loads: JSON, YAML, TOML. Nothing outside the project is opened."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Dict, Items, Known, Source, Thing, Unknown, known
from ..yaml_text import UNREAD, parse_yaml
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader

_LARGEST = 1024**2
_DEEPEST = 40


class File(Thing):
    """An open file, or a path."""

    label = "file"

    def __init__(self, path: str) -> None:
        self.path = path

    def attribute(self, name: str, reader: Reader) -> Any:
        if name == "parent":
            return File(str(Path(self.path).parent))
        return Known(Path(self.path).name) if name == "name" else Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name in ("__enter__", "open", "resolve", "absolute", "expanduser"):
            return self
        if name == "joinpath" and isinstance(plain := known(args.get(0)), str):
            return File(str(Path(self.path) / plain))
        if name == "__arithmetic__":
            left, right = args.positional
            parts = [part.path if isinstance(part, File) else known(part) for part in (left, right)]
            return File("/".join(parts)) if all(isinstance(part, str) for part in parts) else Unknown("a path")
        if name in ("read", "read_text", "read_bytes"):
            return self
        return Unknown(f"file.{name}()", line=args.line)


@function("open", "io.open", "codecs.open", "pathlib.Path", "Path", "pathlib.PurePath")
def _open(reader: Reader, args: Args, path: str) -> Any:
    first = args.get(0, "file")
    if isinstance(first, File):
        return first
    parts = [known(part) for part in (args.positional if "Path" in path else (first,))]
    if all(isinstance(part, str) and "\0" not in part and len(part) < 1000 for part in parts) and parts:
        return File(str(Path(*parts)))
    return Unknown("a file whose path is not known", line=args.line)


def _text(value: Any, reader: Reader) -> tuple[str, str] | None:
    """Name and text of the file, where it lies in the project."""
    if isinstance(value, Known) and isinstance(value.value, str) and value.value.lstrip()[:1] not in ("{", "["):
        value = File(value.value) if "\0" not in value.value and len(value.value) < 1000 else value
    if not isinstance(value, File) or reader.root is None or reader.folder is None:
        return None
    for folder in (reader.folder, reader.root):
        try:
            real = (folder / value.path).resolve()
            if real.is_relative_to(reader.root) and real.is_file() and real.stat().st_size <= _LARGEST:
                return real.name, real.read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError):
            continue
    return None


def _loaded(reader: Reader, args: Args, decode: Any) -> Any:
    found = _text(args.get(0), reader)
    if found is None:
        return Unknown("what a file holds", line=args.line)
    name, text = found
    try:
        plain = decode(text)
    except (ValueError, RecursionError):
        return Unknown(f"{name} cannot be read", line=args.line)
    return lifted(plain, Source("default", 0, name))


def lifted(plain: Any, source: Source, depth: int = 0) -> Any:
    """Plain values of a file as values that say where they are from."""
    if depth > _DEEPEST or plain is UNREAD:
        return Unknown(f"a part of {source.note}")
    if isinstance(plain, dict):
        return Dict({key: lifted(value, source, depth + 1) for key, value in plain.items()})
    if isinstance(plain, list):
        return Items("list", [lifted(value, source, depth + 1) for value in plain])
    return Known(plain, source) if isinstance(plain, str | int | float | bool | None) else Unknown("a date")


@function("json.load", "json.loads")
def _json(reader: Reader, args: Args, path: str) -> Any:
    return _loaded(reader, args, json.loads)


@function(
    "yaml.safe_load", "yaml.load", "yaml.full_load", "OmegaConf.load", "omegaconf.OmegaConf.load", "yaml.unsafe_load"
)
def _yaml(reader: Reader, args: Args, path: str) -> Any:
    return _loaded(reader, args, parse_yaml)


@function("tomllib.load", "tomllib.loads", "toml.load", "tomli.load")
def _toml(reader: Reader, args: Args, path: str) -> Any:
    return _loaded(reader, args, tomllib.loads)
