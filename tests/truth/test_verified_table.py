"""facts/verified.json has rows of everything that the truth tests compare."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import compute_awareness

TABLE = Path(compute_awareness.__file__).parent / "facts" / "verified.json"


def judged() -> set[tuple[str, str]]:
    """(library, task) of every call of `judge` in this folder that names both."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "judge"):
                continue
            library, _, task = node.args[:3]
            if isinstance(library, ast.Constant) and isinstance(task, ast.Constant):
                found.add((library.value, task.value))
    return found


def test_every_kind_of_comparison_has_its_rows() -> None:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    assert len(judged()) > 15
    assert judged() - {(row["library"], row["task"]) for row in rows} == set()
