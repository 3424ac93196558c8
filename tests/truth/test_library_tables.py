"""The libraries still make the hooks and save the tensors that the package's memory modules were transcribed from."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("library_tables", ROOT / "tools" / "library_tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
COMMITTED: dict[str, Any] = json.loads(TOOL.TABLES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("library", TOOL.DERIVE)
def test_the_installed_library_has_the_committed_tables(library: str) -> None:
    with TOOL._quiet():
        found = TOOL.DERIVE[library]()
    assert TOOL.differences(COMMITTED[library]["tables"], found) == []


def test_what_changed_is_named_by_its_path() -> None:
    old = {"gpt2": {"hooks": {"hook_embed": "1 x [batch]", "gone": "x"}, "parameters": 5}}
    new = {"gpt2": {"hooks": {"hook_embed": "2 x [batch]", "hook_new": "y"}, "parameters": 5}}
    assert TOOL.differences(old, new) == [
        'gpt2 / hooks / hook_embed: "1 x [batch]" -> "2 x [batch]"',
        'gpt2 / hooks / gone: gone (was "x")',
        'gpt2 / hooks / hook_new: new, "y"',
    ]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Committed tables of two libraries; of these one is installed in another release, and cannot be derived."""
    path = tmp_path / "tables.json"
    path.write_text(json.dumps({name: {"version": "1.0", "tables": {"a": 1}} for name in ("sae-lens", "transformers")}))
    monkeypatch.setattr(TOOL, "TABLES", path)
    monkeypatch.setattr(TOOL, "derive", lambda: {
        "transformers": {"version": "2.0", "tables": {"a": 2}},
        "transformer-lens": {"version": "4.3", "tables": {}, "refused": "no HookedTransformer"},
    })  # fmt: skip
    return path


def test_what_cannot_be_derived_is_one_line(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["library_tables.py"])
    assert TOOL.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "transformers 1.0 -> 2.0: 1 differences",
        "  a: 1 -> 2",
        "transformer-lens none -> 4.3: not derived: no HookedTransformer",
        "sae-lens: not installed here, not looked at",
    ]


def test_writing_keeps_the_tables_of_what_is_not_there(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["library_tables.py", "--write"])
    assert TOOL.main() == 0
    assert json.loads(tables.read_text()) == {
        "sae-lens": {"version": "1.0", "tables": {"a": 1}},
        "transformers": {"version": "2.0", "tables": {"a": 2}},
    }
