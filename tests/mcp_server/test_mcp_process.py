"""The server as hosts start it, and what its process imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

PACKAGE_ROOT = str(Path(__file__).resolve().parents[2] / "server")
ENVIRONMENT = os.environ | {"PYTHONPATH": PACKAGE_ROOT, "PYTHONWARNINGS": "error", "PYTHONWARNDEFAULTENCODING": "1"}


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter; fails where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", env=ENVIRONMENT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.anyio
async def test_serves_on_stdio_without_arguments(mode: str) -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "compute_awareness"], env=dict(ENVIRONMENT))
    async with Client(parameters, mode=mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools[0] == "detect_compute" and len(tools) == 6
        arguments = {"task": "activation_cache", "model": "gpt2", "gpu": "RTX 4090"}
        result = await client.call_tool("preflight_experiment", arguments)
        assert not result.is_error and result.structured_content is not None
        assert result.structured_content["verdict"]["status"] == "fits"
        refused = await client.call_tool("estimate_memory", {"task": "inference", "model": "gpt3"})
        assert refused.is_error
        prompt = await client.get_prompt("reduce_memory", {"experiment": "x"})
        assert prompt.messages


def test_start_says_nothing_on_stderr_and_ends_with_its_client() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compute_awareness"], input="", capture_output=True, text=True, encoding="utf-8",
        env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CORE = ["workload", "estimator", "preflight", "hardware.detect", "models.resolve", "advice.strategies", "prompt_files"]


def test_the_core_imports_neither_mcp_nor_torch() -> None:
    code = (
        f"import importlib, sys\nfor name in {CORE!r}: importlib.import_module('compute_awareness.' + name)\n"
        "print(sorted({'mcp', 'torch', 'transformers', 'rich', 'jinja2', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert run_python(code).strip() == "[]"


def test_serving_imports_no_torch() -> None:
    code = """
import json, sys, anyio
from mcp import Client
from compute_awareness.mcp_server.server import build_server
async def main():
    async with Client(build_server()) as client:
        await client.list_tools()
        core = {"compute_awareness.preflight", "compute_awareness.workload", "compute_awareness.models"}
        late = {"jinja2", "huggingface_hub", "torch", "transformers"} | core
        started = sorted(late & set(sys.modules))
        fine = []
        for name, arguments in (
            ("detect_compute", {}),
            ("preflight_experiment", {"task": "activation_cache", "model": "pythia-2.8b"}),
            ("recommend_compute", {"task": "sae_training", "d_in": 768, "d_sae": 6144}),
        ):
            fine.append(not (await client.call_tool(name, arguments)).is_error)
        await client.get_prompt("reduce_memory", {"experiment": "x"})
    print(json.dumps([started, fine, sorted({"torch", "transformers", "transformer_lens"} & set(sys.modules))]))
anyio.run(main)
"""
    assert json.loads(run_python(code)) == [[], [True, True, True], []]
