"""Our three peaks against a real GPU: models of random weights, each workload in a process of its own.

    python benchmarks/gpu_truth.py --out FILE [--only TEXT]   run every case on the first CUDA device
    python benchmarks/gpu_truth.py --out FILE --edges         caps of 8, 16, 24 and 40 GB: does green run?
    python benchmarks/gpu_truth.py --out FILE --fit           fit the open constants to what FILE holds; runs nothing
    python benchmarks/gpu_truth.py --out FILE --device cpu    the small cases on the CPU: tries the path, not a GPU

FILE is one JSON document: card, driver, versions, and per case the counters and our figures. Cases that are in it
already are not run again, so that an interrupted run goes on; a case that fails is written down with its reason.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_truth_cases import LARGE, SMALL
from gpu_truth_edges import edges
from gpu_truth_fit import LEVELS, compared, fit

HERE = Path(__file__).parent
ABOUT = ("card", "driver", "cuda", "compute_capability", "total", "versions")


def child(workload: dict[str, Any], device: str, timeout: float, cap_bytes: int | None = None) -> dict[str, Any]:
    """What `gpu_truth_child` found; {"failed": reason} where it did not come to an end."""
    package = str(HERE.parent / "server")
    paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
    text = json.dumps({"workload": workload, "device": device, "cap_bytes": cap_bytes})
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "gpu_truth_child.py")], input=text, capture_output=True, text=True,
            encoding="utf-8", timeout=timeout, env=os.environ | {"PYTHONPATH": paths}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {timeout:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"failed": last[0][:300]}
    return json.loads(done.stdout)


def row_of(case_id: str, workload: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """One case: what was measured, and our figures beside it where the run came to an end."""
    measured = {key: value for key, value in found.items() if key not in ABOUT}
    row = {"id": case_id, "workload": workload, "measured": measured}
    if "allocated" in found:
        row["compared"] = compared(workload, measured, found.get("compute_capability"))
    return row


def _run(document: dict[str, Any], device: str, only: str, timeout: float, out: Path) -> None:
    done = {row["id"] for row in document["rows"]}
    cases = [*SMALL, *(LARGE if device == "cuda" else ())]
    for case in cases:
        if case.id in done or only not in case.id:
            continue
        found = child(case.workload, device, timeout)
        document["about"] |= {key: found[key] for key in ABOUT if key in found}
        row = row_of(case.id, case.workload, found)
        document["rows"].append(row)
        _write(out, document)
        print(f"{case.id[:78]:80}{_in_words(row)}", file=sys.stderr, flush=True)


def _in_words(row: dict[str, Any]) -> str:
    if "compared" not in row:
        return row["measured"].get("oom") or row["measured"].get("failed") or "no figure"
    errors = (row["compared"][level].get("error_percent") for level in LEVELS)
    return "".join(f"{'':>11}" if error is None else f"{error:+9.3f} %" for error in errors)


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON document to write, and to go on with")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", default="", help="run only the cases whose id contains this")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one case")
    parser.add_argument("--fit", action="store_true", help="fit the open constants to the document; runs nothing")
    parser.add_argument("--edges", action="store_true", help="run at the edge of cards of 8, 16, 24 and 40 GB")
    given = parser.parse_args()
    if given.out.exists():
        document = json.loads(given.out.read_text(encoding="utf-8"))
    else:
        document = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "about": {}, "rows": []}
    about = document["about"]
    if given.fit:
        try:
            document["fit"] = fit(
                [row for row in document["rows"] if "compared" in row], about.get("compute_capability")
            )
        except ValueError as error:
            parser.error(str(error))
        print(json.dumps(document["fit"], indent=1))
    elif given.edges:
        if given.device == "cpu" or "total" not in about:
            parser.error("--edges needs a GPU, and a document of a first run on it")

        def capped(workload: dict[str, Any], cap: int) -> dict[str, Any]:
            return child(workload, "cuda", given.timeout, cap)

        document["edges"] = edges(capped, about["total"], about["compute_capability"])
    else:
        _run(document, given.device, given.only, given.timeout, given.out)
    _write(given.out, document)


if __name__ == "__main__":
    main()
