"""The verdict of a comparison with a real library, and the record that `precision` is earned from.

Every truth test ends in `judge`. With the environment variable TRUTH_RECORD set to a file, each comparison is also
written there, one JSON object per line; `tools/build_verified.py` makes the package's table of it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from compute_awareness.memory.estimate import Precision
from compute_awareness.precision import classify, verified, weaker

_DTYPE = re.compile(r"bfloat16|float16|float32|fp32|bf16|fp16")
_FULL = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
FLOOR = 0.005
"""Never more than this share below the truth, anywhere."""


def _claimed(library: str, task: str, architecture: str, variant: str) -> Precision | None:
    """The class that the package's table claims for such a comparison; None where it has no row."""
    dtype = _DTYPE.search(variant)
    row = verified(library, task, architecture, _FULL.get(dtype[0], dtype[0]) if dtype else "float32")
    return None if row is None else classify(row.worst_bytes, row.worst)


def judge(
    library: str,
    version: str,
    task: str,
    architecture: str,
    variant: str,
    ours: int,
    truth: int,
    tolerance: float,
    case: Any = None,
) -> None:
    """Assert that `ours` bytes agree with `truth` bytes within `tolerance`, and never lie FLOOR below.

    Args:
        library, version: what was run, e.g. "transformers", "5.23.0".
        task: the workload's task.
        architecture: Hugging Face class, or the SAE's architecture.
        variant: what else decides memory, e.g. "eager", "sdpa float32 adamw"; "" for none.
        case: shown when they differ.
    """
    off = (ours - truth) / max(truth, 1)
    claimed = _claimed(library, task, architecture, variant)
    where = os.environ.get("TRUTH_RECORD")
    if where:
        line = {
            "library": library, "version": version, "task": task, "architecture": architecture, "variant": variant,
            "off": off, "bytes_off": ours - truth,
        }  # fmt: skip
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    elif claimed is not None:
        assert weaker(claimed, classify(abs(ours - truth), abs(off))) == claimed, (
            f"facts/verified.json calls {library} {task} {architecture} {variant} {claimed}, but it is off by "
            f"{ours - truth:,} bytes ({off:+.4%}); {case}"
        )
    assert -min(FLOOR, tolerance) <= off <= tolerance, (
        f"{library} {task} {architecture} {variant}: ours {ours:,}, truth {truth:,} ({off:+.3%}); {case}"
    )
