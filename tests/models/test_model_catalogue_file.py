"""`facts/models.json` is what its script writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from compute_awareness.models.catalogue import find, names
from compute_awareness.models.spec import ModelSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_models", ROOT / "tools" / "build_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_up_to_date(tool: ModuleType) -> None:
    entries = tool.build(json.loads(tool.INPUT.read_text(encoding="utf-8")))
    assert tool.OUTPUT.read_text(encoding="utf-8") == tool.render(entries)
    assert all(entry["source"] and entry["hf_id"] for entry in entries)


def test_two_models_cannot_share_a_name(tool: ModuleType) -> None:
    rows = json.loads(tool.INPUT.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="names both"):
        tool.build([*rows, rows[0] | {"hf_id": "someone/" + rows[0]["hf_id"].split("/")[-1] + "-2"}])


def test_every_entry_is_a_valid_spec() -> None:
    """The catalogue hands its rows out without validating them each time; this is where they are validated."""
    for name in names():
        spec = find(name)
        assert spec is not None
        assert ModelSpec.model_validate(spec.model_dump()) == spec, name
