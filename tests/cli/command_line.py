"""Running the command line as a process, and a machine to hold estimates against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute_awareness.hardware.compute import Accelerator, Compute, Environment, EnvironmentLayer, Host
from compute_awareness.units import GIB

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def process(*args: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """`python -m compute_awareness ARGS` as users start it, its output piped."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "compute_awareness", *args],
        input=stdin, capture_output=True, env=clean | environ, timeout=120, check=False,
    )  # fmt: skip


def machine(free_gib: float | None) -> Compute:
    """A clear, local machine with one card that has `free_gib` GiB free; None = no card."""
    cards = []
    if free_gib is not None:
        free = int(free_gib * GIB)
        cards = [
            Accelerator(
                index=0, kind="cuda", name="Test card", total_bytes=free + GIB, reserved_bytes=GIB // 2,
                used_bytes=GIB // 2, free_bytes=free, compute_capability="8.9",
            )
        ]  # fmt: skip
    layer = EnvironmentLayer(id="local", layer="fallback", confidence="high", evidence=["no other signal"])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB),
        environment=Environment(primary="local", layers=[layer], clear=True),
        accelerators=cards,
    )
