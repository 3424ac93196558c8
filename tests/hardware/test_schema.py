"""`docs/compute.schema.json` says what `detect --json` prints."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_reading import PATHS, changed, whole

from compute_awareness.errors import InputError
from compute_awareness.hardware.detect import detect
from compute_awareness.hardware.probe.report import FORMAT
from compute_awareness.hardware.reading import as_compute

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "compute.schema.json"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def valid(schema: dict[str, Any], data: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(data)


def test_the_file_is_what_the_class_says(schema):
    made = runpy.run_path(str(ROOT / "tools" / "build_schema.py"))
    assert FILE.read_text(encoding="utf-8") == made["text"](), "run python tools/build_schema.py and commit the file"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert f"format {FORMAT}." in schema["description"]


def test_reports_are_valid(schema):
    assert valid(schema, whole())
    assert valid(schema, json.loads(detect(sys.executable).model_dump_json()))
    assert valid(schema, {name: whole()[name] for name in ("host", "environment")})


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("seen_from", "summary")])
def test_what_it_refuses_is_refused(schema, path):
    """A value of a type that no field has, at every place."""
    data = changed(path, [[[]]])
    assert not valid(schema, data)
    with pytest.raises(InputError):
        as_compute(data)


def test_every_field_says_what_it_is(schema):
    """A field whose name does not say it all has a description or a type of its own."""
    assert schema["properties"]["format"]["description"] and schema["additionalProperties"] is False
    for name, part in schema["$defs"].items():
        assert part["type"] == "object" and part["additionalProperties"] is False, name
