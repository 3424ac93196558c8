"""Writes `server/compute_awareness/mcp_server/tool_schemas.json`: what the tools' schemas publish.

    python tools/build_tool_schemas.py [--check]

Run it after changing a field of a workload or an argument of a tool; `tests/mcp_server/test_mcp_packaging.py` holds
the file against the functions themselves.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "server"))

from compute_awareness.mcp_server.server import tools  # noqa: E402
from compute_awareness.mcp_server.strict import SCHEMAS  # noqa: E402


def text() -> str:
    """The file, from the functions."""
    schemas = {tool.name: tool.signature.schemas() for tool in tools()}
    return json.dumps(schemas, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """0; with --check 1 where the file says something else."""
    if "--check" in sys.argv[1:]:
        same = SCHEMAS.read_text(encoding="utf-8") == text()
        print("up to date" if same else f"{SCHEMAS.name} is out of date: run python tools/build_tool_schemas.py")
        return 0 if same else 1
    SCHEMAS.write_text("{}", encoding="utf-8")  # a merge may have left something unreadable
    SCHEMAS.write_text(text(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
