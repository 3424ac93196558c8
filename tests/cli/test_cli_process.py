"""What only shows around the commands: our own faults, a reader that goes away, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import EXAMPLES

from compute_awareness import estimator
from compute_awareness.cli import run

PYTHIA = str(EXAMPLES / "pythia_cache.json")


def test_our_own_fault_is_one_line_and_70(cli, monkeypatch):
    def broken(_workload, **_more):
        raise KeyError("d_modle")

    monkeypatch.setattr(estimator, "estimate", broken)
    ran = cli("estimate", PYTHIA)
    assert (ran.code, ran.out) == (70, "")
    assert ran.err.startswith("error: KeyError: 'd_modle'")
    assert ran.err.count("\n") == 1
    monkeypatch.setenv("COMPUTE_AWARENESS_DEBUG", "1")
    with pytest.raises(KeyError):
        run(["estimate", PYTHIA])


def test_an_error_is_one_harmless_line(cli):
    ran = cli("models", "gpt2\x1b[31m\nsmall")
    assert ran.code == 2
    assert "\x1b" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "compute_awareness", "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        said = ran.stderr.read()
    assert said == b""
    assert ran.returncode == 141


def test_an_estimate_imports_only_what_it_needs():
    code = (
        "import sys; from compute_awareness.cli import run; code = run(sys.argv[1:]);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "estimate", PYTHIA, "--json"],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    for heavy in ("torch", "transformers", "mcp", "rich", "jinja2", "psutil", "huggingface_hub", "pynvml", "anyio"):
        assert f"'{heavy}'" not in ran.stderr
