"""A script or a notebook as a syntax tree, with the way back to its lines. Nothing of it is run.

Limits are there for hostile or machine-made files: what is larger is refused with a reason.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

LARGEST_SCRIPT = 1024**2
"""Bytes of Python; the largest scripts that people write are some 200 KiB."""
LARGEST_NOTEBOOK = 64 * 1024**2
"""Bytes of a notebook: its pictures count, its code must not be more than `LARGEST_SCRIPT`."""
MOST_NODES = 200_000
_LONGEST_NAME = 300
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_PYTHON_CELLS = {"time", "timeit", "capture", "prun", "python", "python3", "wandb"}


@dataclass
class Script:
    """One file that was read."""

    path: str
    text: str
    """The Python that was parsed; of a notebook its code cells one after the other."""
    tree: ast.Module
    notebook: bool = False
    cells: list[tuple[int, int]] = field(default_factory=list)
    """Notebook: of each code cell the first line in `text` and its number among all cells, from 1."""

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def place(self, line: int) -> str:
        """`line 12`; in a notebook `cell 3, line 2`."""
        if not self.notebook:
            return f"line {line}"
        start, number = next(((s, n) for s, n in reversed(self.cells) if s <= line), (1, 1))
        return f"cell {number}, line {line - start + 1}"


def read_script(path: Path) -> Script:
    """Parse a `.py` file or an `.ipynb` notebook.

    Raises:
        InputError: not there, too large, no text, no Python that can be parsed, or nested too deeply.
    """
    shown = str(path)
    # Of a name of thousands of characters the end, so that what is wrong with it is not cut off.
    name = shown if len(shown) <= _LONGEST_NAME else f"...{shown[-_LONGEST_NAME:]}"
    notebook = path.suffix.lower() == ".ipynb"
    limit = LARGEST_NOTEBOOK if notebook else LARGEST_SCRIPT
    try:
        if path.is_dir():
            raise InputError(f"{name} is a folder; give a .py file or an .ipynb notebook")
        if not path.is_file() and path.exists():
            raise InputError(f"{name} is no regular file")
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > limit:
        raise InputError(f"{name} is larger than {limit // 1024**2} MiB: not a script that is read here")
    return parse_script(_decoded(raw, shown), shown, notebook=notebook)


def parse_script(text: str, path: str, *, notebook: bool = False) -> Script:
    """The same from text. Raises InputError."""
    cells: list[tuple[int, int]] = []
    if notebook:
        text, cells = _notebook(text, path)
    elif _looks_like_ipython(text):
        text = without_magics(text)
    if len(text) > LARGEST_SCRIPT:
        raise InputError(
            f"{path} has more than {LARGEST_SCRIPT // 1024**2} MiB of Python: not a script that is read here"
        )
    return Script(path, text, _parsed(text, path), notebook, cells)


def _decoded(raw: bytes, shown: str) -> str:
    declared = re.match(rb"[^\n]*(?:\n[^\n]*)?coding[:=]\s*([-\w.]+)", raw[:400])
    for encoding in (declared.group(1).decode("ascii", "replace") if declared else "utf-8-sig", "utf-8-sig"):
        try:
            return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    raise InputError(f"{shown} is not UTF-8 text")


def _parsed(text: str, path: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and the like are not ours to tell
            tree = ast.parse(text, path)
    except SyntaxError as error:
        raise InputError(f"{path} is no Python that can be parsed: line {error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise InputError(f"{path} is nested too deeply to be parsed") from None
    except ValueError as error:  # NUL bytes; integers of too many digits
        raise InputError(f"{path} is no Python that can be parsed: {error}") from None
    # A character makes at most two nodes (`-` is an operation and its operator): a short text need not be counted.
    for count, _ in enumerate(ast.walk(tree) if 3 * len(text) > MOST_NODES else ()):
        if count > MOST_NODES:
            raise InputError(f"{path} has more than {MOST_NODES} syntax nodes: not a script that is read here")
    return tree


def _notebook(text: str, path: str) -> tuple[str, list[tuple[int, int]]]:
    """The code cells as one text, and where each begins."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no notebook: its text is not JSON") from None
    found = data.get("cells") if isinstance(data, dict) else None
    if found is None and isinstance(data, dict) and isinstance(data.get("worksheets"), list):  # nbformat 3
        sheets = [sheet for sheet in data["worksheets"] if isinstance(sheet, dict)]
        found = [cell for sheet in sheets for cell in sheet.get("cells") or []]
    if not isinstance(found, list):
        raise InputError(f"{path} is no notebook: it has no list of cells")
    lines: list[str] = []
    starts: list[tuple[int, int]] = []
    for number, cell in enumerate(found, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source", cell.get("input", ""))
        code = "".join(map(str, source)) if isinstance(source, list) else str(source)
        starts.append((len(lines) + 1, number))
        lines += _parsable(without_magics(code)).split("\n")
    return "\n".join(lines) + "\n", starts


def _parsable(code: str) -> str:
    """A cell that is no Python (a broken one, another language) is left out, its lines kept."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "\n".join("# " + line for line in code.split("\n"))
    return code


def _looks_like_ipython(text: str) -> bool:
    return any(line.lstrip().startswith(("%", "!")) for line in text.split("\n")) and "get_ipython" in text


def without_magics(code: str) -> str:
    """IPython's `%magic`, `!command` and `name?` become `pass`, line by line; `%%bash` cells become comments."""
    cell = _CELL_MAGIC.match(code)
    lines = code.split("\n")
    if cell and cell.group(1) not in _PYTHON_CELLS:
        return "\n".join("# " + line for line in lines)
    result: list[str] = []
    continued = False
    for line in lines:
        stripped = line.lstrip()
        indent = line[: len(line) - len(stripped)]
        if continued:
            result.append("")
        elif stripped.startswith(("%", "!")) or re.fullmatch(r"[\w.]+\?{1,2}|\?{1,2}[\w.]+", stripped):
            result.append(f"{indent}pass")
        else:
            assigned = re.match(r"(\s*[\w, ]+=\s*)[!%]\w", line)
            result.append(f"{assigned.group(1)}None" if assigned else line)
            continue
        continued = line.rstrip().endswith("\\")
    return "\n".join(result)
