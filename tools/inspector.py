"""Lists and calls every tool with the MCP Inspector's command line over stdio, in both protocol eras.

    python tools/inspector.py              needs Node 22.19 or later with npx

The Inspector is somebody else's client (the TypeScript SDK's), so it sees what our own tests with the Python SDK on
both sides cannot: how a host reads the schemas and results.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from compute_awareness.mcp_server.server import tools

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
ERAS = ("modern", "legacy")  # 2026-07-28, and 2025-11-25 and before
TOOL_IS_ERROR = 5

WORKLOAD = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024}
# What each tool is called with; nothing here needs a network or a GPU.
CALLS: dict[str, dict[str, Any]] = {
    "detect_compute": {},
    "estimate_memory": WORKLOAD,
    "recommend_compute": WORKLOAD | {"sweep": {"batch_size": [1, 2]}, "gpu": "A100-80GB"},
    "preflight_experiment": WORKLOAD | {"gpu": "RTX 4090", "detail": "full"},
    "preflight_script": {
        "text": "from transformer_lens import HookedTransformer\nHookedTransformer.from_pretrained('gpt2')\n",
        "gpu": "RTX 4090",
    },
    "explain_oom": {
        "message": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB.",
        "workload": {"task": "inference", "model": "gpt2"},
    },
}


def main() -> int:
    """Prints a line per step; 0 where every tool is listed and answers in both eras."""
    npx = shutil.which("npx")
    if npx is None:
        print("npx was not found: install Node 22.19 or later", file=sys.stderr)
        return 2
    names = [tool.name for tool in tools()]
    if set(names) != set(CALLS):
        print(f"CALLS has not the server's tools: {sorted(set(names) ^ set(CALLS))}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "servers.json"
        command = {"command": sys.executable, "args": ["-m", "compute_awareness"]}
        servers = {era: command | {"protocolEra": era} for era in ERAS}
        config.write_text(json.dumps({"mcpServers": servers}), "utf-8")
        ask = partial(_ask, [npx, "-y", INSPECTOR, "--cli", "--format", "json", "--config", str(config)])
        steps = [(era, name) for era in ERAS for name in ("tools/list", *names, "a wrong argument")]
        wrong = [_step(ask, names, *steps[0])]  # first alone: it may have to install
        with ThreadPoolExecutor(max_workers=2) as pool:
            wrong += pool.map(lambda step: _step(ask, names, *step), steps[1:])
    for (era, name), fault in zip(steps, wrong, strict=True):
        print(f"{era:8} {name:22} {fault or 'ok'}")
    return any(wrong)


def _step(ask: Any, names: list[str], era: str, step: str) -> str:
    """What is wrong with one step, or nothing."""
    if step == "tools/list":
        code, answer, said = ask(era, "--method", "tools/list", "--strict")
        listed = [tool["name"] for tool in answer.get("tools", [])]
        return "" if (code, listed) == (0, names) else f"exit code {code}, listed {listed}: {said}"
    if step == "a wrong argument":
        wrong = ("--tool-name", "estimate_memory", "--tool-arg", "task=inference", "model=gpt3")
        code, answer, said = ask(era, "--method", "tools/call", *wrong)
        text = str(answer.get("content"))
        right = code == TOOL_IS_ERROR and answer.get("isError") and "nearest: " in text
        return "" if right else f"exit code {code}, answered {text[:300]}: {said}"
    pairs = [f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in CALLS[step].items()]
    code, answer, said = ask(
        era, "--method", "tools/call", "--tool-name", step, *(["--tool-arg", *pairs] if pairs else [])
    )
    structured = answer.get("structuredContent") or {}
    right = code == 0 and not answer.get("isError") and structured.get("summary")
    return "" if right else f"exit code {code}, answered {str(answer)[:300]}: {said}"


def _ask(command: list[str], era: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the result of the answer, and the end of what was said on stderr."""
    done = subprocess.run(
        [*command, "--server", era, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=180,
        env=os.environ | {"MCP_INSPECTOR_SECRET_STORE": "memory"},
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    return done.returncode, answer.get("result", {}), done.stderr.strip()[-500:]


if __name__ == "__main__":
    sys.exit(main())
