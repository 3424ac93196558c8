"""The generated parts of the documents are what the server, the tables and the command line say."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from compute_awareness.mcp_server.server import tools

ROOT = Path(__file__).resolve().parents[2]


def _builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "tools" / "build_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER = _builder()
PARTS: dict[str, Callable[[], str]] = BUILDER.parts()


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name in BUILDER.FILES for part in BUILDER.marked(_text(name))]
)
def test_a_generated_part_is_true(name: str, part: str) -> None:
    shown = _text(name).split(f"<!-- {part}:start -->\n", 1)[1].split(f"\n<!-- {part}:end -->", 1)[0]
    assert shown == PARTS[part](), "run: python tools/build_docs.py"


def test_every_part_has_its_place() -> None:
    assert {part for name in BUILDER.FILES for part in BUILDER.marked(_text(name))} == set(PARTS)


def test_every_tool_has_its_section_with_an_example() -> None:
    text = _text("docs/tools.md")
    sections = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", text))
    for tool in tools():
        section = sections[tool.name]
        assert "**When**" in section and "**When not**" in section
        assert f"<!-- arguments-{tool.name}:start -->" in section and f"<!-- call-{tool.name}:start -->" in section


def test_a_mark_that_nothing_is_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        BUILDER.filled("<!-- nowhere:start -->\n<!-- nowhere:end -->", PARTS)
    with pytest.raises(ValueError, match="tools:end"):
        BUILDER.filled("<!-- tools:start -->", PARTS)
