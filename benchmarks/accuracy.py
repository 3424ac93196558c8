"""Our figure, the rules of thumb and the real library, for a table of shapes.

    python benchmarks/accuracy.py [--out FILE] [--quick]     measure (CPU only, no network, a few minutes)
    python benchmarks/accuracy.py --doc                      write the generated parts of docs/accuracy.md

Measuring prints a table on stderr and writes one JSON document. Aim for our figures: a median error of 0.00 % on
caches, and never below the truth. `--doc` measures nothing and needs no torch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accuracy_cases import CASES, KINDS, QUICK, Case, our_figures, rough_figures
from accuracy_summary import error, summarize

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
LIBRARIES = ("torch", "transformer-lens", "transformers", "sae-lens")


def run(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row per case: its workload, and by kind the truth, our figure and the rough one, in bytes."""
    from accuracy_truth import measure

    rows = []
    for case in cases:
        begin = time.perf_counter()
        truth, ours, rough = measure(case.workload), our_figures(case.workload), rough_figures(case.workload)
        figures = {kind: {"truth": truth[kind], "ours": ours[kind], "rough": rough[kind]} for kind in truth}
        rows.append({"id": case.id, "workload": case.workload, "figures": figures})
        took = time.perf_counter() - begin
        for kind, f in figures.items():
            errors = f"{error(f['ours'], f['truth']):+10.3f} %{error(f['rough'], f['truth']):+10.1f} %"
            print(f"{case.id[:78]:80}{kind:11}{f['truth']:16,}{errors}{took:7.1f} s", file=sys.stderr)
    return rows


def _measure(out: Path, quick: bool) -> None:
    cases = [case for case in CASES if not quick or case.id in QUICK]
    print(f"{'case':80}{'figure':11}{'truth, bytes':>16}{'ours':>12}{'rough':>12}", file=sys.stderr)
    rows = run(cases)
    summary = summarize(rows)
    for kind, entry in summary.items():
        print(f"\n{KINDS[kind]} ({entry['figures']})", file=sys.stderr)
        for maker in ("ours", "rough"):
            s = entry[maker]
            print(
                f"  {maker:6} median {s['median_error_percent']:+8.2f} %   worst {s['worst_error_percent']:+8.2f} %"
                f"   below the truth {s['below_truth']} of {entry['figures']}",
                file=sys.stderr,
            )
    document = {
        "command": "python benchmarks/accuracy.py" + (" --quick" if quick else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, CPU and meta device",
        "versions": {name: version(name) for name in LIBRARIES},
        "summary": summary,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON document to write (with --doc: to read)")
    parser.add_argument("--quick", action="store_true", help="a handful of rows on the meta device")
    parser.add_argument("--doc", action="store_true", help="write docs/accuracy.md from the results; measures nothing")
    given = parser.parse_args()
    if given.doc:
        from accuracy_doc import DOC, filled

        results = json.loads(given.out.read_text(encoding="utf-8"))
        DOC.write_text(filled(DOC.read_text(encoding="utf-8"), results), encoding="utf-8", newline="\n")
    else:
        _measure(given.out, given.quick)


if __name__ == "__main__":
    main()
