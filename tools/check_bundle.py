"""Unpacks a packed bundle into another folder and starts it the way a host does: as its `mcp_config` says.

    npx -y @anthropic-ai/mcpb@2.1.2 pack . compute-awareness.mcpb
    python tools/check_bundle.py compute-awareness.mcpb          needs uv (`pip install uv`)

`mcpb validate` looks neither at whether the entry point exists nor at whether the list of tools is true.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters

# The first start makes an environment and installs what the server depends on.
START_S = 300


def main(bundle: Path) -> int:
    """Prints what was started and from where; 0 where the bundle holds what its manifest says."""
    with tempfile.TemporaryDirectory() as scratch:
        # A folder with a space, as on many people's machines.
        folder = Path(scratch).resolve() / "unpacked bundle"
        with zipfile.ZipFile(bundle) as packed:
            packed.extractall(folder)
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        start = launch(manifest["server"]["mcp_config"], folder)
        if shutil.which(start.command) is None:
            print(f"{start.command} was not found, with which the bundle is started", file=sys.stderr)
            return 2
        try:
            wrong = [line for mode in ("auto", "legacy") for line in anyio.run(faults, start, manifest, mode)]
        except (MCPError, TimeoutError, ExceptionGroup) as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            print(f"the unpacked bundle does not serve ({error}): what it said stands above", file=sys.stderr)
            return 1
        # The last argument is the script; python in its place says which code that environment runs.
        code = "import compute_awareness; print(compute_awareness.__file__)"
        where = subprocess.run(
            [start.command, *start.args[:-1], "python", "-c", code],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", env=start.env, cwd=scratch,
            timeout=START_S,
        ).stdout.strip()  # fmt: skip
        if not where or not Path(where).resolve().is_relative_to(folder):
            wrong.append(f"the code that runs is not the bundle's but {where or 'not found'}")
        print("\n".join(wrong) or f"{len(manifest['tools'])} tools of {manifest['version']}, run from {where}")
    return bool(wrong)


def launch(config: dict[str, Any], folder: Path) -> StdioServerParameters:
    """What a host makes of the manifest's `mcp_config`, in an environment that knows nothing of this project."""

    def expanded(text: str) -> str:
        return text.replace("${__dirname}", str(folder))

    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    given = {name: expanded(value) for name, value in config.get("env", {}).items()}
    return StdioServerParameters(
        command=config["command"],
        args=[expanded(argument) for argument in config["args"]],
        env=inherited | given,
        cwd=str(folder.parent),
    )


async def faults(start: StdioServerParameters, manifest: dict[str, Any], mode: Any) -> list[str]:
    """What differs between the manifest and the server that it starts, a line each."""
    wrong: list[str] = []
    with anyio.fail_after(START_S):
        async with Client(start, mode=mode) as client:
            version = client.server_info and client.server_info.version
            listed = [tool.name for tool in (await client.list_tools()).tools]
            named = [tool["name"] for tool in manifest["tools"]]
            prompts = (await client.list_prompts()).prompts
            arguments = {"task": "activation_cache", "model": "gpt2", "gpu": "RTX 4090"}
            result = await client.call_tool("preflight_experiment", arguments)
    if version != manifest["version"]:
        wrong.append(f"{mode}: the server says it is {version}, the manifest {manifest['version']}")
    if listed != named:
        wrong.append(f"{mode}: the server lists {listed}, the manifest {named}")
    if not prompts:
        wrong.append(f"{mode}: no prompts")
    if result.is_error or (result.structured_content or {}).get("verdict", {}).get("status") != "fits":
        wrong.append(f"{mode}: preflight_experiment answered {str(result)[:300]}")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} BUNDLE.mcpb")
    sys.exit(main(Path(sys.argv[1])))
