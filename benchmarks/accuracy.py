"""Our figure, the rules of thumb, other tools and the real library, for a table of workloads.

    python benchmarks/accuracy.py [--out FILE]               measure (CPU only, no network, about ten minutes)
    python benchmarks/accuracy.py --quick [--out FILE]       four rows, on stdout where no file is given
    python benchmarks/accuracy.py --peers                    ask the other tools the same questions, measure nothing
    python benchmarks/accuracy.py --doc                      write the generated parts of docs/accuracy.md

Measuring prints a table on stderr and writes one JSON document; what the other tools said stays as it is there.
`--peers` needs a package index: it puts the tools into an environment of their own in a temporary folder, and adds
their answers to the document. Aim for our figures: a median error of 0.00 %, and never below the truth where
single numbers are left out of account. `--doc` needs no torch.
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

from accuracy_cases import CASES, KINDS, QUICK, Case
from accuracy_figures import cuda_figures, our_figures, rough_figures
from accuracy_summary import error, summarize

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
LIBRARIES = ("torch", "transformer-lens", "transformers", "sae-lens", "peft")


def run(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row per case: its workload, and by kind the truth, our figure and the rough one, in bytes.

    `cuda` is there where the figure that a user is told differs from ours for the device of the truth.
    """
    from accuracy_truth import measure

    rows = []
    for case in cases:
        begin = time.perf_counter()
        truth, ours, rough = measure(case.workload), our_figures(case.workload), rough_figures(case.workload)
        told = cuda_figures(case.workload)
        figures = {
            kind: {"truth": truth[kind], "ours": ours[kind], "rough": rough[kind]}
            | ({"cuda": told[kind]} if told[kind] != ours[kind] else {})
            for kind in truth
        }
        rows.append({"id": case.id, "workload": case.workload, "figures": figures})
        took = time.perf_counter() - begin
        for kind, f in figures.items():
            errors = f"{error(f['ours'], f['truth']):+10.3f} %{error(f['rough'], f['truth']):+10.1f} %"
            print(f"{case.id[:78]:80}{kind:16}{f['truth']:16,}{errors}{took:7.1f} s", file=sys.stderr, flush=True)
    return rows


def _measure(out: Path | None, quick: bool) -> None:
    cases = [case for case in CASES if not quick or case.id in QUICK]
    print(f"{'case':80}{'figure':16}{'truth, bytes':>16}{'ours':>12}{'rough':>12}", file=sys.stderr)
    begin = time.perf_counter()
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
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "versions": {name: version(name) for name in LIBRARIES},
        "summary": summary,
        "rows": rows,
    }
    if out is None:
        print(json.dumps(document, indent=1))
        return
    if out.exists() and "peers" in (before := _read(out)):
        document["peers"] = before["peers"]
    _write(out, document)


def _ask_peers(out: Path) -> None:
    from accuracy_peers import ask_all

    document = _read(out)
    document["peers"] = ask_all(document["rows"])
    _write(out, document)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help="the JSON document to write (with --doc: to read); results/accuracy.json"
    )
    parser.add_argument("--quick", action="store_true", help="a handful of rows on the meta device")
    parser.add_argument("--peers", action="store_true", help="install and ask the other tools; measures nothing anew")
    parser.add_argument("--doc", action="store_true", help="write docs/accuracy.md from the results; measures nothing")
    given = parser.parse_args()
    out = given.out or RESULTS
    if given.doc:
        from accuracy_doc import DOC, PLOT, filled, plotted

        results = _read(out)
        DOC.write_text(filled(DOC.read_text(encoding="utf-8"), results), encoding="utf-8", newline="\n")
        PLOT.write_text(plotted(results), encoding="utf-8", newline="\n")
    elif given.peers:
        _ask_peers(out)
    else:
        _measure(given.out if given.quick else out, given.quick)  # a few rows do not replace them all


if __name__ == "__main__":
    main()
