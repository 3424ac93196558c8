"""Where a figure disagrees: what the allocator did, and which tensors were there at the peak, operator by operator.

    python benchmarks/gpu_truth_history.py --out FOLDER [--jobs 6] [--rounds 2] TEXT...

For each case of `gpu_truth.py` whose id contains one of the texts: a file of its tensors at the peak, with the calls
that made them, and the events of torch's CUDA allocator from the first tensor of the model on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from gpu_truth_cases import LARGE, SMALL

HERE = Path(__file__).parent
MIB = 1024**2
_PLUMBING = re.compile(
    r"c10::|CUDACachingAllocator|gather_with_cpp|python_|THPVariable|_object_|torch::autograd::(Engine|Node)|pthread|"
    r"clone|wrap_kernel|BoxedKernel|Dispatcher|_PyEval|_PyObject|PyObject|_PyFunction|cfunction|method_vectorcall|"
    r"slot_tp|__libc|_start|std::|CapturedTraceback|empty_generic|empty_cuda|detail::empty|structured_"
)


def _frames(event: dict[str, Any]) -> list[str]:
    """The calls behind an allocation, innermost first, without the plumbing."""
    found = []
    for frame in event.get("frames") or []:
        name, file = frame["name"], frame["filename"]
        if file.endswith(".py"):
            found.append(f"{'/'.join(file.split('/')[-2:])}:{frame['line']} {name}")
        elif name and name != "??" and not _PLUMBING.search(name):
            found.append(name.split("(")[0][:110])
    return list(dict.fromkeys(found))[:14]


def history(workload: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Runs the experiment `rounds` times with the allocator's history on."""
    sys.path[:0] = [str(HERE), str(HERE.parent / "server"), str(HERE.parent / "tests" / "truth")]
    import torch
    from experiments import experiment

    memory: Any = torch.cuda.memory  # its types do not know the traces
    record = memory._record_memory_history
    record("all", context=None, max_entries=2_000_000)
    made = experiment(workload, "cuda")
    with torch.set_grad_enabled(made.gradients):
        if made.warm_up is not None:
            made.warm_up()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = len(memory._snapshot()["device_traces"][0])
        layout = [[s["total_size"], [[b["size"], b["state"] == "active_allocated"] for b in s["blocks"]]]
                  for s in memory.memory_snapshot()]  # fmt: skip
        held = torch.cuda.memory_allocated()
        record("all", context="all", stacks="all", max_entries=2_000_000)
        for _ in range(rounds if made.again else 1):
            made.run()
        torch.cuda.synchronize()
    events = memory._snapshot()["device_traces"][0]
    return {
        "held": held, "allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(),
        "layout": layout, "loading": [_short(e) for e in events[:before]], "run": [_short(e) for e in events[before:]],
        "peak": _at_peak(events[before:]),
        "segments": [[e["size"], _frames(e)] for e in events[before:] if e["action"] == "segment_alloc"],
    }  # fmt: skip


def _short(event: dict[str, Any]) -> list[Any]:
    return [event["action"], event["size"], event["addr"]]


def _at_peak(events: list[dict[str, Any]]) -> list[list[Any]]:
    """[bytes, how many, calls] of what the run had allocated at its peak, largest first."""
    live: dict[int, dict[str, Any]] = {}
    now = most = at = 0
    for n, event in enumerate(events):
        if event["action"] == "alloc":
            now += event["size"]
        elif event["action"] == "free_requested":
            now -= event["size"]
        if now > most:
            most, at = now, n
    for event in events[: at + 1]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
        elif event["action"] == "free_requested":
            live.pop(event["addr"], None)
    counted = Counter((event["size"], tuple(_frames(event))) for event in live.values())
    rows = [[size, count, list(frames)] for (size, frames), count in counted.items()]
    return sorted(rows, key=lambda row: -row[0] * row[1])


def _one(case: Any, folder: Path, rounds: int) -> str:
    name = re.sub(r"[^a-zA-Z0-9]+", "_", case.id)[:80] + ".json.gz"
    command = [sys.executable, str(Path(__file__)), "--out", str(folder / name), "--rounds", str(rounds), "--one"]
    environment = os.environ | {"TORCH_SYMBOLIZE_MODE": "dladdr", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, input=json.dumps(case.workload), capture_output=True, text=True, env=environment, check=False
    )
    return f"{case.id}: {'ok' if done.returncode == 0 else done.stderr[-300:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        found = history(json.loads(sys.stdin.read()), given.rounds)
        with gzip.open(given.out, "wt", encoding="utf-8") as file:
            json.dump(found, file)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    cases = [case for case in (*SMALL, *LARGE) if any(text in case.id for text in given.texts)]
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        for line in pool.map(lambda case: _one(case, given.out, given.rounds), cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
