"""Writes `docs/compute.schema.json`: what `detect --json` prints and `--compute` reads, from the class itself.

    python tools/build_schema.py [--check]

Run it after changing a field of the report (`hardware/probe/report.py`, `hardware/compute.py`), and raise `FORMAT`
there once in a release that does so; `tests/hardware/test_schema.py` holds the file against the class and
against reports.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "server"))

from compute_awareness.hardware.compute import Compute  # noqa: E402
from compute_awareness.hardware.probe.report import FORMAT  # noqa: E402

OUTPUT = ROOT / "docs" / "compute.schema.json"


def schema() -> dict[str, Any]:
    """JSON Schema of a report, draft 2020-12. Required is what every version has written."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Compute report of compute-awareness",
        "description": (
            f"What `compute-awareness detect --json` prints and `--compute` reads, format {FORMAT}. Memory is in "
            "bytes; null is not known. A field may be missing in reports of older versions; a report with a higher "
            "`format` is of a newer one."
        ),
        **_without_titles({k: v for k, v in Compute.model_json_schema().items() if k not in ("title", "description")}),
    }


def text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def _without_titles(part: Any, names: bool = False) -> Any:
    """Without the titles that pydantic makes of the names; `names`: the keys are names of fields, not words."""
    if isinstance(part, list):
        return [_without_titles(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _without_titles(value, names=key in ("properties", "$defs") and not names)
        for key, value in part.items()
        if names or key != "title"
    }


def main() -> int:
    if "--check" in sys.argv[1:]:
        same = OUTPUT.is_file() and OUTPUT.read_text(encoding="utf-8") == text()
        print("up to date" if same else f"{OUTPUT.name} is not what the class says: run python tools/build_schema.py")
        return 0 if same else 1
    OUTPUT.write_text(text(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
