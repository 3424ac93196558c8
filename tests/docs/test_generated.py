"""The generated parts of the documents are what the server, the tables and the command line say."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import compute_awareness
from compute_awareness.mcp_server.server import tools
from compute_awareness.models import catalogue

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
        assert tool.name in sections, f"docs/tools.md has no section on {tool.name}; tools/build_docs.py says how"
        section = sections[tool.name]
        assert "**When**" in section and "**When not**" in section
        assert f"<!-- arguments-{tool.name}:start -->" in section and f"<!-- call-{tool.name}:start -->" in section


def test_a_mark_that_nothing_is_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        BUILDER.filled("<!-- nowhere:start -->\n<!-- nowhere:end -->", PARTS)
    with pytest.raises(ValueError, match="tools:end"):
        BUILDER.filled("<!-- tools:start -->", PARTS)


def test_the_readmes_figures_are_those_of_the_measurements() -> None:
    """As docs/accuracy.md has them, which tests/test_accuracy_doc.py holds against what was measured."""
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for line in re.findall(r"(?m)^\| (.*) \|$", _text("docs/accuracy.md"))
        if len(cells := line.split("|")) == 7
    }
    answers, median, worst, *_ = rows["this tool"]
    rules = float(rows["rules of thumb"][1].removesuffix(" %"))
    assert (
        f"{answers} workloads of all tasks against the real libraries: median error {median}, "
        f"worst {worst.lstrip('-')}; rules of thumb are {-rules:.0f} % low in the median"
    ) in _text("README.md")


def test_the_readmes_counts_are_those_of_the_tables() -> None:
    facts = Path(compute_awareness.__file__).parent / "facts"
    places = json.loads((facts / "env_signals.json").read_text(encoding="utf-8"))["environments"]
    assert f"{len(catalogue.names())} in the catalogue" in _text("README.md")
    assert f"{len(places)} environments" in _text("README.md") and f"{len(places)} environments" in _text(
        "docs/command_line.md"
    )
