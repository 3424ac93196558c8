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
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_truth_cases import LARGE, SMALL
from gpu_truth_child import PRELOAD, answer
from gpu_truth_edges import edges
from gpu_truth_fit import LEVELS, compared, fit
from gpu_truth_rates import answer as rates

HERE = Path(__file__).parent
ABOUT = ("card", "driver", "nvml", "cuda", "compute_capability", "total", "device_by", "versions")
# A process that has the libraries loaded is forked for each case, where the platform can: loading them takes longer
# than most cases. It must not have a CUDA context: torch then asks NVML whether there is a card.
_PROCESSES = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
)


def _prepare() -> None:
    found = (str(HERE), str(HERE.parent / "server"), str(HERE.parent / "tests" / "truth"), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in found if part)
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = os.environ["HF_HUB_OFFLINE"] = "1"
    _PROCESSES.set_forkserver_preload(list(PRELOAD))


def _in_a_process(target: Callable[..., None], args: tuple[Any, ...], timeout: float) -> dict[str, Any]:
    """What `target` sends; {"failed": reason} where it did not come to an end."""
    here, there = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=target, args=(there, *args))
    process.start()
    there.close()
    try:
        if not here.poll(timeout):
            return {"failed": f"no answer in {timeout:.0f} s"}
        return here.recv()
    except EOFError:
        process.join()
        return {"failed": f"the process ended with exit status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        here.close()


def child(workload: dict[str, Any], device: str, timeout: float, cap_bytes: int | None = None) -> dict[str, Any]:
    """What `gpu_truth_child` found, without what it says of the machine in every answer."""
    return _in_a_process(answer, (workload, device, cap_bytes), timeout)


def row_of(case_id: str, workload: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """One case: what was measured, and our figures beside it where the run came to an end."""
    measured = {key: value for key, value in found.items() if key not in ABOUT}
    row = {"id": case_id, "workload": workload, "measured": measured}
    if "allocated" in found:
        row["compared"] = compared(workload, measured, found.get("compute_capability"))
    return row


def _run(document: dict[str, Any], device: str, only: str, timeout: float, out: Path, end: float) -> None:
    done = {row["id"] for row in document["rows"]}
    cases = [*SMALL, *(LARGE if device == "cuda" else ())]
    if device == "cuda" and "rates" not in document:
        document["rates"] = _in_a_process(rates, (), timeout)
    for case in cases[::3] + cases[1::3] + cases[2::3]:  # every task early, should time run out
        if case.id in done or only not in case.id or time.monotonic() > end:
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


def _edge_in_words(row: dict[str, Any]) -> str:
    green = "ran" if row["green_ran"] else "DIED"
    larger = "died" if row["larger_failed"] else "ran, too"
    return (
        f"{row['card_gb']:>3} GB {row['id'][:60]:62}{row['green']} {green}; {row['larger']} "
        f"({row['larger_verdict']}) {larger}"
    )


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON document to write, and to go on with")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", default="", help="run only the cases whose id contains this")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one case")
    parser.add_argument("--within", type=float, default=float("inf"), help="start no case after so many seconds")
    parser.add_argument("--fit", action="store_true", help="compare anew and fit the open constants; runs nothing")
    parser.add_argument("--edges", action="store_true", help="run at the edge of cards of 8, 16, 24 and 40 GB")
    given = parser.parse_args()
    end = time.monotonic() + given.within
    _prepare()
    if given.out.exists():
        document = json.loads(given.out.read_text(encoding="utf-8"))
    else:
        document = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "about": {}, "rows": []}
    about = document["about"]
    if given.fit:
        rows = [row for row in document["rows"] if "allocated" in row["measured"]]
        for row in rows:  # by today's estimates
            row["compared"] = compared(row["workload"], row["measured"], about.get("compute_capability"))
        try:
            document["fit"] = fit(rows, about.get("compute_capability"))
        except ValueError as error:
            parser.error(str(error))
        print(json.dumps(document["fit"], indent=1))
    elif given.edges:
        if given.device == "cpu" or "total" not in about:
            parser.error("--edges needs a GPU, and a document of a first run on it")

        def capped(workload: dict[str, Any], cap: int) -> dict[str, Any]:
            found = child(workload, "cuda", given.timeout, cap)
            return {key: value for key, value in found.items() if key not in ABOUT}

        document["edges"] = []
        for row in edges(capped, about["total"], about["compute_capability"]):
            document["edges"].append(row)
            _write(given.out, document)
            print(_edge_in_words(row), file=sys.stderr, flush=True)
            if time.monotonic() > end:
                break
    else:
        _run(document, given.device, given.only, given.timeout, given.out, end)
    _write(given.out, document)


if __name__ == "__main__":
    main()
