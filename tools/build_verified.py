"""Makes facts/verified.json from the record of the truth tests.

    TRUTH_RECORD=record.jsonl python -m pytest tests/truth
    python tools/build_verified.py record.jsonl

Of a record of some files only, `--only transformers:training` (library:task, repeatable) replaces those rows and
leaves the others as they are; the files must hold every comparison of these tasks.

The record holds one line per comparison with a real library (tests/truth/judge.py). The table keeps, for each
library, task, architecture and dtype, how many there were and the farthest of them; the package earns the word
`exact`, `close` or `rough` from it (server/compute_awareness/precision.py).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "server" / "compute_awareness" / "facts" / "verified.json"


def dtype_of(variant: str) -> str:
    """The dtype that a comparison's variant names; float32 where it names none."""
    found = re.search(r"bfloat16|float16|float32|fp32|bf16|fp16", variant)
    names = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
    return names.get(found[0], found[0]) if found else "float32"


def rows(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows, sorted."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in record:
        dtype = dtype_of(line["variant"])
        key = (line["library"], line["task"], line["architecture"], dtype)
        row = found.setdefault(
            key,
            {
                "library": key[0], "task": key[1], "architecture": key[2], "dtype": dtype, "cases": 0,
                "worst_bytes": 0, "worst": 0.0, "lowest": 0.0, "versions": [],
            },
        )  # fmt: skip
        row["cases"] += 1
        row["worst_bytes"] = max(row["worst_bytes"], abs(line["bytes_off"]))
        row["worst"] = round(max(row["worst"], abs(line["off"])), 6)
        row["lowest"] = round(min(row["lowest"], line["off"]), 6)
        row["versions"] = sorted({*row["versions"], line["version"]})
    return [found[key] for key in sorted(found)]


def _task(line: dict[str, Any]) -> str:
    return f"{line['library']}:{line['task']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--only", action="append", metavar="LIBRARY:TASK", help="replace the rows of these tasks only")
    given = parser.parse_args()
    record = [json.loads(line) for line in given.record.read_text(encoding="utf-8").splitlines()]
    kept: list[dict[str, Any]] = []
    if given.only:
        record = [line for line in record if _task(line) in given.only]
        missing = set(given.only) - {_task(line) for line in record}
        if missing:
            parser.error(f"nothing of {', '.join(sorted(missing))} in the record")
        kept = [row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"] if _task(row) not in given.only]
    found = sorted(kept + rows(record), key=lambda row: [row[k] for k in ("library", "task", "architecture", "dtype")])
    table = {"made_by": "tools/build_verified.py", "comparisons": sum(row["cases"] for row in found), "rows": found}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(f"{table['comparisons']} comparisons in {len(found)} rows")


if __name__ == "__main__":
    main()
