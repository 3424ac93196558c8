"""The README's example session is what the command prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_session_is_true() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"<!-- session:start -->\n```\n\$ compute-awareness (.*?)\n(.*)\n```\n<!-- session:end -->", readme, re.S
    )
    assert found is not None
    assert found[1] == 'preflight examples/pythia_cache.json --gpu "RTX 4090"'
    command = [
        sys.executable,
        "-m",
        "compute_awareness",
        "preflight",
        "examples/pythia_cache.json",
        "--gpu",
        "RTX 4090",
    ]
    environment = os.environ | {"COLUMNS": "80", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stdout.rstrip() == found[2].rstrip()
